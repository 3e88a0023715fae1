//! The state: its disk does not answer one kind of question.

use std::sync::Arc;
use std::time::Duration;

use crate::case::{Case, Start, run_all};
use crate::fixture::{Fixture, Setup};
use crate::support::Machine;
use crate::support::system::fuse::{Fuse, Op};

fn hanging(ops: &'static [Op]) -> Option<Fixture> {
    let draft = Setup::new();
    let fuse = Arc::new(Fuse::mount(&draft.path("state"))?);
    let (hung, open) = (Arc::clone(&fuse), Arc::clone(&fuse));
    let hang = move |machine: &Machine| {
        ops.iter().for_each(|op| hung.hang(*op, ""));
        // Something that has to be read from it again.
        let _ = std::fs::remove_file(machine.path("tokens/crm/ding0"));
    };
    Some(draft.with("", fuse, Box::new(hang), Box::new(move |_| open.release())))
}

const fn case(hangs: &'static str, fixture: fn() -> Option<Fixture>) -> Case {
    Case {
        hangs,
        who_waits: "the commits, and a file that has to be made again from the state",
        how_long: "tokens are published from memory after 3 s, until it answers",
        status_says: "`state.healthy` is false, `state.reason` says that the disk hangs",
        comes_back: "everything that was not committed is; nobody is called for it",
        seen: &["\"healthy\":false"],
        seen_at_start: &["\"healthy\":false"],
        in_vain: 0,
        found_out: Duration::from_secs(4),
        back: Duration::from_secs(20),
        start: Start::Serves,
        fixture,
        file: "tokens/crm/{}",
    }
}

pub(super) const CELLS: &[Case] = &[
    case("state: commit (write)", || hanging(&[Op::Write])),
    case("state: commit (fsync)", || hanging(&[Op::Fsync])),
    // What is there lies in a cache; it is read at a start.
    Case { seen: &[], ..case("state: read", || hanging(&[Op::Read])) },
    case("state: stat, open and all else", || {
        hanging(&[Op::Stat, Op::Open, Op::Read, Op::Write, Op::Fsync, Op::Rename, Op::Readdir])
    }),
];

#[test]
fn a_state_that_hangs_stops_no_publication() {
    run_all(CELLS);
}
