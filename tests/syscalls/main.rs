//! Every system call of a publication and of a commit made to fail, one after the other, by strace(1).
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod fixture;
mod mounts;
mod publication;
mod state;
#[path = "../support/mod.rs"]
mod support;

use std::process::{Command, Stdio};

/// Whether this machine can do what these tests need. Where it cannot, they are skipped loudly, or fail if asked to.
fn can_inject() -> bool {
    let has_strace = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let can = rustix::process::geteuid().is_root() && has_strace.is_ok_and(|status| status.success());
    if !can {
        let required = std::env::var_os("CORPTOKEND_REQUIRE_SYSTEM").is_some_and(|value| value == "1");
        assert!(!required, "this test needs root and strace, and CORPTOKEND_REQUIRE_SYSTEM=1 asks for it");
        eprintln!("SKIPPED: this test needs root and strace (apt-get install strace)");
    }
    can
}
