//! How many tenants the limits can keep fresh, and what becomes of the rest.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::diagnostics::collect::{Diagnostics, Span};
use crate::config::environment::Process;
use crate::config::model::Config;
use crate::domain::{AppName, Names, SinkKind};

/// The life that the endpoint documents for a token, in seconds.
const LIFETIME_S: f64 = 7200.0;
/// A token's usual length, in bytes, for the estimate of what the keyrings will hold.
const TOKEN_BYTES: usize = 32;

/// The figures of the whole config.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CapacityReport {
    /// Each app's own.
    pub apps: Vec<AppCapacity>,
    /// All apps together, against `limits.total`.
    pub total: Figures,
}

/// The figures of one app, against its `rate`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AppCapacity {
    /// The app's name.
    pub app: String,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// What a rate can do for so many tenants, with tokens of 7,200 s.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// How many tenants there are.
    pub tenants: usize,
    /// The limit, as in the config.
    pub rate: String,
    /// How many tenants it can renew by the time they are due.
    pub capacity: u64,
    /// How much later than due the last renewal comes, in seconds; 0 within the capacity.
    pub slip_s: u64,
    /// For how long the last tenant has no valid token in each turn, in seconds; 0 while renewals come before expiry.
    pub expired_s: u64,
}

/// The figures of `config`. Apps that are not enabled make no calls, and have no tenants here.
pub fn capacity(config: &Config) -> CapacityReport {
    let mut turn = 0.0;
    let mut all = 0;
    let apps = config
        .apps
        .iter()
        .map(|(name, app)| {
            let tenants = if app.policy.enabled { app.tenants.len() } else { 0 };
            let due_s = LIFETIME_S * app.policy.refresh.at;
            all += tenants;
            turn += count(tenants) / due_s;
            let figures = figures(tenants, app.policy.rate.to_string(), app.policy.rate.hertz(), due_s);
            AppCapacity { app: name.to_string(), figures }
        })
        .collect();
    // The apps' due points, weighted by their tenants.
    let due_s = if all > 0 { count(all) / turn } else { LIFETIME_S * 0.7 };
    let total = figures(all, config.limits.total.to_string(), config.limits.total.hertz(), due_s);
    CapacityReport { apps, total }
}

fn figures(tenants: usize, rate: String, hertz: f64, due_s: f64) -> Figures {
    let turn_s = count(tenants) / hertz;
    let whole = |seconds: f64| {
        // Non-negative and far below 2^53.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped just before")]
        let whole = seconds.max(0.0).round() as u64;
        whole
    };
    Figures {
        tenants,
        rate,
        capacity: whole((hertz * due_s).floor()),
        slip_s: whole(turn_s - due_s),
        expired_s: whole(turn_s - LIFETIME_S),
    }
}

/// Exact: there are fewer tenants than 2^52.
fn count(tenants: usize) -> f64 {
    u32::try_from(tenants).map_or(f64::INFINITY, f64::from)
}

/// Warns where the capacity does not suffice, at the app's table.
pub(crate) fn warn(config: &Config, spans: &BTreeMap<AppName, Span>, process: &Process, diagnostics: &Diagnostics<'_>) {
    let capacity = capacity(config);
    for (app, span) in capacity.apps.iter().zip(spans.values()) {
        if app.figures.tenants as u64 > app.figures.capacity {
            let message = beyond(&format!("the app {} has", app.app), &app.figures);
            diagnostics
                .warning(*span, message)
                .help("split the tenants over several apps, or raise `rate` if it is low");
        }
    }
    let Some(first) = spans.values().next() else { return };
    if capacity.total.tenants as u64 > capacity.total.capacity {
        let message = beyond("all apps together have", &capacity.total);
        let help = "raise `total` in [limits], or use a second machine with another address";
        diagnostics.warning(*first, message).help(help);
    }
    warn_of_keys(config, *first, process, diagnostics);
}

fn beyond(who: &str, figures: &Figures) -> String {
    let Figures { tenants, rate, capacity, slip_s, expired_s } = figures;
    let excess = (*tenants as u64).saturating_sub(*capacity);
    let end = if *expired_s > 0 {
        format!("and tokens are expired for up to {expired_s} s")
    } else {
        "still before expiry".into()
    };
    format!(
        "{who} {tenants} tenants, {excess} more than the {capacity} that {rate} can renew in time: renewals come up to \
         {slip_s} s late, {end}"
    )
}

/// Keys are counted against the user, and so are the keyrings on the way to them.
fn warn_of_keys(config: &Config, mark: Span, process: &Process, diagnostics: &Diagnostics<'_>) {
    let Some(quota) = process.key_quota else { return };
    let (mut keys, mut bytes) = (0u64, 0u64);
    for (name, app) in &config.apps {
        let own = app.overrides.iter().filter(|(_, overrides)| overrides.sinks.is_some());
        let (own_keys, own_bytes) = own.fold((0, 0), |sum, (id, _)| {
            let (keys, bytes) = keys_of(app.sinks_of(id), &app.names_of(name, id));
            (sum.0 + keys, sum.1 + bytes)
        });
        let shared = app.tenants.len() - app.overrides.values().filter(|overrides| overrides.sinks.is_some()).count();
        let sample = app.tenants.first().map_or((0, 0), |id| keys_of(&app.sinks, &app.names_of(name, id)));
        keys += own_keys + sample.0 * shared as u64;
        bytes += own_bytes + sample.1 * shared as u64;
    }
    let user = if process.user == 0 { "root_" } else { "" };
    for (what, needed, limit, sysctl) in
        [("keys", keys, quota.keys, "maxkeys"), ("bytes of keys", bytes, quota.bytes, "maxbytes")]
    {
        if needed > limit {
            let message = format!("the keyring sinks need about {needed} {what}, and the kernel allows {limit}");
            diagnostics.warning(mark, message).help(format!("sysctl kernel.keys.{user}{sysctl}={}", needed * 2));
        }
    }
}

/// How many keys the sinks make for a tenant, and how many bytes the kernel counts for them: description, its NUL, and
/// payload.
fn keys_of(sinks: &[crate::domain::SinkSpec], names: &Names) -> (u64, u64) {
    let descriptions = sinks.iter().filter_map(|sink| match &sink.kind {
        SinkKind::Keyring(keyring) => keyring.path.last().map(|part| part.expand_names(names).len()),
        SinkKind::File(_) => None,
    });
    descriptions.fold((0, 0), |(keys, bytes), length| (keys + 1, bytes + (length + 1 + TOKEN_BYTES) as u64))
}
