//! State that is persisted besides the tokens: failures, reduced rates, bans, and the waits that follow from them.

use super::failure::{Failure, FailureKind};
use crate::domain::endpoint::OriginId;
use crate::domain::names::{AppName, TenantId};
use crate::domain::time::{BootMs, Now, WallMs};
use crate::domain::token::Fingerprint;

/// What a saved state belongs to. There is at most one saved state for each key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SavedKey {
    /// An origin: this machine's address is banned there. A [`SavedState::Paused`].
    Ban(OriginId),
    /// An origin: it is too busy for our usual pace. A [`SavedState::Slowed`].
    Pace(OriginId),
    /// The same for all origins together, as earlier releases saved a ban. A [`SavedState::Paused`].
    EveryBan,
    /// The same for all origins together, as earlier releases saved their pace. A [`SavedState::Slowed`].
    EveryPace,
    /// An app whose tenants would all fail alike. A [`SavedState::Broken`].
    Breaker(AppName),
    /// An app's rate. A [`SavedState::Slowed`].
    Rate(AppName),
    /// A tenant. A [`SavedState::Failing`] or a [`SavedState::Unextended`].
    Tenant(TenantId),
}

impl SavedKey {
    /// The app that it belongs to, if it belongs to one.
    pub fn app(&self) -> Option<&AppName> {
        match self {
            Self::Ban(_) | Self::Pace(_) | Self::EveryBan | Self::EveryPace => None,
            Self::Breaker(app) | Self::Rate(app) => Some(app),
            Self::Tenant(id) => Some(&id.app),
        }
    }
}

/// One persisted state.
#[derive(Debug, Clone, PartialEq)]
pub enum SavedState {
    /// No calls before the end of this wait.
    Paused(Wait),
    /// Calls are slower than configured.
    Slowed {
        /// The share of the rate in force, in 1024ths.
        share: u16,
        /// No calls before its end.
        hold: Wait,
    },
    /// One probe at a time stands for all tenants of the app.
    Broken {
        /// Why.
        kind: FailureKind,
        /// How many probes have failed.
        probes: u16,
        /// The next one comes at its end.
        probe: Wait,
    },
    /// The tenant's calls fail.
    Failing(Failing),
    /// A call before the token of this fingerprint expires brings the same token with the same expiry.
    Unextended(Fingerprint),
}

/// A tenant whose calls fail.
#[derive(Debug, Clone, PartialEq)]
pub struct Failing {
    /// The last call's failure.
    pub failure: Failure,
    /// When the first one in a row failed.
    pub since: WallMs,
    /// When the last one failed.
    pub at: WallMs,
    /// How many have failed in a row, as backoff counts them.
    pub failures: u16,
    /// How many of them said "unknown error".
    pub unknown: u16,
    /// Whether the endpoint refuses the tenant, and retries are slow.
    pub refused: bool,
    /// The next call comes at its end.
    pub next: Wait,
}

/// A wait that is kept over a restart, and over a reboot, which resets the boot clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// When it was saved.
    pub told: WallMs,
    /// When it is over.
    pub until: WallMs,
}

impl Wait {
    /// A wait from `now` until a moment on the boot clock. If that has passed, its length is 0.
    pub fn until(now: Now, moment: BootMs) -> Self {
        Self { told: now.wall, until: now.wall + moment.since(now.boot) }
    }

    /// The same wait with a length of 0.
    #[must_use]
    pub fn cut_short(self) -> Self {
        Self { until: self.told, ..self }
    }

    /// Its end on the boot clock. If the wall clock was set back since it was saved, the time that has passed is unknown; the wait
    /// then starts again, and never lasts longer than its length.
    pub fn end(self, now: Now) -> BootMs {
        now.boot + self.until.since(self.told).saturating_sub(now.wall.since(self.told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot: u64, wall: u64) -> Now {
        Now { boot: BootMs(boot), wall: WallMs(wall) }
    }

    #[test]
    fn a_wait_goes_on_after_a_restart() {
        let wait = Wait::until(at(1_000, 50_000), BootMs(1_300));
        assert_eq!(wait.end(at(10, 50_100)), BootMs(210));
        assert_eq!(wait.end(at(10, 50_300)), BootMs(10));
        assert_eq!(wait.end(at(10, 99_000)), BootMs(10));
        assert_eq!(wait.cut_short().end(at(10, 50_100)), BootMs(10));
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_wait_longer_than_it_was() {
        let wait = Wait::until(at(1_000, 50_000), BootMs(1_300));
        assert_eq!(wait.end(at(10, 1)), BootMs(310));
    }
}
