//! What a new config needs of the file system: certificates, secrets of apps that it keeps, and where its sinks lie. Each may
//! hang, so they are looked at side by side, and nobody waits for the sum of their time limits.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use crate::api::TokenClient;
use crate::config::{Config, Diagnostic, Process, Report, Severity};
use crate::domain::{AppName, Connection, Fingerprint, SinkKind, SinkSpec};
use crate::environment::{self, PathTask, secrets};
use crate::sink;
use crate::system::blocking::Blocking;

/// Makes clients, which reads certificates.
static CLIENTS: LazyLock<Blocking<Result<TokenClient, String>>> = LazyLock::new(|| Blocking::new("certificates", 64));
/// How long making one client is waited for.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);

/// The device number of the file system of each directory; `None` where it could not be looked at.
pub(crate) type Devices = HashMap<PathBuf, Option<u64>>;

/// What was found.
pub(super) struct Resources {
    pub(super) clients: Vec<(Connection, TokenClient)>,
    pub(super) secrets: BTreeMap<AppName, Fingerprint>,
    pub(super) devices: Devices,
}

impl Resources {
    /// Collects them for `config`. `running` are the clients that exist already; `checked` are the
    /// apps of the config on disk, and `secrets` the fingerprints that are known of theirs.
    ///
    /// # Errors
    /// When no client can be made for an endpoint.
    pub(super) fn collect(
        config: &Config,
        old: Option<&Config>,
        running: &[(Connection, TokenClient)],
        (checked, mut secrets): (&BTreeSet<AppName>, BTreeMap<AppName, Fingerprint>),
        process: &Process,
        report: &mut Report,
    ) -> Result<Self, Diagnostic> {
        let (clients, read, devices) = thread::scope(|scope| {
            let spawn = |name: &str| thread::Builder::new().name(name.into());
            let devices = spawn("devices").spawn_scoped(scope, || devices(config, old));
            let read = spawn("kept-secrets").spawn_scoped(scope, || kept_secrets(config, checked, process));
            let clients = clients(config, running, report);
            (clients, found(read, report), found(devices, report))
        });
        secrets.extend(read);
        secrets.retain(|name, _| config.apps.contains_key(name));
        Ok(Self { clients: clients?, secrets, devices })
    }
}

/// What a thread found. A panic goes on here, so that the config is rejected. Without a thread nothing is known, as if what it was to
/// look at hung.
fn found<T: Default>(thread: io::Result<ScopedJoinHandle<'_, T>>, report: &mut Report) -> T {
    match thread {
        Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
        Err(error) => {
            let message =
                format!("not everything that the config needs was looked at: there is no thread for it: {error}");
            let help = "it is tried again by itself";
            report.diagnostics.push(Diagnostic::new(Severity::Warning, message).help(help).that_hangs());
            T::default()
        }
    }
}

/// One client for each distinct connection; those that exist already go on, with their connections. There is none where reading the
/// certificates hangs: the apps that need it are not called for, and no others are concerned.
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

/// The key under which certificates are read: all connections with the same ones share what hangs.
fn certificates(connection: &Connection) -> OsString {
    connection.ca_file.as_ref().map_or_else(|| "the system's".into(), |path| path.clone().into_os_string())
}

/// The fingerprints of the secrets of apps that are kept although the config on disk does not name them. A secret that cannot be read
/// is reported when it is used.
fn kept_secrets(config: &Config, checked: &BTreeSet<AppName>, process: &Process) -> Vec<(AppName, Fingerprint)> {
    let kept: Vec<_> = config.apps.iter().filter(|(name, _)| !checked.contains(*name)).collect();
    let sources: Vec<_> = kept.iter().map(|(_, app)| app.client_secret.clone()).collect();
    let read = secrets::inspect_all(&sources, process.credentials_directory.as_deref());
    let both = kept.into_iter().zip(read);
    both.filter_map(|((name, _), secret)| Some((name.clone(), secret.outcome.fingerprint()?))).collect()
}

static DEVICES: LazyLock<Blocking<Option<u64>>> = LazyLock::new(|| Blocking::new("devices", 1024));

/// The file system of every app's directory in each root that either config has.
pub(crate) fn devices(new: &Config, old: Option<&Config>) -> Devices {
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
        let overrides = app.overrides.values().filter_map(|overrides| overrides.sinks.as_ref());
        app.sinks.iter().chain(overrides.flat_map(|sinks| sinks.iter())).map(move |spec| (name, spec))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn a_panic_of_a_thread_is_passed_on_and_what_had_no_thread_is_looked_at_again() {
        let mut report = Report::default();
        let defect = catch_unwind(AssertUnwindSafe(|| {
            thread::scope(|scope| {
                let panics = || -> Devices { panic!("a defect") };
                found(thread::Builder::new().spawn_scoped(scope, panics), &mut report)
            })
        }));
        assert!(defect.is_err() && !report.hangs());
        assert!(found::<Devices>(Err(io::Error::other("no more threads")), &mut report).is_empty());
        assert!(report.hangs());
    }
}
