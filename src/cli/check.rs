//! `corptokend check`: validates the config, tries the sinks' directories, and tells what would come of it.

use std::io;
use std::path::Path;

use serde_json::{Value, json};

use super::{block_on, code, complain, wants_colour};
use crate::api;
use crate::config::{self, Capacity, Config, Problem, Report, Severity, Sources, Surroundings, secret};
use crate::control::Client;
use crate::control::protocol::{ReloadRequest, Verdict};
use crate::daemon::harden;
use crate::domain::{SinkKind, SinkSpec, TenantId};
use crate::sink;

/// Validate the config, try the sinks' directories, and show what a reload would do
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
    /// Also make one real call, for this tenant or for the first, and publish nothing
    #[arg(long, value_name = "TENANT", num_args = 0..=1)]
    online: Option<Option<TenantId>>,
}

/// What was found.
struct Findings {
    sources: Sources,
    report: Report,
    /// The rest is known only of a valid config.
    details: Option<Details>,
}

struct Details {
    tenants: usize,
    apps: usize,
    capacity: Capacity,
    /// What a running daemon would do with the config.
    reload: Option<Verdict>,
    online: Option<Result<String, String>>,
}

pub(super) fn run(args: &Args, config: &Path, socket: Option<&Path>) -> u8 {
    let findings = examine(args, config, socket);
    let told = if args.json { tell_json(&findings) } else { tell(&findings) };
    if told.is_err() {
        return code::FAILED; // nobody reads it any more
    }
    let online_failed = findings.details.as_ref().is_some_and(|d| matches!(d.online, Some(Err(_))));
    if findings.report.has_errors() || online_failed { code::CONFIG } else { 0 }
}

fn examine(args: &Args, path: &Path, socket: Option<&Path>) -> Findings {
    let surroundings = Surroundings::from_env();
    let sources = match config::read(path) {
        Ok(sources) => sources,
        Err(report) => return Findings { sources: Sources::remembered(Vec::new()), report, details: None },
    };
    let checked = config::check(&sources, &surroundings);
    let mut report = checked.report;
    let Some(config) = checked.config else { return Findings { sources, report, details: None } };
    let reload = ask_daemon(&config, path, socket);
    let online = args.online.as_ref().map(|wanted| call(&config, wanted.as_ref(), &surroundings));
    // From here on as the daemon's user: what root may do in a directory says nothing.
    if let Err(error) = harden::become_owner_of(config.state.path.parent().unwrap_or(Path::new("/"))) {
        report.problems.push(Problem::new(Severity::Warning, format!("the sinks are tried as root: {error}")));
    }
    report.problems.extend(try_sinks(&config));
    report.problems.sort_by_key(|problem| problem.severity);
    let details = Details {
        tenants: config.tenant_count(),
        apps: config.apps.len(),
        capacity: config::capacity(&config),
        reload,
        online,
    };
    Findings { sources, report, details: Some(details) }
}

/// Tries each distinct sink once.
fn try_sinks(config: &Config) -> Vec<Problem> {
    let mut tried: Vec<&SinkSpec> = Vec::new();
    let mut problems = Vec::new();
    for (name, app) in &config.apps {
        let own = app.special.values().filter_map(|special| special.sinks.as_deref());
        for spec in std::iter::once(&*app.sinks).chain(own).flatten() {
            if tried.contains(&spec) {
                continue;
            }
            tried.push(spec);
            if let Err(failure) = sink::probe(spec) {
                let message = format!("app {name}: {} cannot be published to: {failure}", path_of(spec));
                problems.push(Problem::new(Severity::Error, message));
            }
        }
    }
    problems
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

/// What a reload would do, if a daemon runs with this config.
fn ask_daemon(config: &Config, path: &Path, socket: Option<&Path>) -> Option<Verdict> {
    let mut client = Client::connect(socket.unwrap_or(&config.control.socket)).ok()?;
    let theirs = client.status().ok()?.config.path;
    let same = Path::new(&theirs).canonicalize().ok()? == path.canonicalize().ok()?;
    same.then(|| client.reload(ReloadRequest { dry_run: true, ..ReloadRequest::default() }).ok())?
}

/// One real call.
fn call(config: &Config, wanted: Option<&TenantId>, surroundings: &Surroundings) -> Result<String, String> {
    let id = match wanted {
        Some(id) if config.contains(id) => id.clone(),
        Some(id) => return Err(format!("{id} is not in the config")),
        None => first_tenant(config).ok_or("there is no tenant to call for")?,
    };
    let app = &config.apps[&id.app];
    let secret = secret::read(&app.client_secret, surroundings.credentials_directory.as_deref())
        .map_err(|error| format!("{error}; {}", error.remedy()))?;
    let client = api::Client::new(config.connection(app)).map_err(|error| error.to_string())?;
    let answer = block_on(async { Ok::<_, io::Error>(client.ask(&app.client_id, &secret, &id.corp_id).await) });
    match answer.map_err(|error| error.to_string())?.outcome {
        Ok((token, lifetime_s)) => Ok(format!(
            "{id}: {} answers with a token, good for {lifetime_s} s (fingerprint {}); nothing was published",
            app.endpoint,
            token.fingerprint()
        )),
        Err(failure) => Err(format!("{id}: {}: {failure}", failure.kind)),
    }
}

fn first_tenant(config: &Config) -> Option<TenantId> {
    let (app, settings) = config.apps.iter().find(|(_, app)| app.policy.enabled && !app.tenants.is_empty())?;
    Some(TenantId { app: app.clone(), corp_id: settings.tenants.first()?.clone() })
}

fn tell(findings: &Findings) -> io::Result<()> {
    use std::io::Write;
    let rendered = findings.report.render(&findings.sources, wants_colour(&io::stderr()));
    if !rendered.trim().is_empty() {
        writeln!(io::stderr(), "{}", rendered.trim_end())?;
    }
    let Some(details) = &findings.details else { return Ok(()) };
    let mut out = io::stdout().lock();
    writeln!(out, "{}: {} apps, {} tenants", findings.sources.main.display(), details.apps, details.tenants)?;
    for app in &details.capacity.apps {
        let figures = &app.figures;
        writeln!(out, "  {}: {} tenants; {} keeps {} fresh", app.app, figures.tenants, figures.rate, figures.capacity)?;
    }
    if let Some(verdict) = &details.reload {
        let Verdict { added, removed, changed, fetched, .. } = verdict;
        writeln!(out, "a reload would add {added}, remove {removed}, change {changed} and fetch {fetched} tenants")?;
        if let Some(held) = verdict.held_back {
            writeln!(out, "  and hold back the removal of {} tenants", held.removed)?;
        }
    }
    match &details.online {
        Some(Ok(text)) => writeln!(out, "{text}"),
        Some(Err(text)) => {
            complain(text);
            Ok(())
        }
        None => Ok(()),
    }
}

/// `{"valid", "problems", "apps", "tenants", "capacity", "reload", "online"}`; all but the first two are null for a config
/// in error, `reload` also when no daemon runs, `online` when no call was asked for.
fn tell_json(findings: &Findings) -> io::Result<()> {
    let details = findings.details.as_ref();
    let reload = details.and_then(|d| d.reload.as_ref()).map(|verdict| {
        let held_back = verdict.held_back.map_or(0, |held| held.removed);
        json!({ "add": verdict.added, "remove": verdict.removed, "change": verdict.changed, "fetch": verdict.fetched, "held_back": held_back })
    });
    let online = details.and_then(|d| d.online.as_ref()).map(|outcome| match outcome {
        Ok(text) => json!({ "ok": true, "detail": text }),
        Err(text) => json!({ "ok": false, "detail": text }),
    });
    let value: Value = json!({
        "valid": !findings.report.has_errors(),
        "problems": findings.report.to_json(),
        "apps": details.map(|d| d.apps),
        "tenants": details.map(|d| d.tenants),
        "capacity": details.map(|d| &d.capacity),
        "reload": reload,
        "online": online,
    });
    use std::io::Write;
    writeln!(io::stdout().lock(), "{value:#}")
}
