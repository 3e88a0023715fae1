//! What this process gives up, so that a token or a secret does not leave it by a side door.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::ffi::CString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::blocking::Blocking;

/// A directory that does not answer for so long hangs.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// No core dumps, and no reading of our memory by other processes of the same user (prctl(2), `PR_SET_DUMPABLE`).
pub fn no_dumps() {
    // Where either is refused, the other still holds.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// A panic says where it happened, and its words only where they are the program's own: words that were put together at run
/// time can quote what was at hand, a token too. It says so in the log, once there is one.
pub fn discreet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed").to_owned();
        let place = panic.location().map_or_else(String::new, |place| format!(" at {place}"));
        let words =
            panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(what it says may hold a token)");
        let backtrace = Backtrace::capture();
        let shown = match backtrace.status() {
            BacktraceStatus::Captured => format!("\n{backtrace}"),
            _ => String::new(),
        };
        super::log::defect(&format!("a defect: thread '{name}' panicked{place}: {words}{shown}"));
    }));
}

/// Root becomes the owner of `directory`, with that user's groups, so that what is written there is the owner's. Whoever
/// is not root stays who they are, and root stays root where root owns the directory or nobody made it yet.
///
/// Must be called before threads are started.
///
/// # Errors
/// When the directory does not answer, the user has no entry, or the kernel refuses.
pub fn become_owner_of(directory: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let place = directory.to_owned();
    let owner = Blocking::new("owner", 1)
        .run_and_block(directory, ANSWERS_WITHIN, move || std::fs::metadata(place).map_or(0, |status| status.uid()))
        .map_err(|error| io::Error::other(format!("cannot look at the directory {}: {error}", directory.display())))?;
    if owner == 0 {
        return Ok(());
    }
    let uid = nix::unistd::Uid::from_raw(owner);
    let user = nix::unistd::User::from_uid(uid)?.ok_or_else(|| {
        let directory = directory.display();
        io::Error::other(format!("{directory} belongs to user {uid}, who has no entry in the user database"))
    })?;
    let name = CString::new(user.name)?;
    nix::unistd::initgroups(&name, user.gid)?;
    nix::unistd::setgid(user.gid)?;
    nix::unistd::setuid(uid)?;
    Ok(())
}
