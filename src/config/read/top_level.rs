//! The tables at the top: `[api]`, `[limits]`, `[state]`, `[control]`, `[log]`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::reader::{AccountName, Reader, Spanned};
use super::values::{self, ValueFault};
use crate::config::diagnostics::collect::Span;
use crate::config::environment::Process;
use crate::config::model::{ApiConfig, ControlConfig, LimitsConfig, LogConfig, StateConfig};
use crate::config::schema::{API, CONTROL, LIMITS, STATE};
use crate::domain::{LogFormat, LogLevel};

/// The longest path of a Unix socket, in bytes (unix(7): `sun_path`, its NUL apart).
const SOCKET_PATH_MAX: usize = 107;

/// `[api]`, and where its `ca_file` stands.
pub(crate) fn api(top: &Reader<'_>) -> (ApiConfig, Option<Span>) {
    let reader = top.table("api");
    let (timeout, connect) = (reader.duration("timeout"), reader.duration("connect_timeout"));
    let default = |key| values::default(&API, key, values::duration);
    let timeout = timeout.map_or_else(|| default("timeout"), |set| set.value);
    // A short `timeout` alone shortens the connection's share of it as well.
    let connect_timeout = connect.map_or_else(|| timeout.min(default("connect_timeout")), |set| set.value);
    if let Some(set) = connect.filter(|set| set.value > timeout) {
        reader
            .error(set.at, "`connect_timeout` is longer than `timeout`, the time for the whole call")
            .help(format!("make it at most {}", humantime::format_duration(timeout)));
    }
    let max_in_flight = reader.integer("max_in_flight").and_then(|set| u16::try_from(set.value).ok());
    let ca_file = reader.path("ca_file");
    let local_address = reader.text("local_address", |text| {
        text.parse::<IpAddr>().map_err(|_| ValueFault::new("is not an IP address").help("write it like \"192.0.2.10\""))
    });
    let at = ca_file.as_ref().map(|set| set.at);
    let api = ApiConfig {
        timeout,
        connect_timeout,
        max_in_flight: max_in_flight.unwrap_or_else(|| values::default(&API, "max_in_flight", values::small_integer)),
        ca_file: ca_file.map(|set| set.value),
        local_address: local_address.map(|set| set.value),
    };
    (api, at)
}

pub(crate) fn limits(top: &Reader<'_>) -> LimitsConfig {
    let total = top.table("limits").text("total", values::rate);
    LimitsConfig { total: total.map_or_else(|| values::default(&LIMITS, "total", values::rate), |set| set.value) }
}

pub(crate) fn state(top: &Reader<'_>) -> StateConfig {
    let written = own_path(&top.table("state"), "path");
    let directory = top.context.process.state_directory.as_deref();
    StateConfig { path: written.map_or_else(|| default_path(STATE.default("path"), directory), |set| set.value) }
}

/// `[control]`, without the number of its group.
pub(crate) fn control(top: &Reader<'_>) -> (ControlConfig, Option<AccountName>) {
    let reader = top.table("control");
    let written = own_path(&reader, "socket");
    if let Some(Spanned { value: path, at }) = &written
        && path.as_os_str().len() > SOCKET_PATH_MAX
    {
        let length = path.as_os_str().len();
        reader
            .error(*at, format!("a socket's path can have {SOCKET_PATH_MAX} bytes, and this has {length}"))
            .help("put the socket into a directory with a shorter path");
    }
    let directory = top.context.process.runtime_directory.as_deref();
    let socket = written.map_or_else(|| default_path(CONTROL.default("socket"), directory), |set| set.value);
    let mode = reader.mode("mode").map(|set| set.value);
    let mode = mode.unwrap_or_else(|| values::default(&CONTROL, "mode", |text| values::mode(text, 0, 0)));
    let group = match reader.node("group") {
        Some(_) => reader.account("group"),
        None => Some(AccountName::Default("corptokend-admin")),
    };
    (ControlConfig { socket, mode, group: None }, group)
}

pub(crate) fn log(top: &Reader<'_>) -> LogConfig {
    let reader = top.table("log");
    let formats = [LogFormat::Auto, LogFormat::Text, LogFormat::Json, LogFormat::Journald];
    let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
    LogConfig {
        format: reader.word("format", &formats).map_or(LogFormat::Auto, |set| set.value),
        level: reader.word("level", &levels).map_or(LogLevel::Info, |set| set.value),
    }
}

/// Where the daemon's sockets and tokens lie.
pub(crate) fn runtime_directory(process: &Process) -> PathBuf {
    let default = Path::new(CONTROL.default("socket")).parent();
    process.runtime_directory.clone().or_else(|| default.map(Path::to_path_buf)).unwrap_or_default()
}

/// The path of a file that the daemon makes.
fn own_path(reader: &Reader<'_>, key: &'static str) -> Option<Spanned<PathBuf>> {
    let at = reader.node(key)?.at;
    reader.text(key, |text| {
        if text.ends_with('/') {
            return Err(ValueFault::new("names a directory").help("add the file's name"));
        }
        values::path(text, reader.context.base(at))
    })
}

/// The default of a path, in the directory that systemd gave, if it did.
fn default_path(declared: &str, directory: Option<&Path>) -> PathBuf {
    let declared = Path::new(declared);
    directory.zip(declared.file_name()).map_or_else(|| declared.to_owned(), |(directory, name)| directory.join(name))
}
