//! What `[defaults]` and an app can both set, and what holds where neither sets it.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::reader::{Reader, Spanned};
use super::sink::{self, SinkDraft};
use super::values::{self, ValueFault};
use crate::config::schema::{DEFAULTS, REFRESH, RETRY};
use crate::domain::{AppPolicy, Endpoint, OnExpiry, OnRemove, Proxy, Rate, Refresh, Retry, SinkKind};

/// What `[defaults]` and an app can both set.
#[derive(Clone, Default)]
pub(crate) struct Inherited {
    endpoint: Option<Endpoint>,
    pub(crate) proxy: Option<Proxy>,
    rate: Option<Rate>,
    at: Option<Spanned<f64>>,
    jitter: Option<Spanned<f64>>,
    min: Option<Spanned<Duration>>,
    max: Option<Spanned<Duration>>,
    on_remove: Option<OnRemove>,
    on_expiry: Option<OnExpiry>,
    enabled: Option<bool>,
    sinks: Option<Arc<[SinkDraft]>>,
}

/// `[defaults]`.
pub(crate) fn defaults(reader: &Reader<'_>, standard_sink: SinkDraft) -> Inherited {
    let mut inherited = read(reader);
    inherited.check(&inherited, reader);
    inherited.sinks.get_or_insert_with(|| Arc::new([standard_sink]));
    inherited
}

/// What an app sets, and `defaults` where it sets nothing.
pub(crate) fn of_app(app: &Reader<'_>, defaults: &Inherited) -> Inherited {
    let own = read(app);
    let all = own.over(defaults);
    own.check(&all, app);
    all
}

/// What a table sets itself.
fn read(reader: &Reader<'_>) -> Inherited {
    let (refresh, retry) = (reader.table("refresh"), reader.table("retry"));
    Inherited {
        endpoint: reader.text("endpoint", endpoint).map(|set| set.value),
        proxy: reader.text("proxy", proxy).map(|set| set.value),
        rate: reader.text("rate", values::rate).map(|set| set.value),
        at: refresh.fraction("at"),
        jitter: refresh.fraction("jitter"),
        min: retry.duration("min"),
        max: retry.duration("max"),
        on_remove: reader.word("on_remove", &[OnRemove::Delete, OnRemove::Keep]).map(|set| set.value),
        on_expiry: reader.word("on_expiry", &[OnExpiry::Keep, OnExpiry::Delete]).map(|set| set.value),
        enabled: reader.boolean("enabled").map(|set| set.value),
        sinks: sink::sinks(reader),
    }
}

impl Inherited {
    /// How tenants are kept fresh.
    pub(crate) fn policy(&self) -> AppPolicy {
        AppPolicy {
            rate: self.rate.unwrap_or_else(|| values::default(&DEFAULTS, "rate", values::rate)),
            refresh: self.refresh(),
            retry: self.retry(),
            enabled: self.enabled.unwrap_or(true),
        }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.endpoint.clone().unwrap_or_else(|| values::default(&DEFAULTS, "endpoint", endpoint))
    }

    pub(crate) fn on_remove(&self) -> OnRemove {
        self.on_remove.unwrap_or(OnRemove::Delete)
    }

    /// What becomes of expired tokens in a sink of this kind.
    pub(crate) fn on_expiry(&self, kind: &SinkKind) -> OnExpiry {
        self.on_expiry.unwrap_or(match kind {
            SinkKind::File(_) => OnExpiry::Keep,
            SinkKind::Keyring(_) => OnExpiry::Delete,
        })
    }

    /// The sinks of tenants that have none of their own.
    pub(crate) fn sinks(&self) -> &[SinkDraft] {
        self.sinks.as_deref().unwrap_or_default()
    }

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
        let value = |set: Option<Spanned<f64>>, key| {
            set.map_or_else(|| values::default(&REFRESH, key, values::fraction), |set| set.value)
        };
        Refresh { at: value(self.at, "at"), jitter: value(self.jitter, "jitter") }
    }

    fn retry(&self) -> Retry {
        let value = |set: Option<Spanned<Duration>>, key| {
            set.map_or_else(|| values::default(&RETRY, key, values::duration), |set| set.value)
        };
        Retry { min: value(self.min, "min"), max: value(self.max, "max") }
    }

    /// Reports what does not fit together in `all`, where this table sets a part of it.
    fn check(&self, all: &Self, reader: &Reader<'_>) {
        let refresh = all.refresh();
        let (from, to) = (refresh.at - refresh.jitter, refresh.at + refresh.jitter);
        // The earliest and the latest due point must lie within the token's life.
        if let Some(set) = self.jitter.or(self.at).filter(|_| from < 0.01 || to > 0.99) {
            reader
                .error(set.at, format!("refreshes would be due from {from:.2} to {to:.2} of a token's life"))
                .help("choose `at` and `jitter` so that at - jitter is at least 0.01, and at + jitter at most 0.99");
        }
        let Retry { min, max } = all.retry();
        if let Some(set) = self.max.or(self.min).filter(|_| min > max) {
            let (min, max) = (humantime::format_duration(min), humantime::format_duration(max));
            reader
                .error(set.at, format!("the first wait, {min}, is longer than the longest, {max}"))
                .help("make `min` smaller or `max` larger");
        }
    }
}

fn endpoint(text: &str) -> Result<Endpoint, ValueFault> {
    Endpoint::new(text).map_err(|error| ValueFault::new(format!(": {error}")))
}

fn proxy(text: &str) -> Result<Proxy, ValueFault> {
    Proxy::new(Zeroizing::new(text.to_owned()))
        .ok_or_else(|| ValueFault::new("is not a proxy's URL").help("write it like \"http://proxy:3128\""))
}
