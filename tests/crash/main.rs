//! The daemon killed, its state damaged, its endpoint away, its disk hanging: what a reader of the token files sees then.
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod competing_writers;
mod damage;
mod expiry;
mod hung_sinks;
mod hung_state;
mod kills;
mod outages;
mod saved_failures;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::process::{Command, Stdio};

/// Whether this machine has `what`. Where it has not, the test is skipped loudly, or fails if asked to.
fn needs(what: &str, is_there: bool) -> bool {
    if !is_there {
        let required = std::env::var_os("CORPTOKEND_REQUIRE_SYSTEM").is_some_and(|value| value == "1");
        assert!(!required, "this test needs {what}, and CORPTOKEND_REQUIRE_SYSTEM=1 asks for it");
        eprintln!("SKIPPED: this test needs {what}");
    }
    is_there
}

/// Whether a command succeeds.
fn succeeds(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
