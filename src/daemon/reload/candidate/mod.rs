//! A config that could run: read, checked, compared with the one that runs, and with all that it needs. Reloads, dry runs and
//! starts use it. Nothing that runs is touched. It may take long, or hang, so it is done off the scheduler's thread.

mod resources;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::executor::calls::Access;
use super::watch::Watchlist;
use crate::api::TokenClient;
use crate::config::{self, Checked, Config, Diagnostic, Difference, Outline, Process, Report, Severity, Sources};
use crate::domain::{AppName, Connection, Fingerprint};
use crate::environment;
use crate::system::permissions::Reserved;
use resources::Resources;

pub(crate) use resources::{Devices, devices};

/// Whether a mass removal is carried out, or held back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum MassRemoval {
    /// Its tenants are kept.
    #[default]
    HeldBack,
    /// The operator allowed it.
    Allowed,
}

/// What runs, and what a candidate takes over of it.
#[derive(Clone, Default)]
pub(crate) struct Baseline {
    pub(crate) config: Option<Arc<Config>>,
    pub(crate) clients: Vec<(Connection, TokenClient)>,
    pub(crate) secrets: BTreeMap<AppName, Fingerprint>,
    /// The settings of the start, which no reload changes.
    pub(crate) fixed: Option<RestartOnly>,
}

/// The settings that take a restart.
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

    /// Warns of new settings that wait for a restart.
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
    pub(crate) devices: Devices,
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

/// A config that was read and compared.
pub(crate) struct LoadedConfig {
    /// The config, unless it is in error.
    pub(crate) candidate: Option<Box<Candidate>>,
    pub(crate) report: Report,
    /// The report for people, without colour.
    pub(crate) rendered: String,
    /// The files whose changes may mean another config or another secret.
    pub(crate) watch: Watchlist,
    /// Something hung, so it is worth looking again later.
    pub(crate) hangs: bool,
    /// Differs whenever anything at all is other than the last time.
    pub(crate) digest: Fingerprint,
}

/// The config on disk, as far as it could be read and checked.
pub(crate) struct OnDisk {
    pub(crate) sources: Sources,
    pub(crate) checked: Checked,
}

/// Reads and checks the config at `path`.
pub(crate) fn read(path: &Path, process: &Process) -> OnDisk {
    match environment::read(path) {
        Ok(sources) => OnDisk { checked: environment::check(&sources, process), sources },
        Err(report) => {
            let outline = Outline::default_of(process);
            let checked = Checked { config: None, report, outline, secrets: BTreeMap::new() };
            let names = environment::where_to_watch(&[path]);
            OnDisk { sources: Sources { names, ..Sources::remembered(Vec::new()) }, checked }
        }
    }
}

/// Reads the config at `path` and compares it with what runs. A text that makes this panic, which is a defect, is rejected like any
/// other: ending the daemon for it would end it again at every start.
pub(crate) fn load(path: &Path, process: &Process, running: &Baseline, removal: MassRemoval) -> LoadedConfig {
    catching_panics(path, || {
        let OnDisk { sources, checked } = read(path, process);
        compare(&sources, checked, process, running, removal)
    })
}

fn catching_panics(path: &Path, load: impl FnOnce() -> LoadedConfig) -> LoadedConfig {
    // Nothing that runs is touched, so nothing can be left half done.
    catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|_| {
        let message = "the config cannot be read because of a defect of corptokend, which the log shows";
        let problem = Diagnostic::new(Severity::Error, message).help("undo the last change, and report the defect");
        rejected(path, Report::from(problem))
    })
}

/// A config that is rejected without being read.
pub(crate) fn rejected(path: &Path, report: Report) -> LoadedConfig {
    let rendered = report.render(&Sources::remembered(Vec::new()), false);
    let digest = Fingerprint::of(rendered.as_bytes());
    let watch = Watchlist { names: environment::where_to_watch(&[path]), drop_ins: None };
    LoadedConfig { rendered, candidate: None, hangs: report.hangs(), report, watch, digest }
}

/// Compares a config that was read and checked with what runs, and makes a candidate of it.
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
    let candidate = config.map(|config| build(config, secrets, sources, process, running, removal, &mut report));
    let candidate = candidate.transpose().unwrap_or_else(|diagnostic| {
        report.diagnostics.insert(0, diagnostic);
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

fn build(
    mut config: Config,
    secrets: BTreeMap<AppName, Fingerprint>,
    sources: &Sources,
    process: &Process,
    running: &Baseline,
    removal: MassRemoval,
    report: &mut Report,
) -> Result<Candidate, Diagnostic> {
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
    let Resources { clients, secrets, devices } =
        Resources::collect(&config, old, &running.clients, (&checked, secrets), process, report)?;
    let new_secrets = secrets.iter().filter(|(app, print)| running.secrets.get(*app).is_some_and(|old| old != *print));
    Ok(Candidate {
        new_secrets: new_secrets.map(|(app, _)| app.clone()).collect(),
        secrets,
        access: access(&config, &clients),
        clients,
        devices,
        reserved: environment::reserved(&config.own_files),
        difference,
        held_back,
        texts: sources.files.iter().map(|file| (file.path.clone(), file.text.clone())).collect(),
        config: Arc::new(config),
    })
}

/// Kept tenants may write the place of another one, if their app's client_id changed and stands in a path. Such a config is as wrong
/// as one that was written so.
fn check_kept_tenants(config: &Config, kept: usize) -> Result<(), Diagnostic> {
    let Some(conflict) = environment::conflicts(config).into_iter().next() else { return Ok(()) };
    let message = format!(
        "the removal of {kept} tenants is held back, and with them the config would be in error: {}",
        conflict.message
    );
    let help = "let the tenants stay, or remove them with `corptokend reload --allow-mass-removal`";
    Err(Diagnostic::new(Severity::Error, message).help(help))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_while_a_config_is_read_is_a_rejection() {
        let loaded = catching_panics(Path::new("/etc/corptokend/config.toml"), || panic!("a defect"));
        assert!(loaded.candidate.is_none() && loaded.report.has_errors());
        assert!(loaded.rendered.contains("a defect of corptokend"), "{}", loaded.rendered);
        assert!(!loaded.watch.names.is_empty(), "the next change is noticed");
    }
}
