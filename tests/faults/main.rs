//! Bad surroundings: the daemon says what is wrong, goes on as far as it can, recovers when the fault goes, and ends when
//! it is told to.
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod disk;
mod expensive_requests;
mod kill;
mod network;
mod socket;
mod stalled_readers;
mod state;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use support::Machine;

/// SIGTERM ends the daemon within 10 s, whatever ails it, with exit code 0.
#[track_caller]
fn ends_when_told_to(machine: &mut Machine) {
    let began = Instant::now();
    let status = machine.stop();
    assert_eq!(status.code(), Some(0), "{}", machine.log());
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    assert!(!machine.path("run/control.sock").exists(), "the socket goes with it");
}
