//! What the config asks of the engine, and how one config differs from the next.

use std::time::Duration;

use super::endpoint::CallPath;
use super::names::{AppName, CorpId, TenantId};
use super::sink::{LaneId, OnExpiry, Place, RootId};
use super::time::Rate;
use super::token::Record;

/// When, within a token's life, its refresh is due: at `at` of the lifetime, plus or minus `jitter` of it; and up to a
/// thousandth of it, or a second where that is longer, earlier, so that neighbours are refreshed together.
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

/// What becomes of the sinks of a tenant that left the config.
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

/// Whether the token that a tenant has can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It was obtained with the credentials of today.
    Current,
    /// The credentials changed: fetch anew, and keep the old token until that succeeds.
    Stale,
}

/// One step from the config that runs to the config that is wanted. Steps are small, so that a reload of a million
/// tenants can be applied a thousand at a time.
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
        /// Which way its calls go.
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
        /// What the state knows of it, if anything.
        record: Option<Record>,
    },
    /// A tenant's sinks are these from here on; it is published again without a call.
    SinksChanged {
        /// Which.
        id: TenantId,
        /// Where it is published.
        sinks: SinkSetId,
        /// The places that no longer belong to it and are to be emptied.
        withdraw: Vec<(LaneId, RootId, Place)>,
    },
    /// A tenant is gone.
    Removed {
        /// Which.
        id: TenantId,
        /// The places that are to be emptied.
        withdraw: Vec<(LaneId, RootId, Place)>,
    },
    /// An app is gone; its tenants were removed before.
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
