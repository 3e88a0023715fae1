//! Sinks: their file system does not answer one kind of question.

use std::sync::Arc;
use std::time::Duration;

use crate::case::{Cell, LATE, Start, act_all};
use crate::fixture::{Draft, Scene};
use crate::support::system::fuse::{Fuse, Op};

fn hanging(op: Op) -> Option<Scene> {
    let draft = Draft::new();
    let fuse = Arc::new(Fuse::mount(&draft.path("fuse"))?);
    let sink = Scene::sink(&draft.path("fuse"));
    let (hung, open) = (Arc::clone(&fuse), Arc::clone(&fuse));
    let scene = draft.with(&sink, fuse, Box::new(move |_| hung.hang(op, "")), Box::new(move |_| open.release()));
    Some(scene)
}

const fn cell(hangs: &'static str, scene: fn() -> Option<Scene>) -> Cell {
    Cell {
        hangs,
        who_waits: "the publications to that file system",
        how_long: "until it answers; told after 10 s",
        status_says: "the sinks are failing, `the file system hangs`; tenants unpublished, expired once what readers have is; `warnings` name the path",
        comes_back: "the newest token is published; no call is repeated",
        seen: &["from the kernel", "\"crm\":{\"expired\":3}"],
        seen_at_start: &["from the kernel"],
        in_vain: 0,
        found_out: LATE,
        back: Duration::from_secs(20),
        start: Start::Serves,
        scene,
        file: "fuse/{}",
    }
}

pub(super) const CELLS: &[Cell] = &[
    cell("sink: stat", || hanging(Op::Stat)),
    cell("sink: open", || hanging(Op::Open)),
    cell("sink: write", || hanging(Op::Write)),
    cell("sink: fsync", || hanging(Op::Fsync)),
    cell("sink: rename", || hanging(Op::Rename)),
    // Nobody lists a directory but a start.
    Cell { seen: &[], ..cell("sink: readdir", || hanging(Op::Readdir)) },
];

#[test]
fn a_sink_that_hangs_is_its_own_tenants_trouble_alone() {
    act_all(CELLS);
}
