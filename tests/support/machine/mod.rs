//! A machine in a temporary directory: a simulated endpoint, a config, and the real binary. It makes each test a few lines.

pub mod sinks;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use corptokend::sandbox::{Options, Sandbox, SandboxHandle};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_corptokend");
/// The client secret of every app. No output may ever hold it.
pub const SECRET: &str = "canary-client-secret-9f1d";
/// How long a test waits for what must happen. It costs nothing where it happens, and a busy machine is no reason to fail;
/// what must happen *soon* is asserted for itself.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A temporary machine. Everything on it ends with it.
pub struct Machine {
    pub sandbox: SandboxHandle,
    pub dir: tempfile::TempDir,
    apps: Vec<(String, String)>,
    head: String,
    env: Vec<(String, String)>,
    daemon: Option<Child>,
}

impl Machine {
    /// A machine with an endpoint that issues tokens of two hours.
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    /// A machine with an endpoint of this kind.
    pub fn with(options: Options) -> Self {
        let sandbox = Sandbox::spawn_thread(options).expect("the sandbox starts");
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in ["etc", "tokens", "state", "run"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let machine = Self { sandbox, dir, apps: Vec::new(), head: String::new(), env: Vec::new(), daemon: None };
        machine.write_with_mode("etc/ca.pem", &machine.sandbox.ca_pem(), 0o644);
        machine
    }

    /// Adds an app with these organisations. Its rate is high, so that tests are quick; `extra` is TOML for its table.
    pub fn app(mut self, name: &str, corp_ids: &[&str], extra: &str) -> Self {
        self.write_with_mode(&format!("etc/{name}.secret"), SECRET, 0o600);
        let corp_ids = serde_json::to_string(corp_ids).unwrap();
        let text = format!(
            "[app.{name}]\nclient_id = \"client-{name}\"\nclient_secret = {{ file = \"{name}.secret\" }}\ncorp_ids = {corp_ids}\n{extra}\n"
        );
        self.apps.push((name.to_owned(), text));
        self.write_config();
        self
    }

    /// Adds TOML in front of the apps.
    pub fn head(mut self, toml: &str) -> Self {
        writeln!(self.head, "{toml}").unwrap();
        self.write_config();
        self
    }

    /// Sets a variable in the environment of every command that runs on this machine.
    pub fn env(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// The whole config as the builder has it.
    pub fn config_text(&self) -> String {
        let dir = self.dir.path().display();
        let mut text = format!(
            "[api]\nca_file = \"ca.pem\"\n[limits]\ntotal = \"10000/s\"\n[state]\npath = \"{dir}/state/state.redb\"\n\
             [control]\nsocket = \"{dir}/run/control.sock\"\n[log]\nformat = \"json\"\nlevel = \"debug\"\n"
        );
        if !self.head.contains("[defaults]") {
            let endpoint = self.sandbox.endpoint();
            write!(text, "[defaults]\nendpoint = \"{endpoint}\"\nrate = \"1000/s\"\n[[defaults.sink]]\nfile = \"{dir}/tokens/{{app}}/{{corp_id}}\"\n")
                .unwrap();
        }
        text.push_str(&self.head);
        self.apps.iter().for_each(|(_, app)| text.push_str(app));
        text
    }

    fn write_config(&self) {
        self.write_with_mode("etc/config.toml", &self.config_text(), 0o644);
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub fn config_path(&self) -> PathBuf {
        self.path("etc/config.toml")
    }

    pub fn write(&self, below: &str, text: &str) {
        fs::write(self.path(below), text).unwrap();
    }

    pub fn write_with_mode(&self, below: &str, text: &str, mode: u32) {
        self.write(below, text);
        fs::set_permissions(self.path(below), fs::Permissions::from_mode(mode)).unwrap();
    }

    pub fn read(&self, below: &str) -> Option<String> {
        fs::read_to_string(self.path(below)).ok()
    }

    /// The token file of a tenant in the default sink.
    pub fn token(&self, app: &str, corp_id: &str) -> Option<String> {
        self.read(&format!("tokens/{app}/{corp_id}"))
    }

    /// The config on disk, with `from` replaced by `to`; saved as most editors do, by rename.
    pub fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.config_path()).unwrap();
        assert!(text.contains(from), "{from:?} is in the config");
        self.save(&text.replace(from, to));
    }

    /// Saves the config by rename.
    pub fn save(&self, text: &str) {
        self.write_with_mode("etc/.config.toml.new", text, 0o644);
        fs::rename(self.path("etc/.config.toml.new"), self.config_path()).unwrap();
    }

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

    /// Everything that the daemons of this machine logged.
    pub fn log(&self) -> String {
        self.read("log").unwrap_or_default()
    }

    /// The log's events of this name, as JSON.
    pub fn events(&self, name: &str) -> Vec<serde_json::Value> {
        let lines = self.log();
        let events = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        events.filter(|event| event["event"] == name).collect()
    }

    /// `GET /v1/status`; null when no daemon answers.
    pub fn status_json(&self) -> serde_json::Value {
        self.whole_status()["status"].clone()
    }

    /// The row of one tenant; null when there is none.
    pub fn tenant_json(&self, tenant: &str) -> serde_json::Value {
        let whole = self.whole_status();
        let rows = whole["tenants"].as_array().cloned().unwrap_or_default();
        rows.into_iter().find(|row| row["tenant"] == tenant).unwrap_or_default()
    }

    fn whole_status(&self) -> serde_json::Value {
        let output = self.run(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Waits until `condition` holds.
    #[track_caller]
    pub fn wait_until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "waited in vain until {what}; the log:\n{}", tail(&self.log()));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What lies in a directory, sorted.
    pub fn names_in(&self, below: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(below)).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// All files below the tokens directory, relative to it.
    pub fn token_files(&self) -> Vec<String> {
        let root = self.path("tokens");
        let mut files = Vec::new();
        walk(&root, &mut |path| files.push(path.strip_prefix(&root).unwrap().display().to_string()));
        files.sort();
        files
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        // Whatever a test was about, no secret is ever logged.
        let log = self.log();
        assert!(std::thread::panicking() || !log.contains(SECRET), "the log holds a secret");
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

/// Stdout and stderr of a command, as a person sees them.
pub fn shown(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

fn walk(directory: &Path, each: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), each);
        } else {
            each(&entry.path());
        }
    }
}
