//! Everything of a reload that may take long, or hang, and touches nothing that runs: read, validate, compare, and make
//! what the new config needs. It is done off the scheduler's thread.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::api::TokenClient;
use crate::config::{self, Checked, Config, Diagnostic, Difference, Process, Report, Severity, Sources};
use crate::domain::{AppName, Connection, Fingerprint, SinkKind, SinkSpec};
use crate::environment::{self, PathTask, secrets};
use crate::sink;
use crate::system::blocking::Blocking;
use crate::system::permissions::Reserved;

use super::super::executor::calls::Access;
use super::watch::Watchlist;

/// Whether a mass removal is carried out, or held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MassRemoval {
    /// Its tenants are kept.
    HeldBack,
    /// The operator said so.
    Allowed,
}

/// What runs, as far as preparing needs to know.
#[derive(Clone, Default)]
pub(crate) struct Baseline {
    pub(crate) config: Option<Arc<Config>>,
    pub(crate) clients: Vec<(Connection, TokenClient)>,
    pub(crate) secrets: BTreeMap<AppName, Fingerprint>,
    /// What no reload changes, as it was at the start.
    pub(crate) fixed: Option<RestartOnly>,
}

/// The settings that a daemon takes at its start, once and for all.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RestartOnly {
    state: config::StateConfig,
    control: config::ControlConfig,
    log: config::LogConfig,
}

impl RestartOnly {
    pub(crate) fn of(config: &Config) -> Self {
        Self { state: config.state.clone(), control: config.control.clone(), log: config.log }
    }

    /// Says which of the new settings wait for a restart.
    fn warn(&self, new: &Self, report: &mut Report) {
        let differ = [
            ("state", self.state != new.state),
            ("control", self.control != new.control),
            ("log", self.log != new.log),
        ];
        for (section, _) in differ.iter().filter(|(_, differs)| *differs) {
            let message = format!("[{section}] is another than the daemon was started with, which takes a restart");
            report.diagnostics.push(Diagnostic::new(Severity::Warning, message).help("systemctl restart corptokend"));
        }
    }
}

/// A config that could run.
pub(crate) struct Candidate {
    pub(crate) config: Arc<Config>,
    pub(crate) difference: Difference,
    /// Apps whose secret is another than the one that was read last.
    pub(crate) new_secrets: Vec<AppName>,
    pub(crate) secrets: BTreeMap<AppName, Fingerprint>,
    pub(crate) clients: Vec<(Connection, TokenClient)>,
    pub(crate) access: HashMap<AppName, Access>,
    /// The device number of each sink root's file system; `None` where that could not be looked at.
    pub(crate) devices: HashMap<PathBuf, Option<u64>>,
    /// The places of the daemon's own files.
    pub(crate) reserved: Reserved,
    /// How many tenants are kept although the config on disk does not name them.
    pub(crate) held_back: usize,
    /// The texts that this config was made of.
    pub(crate) texts: Vec<(PathBuf, String)>,
}

impl Candidate {
    /// How many tenants are fetched anew because their app's secret, at the same place, became another.
    pub(crate) fn refetched_for_secrets(&self) -> usize {
        let counted =
            |name: &AppName| self.difference.apps.iter().any(|app| app.name == *name && app.credentials_changed);
        let apps = self.new_secrets.iter().filter(|name| !counted(name));
        apps.filter_map(|name| self.config.apps.get(name)).map(|app| app.tenants.len()).sum()
    }
}

/// What became of a config on disk.
pub(crate) struct LoadedConfig {
    /// The config, unless it is in error.
    pub(crate) candidate: Option<Box<Candidate>>,
    pub(crate) report: Report,
    /// The report for people, without colour.
    pub(crate) rendered: String,
    /// The files whose changes may mean another config or another secret.
    pub(crate) watch: Watchlist,
    /// Something did not come to an end, so it is worth looking again later.
    pub(crate) hangs: bool,
    /// Tells whether anything at all is other than the last time.
    pub(crate) digest: Fingerprint,
}

/// Reads the config at `path` and makes a candidate of it. A text that makes this panic, which is a defect, is rejected
/// like any other: ending the daemon for it would end it again at every start.
pub(crate) fn load(path: &Path, process: &Process, running: &Baseline, removal: MassRemoval) -> LoadedConfig {
    catching_panics(path, || read_and_compare(path, process, running, removal))
}

fn catching_panics(path: &Path, prepare: impl FnOnce() -> LoadedConfig) -> LoadedConfig {
    // Nothing that runs is touched while preparing, so nothing can be left half done.
    catch_unwind(AssertUnwindSafe(prepare)).unwrap_or_else(|_| {
        let message = "the config cannot be read because of a defect of corptokend, which the log shows";
        let problem = Diagnostic::new(Severity::Error, message).help("undo the last change, and report the defect");
        rejected(path, Report::from(problem))
    })
}

/// What becomes of a config that could not even be read.
pub(crate) fn rejected(path: &Path, report: Report) -> LoadedConfig {
    let rendered = report.render(&Sources::remembered(Vec::new()), false);
    let digest = Fingerprint::of(rendered.as_bytes());
    let watch = Watchlist { names: environment::where_to_watch(&[path]), drop_ins: None };
    LoadedConfig { rendered, candidate: None, hangs: report.hangs(), report, watch, digest }
}

fn read_and_compare(path: &Path, process: &Process, running: &Baseline, removal: MassRemoval) -> LoadedConfig {
    match environment::read(path) {
        Ok(sources) => {
            let checked = environment::check(&sources, process);
            compare(&sources, checked, process, running, removal)
        }
        Err(report) => rejected(path, report),
    }
}

/// Makes a candidate of a config that was read and checked already.
pub(crate) fn compare(
    sources: &Sources,
    checked: Checked,
    process: &Process,
    running: &Baseline,
    removal: MassRemoval,
) -> LoadedConfig {
    let Checked { config, mut report, outline, secrets } = checked;
    let mut watch = Watchlist { names: sources.names.clone(), drop_ins: sources.drop_ins_to_watch() };
    let secret_files: Vec<&Path> = outline.secret_files.iter().map(PathBuf::as_path).collect();
    watch.names.extend(environment::where_to_watch(&secret_files));
    if let (Some(config), Some(fixed)) = (&config, &running.fixed) {
        fixed.warn(&RestartOnly::of(config), &mut report);
    }
    let read = Read { config, secrets };
    let candidate = build(read, sources, process, running, removal, &mut report).unwrap_or_else(|problem| {
        report.diagnostics.insert(0, problem);
        None
    });
    let rendered = report.render(sources, false);
    let digest = digest(sources, &rendered, candidate.as_ref());
    LoadedConfig { candidate: candidate.map(Box::new), rendered, hangs: report.hangs(), report, watch, digest }
}

fn digest(sources: &Sources, rendered: &str, candidate: Option<&Candidate>) -> Fingerprint {
    let mut all = rendered.as_bytes().to_vec();
    for source in &sources.files {
        all.extend(source.path.as_os_str().as_encoded_bytes());
        all.extend(Fingerprint::of(source.text.as_bytes()).0.to_be_bytes());
    }
    for (app, secret) in candidate.iter().flat_map(|candidate| &candidate.secrets) {
        all.extend(app.as_str().as_bytes());
        all.extend(secret.0.to_be_bytes());
    }
    Fingerprint::of(&all)
}

/// A config as it was read, unless it is in error.
struct Read {
    config: Option<Config>,
    secrets: BTreeMap<AppName, Fingerprint>,
}

fn build(
    read: Read,
    sources: &Sources,
    process: &Process,
    running: &Baseline,
    removal: MassRemoval,
    report: &mut Report,
) -> Result<Option<Candidate>, Diagnostic> {
    let Some(mut config) = read.config else { return Ok(None) };
    let old = running.config.as_deref();
    let mut held_back = 0;
    let checked: BTreeSet<AppName> = config.apps.keys().cloned().collect();
    if let Some(old) = old {
        config.share_with(old);
        if removal == MassRemoval::HeldBack && config::diff(Some(old), &config).removes_too_much() {
            held_back = config::keep_removed(&mut config, old);
            check_kept_tenants(&config, held_back)?;
        }
    }
    let difference = config::diff(old, &config);
    let clients = clients(&config, &running.clients, report)?;
    let secrets = secrets(&config, &checked, read.secrets, process);
    let new_secrets = secrets.iter().filter(|(app, print)| running.secrets.get(*app).is_some_and(|old| old != *print));
    Ok(Some(Candidate {
        new_secrets: new_secrets.map(|(app, _)| app.clone()).collect(),
        secrets,
        access: access(&config, &clients),
        clients,
        devices: devices(&config, old),
        reserved: environment::reserved(&config.own_files),
        difference,
        held_back,
        texts: sources.files.iter().map(|file| (file.path.clone(), file.text.clone())).collect(),
        config: Arc::new(config),
    }))
}

/// With tenants that are kept, two may write one place: their app may be called otherwise by now, and `{client_id}` stand in
/// a path. Such a config is no better than one that was written so.
fn check_kept_tenants(config: &Config, kept: usize) -> Result<(), Diagnostic> {
    let Some(conflict) = environment::conflicts(config).into_iter().next() else { return Ok(()) };
    let message = format!(
        "the removal of {kept} tenants is held back, and with them the config would be in error: {}",
        conflict.message
    );
    let help = "let the tenants stay, or remove them with `corptokend reload --allow-mass-removal`";
    Err(Diagnostic::new(Severity::Error, message).help(help))
}

/// Makes clients, which reads certificates. What hangs is not begun anew.
static CLIENTS: LazyLock<Blocking<Result<TokenClient, String>>> = LazyLock::new(|| Blocking::new("certificates", 64));
/// How long making one client is waited for.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);

/// One client for each distinct connection; those that run already go on, with their connections. There is none where the
/// certificates cannot be read because that does not come to an end: whoever needs it is not called for, and nobody else is
/// concerned.
fn clients(
    config: &Config,
    running: &[(Connection, TokenClient)],
    report: &mut Report,
) -> Result<Vec<(Connection, TokenClient)>, Diagnostic> {
    let mut clients: Vec<(Connection, TokenClient)> = Vec::new();
    let mut missing: Vec<Connection> = Vec::new();
    for (name, app) in &config.apps {
        let connection = config.connection(app);
        if clients.iter().map(|(known, _)| known).chain(&missing).any(|known| *known == connection) {
            continue;
        }
        let client = match running.iter().find(|(known, _)| *known == connection) {
            Some((_, client)) => Ok(Ok(client.clone())),
            None => {
                let own = connection.clone();
                let make = move || TokenClient::new(own).map_err(|error| error.to_string());
                CLIENTS.run_and_block(certificates(&connection), CLIENT_PATIENCE, make)
            }
        };
        match client {
            Ok(Ok(client)) => clients.push((connection, client)),
            Ok(Err(error)) => {
                let message = format!("the endpoint of app {name} cannot be called: {error}");
                return Err(Diagnostic::new(Severity::Error, message));
            }
            Err(why) => {
                let message =
                    format!("the endpoint of app {name} is not called: reading the certificates to trust: {why}");
                let help = "look at the file system that they lie on; it is tried again by itself";
                report.diagnostics.push(Diagnostic::new(Severity::Warning, message).help(help).that_hangs());
                missing.push(connection);
            }
        }
    }
    Ok(clients)
}

/// What a client's making reads, as a key.
fn certificates(connection: &Connection) -> OsString {
    connection.ca_file.as_ref().map_or_else(|| "the system's".into(), |path| path.clone().into_os_string())
}

fn access(config: &Config, clients: &[(Connection, TokenClient)]) -> HashMap<AppName, Access> {
    let entry = |(name, app): (&AppName, &config::AppConfig)| {
        let connection = config.connection(app);
        let client = clients.iter().find(|(known, _)| *known == connection).map(|(_, client)| client.clone());
        let access = Access { client, client_id: app.client_id.clone(), secret: app.client_secret.clone() };
        (name.clone(), access)
    };
    config.apps.iter().map(entry).collect()
}

/// What tells whether a secret changed: what was found out when the config was checked, and what is found out now of apps that
/// are kept. One that cannot be read is told of when it is used.
fn secrets(
    config: &Config,
    checked: &BTreeSet<AppName>,
    mut known: BTreeMap<AppName, Fingerprint>,
    process: &Process,
) -> BTreeMap<AppName, Fingerprint> {
    let kept: Vec<_> = config.apps.iter().filter(|(name, _)| !checked.contains(*name)).collect();
    let sources: Vec<_> = kept.iter().map(|(_, app)| app.client_secret.clone()).collect();
    let read = secrets::inspect_all(&sources, process.credentials_directory.as_deref());
    for ((name, _), secret) in kept.into_iter().zip(read) {
        known.extend(secret.outcome.fingerprint().map(|fingerprint| (name.clone(), fingerprint)));
    }
    known.retain(|name, _| config.apps.contains_key(name));
    known
}

static DEVICES: LazyLock<Blocking<Option<u64>>> = LazyLock::new(|| Blocking::new("devices", 1024));

/// The file system of every app's directory in each root that either config has; `None` for one that cannot be looked at, be
/// it because it hangs.
pub(crate) fn devices(new: &Config, old: Option<&Config>) -> HashMap<PathBuf, Option<u64>> {
    let files = old.into_iter().chain([new]).flat_map(all_sinks).filter_map(|(app, spec)| match &spec.kind {
        SinkKind::File(_) => Some(spec.home(app)),
        SinkKind::Keyring(_) => None,
    });
    let homes: Vec<PathBuf> = files.collect::<HashSet<_>>().into_iter().collect();
    let looks = homes.iter().map(|home| {
        let own = home.clone();
        PathTask::new(home, move || sink::file_system_of(&own).ok())
    });
    let found = environment::run_all(&DEVICES, looks.collect());
    homes.into_iter().zip(found.into_iter().map(|device| device.ok().flatten())).collect()
}

fn all_sinks(config: &Config) -> impl Iterator<Item = (&AppName, &SinkSpec)> {
    config.apps.iter().flat_map(|(name, app)| {
        let overrides =
            app.overrides.values().filter_map(|overrides| overrides.sinks.as_ref()).flat_map(|sinks| sinks.iter());
        app.sinks.iter().chain(overrides).map(move |spec| (name, spec))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_while_a_config_is_read_is_a_rejection() {
        let prepared = catching_panics(Path::new("/etc/corptokend/config.toml"), || panic!("a defect"));
        assert!(prepared.candidate.is_none() && prepared.report.has_errors());
        assert!(prepared.rendered.contains("a defect of corptokend"), "{}", prepared.rendered);
        assert!(!prepared.watch.names.is_empty(), "the next change is noticed");
    }
}
