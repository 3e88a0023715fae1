//! The merged tree to [`Config`]: every default applied, every value checked.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::app::{self, AppDraft};
use super::inherited;
use super::reader::{Fault, Reader, Spanned};
use super::sink::{self, Context, Sink};
use super::values;
use crate::config::check::places;
use crate::config::diagnostics::collect::{Diagnostics, Span};
use crate::config::environment::own_files::OwnFiles;
use crate::config::environment::permissions::Dangers;
use crate::config::environment::process::Process;
use crate::config::environment::secrets::{self, SecretError};
use crate::config::environment::sources::{self, Origin, Sources};
use crate::config::model::{Api, Config, Control, Limits, Log, State};
use crate::config::parse::merge::Table;
use crate::config::schema;
use crate::domain::{
    AppName, FileSink, Fingerprint, Format, LogFormat, LogLevel, Placeholder, Rate, SecretSource, SinkKind, Template,
};

/// The longest path of a Unix socket, in bytes (unix(7): `sun_path`, its NUL apart).
const SOCKET_PATH_MAX: usize = 107;

/// Reads the merged tree, and what tells the secrets that it names from others. What comes back is of use only if no problem
/// was an error.
pub(crate) fn resolve(
    tree: &Table<'_>,
    sources: &Sources,
    process: &Process,
    diagnostics: &mut Diagnostics<'_>,
) -> (Config, BTreeMap<AppName, Fingerprint>) {
    let bases: Vec<&Path> = sources.files.iter().map(|source| source.base.as_path()).collect();
    let context = Context { bases: &bases, process };
    let top = Reader::open(Some(tree), &schema::TOP, diagnostics);
    let api = api(&top, &context, diagnostics);
    let limits = limits(&top, diagnostics);
    let state = state(&top, &context, diagnostics);
    let control = control(&top, &context, diagnostics);
    let log = log(&top, diagnostics);
    let standard = standard_sink(process);
    let defaults = inherited::defaults(top.table("defaults", diagnostics), standard, &context, diagnostics);
    let apps = app::apps(top.table("app", diagnostics), &defaults, &context, diagnostics);
    let mut dangers = Dangers::new(sources);
    if let Some(path) = &api.ca_file {
        // What hangs was told already.
        let found = sources::probe(path).map(|probed| probed.dangers).unwrap_or_default();
        dangers.add(found, diagnostics);
    }
    let secrets = check_secrets(&apps, sources.origin, &mut dangers, process, diagnostics);
    let own = own_files(sources, &bases, &apps, (&api, &state, &control), process);
    places::check(&apps, &own, sources.origin, diagnostics);
    let apps = apps.into_iter().map(|read| (read.name, read.app)).collect();
    (Config { api, limits, state, control, log, own, apps }, secrets)
}

fn api(top: &Reader<'_, '_>, context: &Context<'_>, diagnostics: &mut Diagnostics<'_>) -> Api {
    let reader = top.reader("api", &schema::API, diagnostics);
    let waits = Duration::from_millis(100)..=Duration::from_secs(600);
    let timeout = reader.duration("timeout", diagnostics, waits.clone());
    let connect = reader.duration("connect_timeout", diagnostics, waits);
    let whole = timeout.map_or(Duration::from_secs(10), |set| set.value);
    // A short `timeout` alone shortens the connection's share of it as well.
    let connect_timeout = connect.map_or_else(|| whole.min(Duration::from_secs(5)), |set| set.value);
    if let Some(set) = connect.filter(|set| set.value > whole) {
        diagnostics
            .error(set.at, "`connect_timeout` is longer than `timeout`, the time for the whole call")
            .help(format!("make it at most {}", humantime::format_duration(whole)));
    }
    let max_in_flight = reader.integer("max_in_flight", diagnostics, 1..=10_000);
    let ca_file = reader.string("ca_file", diagnostics).and_then(|(text, at)| ca_file(text, at, context, diagnostics));
    let local_address = reader.text("local_address", diagnostics, |text| {
        text.parse::<IpAddr>().map_err(|_| Fault::new("is not an IP address").help("write it like \"192.0.2.10\""))
    });
    Api {
        timeout: whole,
        connect_timeout,
        max_in_flight: max_in_flight.and_then(|set| u16::try_from(set.value).ok()).unwrap_or(64),
        ca_file,
        local_address: local_address.map(|set| set.value),
    }
}

fn ca_file(text: &str, at: Span, context: &Context<'_>, diagnostics: &mut Diagnostics<'_>) -> Option<PathBuf> {
    match values::path(text, context.base(at)) {
        Ok(path) => {
            match sources::probe(&path).map(|probed| probed.readable) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => drop(
                    diagnostics
                        .error(at, format!("`ca_file` cannot be read: {error}"))
                        .help("put the certificates there, in PEM, readable by the daemon's user"),
                ),
                // Those that are called already go on, and tokens stay where they are.
                Err(why) => drop(
                    diagnostics
                        .warning(at, format!("`ca_file` cannot be read: {why}"))
                        .help("look at the file system that it lies on; until it can be read, nobody new is called")
                        .hangs(),
                ),
            }
            Some(path)
        }
        Err(fault) => {
            super::reader::report("ca_file", fault, at, diagnostics);
            None
        }
    }
}

fn limits(top: &Reader<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> Limits {
    let reader = top.reader("limits", &schema::LIMITS, diagnostics);
    let total = reader.text("total", diagnostics, values::rate);
    Limits { total: total.map_or(Rate::per_second(400), |set| set.value) }
}

fn state(top: &Reader<'_, '_>, context: &Context<'_>, diagnostics: &mut Diagnostics<'_>) -> State {
    let reader = top.reader("state", &schema::STATE, diagnostics);
    let written = own_path(&reader, "path", context, diagnostics);
    let directory = context.process.state_directory.clone().unwrap_or_else(|| "/var/lib/corptokend".into());
    State { path: written.map_or_else(|| directory.join("state.redb"), |(path, _)| path) }
}

fn control(top: &Reader<'_, '_>, context: &Context<'_>, diagnostics: &mut Diagnostics<'_>) -> Control {
    let reader = top.reader("control", &schema::CONTROL, diagnostics);
    let written = own_path(&reader, "socket", context, diagnostics);
    if let Some((path, at)) = &written
        && path.as_os_str().len() > SOCKET_PATH_MAX
    {
        diagnostics
            .error(
                *at,
                format!("a socket's path can have {SOCKET_PATH_MAX} bytes, and this has {}", path.as_os_str().len()),
            )
            .help("put the socket into a directory with a shorter path");
    }
    let mode = reader.text("mode", diagnostics, |text| values::mode(text, 0o600, 0o113));
    let group = match reader.entry("group") {
        Some(_) => sink::group(&reader, context.process, diagnostics).map(|set| set.value),
        None => context.process.default_group("corptokend-admin"),
    };
    Control {
        socket: written.map_or_else(|| runtime_directory(context.process).join("control.sock"), |(path, _)| path),
        mode: mode.map_or(0o660, |set| set.value),
        group,
    }
}

fn log(top: &Reader<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> Log {
    let reader = top.reader("log", &schema::LOG, diagnostics);
    let formats = [
        ("auto", LogFormat::Auto),
        ("text", LogFormat::Text),
        ("json", LogFormat::Json),
        ("journald", LogFormat::Journald),
    ];
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    Log {
        format: reader.word("format", diagnostics, &formats).map_or(LogFormat::Auto, |set| set.value),
        level: reader.word("level", diagnostics, &levels).map_or(LogLevel::Info, |set| set.value),
    }
}

fn own_path(
    reader: &Reader<'_, '_>,
    key: &'static str,
    context: &Context<'_>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<(PathBuf, Span)> {
    let (_, at) = reader.string(key, diagnostics)?;
    let set = reader.text(key, diagnostics, |text| {
        if text.ends_with('/') {
            return Err(Fault::new("names a directory").help("add the file's name"));
        }
        values::path(text, context.base(at))
    })?;
    Some((set.value, set.at))
}

fn runtime_directory(process: &Process) -> PathBuf {
    process.runtime_directory.clone().unwrap_or_else(|| "/run/corptokend".into())
}

/// Where tokens go when nobody says: `/run/corptokend/tokens/{app}/{corp_id}`.
fn standard_sink(process: &Process) -> Sink {
    let runtime = runtime_directory(process);
    // A runtime directory that is not UTF-8 cannot come from systemd.
    let runtime = runtime.to_string_lossy().replace('{', "{{").replace('}', "}}");
    let path = Template::parse(&format!("{runtime}/tokens/{{app}}/{{corp_id}}"), Placeholder::IN_PATHS)
        .unwrap_or_else(|_| unreachable!("its braces are doubled"));
    let file = FileSink {
        path,
        format: Format::Raw,
        mode: sink::MODE,
        dir_mode: sink::DIR_MODE,
        owner: None,
        group: process.default_group("corptokend-readers"),
        trust_dir: false,
    };
    Sink { kind: SinkKind::File(file), at: None }
}

/// The secrets must be there and be secrets; what they are, is forgotten again at once, but for what tells one from
/// another.
fn check_secrets(
    apps: &[AppDraft],
    origin: Origin,
    dangers: &mut Dangers<'_>,
    process: &Process,
    diagnostics: &mut Diagnostics<'_>,
) -> BTreeMap<AppName, Fingerprint> {
    let named: Vec<_> = apps.iter().filter_map(|app| Some((&app.name, app.secret.as_ref()?))).collect();
    let sources: Vec<&SecretSource> = named.iter().map(|(_, secret)| &secret.value).collect();
    let inspected = secrets::inspect_all(&sources, process.credentials_directory.as_deref());
    let mut found = BTreeMap::new();
    for ((name, Spanned { at, .. }), inspected) in named.into_iter().zip(inspected) {
        dangers.add(inspected.dangers, diagnostics);
        match inspected.found {
            Ok((secret, loose)) => {
                found.insert(name.clone(), secret.fingerprint());
                if let Some(loose) = loose {
                    diagnostics.warning(*at, format!("{loose}, on a read-only mount")).help(loose.remedy());
                }
            }
            // It concerns its app alone, and is found out again where it is used.
            Err(error @ SecretError::Unfinished { .. }) => {
                diagnostics.warning(*at, error.to_string()).help(error.remedy()).hangs();
            }
            Err(error) if origin == Origin::Memory => {
                diagnostics.warning(*at, error.to_string()).help(error.remedy());
            }
            Err(error) => {
                diagnostics.error(*at, error.to_string()).help(error.remedy());
            }
        }
    }
    found
}

/// What the daemon itself lives by.
fn own_files(
    sources: &Sources,
    bases: &[&Path],
    apps: &[AppDraft],
    (api, state, control): (&Api, &State, &Control),
    process: &Process,
) -> OwnFiles {
    let mut files = vec![(state.path.clone(), "the state"), (control.socket.clone(), "the control socket")];
    for (source, base) in sources.files.iter().zip(bases) {
        files.extend(source.path.file_name().map(|name| (base.join(name), "the config")));
    }
    files.extend(api.ca_file.iter().map(|path| (path.clone(), "the certificates to trust")));
    files.extend(std::env::current_exe().into_iter().map(|path| (path, "the program itself")));
    for app in apps {
        if let Some(SecretSource::File(path)) = app.secret.as_ref().map(|secret| &secret.value) {
            files.push((path.clone(), "a client secret"));
        }
    }
    let drop_ins = bases.first().map(|base| base.join(sources.drop_ins.file_name().unwrap_or_default()));
    let watched = sources.watch.iter().cloned().chain(bases.iter().map(|base| base.to_path_buf())).chain(drop_ins);
    let mut directories: Vec<_> = watched.map(|path| (path, "watched for changes of the config")).collect();
    directories.extend(process.credentials_directory.iter().map(|path| (path.clone(), "for credentials")));
    directories.sort_unstable();
    directories.dedup();
    OwnFiles { files, directories }
}
