//! What `[defaults]` and an app can both say, and what holds where neither says it.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::reader::{Fault, Section, Set};
use super::sink::{self, Reading, Sink};
use super::values;
use crate::config::diagnostics::collect::Problems;
use crate::config::parse::merge::Table;
use crate::config::schema;
use crate::domain::{AppPolicy, Endpoint, OnExpiry, OnRemove, Proxy, Rate, Refresh, Retry, SinkKind, SinkSpec};

const ENDPOINT: &str = "https://api.dingtalk.com";
const RATE: Rate = Rate::per_second(15);
const REFRESH: Refresh = Refresh { at: 0.7, jitter: 0.05 };
const RETRY: Retry = Retry { min: Duration::from_secs(1), max: Duration::from_secs(300) };

/// What `[defaults]` and an app can both say.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    endpoint: Option<Endpoint>,
    proxy: Option<Proxy>,
    rate: Option<Rate>,
    at: Option<Set<f64>>,
    jitter: Option<Set<f64>>,
    min: Option<Set<Duration>>,
    max: Option<Set<Duration>>,
    on_remove: Option<OnRemove>,
    on_expiry: Option<OnExpiry>,
    enabled: Option<bool>,
    sinks: Option<Arc<[Sink]>>,
}

/// `[defaults]`.
pub(crate) fn defaults(
    table: Option<&Table<'_>>,
    standard_sink: Sink,
    reading: &Reading<'_>,
    problems: &mut Problems<'_>,
) -> Settings {
    let section = Section::open(table, &schema::DEFAULTS, problems);
    let mut settings = settings(&section, reading, problems);
    check_refresh(&settings, &settings, problems);
    check_retry(&settings, &settings, problems);
    settings.sinks.get_or_insert_with(|| Arc::new([standard_sink]));
    settings
}

/// What an app says, and `defaults` where it says nothing.
pub(crate) fn of_app(
    section: &Section<'_, '_>,
    defaults: &Settings,
    reading: &Reading<'_>,
    problems: &mut Problems<'_>,
) -> Settings {
    let own = settings(section, reading, problems);
    let all = own.over(defaults);
    check_refresh(&own, &all, problems);
    check_retry(&own, &all, problems);
    all
}

impl Settings {
    /// How tenants are kept fresh.
    pub(crate) fn policy(&self) -> AppPolicy {
        AppPolicy {
            rate: self.rate.unwrap_or(RATE),
            refresh: self.refresh(),
            retry: self.retry(),
            enabled: self.enabled.unwrap_or(true),
        }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.endpoint.clone().unwrap_or_else(|| {
            Endpoint::new(ENDPOINT).unwrap_or_else(|_| unreachable!("a constant that the tests read"))
        })
    }

    pub(crate) fn proxy(&self) -> Option<Proxy> {
        self.proxy.clone()
    }

    pub(crate) fn on_remove(&self) -> OnRemove {
        self.on_remove.unwrap_or(OnRemove::Delete)
    }

    /// The sinks of tenants that have none of their own.
    pub(crate) fn sinks(&self) -> Arc<[Sink]> {
        self.sinks.clone().unwrap_or_default()
    }

    /// What an app says, and `defaults` where it says nothing.
    fn over(&self, defaults: &Self) -> Self {
        Self {
            endpoint: self.endpoint.clone().or_else(|| defaults.endpoint.clone()),
            proxy: self.proxy.clone().or_else(|| defaults.proxy.clone()),
            rate: self.rate.or(defaults.rate),
            at: self.at.or(defaults.at),
            jitter: self.jitter.or(defaults.jitter),
            min: self.min.or(defaults.min),
            max: self.max.or(defaults.max),
            on_remove: self.on_remove.or(defaults.on_remove),
            on_expiry: self.on_expiry.or(defaults.on_expiry),
            enabled: self.enabled.or(defaults.enabled),
            sinks: self.sinks.clone().or_else(|| defaults.sinks.clone()),
        }
    }

    fn refresh(&self) -> Refresh {
        Refresh {
            at: self.at.map_or(REFRESH.at, |set| set.value),
            jitter: self.jitter.map_or(REFRESH.jitter, |set| set.value),
        }
    }

    fn retry(&self) -> Retry {
        Retry { min: self.min.map_or(RETRY.min, |set| set.value), max: self.max.map_or(RETRY.max, |set| set.value) }
    }

    /// Sinks with what becomes of expired tokens in them.
    pub(crate) fn specs(&self, sinks: &[Sink]) -> Arc<[SinkSpec]> {
        let by_kind = |kind: &SinkKind| match kind {
            SinkKind::File(_) => OnExpiry::Keep,
            SinkKind::Keyring(_) => OnExpiry::Delete,
        };
        sinks
            .iter()
            .map(|sink| SinkSpec {
                kind: sink.kind.clone(),
                on_expiry: self.on_expiry.unwrap_or_else(|| by_kind(&sink.kind)),
            })
            .collect()
    }
}

/// What a table says for itself.
fn settings(section: &Section<'_, '_>, reading: &Reading<'_>, problems: &mut Problems<'_>) -> Settings {
    let refresh = section.section("refresh", &schema::REFRESH, problems);
    let retry = section.section("retry", &schema::RETRY, problems);
    let waits = Duration::from_millis(100)..=Duration::from_secs(24 * 3600);
    Settings {
        endpoint: section
            .text("endpoint", problems, |text| Endpoint::new(text).map_err(|error| Fault::new(format!(": {error}"))))
            .map(|set| set.value),
        proxy: section.text("proxy", problems, proxy).map(|set| set.value),
        rate: section.text("rate", problems, values::rate).map(|set| set.value),
        at: refresh.fraction("at", problems, 0.05..=0.95),
        jitter: refresh.fraction("jitter", problems, 0.0..=0.5),
        min: retry.duration("min", problems, waits.clone()),
        max: retry.duration("max", problems, waits),
        on_remove: section
            .word("on_remove", problems, &[("delete", OnRemove::Delete), ("keep", OnRemove::Keep)])
            .map(|set| set.value),
        on_expiry: section
            .word("on_expiry", problems, &[("keep", OnExpiry::Keep), ("delete", OnExpiry::Delete)])
            .map(|set| set.value),
        enabled: section.boolean("enabled", problems).map(|set| set.value),
        sinks: section.list("sink", problems).map(|items| sink::sinks(items, reading, problems).into()),
    }
}

fn proxy(text: &str) -> Result<Proxy, Fault> {
    Proxy::new(Zeroizing::new(text.to_owned()))
        .ok_or_else(|| Fault::new("is not a proxy's URL").help("write it like \"http://proxy:3128\""))
}

/// The earliest and the latest due point must lie within the token's life.
fn check_refresh(own: &Settings, all: &Settings, problems: &mut Problems<'_>) {
    let refresh = all.refresh();
    let Some(at) = own.jitter.or(own.at).map(|set| set.at) else { return };
    if refresh.at - refresh.jitter < 0.01 || refresh.at + refresh.jitter > 0.99 {
        let (from, to) = (refresh.at - refresh.jitter, refresh.at + refresh.jitter);
        problems
            .error(at, format!("refreshes would be due from {from:.2} to {to:.2} of a token's life"))
            .help("choose `at` and `jitter` so that at - jitter is at least 0.01, and at + jitter at most 0.99");
    }
}

fn check_retry(own: &Settings, all: &Settings, problems: &mut Problems<'_>) {
    let retry = all.retry();
    let Some(at) = own.max.or(own.min).map(|set| set.at) else { return };
    if retry.min > retry.max {
        let (min, max) = (humantime::format_duration(retry.min), humantime::format_duration(retry.max));
        problems
            .error(at, format!("the first wait, {min}, is longer than the longest, {max}"))
            .help("make `min` smaller or `max` larger");
    }
}
