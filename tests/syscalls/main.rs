//! Every system call of a publication and of a commit made to fail, one after the other, by strace(1).
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod fixture;
mod publication;
mod state;
#[path = "../support/mod.rs"]
mod support;
