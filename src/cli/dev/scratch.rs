//! The directory of `dev`: a config, secrets, tokens and state.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::cli::terminal::report;
use crate::sandbox::Sandbox;

/// Secrets for the simulated endpoint alone.
pub(super) const CRM_SECRET: &str = "crm-secret";
pub(super) const HR_SECRET: &str = "hr-secret";

/// A directory with a config. A temporary one is removed when this is dropped.
pub(super) struct Scratch {
    pub(super) directory: PathBuf,
    pub(super) is_ours: bool,
}

impl Scratch {
    /// In `wanted`, which must be empty or missing, or in a new directory below `$TMPDIR`.
    pub(super) fn new(wanted: Option<&Path>) -> io::Result<Self> {
        let Some(wanted) = wanted else {
            let directory = std::env::temp_dir().join(format!("corptokend-dev-{}", std::process::id()));
            // An existing directory may be another user's trap.
            fs::DirBuilder::new()
                .mode(0o700)
                .create(&directory)
                .map_err(|error| failed_to("make", &directory, &error))?;
            return Ok(Self { directory, is_ours: true });
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(wanted).map_err(|e| failed_to("make", wanted, &e))?;
        let directory = wanted.canonicalize().map_err(|error| failed_to("open", wanted, &error))?;
        if fs::read_dir(&directory).map_err(|error| failed_to("read", wanted, &error))?.next().is_some() {
            let text = format!("{} is not empty; name a directory that is, or one to be made", wanted.display());
            return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, text));
        }
        Ok(Self { directory, is_ours: false })
    }

    pub(super) fn config(&self) -> PathBuf {
        self.directory.join("etc/config.toml")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    /// Writes the config, its secrets and the CA certificate.
    pub(super) fn lay_out(&self, sandbox: &Sandbox) -> io::Result<PathBuf> {
        for place in ["etc", "tokens", "state"] {
            let place = self.directory.join(place);
            fs::DirBuilder::new().mode(0o700).create(&place).map_err(|error| failed_to("make", &place, &error))?;
        }
        self.write("etc/crm.secret", 0o600, &format!("{CRM_SECRET}\n"))?;
        self.write("etc/hr.secret", 0o600, &format!("{HR_SECRET}\n"))?;
        self.write("etc/ca.pem", 0o644, &sandbox.ca_pem())?;
        self.write("etc/config.toml", 0o644, &config_text(&self.directory, &sandbox.endpoint()))?;
        Ok(self.config())
    }

    fn write(&self, name: &str, mode: u32, text: &str) -> io::Result<()> {
        let path = self.directory.join(name);
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| failed_to("write", &path, &error))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.is_ours
            && let Err(error) = fs::remove_dir_all(&self.directory)
        {
            report(format_args!("cannot remove {}: {error}", self.directory.display()));
        }
    }
}

fn failed_to(what: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what} {}: {error}", path.display()))
}

fn config_text(directory: &Path, endpoint: &str) -> String {
    let directory = directory.display();
    format!(
        r#"# Edit and save this file while the daemon runs, and watch what it does.

[api]
ca_file = "ca.pem"

[state]
path = "{directory}/state/state.redb"

[control]
socket = "{directory}/control.sock"

[defaults]
endpoint = "{endpoint}"
[[defaults.sink]]
file = "{directory}/tokens/{{app}}/{{corp_id}}"

[app.crm]
client_id     = "ding-crm"
client_secret = {{ file = "crm.secret" }}
corp_ids      = ["ding-acme", "ding-globex"]     # add "ding-initech", or try one that does not exist

[app.hr]
client_id     = "ding-hr"
client_secret = {{ file = "hr.secret" }}
corp_ids      = ["ding-acme"]
[[app.hr.sink]]
file   = "{directory}/tokens/hr-{{corp_id}}.json"
format = "json"
"#
    )
}
