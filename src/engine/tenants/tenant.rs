//! One tenant, in 128 bytes.

use crate::domain::{BootMs, CorpId, Fingerprint, SinkSetId, Slot, TenantState, Ticket, WallMs};
use crate::engine::apps::AppIx;
use crate::engine::calls::Doubt;
use crate::engine::publisher::SinkStates;

/// Where a tenant stands between two calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing to do before its timer.
    Waiting,
    /// It stands in its app's queue, in this class.
    Ready(Class),
    /// Its call is under way.
    Calling,
}

/// The order among tenants that are due, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Its token has expired: of all deadlines its own is the earliest. A tenant that has waited [`PATIENCE_MS`] for its first
    /// token stands here as well.
    Lapsed,
    /// Its token is valid, with less than a tenth of its life left.
    Urgent,
    /// It never had a token, or the endpoint refuses it one.
    Without,
    /// Its token is valid for a while yet.
    Early,
    /// Its calls fail: it has failed a few times in a row, or once, and its app is hardly answered at the moment.
    Tried,
}

/// How a tenant stands with the endpoint, as far as its place in the queue depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It gets tokens, or may well get one.
    Good,
    /// The endpoint refuses it one.
    Refused,
    /// Its tokens live too short to be kept fresh: it lets all go first that have one to keep.
    ShortLived,
}

/// Newcomers let those go first that have a token to lose, however many both are, but not for ever: in milliseconds. With
/// less of the limits in use than all of them, a newcomer never waits so long.
pub(crate) const PATIENCE_MS: u64 = 4 * 3600 * 1000;

/// What is known of the token that a tenant has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    /// Which call brought it.
    pub(crate) seq: u32,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) requested_at: WallMs,
    pub(crate) expires_at: WallMs,
    /// The same moment as `expires`, on the clock that does not step.
    pub(crate) expires_boot: BootMs,
    /// It came from the state: its life was told on the wall clock, which is right even if `expires_boot` is not.
    pub(crate) restored: bool,
}

impl Held {
    /// Its whole life, in milliseconds.
    pub(crate) fn lifetime_ms(&self) -> u64 {
        self.expires_at.since(self.requested_at)
    }

    /// From when on less than a tenth of its life is left.
    pub(crate) fn urgent_at(&self) -> BootMs {
        self.expires_boot - self.lifetime_ms() / 10
    }
}

/// On two cache lines that are fetched together: a refresh is a dozen looks at it, minutes after the last.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Tenant {
    pub(crate) corp_id: CorpId,
    /// Of app and corp_id. Wherever its slot is, its jitter is drawn from this.
    pub(crate) hash: u32,
    pub(crate) app: AppIx,
    pub(crate) sink_set: SinkSetId,
    pub(crate) sinks: SinkStates,
    pub(crate) held: Option<Held>,
    /// The latest call's number. It goes on counting when the slot gets a new owner.
    pub(crate) seq: u32,
    pub(crate) phase: Phase,
    /// As counted in the app's summary.
    pub(crate) state: TenantState,
    /// Failures in a row.
    pub(crate) failures: u16,
    /// The next call is due; in [`Phase::Waiting`] only.
    pub(crate) due: BootMs,
    /// When the latest call was sent.
    pub(crate) called: BootMs,
    /// Which entry in its app's queue is its own; older ones are void. It goes on counting when the slot gets a new owner.
    pub(crate) stamp: u32,
    /// The credentials changed since the latest call was sent.
    pub(crate) stale: bool,
    /// The call under way was made before the tenant left the config and came back; its answer is not the tenant's.
    pub(crate) disowned: bool,
    /// It left the config while a call was under way; the slot is free when the call ends.
    pub(crate) gone: bool,
    /// The state remembers something of it besides its token.
    pub(crate) remembered: bool,
    /// It was said that the token that it holds expired.
    pub(crate) expiry_said: bool,
    /// Why the answer to the call under way was doubtful, if it was.
    pub(crate) doubt: Option<Doubt>,
    /// When it is to be looked at again, or [`IDLE`].
    pub(crate) timer: BootMs,
}

/// A timer that is not set.
pub(crate) const IDLE: BootMs = BootMs(u64::MAX);

impl Tenant {
    /// Whether its token works at this moment.
    pub(crate) fn is_valid(&self, now: BootMs) -> bool {
        self.held.is_some_and(|held| now < held.expires_boot)
    }

    /// Its place among tenants that are due, and its key there: the earlier, the sooner it is called.
    pub(crate) fn place(&self, now: BootMs, standing: Standing) -> (Class, BootMs) {
        match self.held {
            Some(_) if standing == Standing::ShortLived && now < self.due + PATIENCE_MS => {
                (Class::Early, self.due + PATIENCE_MS)
            }
            Some(held) if now < held.urgent_at() => (Class::Early, held.expires_boot),
            Some(held) if now < held.expires_boot => (Class::Urgent, held.expires_boot),
            Some(held) if standing == Standing::Good => (Class::Lapsed, held.expires_boot),
            _ if now >= self.due + PATIENCE_MS => (Class::Lapsed, self.due + PATIENCE_MS),
            _ => (Class::Without, self.due),
        }
    }

    /// The ticket of the token that it holds.
    pub(crate) fn ticket(&self, slot: Slot) -> Option<Ticket> {
        self.held.map(|held| Ticket { slot, seq: held.seq })
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
