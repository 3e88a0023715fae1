//! The daemon killed, its state damaged, its endpoint away, its disk frozen: what a reader of the token files sees then.
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod damage;
mod document;
mod kills;
mod readers;
mod row;
#[path = "../support/mod.rs"]
mod support;
