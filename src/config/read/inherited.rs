//! What `[defaults]` and an app can both say, and what holds where neither says it.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::reader::{Fault, Reader, Spanned};
use super::sink::{self, Context, Sink};
use super::values;
use crate::config::diagnostics::collect::Diagnostics;
use crate::config::parse::merge::Table;
use crate::config::schema;
use crate::domain::{AppPolicy, Endpoint, OnExpiry, OnRemove, Proxy, Rate, Refresh, Retry, SinkKind, SinkSpec};

const ENDPOINT: &str = "https://api.dingtalk.com";
const RATE: Rate = Rate::per_second(15);
const REFRESH: Refresh = Refresh { at: 0.7, jitter: 0.05 };
const RETRY: Retry = Retry { min: Duration::from_secs(1), max: Duration::from_secs(300) };

/// What `[defaults]` and an app can both say.
#[derive(Clone, Default)]
pub(crate) struct Inherited {
    endpoint: Option<Endpoint>,
    proxy: Option<Proxy>,
    rate: Option<Rate>,
    at: Option<Spanned<f64>>,
    jitter: Option<Spanned<f64>>,
    min: Option<Spanned<Duration>>,
    max: Option<Spanned<Duration>>,
    on_remove: Option<OnRemove>,
    on_expiry: Option<OnExpiry>,
    enabled: Option<bool>,
    sinks: Option<Arc<[Sink]>>,
}

/// `[defaults]`.
pub(crate) fn defaults(
    table: Option<&Table<'_>>,
    standard_sink: Sink,
    context: &Context<'_>,
    diagnostics: &mut Diagnostics<'_>,
) -> Inherited {
    let reader = Reader::open(table, &schema::DEFAULTS, diagnostics);
    let mut settings = settings(&reader, context, diagnostics);
    check_refresh(&settings, &settings, diagnostics);
    check_retry(&settings, &settings, diagnostics);
    settings.sinks.get_or_insert_with(|| Arc::new([standard_sink]));
    settings
}

/// What an app says, and `defaults` where it says nothing.
pub(crate) fn of_app(
    reader: &Reader<'_, '_>,
    defaults: &Inherited,
    context: &Context<'_>,
    diagnostics: &mut Diagnostics<'_>,
) -> Inherited {
    let own = settings(reader, context, diagnostics);
    let all = own.over(defaults);
    check_refresh(&own, &all, diagnostics);
    check_retry(&own, &all, diagnostics);
    all
}

impl Inherited {
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
fn settings(reader: &Reader<'_, '_>, context: &Context<'_>, diagnostics: &mut Diagnostics<'_>) -> Inherited {
    let refresh = reader.reader("refresh", &schema::REFRESH, diagnostics);
    let retry = reader.reader("retry", &schema::RETRY, diagnostics);
    let waits = Duration::from_millis(100)..=Duration::from_secs(24 * 3600);
    Inherited {
        endpoint: reader
            .text("endpoint", diagnostics, |text| Endpoint::new(text).map_err(|error| Fault::new(format!(": {error}"))))
            .map(|set| set.value),
        proxy: reader.text("proxy", diagnostics, proxy).map(|set| set.value),
        rate: reader.text("rate", diagnostics, values::rate).map(|set| set.value),
        at: refresh.fraction("at", diagnostics, 0.05..=0.95),
        jitter: refresh.fraction("jitter", diagnostics, 0.0..=0.5),
        min: retry.duration("min", diagnostics, waits.clone()),
        max: retry.duration("max", diagnostics, waits),
        on_remove: reader
            .word("on_remove", diagnostics, &[("delete", OnRemove::Delete), ("keep", OnRemove::Keep)])
            .map(|set| set.value),
        on_expiry: reader
            .word("on_expiry", diagnostics, &[("keep", OnExpiry::Keep), ("delete", OnExpiry::Delete)])
            .map(|set| set.value),
        enabled: reader.boolean("enabled", diagnostics).map(|set| set.value),
        sinks: reader.list("sink", diagnostics).map(|items| sink::sinks(items, context, diagnostics).into()),
    }
}

fn proxy(text: &str) -> Result<Proxy, Fault> {
    Proxy::new(Zeroizing::new(text.to_owned()))
        .ok_or_else(|| Fault::new("is not a proxy's URL").help("write it like \"http://proxy:3128\""))
}

/// The earliest and the latest due point must lie within the token's life.
fn check_refresh(own: &Inherited, all: &Inherited, diagnostics: &mut Diagnostics<'_>) {
    let refresh = all.refresh();
    let Some(at) = own.jitter.or(own.at).map(|set| set.at) else { return };
    if refresh.at - refresh.jitter < 0.01 || refresh.at + refresh.jitter > 0.99 {
        let (from, to) = (refresh.at - refresh.jitter, refresh.at + refresh.jitter);
        diagnostics
            .error(at, format!("refreshes would be due from {from:.2} to {to:.2} of a token's life"))
            .help("choose `at` and `jitter` so that at - jitter is at least 0.01, and at + jitter at most 0.99");
    }
}

fn check_retry(own: &Inherited, all: &Inherited, diagnostics: &mut Diagnostics<'_>) {
    let retry = all.retry();
    let Some(at) = own.max.or(own.min).map(|set| set.at) else { return };
    if retry.min > retry.max {
        let (min, max) = (humantime::format_duration(retry.min), humantime::format_duration(retry.max));
        diagnostics
            .error(at, format!("the first wait, {min}, is longer than the longest, {max}"))
            .help("make `min` smaller or `max` larger");
    }
}
