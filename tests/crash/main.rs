//! The daemon killed, its state damaged, its endpoint away, its disk hanging: what a reader of the token files sees then.
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod competing_writers;
mod damage;
mod expiry;
mod hung_sinks;
mod hung_state;
mod kills;
mod outages;
mod repetition;
mod saved_failures;
#[path = "../support/mod.rs"]
mod support;
mod table;
