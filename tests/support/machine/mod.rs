//! A machine in a temporary directory: a simulated endpoint, a config, and the real binary. It makes each test a few lines.

pub mod files;
pub mod process;
pub mod sinks;
pub mod status;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Child;

use corptokend::sandbox::{Options, Sandbox, SandboxHandle};

/// The client secret of every app. No output may ever hold it.
pub const SECRET: &str = "canary-client-secret-9f1d";

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
    pub fn app(mut self, name: &str, corp_ids: &[impl AsRef<str>], extra: &str) -> Self {
        self.write_with_mode(&format!("etc/{name}.secret"), SECRET, 0o600);
        let corp_ids: Vec<&str> = corp_ids.iter().map(AsRef::as_ref).collect();
        let corp_ids = serde_json::to_string(&corp_ids).unwrap();
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
}

/// So many organisations, in the order of their names: `ding0000` is the first.
pub fn corp_ids(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("ding{number:04}")).collect()
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
