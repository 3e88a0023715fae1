//! What comes out: actions.

use super::Notice;
use crate::domain::{
    Fingerprint, LaneId, Place, Record, RootId, SavedKey, SavedState, SinkId, SinkSetId, TenantId, Ticket, WallMs,
    WithdrawalId,
};

/// What to do. An action carries all that its execution takes.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Ask the endpoint for this tenant's token, now.
    Call {
        /// Which call.
        ticket: Ticket,
        /// For whom.
        id: TenantId,
        /// The token that the tenant has: a failure must not quote it.
        held: Option<Fingerprint>,
    },
    /// Commit the answer under this ticket, then send `Event::CommitEnded`.
    Commit {
        /// Which answer.
        ticket: Ticket,
        /// Whose token it is.
        id: TenantId,
        /// What is known of it.
        record: Record,
    },
    /// Drop the answer under this ticket: it is late, or brought nothing new.
    Discard(Ticket),
    /// Make a sink of a tenant hold its token.
    Publish(Publish),
    /// Empty a sink of a tenant: its token expired, and `on_expiry` says so.
    Expire(Expire),
    /// Empty a place that no longer belongs to anybody; `Event::Withdrawn` tells how it went.
    Withdraw {
        /// Which withdrawal.
        id: WithdrawalId,
        /// The lane that does it.
        lane: LaneId,
        /// The root that the place lies below.
        root: RootId,
        /// What to empty.
        place: Place,
    },
    /// Every sink has had its attempt: the token of this ticket need not be held in memory.
    Release(Ticket),
    /// Drop what the database holds of this tenant.
    DeleteRecord(TenantId),
    /// Update the times of these tokens in the database, where it still holds them: the wall clock was set.
    UpdateRecords(Vec<(TenantId, Record)>),
    /// Save this over a restart, in place of what was saved under the key; `None`: delete that.
    Save(SavedKey, Option<Box<SavedState>>),
    /// Notify the operator.
    Notify(Notice),
}

/// A publication. Its outcome is an `Event::Published`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Which token.
    pub ticket: Ticket,
    /// Whose.
    pub id: TenantId,
    /// The tenant's sinks...
    pub sinks: SinkSetId,
    /// ...and which of them.
    pub sink: SinkId,
    /// The lane that does it.
    pub lane: LaneId,
    /// The token's fingerprint: it may have to be read from the state, which may hold another one by then.
    pub fingerprint: Fingerprint,
    /// When the token stops working.
    pub expires_at: WallMs,
}

/// The emptying of a sink whose token expired. Its outcome is an `Event::Published`, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expire {
    /// Which token.
    pub ticket: Ticket,
    /// Whose.
    pub id: TenantId,
    /// The tenant's sinks...
    pub sinks: SinkSetId,
    /// ...and which of them.
    pub sink: SinkId,
    /// The lane that does it.
    pub lane: LaneId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_small_enough_to_be_moved_without_a_call() {
        assert!(size_of::<Action>() <= 128, "{} bytes", size_of::<Action>());
    }
}
