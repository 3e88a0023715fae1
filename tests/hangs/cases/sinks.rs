//! Sinks: their file system does not answer one kind of question.

use std::sync::Arc;
use std::time::Duration;

use crate::case::{Case, LATE, Start, run_all};
use crate::fixture::{Fixture, Setup};
use crate::support::system::fuse::{Fuse, Op};

fn hanging(op: Op) -> Option<Fixture> {
    let draft = Setup::new();
    let fuse = Arc::new(Fuse::mount(&draft.path("fuse"))?);
    let sink = Fixture::sink(&draft.path("fuse"));
    let (hung, open) = (Arc::clone(&fuse), Arc::clone(&fuse));
    let fixture = draft.with(&sink, fuse, Box::new(move |_| hung.hang(op, "")), Box::new(move |_| open.release()));
    Some(fixture)
}

const fn case(hangs: &'static str, fixture: fn() -> Option<Fixture>) -> Case {
    Case {
        hangs,
        who_waits: "the publications to that file system",
        how_long: "until it answers; reported after 10 s",
        status_says: "the sinks are failing, `the file system hangs`; tenants unpublished, expired once what readers have is; `warnings` name the path",
        comes_back: "the newest token is published; no call is repeated",
        seen: &["from the kernel", "\"crm\":{\"expired\":3}"],
        seen_at_start: &["from the kernel"],
        in_vain: 0,
        found_out: LATE,
        back: Duration::from_secs(20),
        start: Start::Serves,
        fixture,
        file: "fuse/{}",
    }
}

pub(super) const CELLS: &[Case] = &[
    case("sink: stat", || hanging(Op::Stat)),
    case("sink: open", || hanging(Op::Open)),
    case("sink: write", || hanging(Op::Write)),
    case("sink: fsync", || hanging(Op::Fsync)),
    case("sink: rename", || hanging(Op::Rename)),
    // Nobody lists a directory but a start.
    Case { seen: &[], ..case("sink: readdir", || hanging(Op::Readdir)) },
];

#[test]
fn a_sink_that_hangs_is_its_own_tenants_trouble_alone() {
    run_all(CELLS);
}
