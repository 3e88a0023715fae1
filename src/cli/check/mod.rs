//! `corptokend check`: validates the config, tries the sinks' directories, and shows what a reload would do.

mod output;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use crate::api;
use crate::cli::run::block_on;
use crate::cli::terminal::{Exit, SafeJson, output_failed};
use crate::config::{self, AppConfig, CapacityReport, Config, Diagnostic, Draft, Process, Report, Severity, Sources};
use crate::control::protocol::{ReloadRequest, ReloadVerdict};
use crate::control::{ControlClient, ControlError};
use crate::domain::{AppName, CorpId, Failure, Names, SinkKind, SinkSpec, TenantId};
use crate::environment;
use crate::sink::{self, ProbeError, ProbeTarget};
use crate::system::process;

/// Validate the config, try the sinks' directories, and show what a reload would do
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
    /// Also make one real call, for this tenant or for the first, and publish nothing; the tenant's token in use may end by it
    #[arg(long, value_name = "TENANT", num_args = 0..=1)]
    online: Option<Option<TenantId>>,
}

/// The result of a check.
struct CheckFindings {
    sources: Sources,
    report: Report,
    /// Known only if the config has no errors.
    details: Option<Details>,
}

struct Details {
    tenants: usize,
    apps: usize,
    capacity: CapacityReport,
    /// What a running daemon would do with the config.
    reload: Option<ReloadVerdict>,
    online: Option<OnlineCall>,
}

/// The one real call.
struct OnlineCall {
    /// `None`: there is no such tenant, so no call was made.
    tenant: Option<TenantId>,
    outcome: Result<Answered, FailedCall>,
}

struct Answered {
    endpoint: String,
    lifetime_s: u32,
    fingerprint: String,
}

struct FailedCall {
    /// `None`: no call was made.
    failure: Option<Failure>,
    detail: String,
}

pub(super) fn run(args: &CheckArgs, config: &Path, socket: Option<&Path>, out: &mut dyn Write) -> Exit {
    let findings = examine(args, config, socket);
    let written =
        if args.json { output::json(&findings, &mut SafeJson::new(out)) } else { output::text(&findings, out) };
    let online_failed = findings.details.as_ref().and_then(|d| d.online.as_ref()).is_some_and(|c| c.outcome.is_err());
    match written {
        Err(error) => output_failed(&error),
        Ok(()) if findings.report.has_errors() => Exit::Config,
        Ok(()) if online_failed => Exit::Unavailable,
        Ok(()) => Exit::Success,
    }
}

fn examine(args: &CheckArgs, path: &Path, socket: Option<&Path>) -> CheckFindings {
    // As the daemon's user, because root may read and write everywhere.
    let as_root = become_daemon(path).err();
    let process = environment::process();
    let sources = match environment::read(path) {
        Ok(sources) => sources,
        Err(report) => return CheckFindings { sources: Sources::remembered(Vec::new()), report, details: None },
    };
    let checked = environment::check(&sources, &process);
    let mut report = checked.report;
    let Some(config) = checked.config else { return CheckFindings { sources, report, details: None } };
    let reload = ask_daemon(&config, path, socket).unwrap_or_else(|problem| {
        report.diagnostics.push(problem);
        None
    });
    let online = args.online.as_ref().map(|wanted| call(&config, wanted.as_ref(), &process));
    if let Some(error) = as_root {
        report.diagnostics.push(Diagnostic::new(Severity::Warning, format!("the config is checked as root: {error}")));
    }
    report.diagnostics.extend(probe_sinks(&config));
    report.diagnostics.sort_by_key(|problem| problem.severity);
    let details = Details {
        tenants: config.tenant_count(),
        apps: config.apps.len(),
        capacity: config::capacity(&config),
        reload,
        online,
    };
    CheckFindings { sources, report, details: Some(details) }
}

/// Root becomes the owner of the state directory that the config names, be it in error or not.
fn become_daemon(path: &Path) -> std::io::Result<()> {
    let Ok(sources) = environment::read(path) else { return Ok(()) };
    let state = Draft::read(&sources, &environment::process()).outline().state;
    process::become_owner_of(state.parent().unwrap_or(Path::new("/")))
}

/// How many sinks are handed to the probe at a time.
const PROBE_BATCH: usize = 256;

/// Probes the sinks of every tenant. A sink mostly fails for all tenants alike, so the first failure stands for the others.
fn probe_sinks(config: &Config) -> Vec<Diagnostic> {
    let mut probe = sink::SinkProbe::new();
    let mut failures: Vec<(AppName, SinkSpec, ProbeError, usize)> = Vec::new();
    let mut known: HashMap<(AppName, SinkSpec), usize> = HashMap::new();
    let mut targets = config.apps.iter().flat_map(|(name, app)| targets_of(name, app)).peekable();
    while targets.peek().is_some() {
        let batch: Vec<ProbeTarget> = targets.by_ref().take(PROBE_BATCH).collect();
        for (target, outcome) in batch.iter().zip(probe.run(&batch)) {
            let Err(error) = outcome else { continue };
            let (app, spec) = (target.names.id.app.clone(), target.sinks[target.index].clone());
            match known.entry((app.clone(), spec.clone())) {
                Entry::Occupied(first) => failures[*first.get()].3 += 1,
                Entry::Vacant(first) => {
                    first.insert(failures.len());
                    failures.push((app, spec, error, 0));
                }
            }
        }
    }
    let diagnostic = |(name, spec, error, more): (AppName, SinkSpec, ProbeError, usize)| {
        let others = if more > 0 { format!(" (and for {more} more of its tenants)") } else { String::new() };
        let (severity, what) = match error {
            ProbeError::Failed(failure) => (Severity::Error, format!("cannot be published to: {failure}")),
            ProbeError::NotTried(why) => (Severity::Warning, format!("was not tried: {why}")),
        };
        Diagnostic::new(severity, format!("app {name}: {} {what}{others}", path_of(&spec)))
    };
    failures.into_iter().map(diagnostic).collect()
}

/// All sinks of an app's tenants.
fn targets_of<'a>(name: &'a AppName, app: &'a AppConfig) -> impl Iterator<Item = ProbeTarget> + 'a {
    names_of_all(name, app).flat_map(move |names| {
        let sinks = app.sinks_of(&names.id.corp_id);
        let target = move |index| ProbeTarget { sinks: Arc::clone(sinks), index, names: names.clone() };
        (0..sinks.len()).map(target)
    })
}

/// The names of an app's tenants. If it has none yet, those of an example.
fn names_of_all<'a>(name: &'a AppName, app: &'a AppConfig) -> impl Iterator<Item = Names> + 'a {
    let stand_in = CorpId::new("corp_id").ok().filter(|_| app.tenants.is_empty());
    app.tenants.iter().cloned().chain(stand_in).map(|id| app.names_of(name, &id))
}

fn path_of(spec: &SinkSpec) -> String {
    match &spec.kind {
        SinkKind::File(file) => file.path.to_string(),
        SinkKind::Keyring(keyring) => {
            let parts: Vec<String> = keyring.path.iter().map(ToString::to_string).collect();
            format!("{}/{}", keyring.root, parts.join("/"))
        }
    }
}

/// What a reload would do, if a daemon runs with this config. A warning if one runs and does not answer.
fn ask_daemon(config: &Config, path: &Path, socket: Option<&Path>) -> Result<Option<ReloadVerdict>, Diagnostic> {
    let asked = ControlClient::connect(socket.unwrap_or(&config.control.socket)).and_then(|mut client| {
        let theirs = client.status()?.config.path;
        let same = matches!((Path::new(&theirs).canonicalize(), path.canonicalize()), (Ok(a), Ok(b)) if a == b);
        let request = ReloadRequest { dry_run: true, ..ReloadRequest::default() };
        if same { client.reload(request).map(Some) } else { Ok(None) }
    });
    match asked {
        Ok(verdict) => Ok(verdict),
        Err(ControlError::NoDaemon(_)) => Ok(None),
        Err(error) => {
            let message = format!("what a reload would do is not known: {error}");
            Err(Diagnostic::new(Severity::Warning, message))
        }
    }
}

fn call(config: &Config, wanted: Option<&TenantId>, process: &Process) -> OnlineCall {
    let tenant = match wanted {
        Some(id) if config.contains(id) => Ok(id.clone()),
        Some(id) => Err(format!("{id} is not in the config")),
        None => first_tenant(config).ok_or_else(|| "there is no tenant to call for".to_owned()),
    };
    match tenant {
        Ok(id) => OnlineCall { outcome: ask(config, &id, process), tenant: Some(id) },
        Err(detail) => OnlineCall { tenant: None, outcome: Err(FailedCall { failure: None, detail }) },
    }
}

fn ask(config: &Config, id: &TenantId, process: &Process) -> Result<Answered, FailedCall> {
    let not_made = |detail: String| FailedCall { failure: None, detail };
    let app = &config.apps[&id.app];
    let secret = environment::secrets::read(&app.client_secret, process.credentials_directory.as_deref())
        .map_err(|error| not_made(format!("{error}; {}", error.remedy())))?;
    let client = api::TokenClient::new(config.connection(app)).map_err(|error| not_made(error.to_string()))?;
    let answer =
        block_on(async { Ok::<_, std::io::Error>(client.request_token(&app.client_id, &secret, &id.corp_id).await) });
    match answer.map_err(|error| not_made(format!("cannot start the runtime: {error}")))?.outcome {
        Ok((token, lifetime_s)) => Ok(Answered {
            endpoint: app.endpoint.to_string(),
            lifetime_s,
            fingerprint: token.fingerprint().to_string(),
        }),
        Err(failure) => Err(FailedCall { detail: failure.to_string(), failure: Some(failure) }),
    }
}

fn first_tenant(config: &Config) -> Option<TenantId> {
    let (app, settings) = config.apps.iter().find(|(_, app)| app.policy.enabled && !app.tenants.is_empty())?;
    Some(TenantId { app: app.clone(), corp_id: settings.tenants.first()?.clone() })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::time::Duration;

    use super::*;
    use crate::config::Source;

    /// The processor time of handing the sinks of so many tenants, each with one of its own, to the probe and of reading its
    /// answers. The probe's thread has a test of its own (`src/sink/probe.rs`).
    fn time_to_hand_over(tenants: usize) -> Duration {
        let directory = tempfile::tempdir().unwrap();
        let mut text = "[app.crm]\nclient_id = \"c\"\nclient_secret = { file = \"/gone\" }\n".to_owned();
        for n in 0..tenants {
            let _ = writeln!(text, "tenant.d{n}.sink = [{{ file = \"{}/{n}\" }}]", directory.path().display());
        }
        let sources = Sources::remembered(vec![Source::new("/etc/corptokend/config.toml", text)]);
        let config = environment::check(&sources, &Process::default()).config.unwrap();
        let start = processor_time();
        let problems = probe_sinks(&config);
        assert!(problems.is_empty(), "{problems:?}");
        processor_time() - start
    }

    fn processor_time() -> Duration {
        rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).try_into().unwrap()
    }

    #[test]
    fn twice_as_many_tenants_with_sinks_of_their_own_take_about_twice_as_long_to_hand_over() {
        let (one, two) = (time_to_hand_over(4_000), time_to_hand_over(8_000));
        assert!(two < one * 3, "{one:?} for 4,000, and {two:?} for 8,000");
    }
}
