//! Every command of the real binary: what it prints, what it does, and how it exits.
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod check;
mod dev;
mod documents;
mod once;
mod output;
mod reload;
mod status;
#[path = "../support/mod.rs"]
mod support;
mod unprivileged;
