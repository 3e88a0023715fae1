//! When the daemon is ready: every tenant had an outcome and every sink an attempt, or 30 seconds have passed.

use crate::domain::{BootMs, TenantState};
use crate::engine::Summary;

/// `READY=1` comes after so long even if some tenant had no outcome yet, in milliseconds.
const READY_AFTER_MS: u64 = 30_000;

/// Whether the daemon is ready.
pub(crate) struct Readiness {
    deadline: BootMs,
    ready: bool,
}

impl Readiness {
    /// Not yet, at a start that began then.
    pub(crate) fn new(started: BootMs) -> Self {
        Self { deadline: started + READY_AFTER_MS, ready: false }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// When it is ready at the latest.
    pub(crate) fn deadline(&self) -> BootMs {
        self.deadline
    }

    /// It is ready from here on.
    pub(crate) fn become_ready(&mut self, summary: &Summary) {
        self.ready = true;
        let (pending, unpublished) =
            (summary.counts.of(TenantState::Pending), summary.counts.of(TenantState::Unpublished));
        let total = summary.counts.total();
        match pending + unpublished {
            0 if total == 0 => tracing::info!(
                event = "ready",
                "ready: no tenants are configured yet; waiting for the config to change"
            ),
            0 if total == 1 => tracing::info!(event = "ready", tenants = total, "ready: 1 tenant"),
            0 => tracing::info!(event = "ready", tenants = total, "ready: {total} tenants"),
            missing => tracing::warn!(
                event = "ready",
                tenants = total,
                missing,
                "ready: {total} tenants, {pending} of them without an outcome yet, {unpublished} not published"
            ),
        }
    }
}
