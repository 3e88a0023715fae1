//! Whether the machine's wall clock can be believed.
//!
//! A clock that is earlier than the last commit is wrong: a machine without a battery-backed clock starts in 1970, or when
//! its image was made. Expiries told on it would be nonsense, so it is put forward: to the last commit at first, which was
//! certainly in the past, then to what the endpoints agree on, until somebody sets it right. A clock that is merely
//! askew is warned of: tokens are kept fresh all the same, on the boot clock, but readers see wrong expiries.

use super::server_dates::ServerDates;
use crate::domain::{Now, WallMs};
use crate::system::clock;

/// A skew of so much is worth a warning, in milliseconds.
const SKEW_MS: u64 = 60_000;
/// How often it is warned again, in milliseconds.
const REMIND_MS: u64 = 60 * 60 * 1000;
/// Answers travel, and `Date` counts in seconds: differences below this are none, in milliseconds.
const NOISE_MS: u64 = 2_000;

/// The endpoints are not believed when they say that the last commit is longer ago, in milliseconds: two years. A machine that
/// lay switched off for longer keeps the time of its last commit until somebody sets its clock.
const MOST_AHEAD_MS: u64 = 2 * 366 * 24 * 3600 * 1000;

/// What is thought of the clock.
pub(crate) struct ClockTrust {
    /// The clock is behind this moment, which is in the past: it is not believed.
    distrusted_below: Option<WallMs>,
    /// How far the clock was from the endpoints' when they last agreed, in seconds; positive when the clock is ahead.
    seconds: i64,
    warned: Option<Now>,
    server_dates: ServerDates,
    /// How many hosts are called.
    hosts: usize,
}

/// Whether the time is now told otherwise than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeChange {
    /// As before.
    None,
    /// Otherwise: as if somebody had set the clock.
    Changed,
}

impl ClockTrust {
    /// At the start, before anything is told on the clock.
    pub(crate) fn new(last_commit: Option<WallMs>) -> Self {
        let mut clock_trust =
            Self { distrusted_below: None, seconds: 0, warned: None, server_dates: ServerDates::default(), hosts: 0 };
        if let Some(commit) = last_commit.filter(|commit| clock::machine_wall() < *commit) {
            let machine = clock::machine_wall();
            tracing::warn!(
                event = "clock_distrusted",
                "the clock says {machine}, but the state was last written at {commit}; it is not believed until the endpoint's answers tell the time"
            );
            clock::put_forward_to_certain(commit);
            clock_trust.distrusted_below = Some(commit);
        }
        clock_trust
    }

    /// An answer of this host told the endpoint's time.
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

    /// Whether it can be so late, as long as all that is certain is the last commit.
    fn is_possible(&self, date: WallMs) -> bool {
        self.distrusted_below.is_none_or(|commit| date.since(commit) <= MOST_AHEAD_MS)
    }

    /// What the endpoints say of a clock that is not believed.
    fn learn(&mut self, now: Now, date: WallMs) -> TimeChange {
        let machine = clock::machine_wall();
        if date.0.abs_diff(machine.0) <= SKEW_MS {
            // Then it was wrong when the state was written.
            self.trust("the endpoint's time agrees with the clock: it is believed again");
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
            self.trust("the clock was set, and is believed again");
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
            return Some("the machine's clock is earlier than the last commit; set it (NTP), the endpoint's time is used meanwhile".to_owned());
        }
        let direction = if self.seconds > 0 { "ahead of" } else { "behind" };
        let by = self.seconds.unsigned_abs();
        (by * 1000 > SKEW_MS).then(|| {
            format!("the machine's clock is {by} s {direction} the endpoint's; expiries that readers see are wrong by as much; set it (NTP)")
        })
    }
}
