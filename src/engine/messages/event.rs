//! What goes in: events, and what the shell has room for.

use crate::domain::{
    Change, Failure, Freshness, Grant, LaneId, Place, Rate, Record, RootId, SavedKey, SavedState, SinkFailure, SinkId,
    TenantId, Ticket, WithdrawalId, Wrote,
};

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// One step of a plan.
    Change(Change),
    /// What a predecessor saved of apps, origins and tenants; mostly before they are added.
    Restored(Vec<(SavedKey, SavedState)>),
    /// The limit on all calls together.
    TotalRate(Rate),
    /// A call ended.
    Called(Ticket, Result<Grant, Failure>),
    /// The state turned out to hold these tokens, of tenants that may have none: it could not be read at the start. With
    /// [`Freshness::Stale`], they were obtained with other credentials than those of today.
    TokensFound(Vec<(TenantId, Record)>, Freshness),
    /// The state lost what was saved besides tokens, and takes it again.
    SavedStateLost,
    /// The state lost the tokens that it held, and takes again those that are still in memory.
    RecordsLost,
    /// The database does not hold the token of this ticket, or not whole: it must be called for again.
    TokenLost(Ticket),
    /// A token is in the database, or cannot be for now (it is unwritable, or hangs) and stays in memory: either way it may be
    /// published. Sent once a commit.
    CommitEnded(Ticket),
    /// An `Action::Publish` or `Action::Expire` ended.
    Published(Ticket, SinkId, Result<Wrote, SinkFailure>),
    /// An `Action::Withdraw` ended.
    Withdrawn(WithdrawalId, Result<(), SinkFailure>),
    /// These places belong to nobody any more and are to be emptied: their tenants left while the daemon was down.
    Vacated(Vec<(LaneId, RootId, Place)>),
    /// These places belong to somebody again: their withdrawals, if not done yet, are cancelled.
    Reclaimed(Vec<Place>),
    /// Somebody else changed what was published: the sink must be checked.
    Drifted(Ticket, SinkId),
    /// Nothing that was sent to this lane moves, and has not for a while; the failure that its sinks show.
    LaneStalled(LaneId, SinkFailure),
    /// The lane moves again.
    LaneResumed(LaneId),
    /// The wall clock was set.
    ClockStepped,
}

/// What the shell can take on right now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Calls that may begin.
    pub calls: usize,
    /// Calls that may be in flight in all: shares are computed from it.
    pub max_calls: usize,
    /// Publications, by lane; a lane that is not listed has no capacity.
    pub lanes: Vec<usize>,
}
