//! The matrix of hangs in `docs/reliability.md`: something of one app does not answer, and nobody else pays for it.
//! `CORPTOKEND_HANGS=fsync` plays the rows with that word alone.
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod benchmarks;
mod case;
mod cases;
mod fixture;
mod fuse;
mod inputs;
mod nameserver;
mod reader;
mod relay;
#[path = "../support/mod.rs"]
mod support;
mod table;
