//! What ails a tenant, and when it is worth a line in the log.

use super::tenant::Standing;
use crate::domain::{Blame, BootMs, Failing, Failure, FailureKind, Now, Slot, Wait, WallMs};
use crate::engine::Engine;
use crate::engine::messages::Notice;
use crate::engine::scheduler::backoff;

/// A tenant that never had a token, and gets "unknown error" this often, is suspected of a wrong corp_id.
const SUSPECT_AFTER: u16 = 4;
/// How often a failure that goes on is said again, in milliseconds.
pub(crate) const REMIND_MS: u64 = 60 * 60 * 1000;

/// What ails a tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantFailure {
    /// What the last failed call said.
    pub failure: Failure,
    /// When the first one in a row failed.
    pub since: WallMs,
    /// When the last one failed.
    pub at: WallMs,
    /// When the first of those in a row failed in which the endpoint or the way to it may have failed.
    pub(crate) began: BootMs,
    pub(crate) refused: bool,
    /// How many of them said "unknown error".
    unknown: u16,
    said: Option<((FailureKind, bool), BootMs)>,
}

impl TenantFailure {
    fn new(failure: Failure, now: Now) -> Self {
        Self { failure, since: now.wall, at: now.wall, began: now.boot, refused: false, unknown: 0, said: None }
    }

    /// One that a predecessor had, and told of.
    pub(crate) fn recalled(failing: Failing, now: Now) -> Self {
        let Failing { failure, since, at, unknown, refused, .. } = failing;
        let said = is_told(failure.kind).then_some(((failure.kind, refused), now.boot));
        Self { failure, since, at, began: now.boot, refused, unknown, said }
    }

    /// What a successor should know of it.
    pub(crate) fn to_remember(&self, failures: u16, next: Wait) -> Failing {
        let Self { failure, since, at, refused, unknown, .. } = self;
        let (failure, unknown, refused) = (failure.clone(), *unknown, *refused);
        Failing { failure, since: *since, at: *at, failures, unknown, refused, next }
    }

    /// Whether this trouble is to be said now: at its start, when its kind changes, and once an hour.
    fn is_news(&mut self, now: Now) -> bool {
        let kind: (FailureKind, bool) = (self.failure.kind, self.refused);
        let news = self.said.is_none_or(|(said, at)| said != kind || now.boot.since(at) >= REMIND_MS);
        if news {
            self.said = Some((kind, now.boot));
        }
        news
    }
}

/// Whether a tenant's failure is told as its own: what an app or everybody suffers from is said elsewhere.
fn is_told(kind: FailureKind) -> bool {
    matches!(kind.blame(), Blame::Transient | Blame::Suspect | Blame::Tenant)
}

impl Engine {
    /// Counts a failure of the tenant's and returns how long exponential backoff would wait.
    pub(crate) fn count_failure(&mut self, now: Now, slot: Slot, failure: &Failure) -> u64 {
        let key = self.tenants[slot].hash.into();
        let retry = self.app(self.tenants[slot].app).policy.retry;
        let tenant = &mut self.tenants[slot];
        let failures = tenant.failures;
        tenant.failures = failures.saturating_add(1);
        let is_new = tenant.held.is_none();
        let trouble = self.note_trouble(now, slot, failure);
        trouble.refused = match failure.kind.blame() {
            Blame::Tenant | Blame::App => true,
            Blame::Suspect => {
                trouble.unknown = trouble.unknown.saturating_add(1);
                is_new && trouble.unknown >= SUSPECT_AFTER
            }
            _ => false,
        };
        backoff::wait_ms(retry, failures, backoff::hash([self.seed, key, failures.into()]))
    }

    /// Remembers, for `status`, what became of a tenant's call.
    pub(crate) fn note_trouble(&mut self, now: Now, slot: Slot, failure: &Failure) -> &mut TenantFailure {
        let trouble = self.troubles.entry(slot).or_insert_with(|| TenantFailure::new(failure.clone(), now));
        trouble.at = now.wall;
        let is_transient =
            |failure: &Failure| failure.kind.blame() == Blame::Transient && failure.kind != FailureKind::ShortLived;
        if is_transient(failure) && !is_transient(&trouble.failure) {
            trouble.began = now.boot;
        }
        trouble.failure = failure.clone();
        trouble
    }

    /// Whether the endpoint says no to this tenant, and will go on saying so.
    pub(crate) fn is_refused(&self, slot: Slot) -> bool {
        self.troubles.get(&slot).is_some_and(|trouble| trouble.refused)
    }

    /// How a tenant stands with the endpoint.
    pub(crate) fn standing(&self, slot: Slot) -> Standing {
        match self.troubles.get(&slot) {
            Some(trouble) if trouble.refused => Standing::Refused,
            Some(trouble) if trouble.failure.kind == FailureKind::ShortLived => Standing::ShortLived,
            _ => Standing::Good,
        }
    }

    /// Says a tenant's failure, if that is news.
    pub(crate) fn complain(&mut self, now: Now, slot: Slot, failure: Failure) {
        if !is_told(failure.kind) {
            return;
        }
        let next_in_ms = self.tenants[slot].due.since(now.boot);
        let attempt = self.tenants[slot].failures.max(1);
        let news = self.troubles.get_mut(&slot).is_some_and(|trouble| trouble.is_news(now));
        if let Some(tenant) = self.id(slot).filter(|_| news) {
            self.say(Notice::Failing { tenant, failure, attempt, next_in_ms });
        }
    }

    /// A tenant's trouble is over.
    pub(crate) fn mend(&mut self, slot: Slot) {
        let attempts = std::mem::take(&mut self.tenants[slot].failures);
        if self.troubles.remove(&slot).is_some_and(|trouble| trouble.said.is_some())
            && let Some(tenant) = self.id(slot)
        {
            self.say(Notice::Recovered { tenant, attempts });
        }
    }

    /// What a tenant was refused with the credentials of yesterday says nothing about those of today.
    pub(crate) fn forgive(&mut self, slot: Slot) {
        self.tenants[slot].failures = 0;
        if let Some(trouble) = self.troubles.get_mut(&slot) {
            trouble.unknown = 0;
        }
        self.forget_trouble(slot);
    }
}
