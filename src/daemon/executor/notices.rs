//! What the engine wants to tell the operator, as log events: one a happening, with fixed field names.

use std::time::Duration;

use super::super::sinks::registry::SinkRegistry;
use super::running_config::RunningConfig;
use crate::domain::{AppName, Failure, RootId, SinkFailure, SinkId, TenantId};
use crate::engine::{CallScope, Notice};

/// Writes one notice to the log.
pub(crate) fn say(notice: Notice, sinks: &SinkRegistry, ways: &RunningConfig) {
    match notice {
        Notice::Rotated { tenant: TenantId { app, corp_id }, fingerprint, lifetime_s } => tracing::info!(
            event = "rotated", %app, %corp_id, %fingerprint, lifetime_s, "{app}/{corp_id}: new token {fingerprint}, good for {}", seconds(lifetime_s)
        ),
        Notice::Renewed { tenant: TenantId { app, corp_id }, fingerprint, lifetime_s } => tracing::info!(
            event = "renewed", %app, %corp_id, %fingerprint, lifetime_s, "{app}/{corp_id}: token {fingerprint} renewed, good for {}", seconds(lifetime_s)
        ),
        Notice::Failing { tenant, failure, attempt, next_in_ms } => failing(&tenant, &failure, attempt, next_in_ms),
        Notice::Recovered { tenant: TenantId { app, corp_id }, attempts } => {
            let after = after_failures(attempts);
            tracing::info!(event = "mended", %app, %corp_id, attempt = attempts, "{app}/{corp_id}: works again{after}");
        }
        Notice::Expired { tenant: TenantId { app, corp_id } } => {
            tracing::error!(event = "expired", %app, %corp_id, "{app}/{corp_id}: the token expired before it could be renewed");
        }
        Notice::AppBroken { app, failure, next_in_ms } => app_broken(&app, &failure, next_in_ms),
        Notice::AppRecovered { app } => {
            tracing::info!(event = "app_mended", %app, "{app}: the endpoint accepts the app's credentials again")
        }
        Notice::Throttled { scope, failure, percent } => slowed_down(&scope, &failure, percent, ways),
        Notice::Banned { origin, failure, for_ms } => {
            let (code, next_in) = (code(&failure), millis(for_ms));
            let (_, host) = ways.name(&CallScope::Origin(origin));
            tracing::error!(event = "paused", host, code, next_in, "all calls to {host} stop for {next_in}: {failure}");
        }
        Notice::BreakerOpened { scope, failure } => calls_held(&scope, &failure, ways),
        Notice::BreakerClosed { scope } => {
            let (scope, name) = ways.name(&scope);
            tracing::info!(
                event = "calls_resumed",
                scope,
                name,
                "{scope} {name}: calls are answered again; all resume"
            );
        }
        Notice::SinkFailing { root, tenant, failure, next_in_ms } => {
            sink_failing(sinks, root, tenant, &failure, next_in_ms)
        }
        Notice::SinkRecovered { root } => {
            let root = sinks.root(root).display();
            tracing::info!(event = "sink_mended", %root, "publication below {root} works again");
        }
        Notice::SinkRepaired { root, tenant, sink } => sink_repaired(sinks, root, &tenant, sink),
        Notice::SinksRepaired { root, repairs } => {
            let root = sinks.root(root).display();
            tracing::warn!(event = "sinks_repaired", %root, repairs, "{repairs} more places below {root} were set right within a minute");
        }
        Notice::SinkContested { root, tenant, sink } => sink_contested(sinks, root, &tenant, sink),
        Notice::SinkUncontested { root } => {
            let root = sinks.root(root).display();
            tracing::info!(event = "sink_uncontested", %root, "what is published below {root} is left alone again");
        }
        Notice::LaneStalled { lane, failure } => {
            let roots = sinks.roots_of(lane);
            tracing::error!(event = "lane_hangs", kind = failure.kind.as_str(), roots, "{failure}");
        }
        Notice::LaneResumed { lane } => {
            let roots = sinks.roots_of(lane);
            tracing::info!(event = "lane_moves", roots, "publications below {roots} come back again");
        }
    }
}

fn failing(tenant: &TenantId, failure: &Failure, attempt: u16, next_in_ms: u64) {
    let TenantId { app, corp_id } = tenant;
    let (code, requestid) = (code(failure), failure.request_id.as_deref().unwrap_or_default());
    let next_in = millis(next_in_ms);
    tracing::warn!(
        event = "failing", %app, %corp_id, kind = failure.kind.as_str(), code, requestid, attempt, next_in,
        "{tenant}: no token: {failure}; tries again in {next_in}"
    );
}

fn app_broken(app: &AppName, failure: &Failure, next_in_ms: u64) {
    let (code, requestid) = (code(failure), failure.request_id.as_deref().unwrap_or_default());
    let next_in = millis(next_in_ms);
    tracing::error!(
        event = "app_broken", %app, kind = failure.kind.as_str(), code, requestid, next_in,
        "{app}: every tenant of the app would fail alike: {failure}; one is tried again in {next_in}"
    );
}

fn slowed_down(scope: &CallScope, failure: &Failure, percent: u8, ways: &RunningConfig) {
    let code = code(failure);
    match scope {
        CallScope::App(app) => {
            tracing::warn!(event = "slowed_down", %app, code, percent, "{app}: calls slow down to {percent} %: {failure}");
        }
        CallScope::Route(_) | CallScope::Origin(_) => {
            let (_, host) = ways.name(scope);
            tracing::warn!(
                event = "slowed_down",
                app = "everybody",
                host,
                code,
                percent,
                "everybody: calls to {host} slow down to {percent} %: {failure}"
            );
        }
    }
}

fn calls_held(scope: &CallScope, failure: &Failure, ways: &RunningConfig) {
    let (code, requestid) = (code(failure), failure.request_id.as_deref().unwrap_or_default());
    let (reason, (scope, name)) = (ways.reason(scope, failure.kind), ways.name(scope));
    tracing::error!(
        event = "calls_held",
        scope,
        name,
        kind = failure.kind.as_str(),
        code,
        requestid,
        "{reason}: one tenant at a time is tried, at least every 15 seconds as a rule, and all resume when that succeeds: {failure}"
    );
}

fn sink_failing(sinks: &SinkRegistry, root: RootId, tenant: Option<TenantId>, failure: &SinkFailure, next_in_ms: u64) {
    let root = sinks.root(root).display();
    let (app, corp_id) = tenant.as_ref().map_or(("", ""), |id| (id.app.as_str(), id.corp_id.as_str()));
    let next_in = millis(next_in_ms);
    tracing::error!(
        event = "sink_failing", app, corp_id, %root, kind = failure.kind.as_str(), next_in, "{failure}; tries again in {next_in}"
    );
}

fn sink_repaired(sinks: &SinkRegistry, root: RootId, tenant: &TenantId, sink: SinkId) {
    let (TenantId { app, corp_id }, root, sink) = (tenant, sinks.root(root).display(), sink.0);
    tracing::warn!(
        event = "sink_repaired", %app, %corp_id, %root, sink,
        "{tenant}: somebody else had changed what is published below {root}; it is right again"
    );
}

fn sink_contested(sinks: &SinkRegistry, root: RootId, tenant: &TenantId, sink: SinkId) {
    let (TenantId { app, corp_id }, root, sink) = (tenant, sinks.root(root).display(), sink.0);
    tracing::error!(
        event = "sink_contested", %app, %corp_id, %root, sink,
        "{tenant}: somebody else keeps changing what is published below {root}; it is set right ever more slowly, at \
         last once a minute"
    );
}

fn code(failure: &Failure) -> &str {
    failure.code.as_deref().unwrap_or_default()
}

fn seconds(seconds: u32) -> String {
    humantime::format_duration(Duration::from_secs(seconds.into())).to_string()
}

/// Whole seconds: nobody wants to read of milliseconds.
fn millis(ms: u64) -> String {
    humantime::format_duration(Duration::from_secs(ms.div_ceil(1000))).to_string()
}

/// ` after 3 failures`; nothing where none was counted, as after a restart.
fn after_failures(count: u16) -> String {
    match count {
        0 => String::new(),
        1 => " after 1 failure".to_owned(),
        n => format!(" after {n} failures"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_in_words_and_none_are_not_mentioned() {
        assert_eq!([0, 1, 2].map(after_failures), ["", " after 1 failure", " after 2 failures"]);
    }
}
