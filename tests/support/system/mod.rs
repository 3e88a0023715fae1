//! What a test needs of the operating system.

pub mod disk;
pub mod fuse;
pub mod keyring;
pub mod syscall_faults;
pub mod threads;

use std::fs;
use std::process::{Command, Stdio};

/// A user and a group that own nothing.
pub const NOBODY: u32 = 65534;

/// Whether the system gives what a test needs. Where it does not, the test says so and is skipped, unless
/// `CORPTOKEND_REQUIRE_SYSTEM=1` makes that a failure.
#[track_caller]
pub fn system_allows(what: &str, it_does: bool) -> bool {
    if !it_does {
        let required = std::env::var("CORPTOKEND_REQUIRE_SYSTEM").is_ok_and(|value| value == "1");
        assert!(!required, "the system does not allow {what}, and CORPTOKEND_REQUIRE_SYSTEM=1 says that it must");
        eprintln!("SKIPPED: the system does not allow {what}");
    }
    it_does
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|us| us.uid() == 0)
}

/// Whether a program of this name is installed.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Whether a command succeeds.
pub fn succeeds(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
