//! A tenant whose calls fail: what is known of that, and when it is reported.

use std::collections::BTreeMap;

use super::tenant::Standing;
use crate::domain::{Blame, BootMs, Failing, Failure, FailureKind, Now, Slot, Wait, WallMs};
use crate::engine::Engine;
use crate::engine::messages::{Notice, Reminder};

/// A tenant that never had a token, and gets "unknown error" this often, is suspected of a wrong corp_id.
const SUSPECT_AFTER: u16 = 4;

/// Why a tenant's calls fail.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantFailure {
    /// What the last failed call said.
    pub failure: Failure,
    /// When the first one in a row failed.
    pub since: WallMs,
    /// When the last one failed.
    pub at: WallMs,
    /// When the first of those in a row failed in which the endpoint or the path to it may have failed.
    pub(crate) began: BootMs,
    /// The endpoint says no to this tenant, and will go on saying so.
    pub(crate) refused: bool,
    /// How many of them said "unknown error".
    unknown: u16,
    reminder: Reminder<(FailureKind, bool)>,
}

impl TenantFailure {
    fn new(failure: Failure, now: Now) -> Self {
        let reminder = Reminder::new();
        Self { failure, since: now.wall, at: now.wall, began: now.boot, refused: false, unknown: 0, reminder }
    }

    /// One that a predecessor met and reported.
    fn restored(failing: Failing, now: Now) -> Self {
        let Failing { failure, since, at, unknown, refused, .. } = failing;
        let kind = (failure.kind, refused);
        let reminder = if is_reported(failure.kind) { Reminder::reported(now.boot, kind) } else { Reminder::new() };
        Self { failure, since, at, began: now.boot, refused, unknown, reminder }
    }

    /// What a successor should know of it.
    pub(crate) fn to_saved(&self, failures: u16, next: Wait) -> Failing {
        let &Self { since, at, refused, unknown, .. } = self;
        Failing { failure: self.failure.clone(), since, at, failures, unknown, refused, next }
    }
}

/// Whether a failure is reported as its tenant's own: what an app or everybody suffers from is reported elsewhere.
fn is_reported(kind: FailureKind) -> bool {
    matches!(kind.blame(), Blame::Transient | Blame::Suspect | Blame::Tenant)
}

/// The tenants whose calls fail.
#[derive(Debug, Default)]
pub(crate) struct TenantFailures(BTreeMap<Slot, TenantFailure>);

impl TenantFailures {
    pub(crate) fn get(&self, slot: Slot) -> Option<&TenantFailure> {
        self.0.get(&slot)
    }

    /// Takes over what a predecessor knew.
    pub(crate) fn restore(&mut self, now: Now, slot: Slot, failing: Failing) {
        self.0.insert(slot, TenantFailure::restored(failing, now));
    }

    /// A tenant leaves.
    pub(crate) fn forget(&mut self, slot: Slot) {
        self.0.remove(&slot);
    }

    /// Notes why a tenant's call failed.
    pub(crate) fn record(&mut self, now: Now, slot: Slot, failure: &Failure) -> &mut TenantFailure {
        let known = self.0.entry(slot).or_insert_with(|| TenantFailure::new(failure.clone(), now));
        let is_transient =
            |failure: &Failure| failure.kind.blame() == Blame::Transient && failure.kind != FailureKind::ShortLived;
        if is_transient(failure) && !is_transient(&known.failure) {
            known.began = now.boot;
        }
        known.at = now.wall;
        known.failure = failure.clone();
        known
    }

    /// Notes a failure that is the tenant's own. `has_token`: whether it has had one.
    pub(crate) fn record_own(&mut self, now: Now, slot: Slot, failure: &Failure, has_token: bool) {
        let known = self.record(now, slot, failure);
        known.refused = match failure.kind.blame() {
            Blame::Tenant | Blame::App => true,
            Blame::Suspect => {
                known.unknown = known.unknown.saturating_add(1);
                !has_token && known.unknown >= SUSPECT_AFTER
            }
            _ => false,
        };
    }
}

impl Engine {
    /// Whether the endpoint says no to this tenant, and will go on saying so.
    pub(crate) fn is_refused(&self, slot: Slot) -> bool {
        self.tenants.failure(slot).is_some_and(|failure| failure.refused)
    }

    /// How a tenant stands with the endpoint.
    pub(crate) fn standing(&self, slot: Slot) -> Standing {
        match self.tenants.failure(slot) {
            Some(failure) if failure.refused => Standing::Refused,
            Some(failure) if failure.failure.kind == FailureKind::ShortLived => Standing::ShortLived,
            _ => Standing::Good,
        }
    }

    /// Reports a tenant's failure, if it is due.
    pub(crate) fn report_failure(&mut self, now: Now, slot: Slot, failure: Failure) {
        if !is_reported(failure.kind) {
            return;
        }
        let tenant = &self.tenants[slot];
        let (next_in_ms, attempt) = (tenant.due_at.since(now.boot), tenant.failures.max(1));
        let Some(known) = self.tenants.failures.0.get_mut(&slot) else { return };
        let due = known.reminder.is_due(now.boot, (known.failure.kind, known.refused));
        if let Some(tenant) = self.id(slot).filter(|_| due) {
            self.notify(Notice::Failing { tenant, failure, attempt, next_in_ms });
        }
    }

    /// A tenant's calls succeed again.
    pub(crate) fn clear_failure(&mut self, slot: Slot) {
        let attempts = std::mem::take(&mut self.tenants[slot].failures);
        if self.tenants.failures.0.remove(&slot).is_some_and(|failure| failure.reminder.was_reported())
            && let Some(tenant) = self.id(slot)
        {
            self.notify(Notice::Recovered { tenant, attempts });
        }
    }

    /// What a tenant was refused with yesterday's credentials says nothing about today's.
    pub(crate) fn reset_failure_count(&mut self, slot: Slot) {
        self.tenants[slot].failures = 0;
        if let Some(failure) = self.tenants.failures.0.get_mut(&slot) {
            failure.unknown = 0;
        }
        self.clear_saved(slot);
    }
}
