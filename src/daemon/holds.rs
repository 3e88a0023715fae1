//! What holds calls back, in words: the engine knows routes and origins by their ids alone, the config knows their names.

use std::time::Duration;

use crate::config::{App, Config};
use crate::control::protocol;
use crate::domain::{AppName, FailureKind, Now, OriginId, RouteId, WallMs};
use crate::engine::{Hold, Scope};

/// The kind of a scope, and its name: an app's, an endpoint's URL (and the proxy on the way), a host.
pub(super) fn name(scope: &Scope, config: &Config) -> (&'static str, String) {
    match scope {
        Scope::App(app) => ("app", app.to_string()),
        Scope::Route(id) => ("route", route_name(*id, config)),
        Scope::Origin(id) => ("origin", origin_name(*id, config)),
    }
}

fn apps_on(config: &Config, route: RouteId) -> impl Iterator<Item = (&AppName, &App)> {
    config.apps.iter().filter(move |(_, app)| config.connection(app).path().route == route)
}

fn route_name(id: RouteId, config: &Config) -> String {
    match apps_on(config, id).next() {
        Some((_, app)) => way(app),
        None => "an endpoint that left the config".to_owned(),
    }
}

/// An app's endpoint, and the proxy on the way to it.
fn way(app: &App) -> String {
    let proxy = app.proxy.as_ref().map(|proxy| format!(" (through {proxy})")).unwrap_or_default();
    format!("{}{proxy}", app.endpoint)
}

fn origin_name(id: OriginId, config: &Config) -> String {
    let app = config.apps.values().find(|app| config.connection(app).path().origin == id);
    app.map_or_else(|| "a host that left the config".to_owned(), |app| app.endpoint.authority().to_owned())
}

/// What is wrong, without the moment of the next probe: `the endpoint https://api.dingtalk.com does not answer in time`.
pub(super) fn reason(scope: &Scope, kind: FailureKind, config: &Config) -> String {
    let (_, own_name) = name(scope, config);
    match scope {
        Scope::Origin(_) => format!("{own_name} has banned this machine's address"),
        Scope::Route(_) => format!("the endpoint {own_name} {}", does(kind)),
        Scope::App(app) => match config.apps.get(app) {
            // What an app that has its endpoint to itself meets is the endpoint's.
            Some(settings) if is_alone(app, settings, config) => {
                format!("the endpoint {} {}", way(settings), does(kind))
            }
            Some(settings) => format!("for app {app}, the endpoint {} {}", way(settings), does(kind)),
            None => format!("for app {app}, the endpoint {}", does(kind)),
        },
    }
}

fn is_alone(name: &AppName, app: &App, config: &Config) -> bool {
    apps_on(config, config.connection(app).path().route).all(|(other, _)| other == name)
}

/// What an endpoint does that is held back from for failures of this kind.
fn does(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Unreachable => "cannot be reached",
        FailureKind::Timeout => "does not answer in time",
        FailureKind::ServerError => "reports errors of its own",
        FailureKind::SuspectCorp => "reports unknown errors",
        FailureKind::HtmlPage => "answers with a page of HTML",
        FailureKind::Blocked => "answers with a page that forbids",
        FailureKind::AppThrottled | FailureKind::ApiThrottled => "asks for a wait",
        FailureKind::Banned => "has banned this machine's address",
        FailureKind::WrongCredentials | FailureKind::UnsupportedGrant => "does not accept the app's credentials",
        FailureKind::AddressNotAllowed => "does not allow this machine's address",
        FailureKind::SecretUnreadable => "is not called, since the app's secret cannot be read",
        FailureKind::Malformed | FailureKind::Unauthorized | FailureKind::SharedToken | FailureKind::ShortLived => {
            "answers with something else than a token"
        }
    }
}

/// The same, with when it is tried again.
pub(super) fn sentence(hold: &Hold, config: &Config, now: Now) -> String {
    let reason = reason(&hold.scope, hold.failure.kind, config);
    match hold.next_probe.map(|at| at.since(now.wall).div_ceil(1000)) {
        Some(0) => format!("{reason}; the next probe is due"),
        Some(seconds) => {
            format!("{reason}; next probe in {}", humantime::format_duration(Duration::from_secs(seconds)))
        }
        None => format!("{reason}; a probe is under way"),
    }
}

/// A hold, as it goes over the socket.
pub(super) fn row(hold: &Hold, config: &Config) -> protocol::Hold {
    let (scope, name) = name(&hold.scope, config);
    protocol::Hold {
        scope: scope.to_owned(),
        name,
        kind: hold.failure.kind.as_str().to_owned(),
        reason: reason(&hold.scope, hold.failure.kind, config),
        since: hold.since.rfc3339(),
        next_probe_at: hold.next_probe.map(WallMs::rfc3339),
    }
}
