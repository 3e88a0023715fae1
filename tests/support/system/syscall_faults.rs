//! One strace on one thread of the daemon: while it is there, system calls fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{has, is_root, system_allows};
use crate::support::wait_until;

/// What fails, and how.
#[derive(Debug, Clone, Default)]
pub struct Fault {
    /// Names as strace knows them.
    pub calls: Vec<&'static str>,
    /// The error's name.
    pub error: &'static str,
    /// Which of the calls fail, in strace's words (`1..3`); `None`: all.
    pub when: Option<&'static str>,
    /// Only calls on this path's descriptor fail; `None`: on any.
    pub on: Option<PathBuf>,
}

/// A fault that is there until it is lifted.
pub struct Injection {
    strace: Child,
    log: PathBuf,
}

impl Injection {
    /// Makes calls of this thread fail from here on. What was injected is noted in `log`.
    pub fn begin(thread: u32, fault: &Fault, log: &Path) -> Self {
        let calls = fault.calls.join(",");
        let when = fault.when.map_or_else(String::new, |when| format!(":when={when}"));
        let mut command = Command::new("strace");
        command.args(["-q", "-y", "-e", &format!("trace={calls}")]);
        command.args(["-e", &format!("inject={calls}:error={}{when}", fault.error)]);
        command.arg("-o").arg(log).args(["-p", &thread.to_string()]);
        if let Some(path) = &fault.on {
            command.arg("-P").arg(path);
        }
        let strace = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let status = format!("/proc/{thread}/status");
        let is_traced = || !fs::read_to_string(&status).unwrap().lines().any(|line| line == "TracerPid:\t0");
        wait_until("strace is attached", is_traced, || format!("to the thread {thread}"));
        // Attached is not yet tracing: it looks around first.
        std::thread::sleep(Duration::from_millis(50));
        Self { strace, log: log.to_owned() }
    }

    /// How many calls failed so far.
    pub fn count(&self) -> usize {
        fs::read_to_string(&self.log).unwrap_or_default().matches("(INJECTED)").count()
    }

    /// Ends the fault. How many calls failed by it.
    pub fn lift(mut self) -> usize {
        let pid = rustix::process::Pid::from_child(&self.strace);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.strace.wait().unwrap();
        self.count()
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// Whether this machine can make system calls fail. Where it cannot, the test is skipped loudly.
pub fn can_inject() -> bool {
    system_allows("making system calls fail (root and strace)", is_root() && has("strace"))
}
