//! What comes out: actions.

use super::Notice;
use crate::domain::{LaneId, Place, Record, RootId, SavedKey, SavedState, SinkId, TenantId, Ticket};

/// Names one withdrawal that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WithdrawId(pub u32);

/// What to do.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Ask the endpoint for this tenant's token, now.
    Call(Ticket),
    /// Commit the answer under this ticket, then send [`Event::CommitEnded`]. The tenant is named, since its slot may be another's
    /// by the time that this is carried out.
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
    /// Make this sink of the tenant hold the token of this ticket.
    Publish(Ticket, SinkId),
    /// Empty this sink of the tenant: its token expired, and `on_expiry` says so.
    Expire(Ticket, SinkId),
    /// Empty a place that no longer belongs to anybody; [`Event::Withdrawn`] tells how it went.
    Withdraw {
        /// Which withdrawal.
        id: WithdrawId,
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
    /// Tell the times of these tokens anew in the database, where it still holds them: the wall clock was set.
    UpdateRecords(Vec<(TenantId, Record)>),
    /// Keep this over a restart, in place of what was to be remembered so far; `None`: nothing any more.
    Save(SavedKey, Option<Box<SavedState>>),
    /// Tell the operator.
    Notify(Notice),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_small_enough_to_be_moved_without_a_call() {
        assert!(size_of::<Action>() <= 128, "{} bytes", size_of::<Action>());
    }
}
