//! What systemd hears of us. Without `NOTIFY_SOCKET` nobody listens, and all of it is nothing.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::domain::BootMs;
use crate::engine::{State, Summary};

/// `STATUS=` is told at most this often, in milliseconds.
const STATUS_EVERY_MS: u64 = 1000;

/// The service, as systemd sees it.
pub(super) struct Service {
    /// How often `WATCHDOG=1` is wanted: half of `WATCHDOG_USEC`.
    beat_ms: Option<u64>,
    beat_at: BootMs,
    status: String,
    status_at: BootMs,
}

impl Service {
    pub(super) fn from_env(now: BootMs) -> Self {
        let beat_ms = sd_notify::watchdog_enabled().map(|period| millis(period / 2).max(1));
        Self { beat_ms, beat_at: now, status: String::new(), status_at: BootMs(0) }
    }

    /// When the scheduler must come by again, whatever else happens.
    pub(super) fn next_beat(&self) -> Option<BootMs> {
        self.beat_ms.map(|_| self.beat_at)
    }

    /// The scheduler came by. Nothing else calls this: a scheduler that stands still gets the daemon restarted.
    pub(super) fn beat(&mut self, now: BootMs) {
        if let Some(every) = self.beat_ms.filter(|_| now >= self.beat_at) {
            tell(&[NotifyState::Watchdog]);
            self.beat_at = now + every;
        }
    }

    /// Whether a status may be told at this moment, so that working one out is worth it.
    pub(super) fn may_tell_status(&self, now: BootMs) -> bool {
        now >= self.may_tell_status_at() || self.status_at == BootMs(0)
    }

    /// When one may be told again.
    pub(super) fn may_tell_status_at(&self) -> BootMs {
        self.status_at + STATUS_EVERY_MS
    }

    /// Tells the status, if it is another.
    pub(super) fn status(&mut self, now: BootMs, status: String) {
        self.status_at = now;
        if status != self.status {
            tell(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }
}

/// Every outcome is in, or we do not wait for the rest any longer.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A reload begins. Both lines go in one datagram, or systemd takes the moment for another reload's.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(moment) => tell(&[NotifyState::Reloading, moment]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The end begins.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// `3 fresh, 1 refused; worst: crm/ding1 is refused`.
pub(super) fn status_line(summary: &Summary, worst: Option<&str>, complaint: Option<&str>) -> String {
    let counts: Vec<String> = State::ALL
        .iter()
        .rev()
        .map(|&state| (summary.counts.of(state), state.as_str()))
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    let mut line = if counts.is_empty() { "no tenants are configured".to_owned() } else { counts.join(", ") };
    if let Some(worst) = worst {
        line.push_str("; worst: ");
        line.push_str(worst);
    }
    if let Some(complaint) = complaint {
        line.push_str("; ");
        line.push_str(complaint);
    }
    line
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(event = "notify_failed", "cannot tell systemd: {error}");
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
