//! What this process does to itself: it allows no core dumps, keeps secrets out of panic messages, gives up root, and gives
//! memory back to the kernel.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::ffi::CString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use super::blocking::Blocking;

/// How long the look at a directory may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// mallopt(3), by its environment variables. Large blocks come from the kernel and go back to it: glibc would raise the
/// bound at which they do to the size of the first that it sees go. One arena: what one thread leaves, another takes up.
const TUNING: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "131072"), ("MALLOC_TRIM_THRESHOLD_", "1048576")];

/// No core dumps, and no reading of our memory by other processes of the same user (prctl(2), `PR_SET_DUMPABLE`).
pub fn no_dumps() {
    // Where either is refused, the other still holds.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// A panic is logged with its place, and with its message only if that is a constant: a message that was formatted at run time may
/// hold a token.
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

/// Root becomes the owner of `directory`, with that user's groups, so that what is written there is the owner's. Nothing changes for
/// any other user, and where root owns the directory or it does not exist.
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

/// Starts this program anew, in the same process, with an allocator that gives memory back. The allocator reads its tuning
/// before `main`, and from the environment alone; to set it later takes unsafe code.
///
/// Nothing happens if the environment tunes the allocator already, or if it cannot be done: then the daemon works, and needs two or
/// three times the memory after a reload.
pub fn give_memory_back() {
    let is_tuned = TUNING.iter().any(|(name, _)| std::env::var_os(name).is_some());
    if is_tuned || !cfg!(target_env = "gnu") {
        return;
    }
    let mut arguments = std::env::args_os();
    let (Some(name), Ok(program)) = (arguments.next(), std::env::current_exe()) else { return };
    let error = Command::new(program).arg0(name).args(arguments).envs(TUNING).exec();
    tracing::debug!(event = "untuned", "the allocator cannot be tuned: {error}");
}
