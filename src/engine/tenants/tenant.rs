//! One tenant, in 128 bytes.

use super::sink_states::SinkStates;
use crate::domain::{BootMs, CorpId, Fingerprint, Now, Record, SinkSetId, Slot, TenantState, Ticket, WallMs};
use crate::engine::AppIx;

/// Where a tenant stands between two calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It has nothing to do before its timer.
    Waiting,
    /// It is in its app's queue, in this class.
    Ready(Class),
    /// Its call is in flight.
    Calling,
}

/// The order among tenants that are due, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Its token has expired: of all deadlines its own is the earliest. So is that of a tenant that has waited
    /// [`MAX_YIELD_MS`] for its first token.
    Expired,
    /// Its token is valid, with less than a tenth of its life left.
    Urgent,
    /// It never had a token, or the endpoint refuses it one.
    NoToken,
    /// Its token is valid for a while yet.
    Early,
    /// Its calls fail: it has failed a few times in a row, or once, and its app is hardly answered at the moment.
    Failing,
}

/// How a tenant stands with the endpoint, as far as its place in the queue depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It gets tokens, or may well get one.
    Good,
    /// The endpoint refuses it one.
    Refused,
    /// Its tokens live too short to be kept fresh: all others go first that have one to keep.
    ShortLived,
}

/// Why it is doubtful that a call is answered soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doubt {
    /// Its app or its route has not answered yet, or not for a while; or the last call for its tenant failed.
    Unheard,
    /// It is a probe of what is down.
    Probe,
}

/// For so long, in milliseconds, a newcomer lets those go first that have a token to lose, however many they are. While the
/// limits are not all used up, no newcomer waits so long.
pub(crate) const MAX_YIELD_MS: u64 = 4 * 3600 * 1000;

/// What is known of the token that a tenant has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenInfo {
    /// The number of the call that brought it.
    pub(crate) seq: u32,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) requested_at: WallMs,
    pub(crate) expires_at: WallMs,
    /// The moment of `expires_at` on the clock that does not step.
    pub(crate) expires_boot: BootMs,
    /// It came from the state, which has its life on the wall clock: that is right even if `expires_boot` is not.
    pub(crate) restored: bool,
}

impl TokenInfo {
    /// A token from the state. If the wall clock is wrong today, the token still has no more than its whole life ahead.
    pub(crate) fn restored(record: Record, seq: u32, now: Now) -> Self {
        let Record { requested_at, expires_at, fingerprint } = record;
        let latest = now.boot + expires_at.since(requested_at);
        let expires_boot = Record::on_boot_clock(expires_at, now).min(latest);
        Self { seq, fingerprint, requested_at, expires_at, expires_boot, restored: true }
    }

    pub(crate) fn record(&self) -> Record {
        Record { requested_at: self.requested_at, expires_at: self.expires_at, fingerprint: self.fingerprint }
    }

    /// Its whole life, in milliseconds.
    pub(crate) fn lifetime_ms(&self) -> u64 {
        self.expires_at.since(self.requested_at)
    }

    /// From when on less than a tenth of its life is left.
    pub(crate) fn urgent_at(&self) -> BootMs {
        self.expires_boot - self.lifetime_ms() / 10
    }
}

/// On two cache lines that are fetched together: a refresh looks at it a dozen times, minutes after the last.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Tenant {
    pub(crate) corp_id: CorpId,
    /// The hash of app and corp_id, whatever its slot: its jitter is drawn from this.
    pub(crate) hash: u32,
    pub(crate) app: AppIx,
    pub(crate) sink_set: SinkSetId,
    pub(crate) sinks: SinkStates,
    pub(crate) token: Option<TokenInfo>,
    /// The latest call's number. It goes on counting when the slot gets a new owner.
    pub(crate) seq: u32,
    pub(crate) phase: Phase,
    /// As counted in the app's summary.
    pub(crate) state: TenantState,
    /// Failures in a row.
    pub(crate) failures: u16,
    /// When the next call is due; in [`Phase::Waiting`] only.
    pub(crate) due_at: BootMs,
    /// When the latest call was sent.
    pub(crate) called_at: BootMs,
    /// The stamp of its entry in its app's queue; others are void. It goes on counting when the slot gets a new owner.
    pub(crate) stamp: u32,
    /// The credentials changed since the latest call was sent.
    pub(crate) stale: bool,
    /// The call in flight was sent before the tenant left the config and came back; its answer is not the tenant's.
    pub(crate) call_is_obsolete: bool,
    /// It left the config; its slot is free once nothing of it is in flight.
    pub(crate) removed: bool,
    /// The state holds something of it besides its token.
    pub(crate) is_saved: bool,
    /// The expiry of its token was reported.
    pub(crate) expiry_reported: bool,
    /// Why the answer to the call in flight was doubtful, if it was.
    pub(crate) doubt: Option<Doubt>,
    /// When its timer fires, or [`IDLE`].
    pub(crate) timer: BootMs,
}

/// A timer that is not set.
pub(crate) const IDLE: BootMs = BootMs(u64::MAX);

impl Tenant {
    /// Whether its token works at this moment.
    pub(crate) fn is_valid(&self, now: BootMs) -> bool {
        self.token.is_some_and(|token| now < token.expires_boot)
    }

    /// Its class among tenants that are due, and its key there: the earlier, the sooner it is called.
    pub(crate) fn queue_position(&self, now: BootMs, standing: Standing) -> (Class, BootMs) {
        let yields_until = self.due_at + MAX_YIELD_MS;
        match self.token {
            Some(_) if standing == Standing::ShortLived && now < yields_until => (Class::Early, yields_until),
            Some(token) if now < token.urgent_at() => (Class::Early, token.expires_boot),
            Some(token) if now < token.expires_boot => (Class::Urgent, token.expires_boot),
            Some(token) if standing == Standing::Good => (Class::Expired, token.expires_boot),
            _ if now >= yields_until => (Class::Expired, yields_until),
            _ => (Class::NoToken, self.due_at),
        }
    }

    /// The ticket of the token that it has.
    pub(crate) fn ticket(&self, slot: Slot) -> Option<Ticket> {
        self.token.map(|token| Ticket { slot, seq: token.seq })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_takes_no_more_than_its_share_of_memory() {
        assert!(size_of::<Tenant>() <= 128, "{} bytes", size_of::<Tenant>());
    }
}
