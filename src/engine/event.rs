//! What goes in and what comes out.

use crate::domain::{
    AppName, Change, Failure, Fingerprint, Freshness, Grant, LaneId, Memory, OriginId, Place, Rate, Record, RootId,
    RouteId, SinkFailure, SinkId, Subject, TenantId, Ticket, Wrote,
};

/// Names one withdrawal that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WithdrawId(pub u32);

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// One step of a plan.
    Change(Change),
    /// What the state remembers of apps and tenants that are yet to be added, and of everybody.
    Recalled(Vec<(Subject, Memory)>),
    /// The limit on all calls together is this from here on.
    Limit(Rate),
    /// A call ended.
    Called(Ticket, Result<Grant, Failure>),
    /// The state turned out to hold these tokens, of tenants that may have none: it could not be read at the start. With
    /// [`Freshness::Stale`], they were obtained with other credentials than those of today.
    Found(Vec<(TenantId, Record)>, Freshness),
    /// The state lost what it was to remember, and takes it again.
    Forgotten,
    /// The database does not hold the token of this ticket, or not whole: it must be fetched anew.
    Lost(Ticket),
    /// A token is in the database, or cannot be for now (it is unwritable, or hangs) and stays in memory: either way it may be
    /// published. Told once.
    Kept(Ticket),
    /// An [`Action::Publish`] or [`Action::Expire`] ended.
    Published(Ticket, SinkId, Result<Wrote, SinkFailure>),
    /// An [`Action::Withdraw`] ended.
    Withdrawn(WithdrawId, Result<(), SinkFailure>),
    /// These places belong to nobody any more and are to be emptied: their tenants left while the daemon was down.
    Vacated(Vec<(LaneId, RootId, Place)>),
    /// These places belong to somebody again: withdrawals of them that have not succeeded yet are off.
    Reclaimed(Vec<Place>),
    /// Somebody else changed what was published; it must be looked at again.
    Touched(Ticket, SinkId),
    /// Nothing that was sent to this lane moves, and has not for a while; how that is told.
    LaneHangs(LaneId, SinkFailure),
    /// The lane moves again.
    LaneMoves(LaneId),
    /// The wall clock was set.
    ClockStepped,
}

/// What to do.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Ask the endpoint for this tenant's token, now.
    Call(Ticket),
    /// Commit the answer under this ticket, then send [`Event::Kept`]. The tenant is named, since its slot may be another's
    /// by the time that this is carried out.
    Keep {
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
    Forget(TenantId),
    /// Tell the times of these tokens anew in the database, where it still holds them: the wall clock was set.
    Amend(Vec<(TenantId, Record)>),
    /// Keep this over a restart, in place of what was to be remembered so far; `None`: nothing any more.
    Remember(Subject, Option<Box<Memory>>),
    /// Tell the operator.
    Say(Notice),
}

/// Whose calls something is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Those of an app's tenants.
    App(AppName),
    /// Those of all apps whose calls go this way.
    Route(RouteId),
    /// Those of all apps that this endpoint sees calling from the same address.
    Origin(OriginId),
}

/// What an operator wants to hear of.
#[derive(Debug, PartialEq)]
pub enum Notice {
    /// A tenant has a token that it did not have before.
    Rotated {
        /// Whose.
        tenant: TenantId,
        /// Which token.
        fingerprint: Fingerprint,
        /// For how long, in seconds.
        lifetime_s: u32,
    },
    /// A tenant's token lives longer.
    Renewed {
        /// Whose.
        tenant: TenantId,
        /// Which token.
        fingerprint: Fingerprint,
        /// For how long, in seconds.
        lifetime_s: u32,
    },
    /// A tenant's calls fail: said at the start, when the kind changes, and once an hour.
    Failing {
        /// Whose.
        tenant: TenantId,
        /// What the last one said.
        failure: Failure,
        /// How many have failed in a row.
        attempt: u16,
        /// When the next one is due, in milliseconds from now.
        next_in_ms: u64,
    },
    /// A tenant's calls succeed again.
    Mended {
        /// Whose.
        tenant: TenantId,
        /// How many had failed in a row.
        attempts: u16,
    },
    /// A token expired before it could be renewed.
    Expired {
        /// Whose.
        tenant: TenantId,
    },
    /// Every tenant of an app would fail alike; one probe stands for all.
    AppBroken {
        /// Which app.
        app: AppName,
        /// What the endpoint said.
        failure: Failure,
        /// When the next probe is due, in milliseconds from now.
        next_in_ms: u64,
    },
    /// An app's calls succeed again.
    AppMended {
        /// Which app.
        app: AppName,
    },
    /// An app, or everybody who calls from an origin, calls more slowly.
    SlowedDown {
        /// Who.
        scope: Scope,
        /// What the endpoint said.
        failure: Failure,
        /// The share of the configured rate that is left, in percent.
        percent: u8,
    },
    /// No calls at all from an origin for a while.
    Paused {
        /// Which origin.
        origin: OriginId,
        /// What the endpoint said.
        failure: Failure,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// Nobody of an app, or of a route, gets an answer, or an answer asked it to wait: one probe at a time stands for all.
    /// Said at the start, when the kind changes, and once an hour.
    CallsHeld {
        /// Whose calls.
        scope: Scope,
        /// What the last one said.
        failure: Failure,
    },
    /// A probe succeeded: all of them resume.
    CallsResume {
        /// Whose calls.
        scope: Scope,
    },
    /// Publication below a sink root fails: said at the start, when the kind changes, and once an hour.
    SinkFailing {
        /// Which root.
        root: RootId,
        /// A tenant that it happened to, where it was a publication.
        tenant: Option<TenantId>,
        /// What the last one said.
        failure: SinkFailure,
        /// When the next attempt is due, in milliseconds from now.
        next_in_ms: u64,
    },
    /// Publication below a sink root succeeds again.
    SinkMended {
        /// Which root.
        root: RootId,
    },
    /// A place that somebody else had touched is right again. When there are many, some are counted instead:
    /// [`Notice::SinksRepaired`].
    SinkRepaired {
        /// Below which root.
        root: RootId,
        /// Whose place.
        tenant: TenantId,
        /// Which of the tenant's sinks.
        sink: SinkId,
    },
    /// So many more places below a root were set right within the last minute.
    SinksRepaired {
        /// Which root.
        root: RootId,
        /// How many.
        repairs: u32,
    },
    /// Somebody else keeps changing what is published below a root: it is set right more slowly. Said of the first place.
    SinkContested {
        /// Which root.
        root: RootId,
        /// Whose place it is about.
        tenant: TenantId,
        /// Which of the tenant's sinks.
        sink: SinkId,
    },
    /// What is published below a root is left alone again.
    SinkUncontested {
        /// Which root.
        root: RootId,
    },
    /// Publications to a lane do not come back.
    LaneHangs {
        /// Which lane.
        lane: LaneId,
        /// What is known of it.
        failure: SinkFailure,
    },
    /// They do again.
    LaneMoves {
        /// Which lane.
        lane: LaneId,
    },
}

/// What the shell can take on right now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Room {
    /// Calls that may begin.
    pub calls: usize,
    /// Calls that may be under way at all: what shares of it are reckoned from.
    pub calls_most: usize,
    /// Publications, by lane; a lane that is not listed has no room.
    pub lanes: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_small_enough_to_be_moved_without_a_call() {
        assert!(size_of::<Action>() <= 128, "{} bytes", size_of::<Action>());
    }
}
