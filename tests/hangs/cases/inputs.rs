//! What is read: the client secret, the CA file, the config, its drop-ins. The file system below them does not answer one
//! kind of question.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use crate::case::{Case, LATE, Start, run_all};
use crate::fixture::{Fixture, Setup};
use crate::support::Machine;
use crate::support::system::fuse::{Fuse, Op};

/// A machine whose `/etc` is such a file system. What hangs is asked for by a reload.
fn hanging(op: Op, path: &'static str) -> Option<Fixture> {
    let mut draft = Setup::new();
    // A config that cannot be read does not say where the state lies that knows the last one.
    let state = draft.path("state");
    draft.machine.env("STATE_DIRECTORY", state.to_str().unwrap());
    let fuse = Arc::new(Fuse::mount(&draft.path("etc"))?);
    draft.machine.write_with_mode("etc/ca.pem", &draft.machine.sandbox.ca_pem(), 0o644);
    fs::create_dir(draft.path("etc/config.d")).unwrap();
    draft.machine.write_with_mode("etc/config.d/10-more.toml", "[limits]\ntotal = \"9999/s\"\n", 0o644);
    let (hung, open) = (Arc::clone(&fuse), Arc::clone(&fuse));
    let hang = move |machine: &Machine| {
        hung.hang(op, path);
        if machine.runs() {
            machine.signal("HUP");
        }
    };
    let fixture = draft.with("", fuse, Box::new(hang), Box::new(move |_| open.release()));
    fixture.machine.edit("[limits]\ntotal = \"10000/s\"\n", "");
    Some(fixture)
}

const fn secret(hangs: &'static str, fixture: fn() -> Option<Fixture>) -> Case {
    Case {
        hangs,
        who_waits: "the calls of that app",
        how_long: "5 s a read, of which there is one at a time; the app's tenants keep their tokens until they expire",
        status_says: "the app's tenants are failing: the secret cannot be read; the config's line, without the path, which may be the secret",
        comes_back: "the next read succeeds, and the app's tenants are renewed",
        seen: &["client_secret"],
        seen_at_start: &["client_secret"],
        in_vain: 0,
        found_out: LATE,
        back: Duration::from_secs(40),
        start: Start::Serves,
        fixture,
        file: "tokens/crm/{}",
    }
}

const fn certificates(hangs: &'static str, fixture: fn() -> Option<Fixture>) -> Case {
    Case {
        hangs,
        who_waits: "a reload, or a start; at a start the calls, and no token that is there",
        how_long: "5 s; then the config is applied, and those who are called already go on",
        status_says: "a warning: `ca_file` cannot be read, and at which line of the config it stands",
        comes_back: "the config is read again by itself, every 15 s and whenever it changes",
        seen: &["`ca_file` cannot be read"],
        seen_at_start: &["`ca_file` cannot be read"],
        in_vain: 0,
        found_out: LATE,
        back: Duration::from_secs(45),
        start: Start::Waits,
        fixture,
        file: "tokens/crm/{}",
    }
}

const fn shared(hangs: &'static str, fixture: fn() -> Option<Fixture>) -> Case {
    Case {
        hangs,
        who_waits: "a reload, or a start",
        how_long: "5 s a file; then the config that ran goes on: at a start, the one that was applied last",
        status_says: "the last reload failed: which file does not answer",
        comes_back: "the config is read again by itself, every 15 s and whenever it changes",
        seen: &["\"last_reload_successful\":false"],
        seen_at_start: &["\"last_reload_successful\":false"],
        in_vain: 0,
        found_out: LATE,
        back: Duration::from_secs(45),
        start: Start::Serves,
        fixture,
        file: "tokens/crm/{}",
    }
}

pub(super) const CELLS: &[Case] = &[
    secret("secret: stat", || hanging(Op::Stat, "crm.secret")),
    secret("secret: open", || hanging(Op::Open, "crm.secret")),
    secret("secret: read", || hanging(Op::Read, "crm.secret")),
    certificates("CA file: stat", || hanging(Op::Stat, "ca.pem")),
    certificates("CA file: open", || hanging(Op::Open, "ca.pem")),
    certificates("CA file: read", || hanging(Op::Read, "ca.pem")),
    shared("config: stat", || hanging(Op::Stat, "config.toml")),
    shared("config: open", || hanging(Op::Open, "config.toml")),
    shared("config: read", || hanging(Op::Read, "config.toml")),
    shared("drop-in directory: stat", || hanging(Op::Stat, "config.d")),
    shared("drop-in directory: open", || hanging(Op::Open, "config.d")),
    shared("drop-in directory: read", || hanging(Op::Readdir, "config.d")),
];

#[test]
fn a_secret_that_hangs_is_its_own_apps_trouble_alone() {
    run_all(&CELLS[..3]);
}

#[test]
fn a_config_or_a_ca_file_that_hangs_leaves_what_runs_alone() {
    run_all(&CELLS[3..]);
}
