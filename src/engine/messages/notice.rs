//! What is told to the operator.

use crate::domain::{AppName, Failure, Fingerprint, LaneId, OriginId, RootId, RouteId, SinkFailure, SinkId, TenantId};

/// Whose calls something is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallScope {
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
    Recovered {
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
    AppRecovered {
        /// Which app.
        app: AppName,
    },
    /// An app, or everybody who calls from an origin, calls more slowly.
    Throttled {
        /// Who.
        scope: CallScope,
        /// What the endpoint said.
        failure: Failure,
        /// The share of the configured rate that is left, in percent.
        percent: u8,
    },
    /// No calls at all from an origin for a while.
    Banned {
        /// Which origin.
        origin: OriginId,
        /// What the endpoint said.
        failure: Failure,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// Nobody of an app, or of a route, gets an answer, or an answer asked it to wait: one probe at a time stands for all.
    /// Said at the start, when the kind changes, and once an hour.
    BreakerOpened {
        /// Whose calls.
        scope: CallScope,
        /// What the last one said.
        failure: Failure,
    },
    /// A probe succeeded: all of them resume.
    BreakerClosed {
        /// Whose calls.
        scope: CallScope,
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
    SinkRecovered {
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
    LaneStalled {
        /// Which lane.
        lane: LaneId,
        /// What is known of it.
        failure: SinkFailure,
    },
    /// They do again.
    LaneResumed {
        /// Which lane.
        lane: LaneId,
    },
}
