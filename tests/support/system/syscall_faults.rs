//! One strace on one thread of the daemon: while it is there, system calls fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

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
        let begun = Instant::now();
        while fs::read_to_string(&status).unwrap().lines().any(|line| line == "TracerPid:\t0") {
            assert!(begun.elapsed() < crate::support::PATIENCE, "strace does not attach to {thread}");
            std::thread::sleep(Duration::from_millis(10));
        }
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

/// The daemon's thread of this name.
pub fn thread_named(pid: u32, name: &str) -> u32 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let is_it = |path: &Path| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
    let task = tasks.map(|entry| entry.path()).find(|path| is_it(path));
    let task = task.unwrap_or_else(|| panic!("the daemon has a thread {name}"));
    task.file_name().unwrap().to_str().unwrap().parse().unwrap()
}
