//! Whether the machine's wall clock can be trusted.
//!
//! A clock that is earlier than the last commit is wrong: a machine without a battery-backed clock starts in 1970, or when its image
//! was made. Expiries on it would be nonsense, so it is put forward: first to the last commit, which was certainly in the past, then to
//! the time that the endpoints agree on, until somebody sets it. A clock that is off by more than a minute gets a warning: tokens are
//! kept fresh on the boot clock, but readers see wrong expiries.

use super::server_dates::ServerDates;
use crate::domain::{Now, WallMs};
use crate::system::clock;

/// A skew of so much is worth a warning, in milliseconds.
const SKEW_MS: u64 = 60_000;
/// How often it is warned again, in milliseconds.
const REMIND_MS: u64 = 60 * 60 * 1000;
/// Differences below this are noise, in milliseconds: answers travel, and `Date` counts in seconds.
const NOISE_MS: u64 = 2_000;

/// The endpoints are not trusted if they say that the last commit is longer ago, in milliseconds: two years. A machine that was off for
/// longer keeps the time of its last commit until somebody sets its clock.
const MOST_AHEAD_MS: u64 = 2 * 366 * 24 * 3600 * 1000;

/// Whether the clock is trusted, and how far it is off.
pub(crate) struct ClockTrust {
    /// The clock is earlier than this time, which is in the past, so it is not trusted.
    distrusted_below: Option<WallMs>,
    /// How far the clock was from the endpoints' when they last agreed, in seconds; positive when the clock is ahead.
    seconds: i64,
    warned: Option<Now>,
    server_dates: ServerDates,
    /// How many hosts are called.
    hosts: usize,
}

/// Whether the time of [`now`](super::now) jumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeChange {
    /// It did not.
    None,
    /// It did, as if somebody had set the clock.
    Changed,
}

impl ClockTrust {
    /// At the start, before anything uses the clock.
    pub(crate) fn new(last_commit: Option<WallMs>) -> Self {
        let mut clock_trust =
            Self { distrusted_below: None, seconds: 0, warned: None, server_dates: ServerDates::default(), hosts: 0 };
        if let Some(commit) = last_commit.filter(|commit| clock::machine_wall() < *commit) {
            let machine = clock::machine_wall();
            tracing::warn!(
                event = "clock_distrusted",
                "the clock says {machine}, but the state was last written at {commit}; it is not trusted until the endpoint's answers tell the time"
            );
            clock::put_forward_to_certain(commit);
            clock_trust.distrusted_below = Some(commit);
        }
        clock_trust
    }

    /// An answer of this host carried a date.
    pub(crate) fn answered(&mut self, now: Now, host: &str, date: WallMs) -> TimeChange {
        if self.is_possible(date) {
            self.server_dates.record(host, now.boot, date);
        }
        let Some(date) = self.server_dates.agreed(now.boot, self.hosts) else { return TimeChange::None };
        if self.distrusted_below.is_some() {
            return self.learn(now, date);
        }
        self.seconds = (i64::try_from(now.wall.0).unwrap_or(i64::MAX) - i64::try_from(date.0).unwrap_or(0)) / 1000;
        let due = self.warned.is_none_or(|warned| now.boot.since(warned.boot) >= REMIND_MS);
        if let Some(warning) = self.warning().filter(|_| due) {
            tracing::warn!(event = "clock_skew", seconds = self.seconds, "{warning}");
            self.warned = Some(now);
        }
        TimeChange::None
    }

    /// These hosts are called from here on.
    pub(crate) fn use_hosts(&mut self, hosts: &[&str]) {
        self.hosts = hosts.len();
        self.server_dates.keep(hosts);
    }

    /// Whether it can be so late, given the last commit.
    fn is_possible(&self, date: WallMs) -> bool {
        self.distrusted_below.is_none_or(|commit| date.since(commit) <= MOST_AHEAD_MS)
    }

    /// Learns the time of a clock that is not trusted from the endpoints.
    fn learn(&mut self, now: Now, date: WallMs) -> TimeChange {
        let machine = clock::machine_wall();
        if date.0.abs_diff(machine.0) <= SKEW_MS {
            // Then it was wrong when the state was written.
            self.trust("the endpoint's time agrees with the clock: it is trusted again");
            TimeChange::Changed
        } else if date < machine || date.0.abs_diff(now.wall.0) < NOISE_MS {
            TimeChange::None
        } else {
            clock::put_forward(date);
            TimeChange::Changed
        }
    }

    /// Somebody set the clock.
    pub(crate) fn stepped(&mut self) {
        if self.distrusted_below.is_some_and(|floor| clock::machine_wall() >= floor) {
            self.trust("the clock was set, and is trusted again");
        }
    }

    fn trust(&mut self, why: &str) {
        tracing::info!(event = "clock_trusted", "{why}");
        clock::trust();
        self.distrusted_below = None;
    }

    /// What an operator should know of the clock.
    pub(crate) fn warning(&self) -> Option<String> {
        if self.distrusted_below.is_some() {
            return Some("the machine's clock is earlier than the last commit; set it (NTP), the endpoint's time is used until then".to_owned());
        }
        let direction = if self.seconds > 0 { "ahead of" } else { "behind" };
        let by = self.seconds.unsigned_abs();
        (by * 1000 > SKEW_MS).then(|| {
            format!("the machine's clock is {by} s {direction} the endpoint's; expiries that readers see are wrong by as much; set it (NTP)")
        })
    }
}
