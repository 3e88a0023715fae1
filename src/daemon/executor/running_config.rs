//! The config that runs, with the names of its routes and origins, which the engine knows by their ids alone: what holds calls back
//! is put into words here.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use crate::config::{AppConfig, Config};
use crate::control::protocol;
use crate::domain::{FailureKind, Now, OriginId, RouteId, SinkSpec, TenantId, WallMs};
use crate::engine::{CallScope, HeldCalls};

/// The routes and origins of a config, by their ids. An id is a hash of the whole connection, so it is worked out once for
/// each app and config: a thousand apps that are held back cost a thousand look-ups, not a million hashes.
pub(crate) struct RunningConfig {
    pub(crate) config: Arc<Config>,
    routes: HashMap<RouteId, NamedRoute>,
    /// The host of each origin.
    origins: HashMap<OriginId, String>,
}

struct NamedRoute {
    name: String,
    apps: usize,
}

impl RunningConfig {
    pub(crate) fn of(config: Arc<Config>) -> Self {
        let (mut routes, mut origins) = (HashMap::new(), HashMap::new());
        for app in config.apps.values() {
            let path = config.connection(app).path();
            routes.entry(path.route).or_insert_with(|| NamedRoute { name: endpoint_name(app), apps: 0 }).apps += 1;
            origins.entry(path.origin).or_insert_with(|| app.endpoint.authority().to_owned());
        }
        Self { config, routes, origins }
    }

    /// Whether a tenant is published in these sinks.
    pub(crate) fn publishes(&self, id: &TenantId, specs: &Arc<[SinkSpec]>) -> bool {
        let Some(app) = self.config.apps.get(&id.app).filter(|_| self.config.contains(id)) else { return false };
        let today = app.sinks_of(&id.corp_id);
        Arc::ptr_eq(today, specs) || today == specs
    }

    /// The hosts that its apps call, each once.
    pub(crate) fn hosts(&self) -> Vec<&str> {
        let mut hosts: Vec<&str> = self.config.apps.values().map(|app| app.endpoint.host()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }

    /// The kind of a scope, and its name: an app's, an endpoint's URL (and the proxy on the way), a host.
    pub(crate) fn name(&self, scope: &CallScope) -> (&'static str, String) {
        let (kind, name) = match scope {
            CallScope::App(app) => ("app", Some(app.to_string())),
            CallScope::Route(id) => ("route", self.routes.get(id).map(|route| route.name.clone())),
            CallScope::Origin(id) => ("origin", self.origins.get(id).cloned()),
        };
        (kind, name.unwrap_or_else(|| "an endpoint that left the config".to_owned()))
    }

    /// What is wrong, without the moment of the next probe: `the endpoint https://api.dingtalk.com does not answer in time`.
    pub(crate) fn reason(&self, scope: &CallScope, kind: FailureKind) -> String {
        let (_, own_name) = self.name(scope);
        match scope {
            CallScope::Origin(_) => format!("{own_name} has banned this machine's address"),
            CallScope::Route(_) => format!("the endpoint {own_name} {}", does(kind)),
            CallScope::App(app) => match self.config.apps.get(app) {
                // What an app that has its endpoint to itself meets is the endpoint's.
                Some(settings) if self.is_alone(settings) => {
                    format!("the endpoint {} {}", endpoint_name(settings), does(kind))
                }
                Some(settings) => format!("for app {app}, the endpoint {} {}", endpoint_name(settings), does(kind)),
                None => format!("for app {app}, the endpoint {}", does(kind)),
            },
        }
    }

    /// Whether no other app uses the same route.
    fn is_alone(&self, app: &AppConfig) -> bool {
        self.routes.get(&self.config.connection(app).path().route).is_some_and(|route| route.apps == 1)
    }

    /// The reason, with the moment of the next probe.
    pub(crate) fn sentence(&self, hold: &HeldCalls, now: Now) -> String {
        let reason = self.reason(&hold.scope, hold.failure.kind);
        match hold.next_probe.map(|at| at.since(now.wall).div_ceil(1000)) {
            Some(0) => format!("{reason}; the next probe is due"),
            Some(seconds) => {
                format!("{reason}; next probe in {}", humantime::format_duration(Duration::from_secs(seconds)))
            }
            None => format!("{reason}; a probe is under way"),
        }
    }

    /// A hold, as it goes over the socket.
    pub(crate) fn row(&self, hold: &HeldCalls) -> protocol::HoldRow {
        let (scope, name) = self.name(&hold.scope);
        protocol::HoldRow {
            scope: scope.to_owned(),
            name,
            kind: hold.failure.kind.as_str().to_owned(),
            reason: self.reason(&hold.scope, hold.failure.kind),
            since: hold.since.rfc3339(),
            next_probe_at: hold.next_probe.map(WallMs::rfc3339),
        }
    }
}

/// An app's endpoint, and the proxy on the way to it.
fn endpoint_name(app: &AppConfig) -> String {
    let proxy = app.proxy.as_ref().map(|proxy| format!(" (through {proxy})")).unwrap_or_default();
    format!("{}{proxy}", app.endpoint)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Process, Source, Sources};
    use crate::domain::AppName;
    use crate::environment::check;
    use rustix::time::{ClockId, clock_gettime};

    /// Apps with these names and endpoints.
    fn with_endpoints(apps: impl Iterator<Item = (String, String)>) -> RunningConfig {
        let app = |(name, endpoint): (String, String)| {
            format!(
                "[app.{name}]\nclient_id = \"x\"\nclient_secret = {{ env = \"PATH\" }}\nendpoint = \"https://{endpoint}\"\n"
            )
        };
        running(apps.map(app).collect())
    }

    fn running(text: String) -> RunningConfig {
        let checked = check(&Sources::remembered(vec![Source::new("/nowhere/c.toml", text)]), &Process::default());
        RunningConfig::of(Arc::new(checked.config.expect("the config is valid")))
    }

    fn scope(app: &str) -> CallScope {
        CallScope::App(AppName::new(app).unwrap())
    }

    #[test]
    fn what_an_app_meets_is_the_endpoints_where_no_other_app_calls_it() {
        let apps = [("crm", "a"), ("hr", "b"), ("erp", "b")];
        let running = with_endpoints(apps.into_iter().map(|(name, host)| (name.to_owned(), host.to_owned())));
        let reason = |app| running.reason(&scope(app), FailureKind::Timeout);
        assert_eq!(reason("crm"), "the endpoint https://a does not answer in time");
        assert_eq!(reason("hr"), "for app hr, the endpoint https://b does not answer in time");
        let left = running.name(&CallScope::Route(RouteId(1))).1;
        assert_eq!(left, "an endpoint that left the config");
    }

    #[test]
    fn a_tenant_that_left_or_has_other_sinks_is_not_published_in_the_old_ones() {
        let config = |tenants: &str, sink: &str| {
            let text = format!(
                "[app.crm]\nclient_id = \"x\"\nclient_secret = {{ env = \"PATH\" }}\ncorp_ids = {tenants}\n\
                 sink = [{{ file = \"/tokens/{sink}/{{corp_id}}\" }}]\n"
            );
            running(text)
        };
        let both = config("[\"ding1\", \"ding2\"]", "a");
        let specs = Arc::clone(&both.config.apps.values().next().unwrap().sinks);
        let ids = ["crm/ding1", "crm/ding2", "hr/ding1"].map(|id| id.parse().unwrap());
        let published = |config: &RunningConfig| ids.each_ref().map(|id| config.publishes(id, &specs));
        assert_eq!(published(&both), [true, true, false]);
        assert_eq!(published(&config("[\"ding2\"]", "a")), [false, true, false]);
        assert_eq!(published(&config("[\"ding1\", \"ding2\"]", "b")), [false; 3]);
    }

    /// How long it takes to put into words that each of so many apps is held back, each by an endpoint of its own.
    fn time_to_tell(apps: usize) -> Duration {
        let name = |number| format!("a{number}");
        let running = with_endpoints((0..apps).map(|number| (name(number), format!("h{number}"))));
        let processor_time = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
        let begun = processor_time();
        for number in 0..apps {
            running.reason(&scope(&name(number)), FailureKind::Timeout);
        }
        processor_time() - begun
    }

    #[test]
    fn twice_as_many_apps_that_are_held_back_take_about_twice_as_long_to_tell() {
        let (one, two) = (time_to_tell(1_000), time_to_tell(2_000));
        assert!(two < one * 3, "{one:?} for 1,000, and {two:?} for 2,000");
    }
}
