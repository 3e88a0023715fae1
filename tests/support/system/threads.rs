//! The daemon's threads, as the kernel shows them.

use std::fs;
use std::path::Path;

/// The daemon's thread of this name.
pub fn thread_named(pid: u32, name: &str) -> u32 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let is_it = |path: &Path| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
    let task = tasks.map(|entry| entry.path()).find(|path| is_it(path));
    let task = task.unwrap_or_else(|| panic!("the daemon has a thread {name}"));
    task.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

/// The state letter of a process, or of one of its threads, `D` for one that hangs in the kernel: proc_pid_stat(5). `None`
/// when it is gone.
pub fn state_of(pid: u32, thread: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/task/{thread}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Whether a process has ended, or all of it but threads that nothing can end while they hang.
pub fn has_ended(pid: u32) -> bool {
    state_of(pid, pid).is_none_or(|state| state == 'Z')
}
