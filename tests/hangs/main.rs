//! The matrix of hangs in `docs/reliability.md`: something of one app does not answer, and nobody else pays for it.
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod fixture;
#[path = "../support/fuse/mod.rs"]
mod fuse;
mod measuring;
#[path = "../support/mod.rs"]
mod support;
