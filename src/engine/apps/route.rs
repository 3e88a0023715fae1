//! A route: all calls that go the same way. What the way does not carry, it carries for none of its apps.

use std::collections::BTreeSet;

use super::AppIx;
use crate::domain::{BootMs, OriginId};
use crate::engine::breaker::Breaker;
use crate::engine::calls::Share;

#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) origin: OriginId,
    /// Apps whose calls go this way.
    pub(crate) apps: u32,
    /// Opens when several apps fail one after the other, and none is served meanwhile.
    pub(crate) breaker: Breaker<AppIx>,
    pub(crate) share: Share,
    /// Apps that could call now, best first.
    pub(crate) ready: BTreeSet<(Candidate, AppIx)>,
    pub(crate) gate: RouteGate,
}

/// An app's claim to the next call: the smallest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate {
    /// While a probe is wanted: 0 for an app with a tenant that was served before, 1 for one without, 2 for one whose probe
    /// has failed. Else 0.
    pub(crate) rank: u8,
    /// While a probe is wanted: the smaller, the later a tenant of the app was served. Else 0.
    pub(crate) served: u64,
    /// How much service the app has had, as fair queueing counts it.
    pub(crate) start: u64,
    /// The place of its first tenant.
    pub(crate) class: u8,
    pub(crate) key: u64,
}

/// Where a route stands in the competition for calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RouteGate {
    /// None of its apps could call, or it may not until an answer comes.
    Closed,
    /// It may call from this moment on.
    Waiting(BootMs),
    /// It may call; this is its first app's claim.
    Open(Candidate, AppIx),
    /// It has so many calls under way, which is its share while others want slots.
    Squeezed(u32),
}

impl Route {
    pub(crate) fn new(origin: OriginId) -> Self {
        Self {
            origin,
            apps: 0,
            breaker: Breaker::default(),
            share: Share::default(),
            ready: BTreeSet::new(),
            gate: RouteGate::Closed,
        }
    }
}
