//! The config as an operator meets it: files in, a config or a report out.

mod canaries;
mod files;
mod meaning;
mod problems;
mod secrets;
mod shipped;
mod sinks;
mod trust;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use corptokend::config::{self, Checked, Config, Process, Source, Sources};
use corptokend::domain::{CorpId, SinkKind};
use corptokend::environment;

/// A directory with a config, its drop-ins and a secret.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        dir.secret("crm.secret");
        dir
    }

    fn with(config: &str) -> Self {
        let dir = Self::new();
        dir.write("config.toml", config);
        dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        self.chmod(name, 0o640)
    }

    fn secret(&self, name: &str) -> &Self {
        self.write(name, "s3cr3t\n").chmod(name, 0o600)
    }

    fn chmod(&self, name: &str, mode: u32) -> &Self {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    fn sources(&self) -> Sources {
        environment::read(&self.path("config.toml")).unwrap()
    }

    fn check(&self) -> Checked {
        environment::check(&self.sources(), &process())
    }

    fn config(&self) -> Config {
        let checked = self.check();
        let report = checked.report.render(&self.sources(), false);
        checked.config.unwrap_or_else(|| panic!("{report}"))
    }

    /// The problems in one line each, without the directory's name.
    fn problems(&self) -> Vec<String> {
        let root = format!("{}/", self.0.path().display());
        self.check().report.diagnostics.iter().map(|problem| problem.one_line().replace(&root, "")).collect()
    }

    fn helps(&self) -> String {
        self.check().report.diagnostics.iter().filter_map(|p| p.help.clone()).collect::<Vec<_>>().join("\n")
    }
}

fn process() -> Process {
    Process { user: 0, groups: vec![0], may_chown: true, program: std::env::current_exe().ok(), ..Process::default() }
}

/// What is wrong with a text that stands in `config.toml`.
fn problems(text: &str) -> Vec<String> {
    Dir::with(text).problems()
}

const CRM: &str = "[app.crm]\nclient_id = \"ding123\"\nclient_secret = { file = \"crm.secret\" }\n";

fn crm(more: &str) -> String {
    format!("{CRM}{more}\n")
}

#[track_caller]
fn assert_only(text: &str, expected: &str) {
    let found = problems(text);
    assert!(found.len() == 1 && found[0].contains(expected), "wanted {expected:?}, got {found:#?}");
}
