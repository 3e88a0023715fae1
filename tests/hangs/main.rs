//! The matrix of hangs in `docs/reliability.md`: something of one app does not answer, and nobody else pays for it.
//! `CORPTOKEND_HANGS=fsync` acts out the rows with that word alone.
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod cell;
mod cells;
mod document;
mod fixture;
#[path = "../support/fuse/mod.rs"]
mod fuse;
mod inputs;
mod manager;
mod measuring;
mod nameserver;
mod relay;
mod scene;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/table.rs"]
mod table;
mod watch;
