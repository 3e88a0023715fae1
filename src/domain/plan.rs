//! The part of a config that the engine needs, and the steps from one config to the next.

use std::time::Duration;

use super::endpoint::CallPath;
use super::names::{AppName, CorpId, TenantId};
use super::sink::{LaneId, OnExpiry, Place, RootId};
use super::time::Rate;
use super::token::Record;

/// When a token's refresh is due: at the fraction `at` of its lifetime, plus or minus the fraction `jitter`. It may come earlier, by
/// a thousandth of the lifetime or one second, whichever is longer, so that tenants due at about the same time are refreshed
/// together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Refresh {
    /// A fraction of the lifetime.
    pub at: f64,
    /// A fraction of the lifetime.
    pub jitter: f64,
}

/// Exponential backoff after transient failures, and the shortest time between two calls for one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The first wait.
    pub min: Duration,
    /// The longest wait.
    pub max: Duration,
}

/// What happens to the sinks of a tenant that was removed from the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnRemove {
    /// They are deleted.
    Delete,
    /// They stay as they are.
    Keep,
}

/// How an app's tenants are kept fresh.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AppPolicy {
    /// The most calls for this app; they are spaced evenly.
    pub rate: Rate,
    /// When a refresh is due.
    pub refresh: Refresh,
    /// What happens after a failure.
    pub retry: Retry,
    /// `false`: no calls; the sinks stay.
    pub enabled: bool,
}

/// A list of sinks that tenants share; the shell numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SinkSetId(pub u32);

/// What the engine knows of one sink of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkPolicy {
    /// Failures are counted and retried by root.
    pub root: RootId,
    /// Which lane does the work.
    pub lane: LaneId,
    /// Whether a later expiry of the same token must be published there too.
    pub shows_expiry: bool,
    /// What becomes of a token there that expires.
    pub on_expiry: OnExpiry,
}

/// Whether a tenant's token was obtained with the current credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It was.
    Current,
    /// The credentials changed since: fetch a new token, and keep the old one until that succeeds.
    Stale,
}

/// One step from the running config to the new one. Steps are small, so that a reload of a million tenants can be applied a
/// thousand at a time.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A set of sinks exists from here on.
    SinkSet {
        /// Its number.
        id: SinkSetId,
        /// Its sinks, in order.
        sinks: Box<[SinkPolicy]>,
    },
    /// An app exists, or has this policy from here on.
    App {
        /// Which.
        name: AppName,
        /// How its tenants are kept fresh.
        policy: AppPolicy,
        /// The route and the origin of its calls.
        path: CallPath,
        /// [`Freshness::Stale`]: all its tenants are fetched anew.
        freshness: Freshness,
    },
    /// A tenant exists from here on.
    Added {
        /// Which.
        id: TenantId,
        /// Where it is published.
        sinks: SinkSetId,
        /// Its record in the database, if there is one.
        record: Option<Record>,
    },
    /// A tenant's sinks are these from here on; it is published again without a call.
    SinksChanged {
        /// Which.
        id: TenantId,
        /// Where it is published.
        sinks: SinkSetId,
        /// The places that no longer belong to it and shall be emptied.
        withdraw: Vec<(LaneId, RootId, Place)>,
    },
    /// A tenant is removed.
    Removed {
        /// Which.
        id: TenantId,
        /// The places that shall be emptied.
        withdraw: Vec<(LaneId, RootId, Place)>,
    },
    /// An app is removed; its tenants were removed before.
    AppGone {
        /// Which.
        name: AppName,
    },
}

impl Change {
    /// The tenant that this step is about, if it is about one.
    pub fn tenant(&self) -> Option<(&AppName, &CorpId)> {
        match self {
            Self::Added { id, .. } | Self::SinksChanged { id, .. } | Self::Removed { id, .. } => {
                Some((&id.app, &id.corp_id))
            }
            Self::SinkSet { .. } | Self::App { .. } | Self::AppGone { .. } => None,
        }
    }
}
