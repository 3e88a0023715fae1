//! A machine to test on: systemd, booted by nspawn on an overlay of this machine's root. It shares the network, so an
//! endpoint in the test's process is reached on loopback. Nothing of it is left when it is dropped.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

use crate::support::{has, is_root};

const HERE: &str = env!("CARGO_MANIFEST_DIR");
const BOOT: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(20);

/// What the machine finds installed, and where a package puts it.
const INSTALLED: &[(&str, &str)] = &[
    (env!("CARGO_BIN_EXE_corptokend"), "/usr/bin/corptokend"),
    (concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/corptokend.service"), "/usr/lib/systemd/system/corptokend.service"),
    (concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/corptokend.sysusers"), "/usr/lib/sysusers.d/corptokend.conf"),
    (concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/corptokend.tmpfiles"), "/usr/lib/tmpfiles.d/corptokend.conf"),
    (concat!(env!("CARGO_MANIFEST_DIR"), "/tests/systemd/machine.target"), "/etc/systemd/system/machine.target"),
];

/// Units that wait for a network that the machine does not set up itself.
const MASKED: &[&str] = &[
    "systemd-networkd-wait-online.service",
    "NetworkManager-wait-online.service",
    "ifupdown-wait-online.service",
    "systemd-firstboot.service",
];

/// A booted machine.
pub(crate) struct Machine {
    nspawn: Child,
    leader: Option<u32>,
    cgroups: Vec<PathBuf>,
    _scratch: tempfile::TempDir,
}

impl Machine {
    /// Boots, or says what this machine lacks.
    pub(crate) fn boot() -> Result<Self, String> {
        for tool in ["systemd-nspawn", "unshare", "setpriv", "nsenter", "keyctl"] {
            if !has(tool) {
                return Err(format!("{tool} is not installed"));
            }
        }
        if !is_root() {
            return Err("only root can boot a container".to_owned());
        }
        let scratch = tempfile::tempdir().map_err(|e| format!("no scratch directory: {e}"))?;
        let log = fs::File::create(scratch.path().with_extension("log")).map_err(|e| format!("no log: {e}"))?;
        let log_path = scratch.path().with_extension("log");
        let name = unique_name();
        let cgroups = make_cgroups(&name).map_err(|e| format!("no cgroup for the container: {e}"))?;
        let nspawn = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--"])
            .arg(format!("{HERE}/tests/systemd/boot.sh"))
            .arg(scratch.path())
            .arg(cgroups.first().map_or(OsStr::new("-"), |path| path.as_os_str()))
            .arg(format!("--machine={name}"))
            .args(INSTALLED.iter().map(|(from, to)| format!("--bind-ro={from}:{to}")))
            .arg("systemd.unit=machine.target")
            .args(MASKED.iter().map(|unit| format!("systemd.mask={unit}")))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|e| e.to_string())?)
            .stderr(log)
            .spawn()
            .map_err(|e| format!("unshare does not start: {e}"))?;
        let mut machine = Self { nspawn, leader: None, cgroups, _scratch: scratch };
        let booted = machine.wait_for_boot();
        let said = fs::read_to_string(&log_path).unwrap_or_default();
        let _ = fs::remove_file(&log_path);
        booted.map_err(|why| format!("{why}; nspawn said: {said}"))?;
        Ok(machine)
    }

    fn wait_for_boot(&mut self) -> Result<(), String> {
        let nspawn = self.nspawn.id();
        for _ in 0..BOOT.as_millis() / TICK.as_millis() {
            if let Ok(Some(status)) = self.nspawn.try_wait() {
                return Err(format!("the container ended at once ({status})"));
            }
            self.leader = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children"))
                .ok()
                .and_then(|children| children.split_whitespace().next()?.parse().ok())
                .filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "systemd\n"));
            if self.leader.is_some() && self.run(&["systemctl", "is-active", "machine.target"]).status.success() {
                return Ok(());
            }
            sleep(TICK);
        }
        Err(format!("the container did not boot within {BOOT:?}"))
    }

    /// Runs a command as the machine's root.
    pub(crate) fn run(&self, argv: &[&str]) -> Output {
        let leader = self.leader.expect("commands run on a machine that has booted").to_string();
        Command::new("timeout")
            .args([
                "90", "nsenter", "--target", &leader, "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd",
            ])
            .args(argv)
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .output()
            .expect("nsenter was found before")
    }

    /// Runs a command that must succeed, and gives what it printed.
    pub(crate) fn ok(&self, argv: &[&str]) -> String {
        let output = self.run(argv);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{argv:?}: {}\n{text}{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            self.journal()
        );
        text
    }

    /// Runs a command as one of the machine's users, with the user's groups.
    pub(crate) fn run_as(&self, user: &str, argv: &[&str]) -> Output {
        self.run(&[&["runuser", "--user", user, "--"], argv].concat())
    }

    /// A property of the service, as `systemctl show` has it.
    pub(crate) fn show(&self, property: &str) -> String {
        self.ok(&["systemctl", "show", "--value", "--property", property, "corptokend"]).trim_end().to_owned()
    }

    /// What the service and systemd logged about it.
    pub(crate) fn journal(&self) -> String {
        String::from_utf8_lossy(&self.run(&["journalctl", "--no-pager", "--unit=corptokend"]).stdout).into_owned()
    }

    /// A path of the machine, as this process sees it.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        let leader = self.leader.expect("paths are those of a machine that has booted");
        PathBuf::from(format!("/proc/{leader}/root{path}"))
    }

    /// What stands in a file of the machine; `None` if there is none.
    pub(crate) fn read(&self, path: &str) -> Option<String> {
        match fs::read_to_string(self.path(path)) {
            Ok(text) => Some(text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => panic!("{path}: {e}"),
        }
    }

    /// Replaces a file of the machine, with root as its owner.
    pub(crate) fn write(&self, path: &str, mode: u32, content: &str) {
        let path = self.path(path);
        let directory = path.parent().expect("a file's path has a parent");
        fs::create_dir_all(directory).expect("root may make any directory");
        let mut new = tempfile::Builder::new().prefix(".").tempfile_in(directory).expect("root may write anywhere");
        io::Write::write_all(&mut new, content.as_bytes()).expect("the machine's disk is not full");
        new.as_file().set_permissions(fs::Permissions::from_mode(mode)).expect("root may change any mode");
        new.persist(path).expect("a rename in one directory");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // With its first process a container goes at once, and nspawn with it; before there is one, nspawn goes alone.
        if let Some(pid) = self.leader.and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        } else {
            let _ = self.nspawn.kill();
        }
        let _ = self.nspawn.wait();
        for cgroup in &self.cgroups {
            remove_cgroup(cgroup);
        }
    }
}

fn unique_name() -> String {
    static BOOTED: AtomicU32 = AtomicU32::new(0);
    format!("corptokend-test-{}-{}", std::process::id(), BOOTED.fetch_add(1, Ordering::Relaxed))
}

/// On a machine that systemd does not run, the container needs a cgroup. The first is that of the unified hierarchy, the
/// only one that the container sees; nspawn itself makes the one in systemd's old hierarchy, where that exists.
fn make_cgroups(name: &str) -> io::Result<Vec<PathBuf>> {
    if Path::new("/run/systemd/system").exists() {
        return Ok(Vec::new());
    }
    let hybrid = Path::new("/sys/fs/cgroup/unified");
    let unified = if hybrid.exists() { hybrid } else { Path::new("/sys/fs/cgroup") }.join(name);
    fs::create_dir(&unified)?;
    Ok(vec![unified, Path::new("/sys/fs/cgroup/systemd").join(name)])
}

fn remove_cgroup(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    // The kernel takes a moment to notice that the last process is gone.
    for _ in 0..50 {
        match fs::remove_dir(cgroup) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => sleep(TICK),
            _ => return,
        }
    }
}
