//! Memory that was needed for a moment is given back: a config of a hundred thousand tenants takes 30 MB while it is read,
//! at each reload.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// mallopt(3), by its environment variables. Large blocks come from the kernel and go back to it: glibc would raise the
/// bound at which they do to the size of the first that it sees go. One arena: what one thread leaves, another takes up.
const TUNING: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "131072"), ("MALLOC_TRIM_THRESHOLD_", "1048576")];

/// Starts this program anew, in the same process, with an allocator that gives memory back. The allocator reads its tuning
/// before `main`, and from the environment alone; to set it later takes unsafe code.
///
/// Nothing happens where the environment says something of it already, or when it cannot be done: then the daemon needs two
/// or three times the memory after a reload, and works.
pub fn give_back() {
    let is_tuned = TUNING.iter().any(|(name, _)| std::env::var_os(name).is_some());
    if is_tuned || !cfg!(target_env = "gnu") {
        return;
    }
    let mut arguments = std::env::args_os();
    let (Some(name), Ok(program)) = (arguments.next(), std::env::current_exe()) else { return };
    let error = Command::new(program).arg0(name).args(arguments).envs(TUNING).exec();
    tracing::debug!(event = "untuned", "the allocator cannot be tuned: {error}");
}
