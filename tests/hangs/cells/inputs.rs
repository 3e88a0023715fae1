//! What is read: the client secret, the CA file, the config, its drop-ins. The file system below them does not answer one
//! kind of question.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use crate::cell::{Cell, LATE, Start, act_all};
use crate::fuse::{Fuse, Op};
use crate::scene::{Draft, Scene};
use crate::support::Machine;

/// A machine whose `/etc` is such a file system. What hangs is asked for by a reload.
fn hanging(op: Op, path: &'static str) -> Option<Scene> {
    let draft = Draft::new();
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
    let scene = draft.with("", fuse, Box::new(hang), Box::new(move |_| open.release()));
    scene.machine.edit("[limits]\ntotal = \"10000/s\"\n", "");
    Some(scene)
}

const fn secret(hangs: &'static str, scene: fn() -> Option<Scene>) -> Cell {
    Cell {
        hangs,
        who_waits: "the calls of that app",
        how_long: "5 s a read, of which there is one at a time; the app's tenants keep their tokens until they expire",
        status_says: "the app's tenants are failing: the secret cannot be read, with its path",
        comes_back: "the next read succeeds, and the app's tenants are renewed",
        seen: &["crm.secret"],
        seen_at_start: &["crm.secret"],
        in_vain: 0,
        found_out: LATE,
        back: Duration::from_secs(40),
        start: Start::Serves,
        scene,
        file: "tokens/crm/{}",
    }
}

const fn shared(hangs: &'static str, start: Start, scene: fn() -> Option<Scene>) -> Cell {
    Cell {
        hangs,
        who_waits: "a reload, or a start",
        how_long: "5 s a file; then the config that ran goes on: at a start, the one that was applied last",
        status_says: "the last reload failed: which file does not answer",
        comes_back: "the config is read again by itself, every 30 s and whenever it changes",
        seen: &["\"last_reload_successful\":false"],
        seen_at_start: &["\"last_reload_successful\":false"],
        in_vain: 0,
        found_out: LATE,
        back: Duration::from_secs(45),
        start,
        scene,
        file: "tokens/crm/{}",
    }
}

pub(super) const CELLS: &[Cell] = &[
    secret("secret: stat", || hanging(Op::Stat, "crm.secret")),
    secret("secret: open", || hanging(Op::Open, "crm.secret")),
    secret("secret: read", || hanging(Op::Read, "crm.secret")),
    shared("CA file: stat", Start::Waits, || hanging(Op::Stat, "ca.pem")),
    shared("CA file: open", Start::Waits, || hanging(Op::Open, "ca.pem")),
    shared("CA file: read", Start::Waits, || hanging(Op::Read, "ca.pem")),
    shared("config: stat", Start::Serves, || hanging(Op::Stat, "config.toml")),
    shared("config: open", Start::Serves, || hanging(Op::Open, "config.toml")),
    shared("config: read", Start::Serves, || hanging(Op::Read, "config.toml")),
    shared("drop-in directory: stat", Start::Serves, || hanging(Op::Stat, "config.d")),
    shared("drop-in directory: open", Start::Serves, || hanging(Op::Open, "config.d")),
    shared("drop-in directory: read", Start::Serves, || hanging(Op::Readdir, "config.d")),
];

#[test]
#[ignore = "a file system that hangs below the config holds up the scheduler still"]
fn a_secret_that_hangs_is_its_own_apps_trouble_alone() {
    act_all(&CELLS[..3]);
}

#[test]
#[ignore = "a file system that hangs below the config holds up the scheduler still"]
fn a_config_or_a_ca_file_that_hangs_leaves_what_runs_alone() {
    act_all(&CELLS[3..]);
}
