//! The binary: commands that run to their end, and the daemon.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use super::{Machine, SECRET};
use crate::support::system::{NOBODY, has, is_root, system_allows};
use crate::support::wait::PATIENCE;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_corptokend");
impl Machine {
    /// A command of the binary, with this machine's config.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(args)
            .env("CORPTOKEND_CONFIG", self.config_path())
            .env("NO_COLOR", "1")
            .current_dir(self.dir.path());
        for variable in
            ["STATE_DIRECTORY", "RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "JOURNAL_STREAM"]
        {
            command.env_remove(variable);
        }
        command.env("CORPTOKEND_SOCKET", self.path("run/control.sock"));
        for variable in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(variable);
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end. Its output never holds a secret.
    pub fn run(&self, args: &[&str]) -> Output {
        let output = finish(self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()));
        assert!(!shown(&output).contains(SECRET), "a secret is shown by {args:?}");
        output
    }

    /// Runs a command as the user `nobody`, who owns nothing. `None`, loudly, where that is not possible.
    pub fn run_as_nobody(&self, args: &[&str]) -> Option<Output> {
        let output = finish(self.command_as_nobody(args)?.stdout(Stdio::piped()).stderr(Stdio::piped()));
        assert!(!shown(&output).contains(SECRET), "a secret is shown by {args:?}");
        Some(output)
    }

    /// The same, not started yet. The binary is copied to where that user can read it.
    pub fn command_as_nobody(&self, args: &[&str]) -> Option<Command> {
        if !system_allows("running as another user", is_root() && has("setpriv")) {
            return None;
        }
        fs::set_permissions(self.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let copy = self.path("corptokend");
        if !copy.exists() && fs::hard_link(BINARY, &copy).is_err() {
            fs::copy(BINARY, &copy).unwrap();
        }
        let command = self.command(args);
        let mut other = Command::new("setpriv");
        let id = NOBODY.to_string();
        other.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).arg(copy).args(args);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => other.env(name, value),
                None => other.env_remove(name),
            };
        }
        other.stdin(Stdio::null()).current_dir(self.dir.path());
        Some(other)
    }

    /// Gives a file or a whole directory to `nobody`.
    pub fn give_to_nobody(&self, below: &str) {
        let given = Command::new("chown").args(["-R", &format!("{NOBODY}:{NOBODY}")]).arg(self.path(below)).status();
        assert!(given.unwrap().success());
    }

    /// Runs a command on a terminal, and returns what appears there. `None`, loudly, without script(1).
    pub fn run_on_a_terminal(&self, args: &[&str]) -> Option<(String, Option<i32>)> {
        self.run_on_terminal_type("xterm", args)
    }

    /// The same on a terminal of this type, as `TERM` names it.
    pub fn run_on_terminal_type(&self, term: &str, args: &[&str]) -> Option<(String, Option<i32>)> {
        if !system_allows("a terminal", has("script")) {
            return None;
        }
        let line = format!("{BINARY} {}", args.join(" "));
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env("TERM", term).stdin(Stdio::null());
        command.env("CORPTOKEND_CONFIG", self.config_path()).current_dir(self.dir.path()).env_remove("NO_COLOR");
        let output = command.output().expect("script runs");
        Some((shown(&output), output.status.code()))
    }

    /// Starts the daemon; its log goes to a file.
    pub fn launch(&mut self) {
        self.launch_with(&["run"]);
    }

    pub fn launch_with(&mut self, args: &[&str]) {
        self.launch_command(self.command(args));
    }

    /// Starts the daemon by way of another program, which must replace itself by it.
    pub fn launch_under(&mut self, wrapper: &[&str]) {
        let plain = self.command(&[]);
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).args([BINARY, "run"]).current_dir(self.dir.path()).stdin(Stdio::null());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        self.launch_command(command);
    }

    /// Starts a daemon that was prepared elsewhere.
    pub fn launch_command(&mut self, command: Command) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        self.launch_logging_to(command, log.into());
    }

    /// Starts a daemon whose log goes elsewhere.
    pub fn launch_logging_to(&mut self, mut command: Command, log: Stdio) {
        assert!(self.daemon.is_none(), "one daemon at a time");
        self.daemon = Some(command.stdout(Stdio::null()).stderr(log).spawn().expect("the daemon starts"));
    }

    /// Starts the daemon and waits until it is ready.
    pub fn start(&mut self) -> &mut Self {
        self.launch();
        self.wait_until_ready();
        self
    }

    #[track_caller]
    pub fn wait_until_ready(&self) {
        self.wait_until("the daemon is ready", |machine| machine.status_json()["ready"] == true);
    }

    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon runs").id()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// Whether a daemon was launched that was not ended by us.
    pub fn runs(&self) -> bool {
        self.daemon.is_some()
    }

    /// Whether the daemon that was launched has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        self.daemon.as_mut().is_some_and(|daemon| daemon.try_wait().unwrap().is_none())
    }

    /// Stops the daemon as systemd does, and returns how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.exit()
    }

    /// Waits until the daemon ends by itself.
    pub fn exit(&mut self) -> ExitStatus {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = daemon.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > deadline {
                daemon.kill().unwrap();
                daemon.wait().unwrap();
                panic!("the daemon does not end; its log:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A child that does not outlive the test.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command that must come to an end by itself.
#[track_caller]
pub fn finish(command: &mut Command) -> Output {
    let child = command.spawn().expect("the binary runs");
    let id = child.id().to_string();
    let (ended, waits) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        let late = waits.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if late {
            let _ = Command::new("kill").args(["-KILL", &id]).status();
        }
        late
    });
    let output = child.wait_with_output().expect("its output can be read");
    drop(ended);
    assert!(!watchdog.join().unwrap(), "it does not end: {command:?}\n{}", shown(&output));
    output
}

/// Stdout and stderr of a command, as a person sees them.
pub fn shown(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
