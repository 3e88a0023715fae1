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
    /// What the state remembers of apps and tenants that are yet to be added, and of everybody.
    Restored(Vec<(SavedKey, SavedState)>),
    /// The limit on all calls together is this from here on.
    TotalRate(Rate),
    /// A call ended.
    Called(Ticket, Result<Grant, Failure>),
    /// The state turned out to hold these tokens, of tenants that may have none: it could not be read at the start. With
    /// [`Freshness::Stale`], they were obtained with other credentials than those of today.
    TokensFound(Vec<(TenantId, Record)>, Freshness),
    /// The state lost what it was to remember, and takes it again.
    SavedStateLost,
    /// The state lost the tokens that it held, and takes again those that are still in memory.
    RecordsLost,
    /// The database does not hold the token of this ticket, or not whole: it must be fetched anew.
    TokenLost(Ticket),
    /// A token is in the database, or cannot be for now (it is unwritable, or hangs) and stays in memory: either way it may be
    /// published. Told once.
    CommitEnded(Ticket),
    /// An [`Action::Publish`] or [`Action::Expire`] ended.
    Published(Ticket, SinkId, Result<Wrote, SinkFailure>),
    /// An [`Action::Withdraw`] ended.
    Withdrawn(WithdrawalId, Result<(), SinkFailure>),
    /// These places belong to nobody any more and are to be emptied: their tenants left while the daemon was down.
    Vacated(Vec<(LaneId, RootId, Place)>),
    /// These places belong to somebody again: withdrawals of them that have not succeeded yet are off.
    Reclaimed(Vec<Place>),
    /// Somebody else changed what was published; it must be looked at again.
    Drifted(Ticket, SinkId),
    /// Nothing that was sent to this lane moves, and has not for a while; how that is told.
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
    /// Calls that may be under way at all: what shares of it are reckoned from.
    pub max_calls: usize,
    /// Publications, by lane; a lane that is not listed has no room.
    pub lanes: Vec<usize>,
}
