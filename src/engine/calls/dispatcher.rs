//! Who waits for which reason to call, and how many calls are in flight.
//!
//! Every app and every route is eligible to call, or waits: for a moment, for its share of the slots to grow, or for one of
//! the doubtful calls to end. Each reason has an ordered set, so that whoever may call next is found without a search.

use std::collections::BTreeSet;

use super::RateLimiter;
use crate::domain::{BootMs, Rate, RouteId};
use crate::engine::AppIx;
use crate::engine::tenants::Doubt;

/// For so long doubtful calls leave the last slot to others, in milliseconds: the others may never be done.
const RESERVE_MS: u64 = 60_000;

/// Whether an app may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eligibility {
    /// It has nothing to call for, or may not call until an answer comes.
    Ineligible,
    /// It may call from this moment on.
    Waiting(BootMs),
    /// It may call, as far as it is concerned: its claim among the apps of its route.
    Eligible(CallClaim),
    /// It has so many calls in flight, which is its share while others want slots.
    AtShare(u32),
    /// Too many doubtful calls are in flight; it has this place among those who wait for one of them to end.
    BehindDoubtful(Doubt, u64),
}

/// Whether a route may carry another call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RouteEligibility {
    /// None of its apps could call, or none may until an answer comes.
    Ineligible,
    /// It may call from this moment on.
    Waiting(BootMs),
    /// It may call; this is its first app's claim.
    Eligible(CallClaim, AppIx),
    /// It has so many calls in flight, which is its share while others want slots.
    AtShare(u32),
}

/// An app's claim to the next call: the smallest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CallClaim {
    /// While a probe is wanted: 0 for an app with a tenant that was served before, 1 for one without, 2 for one whose probe
    /// has failed. Else 0.
    pub(super) rank: u8,
    /// While a probe is wanted: the smaller, the later a tenant of the app was served. Else 0.
    pub(super) served: u64,
    /// How much service the app has had, as start-time fair queueing counts it.
    pub(super) start: u64,
    /// The queue position of its first tenant.
    pub(super) class: u8,
    pub(super) key: u64,
}

impl Doubt {
    pub(super) const ALL: [Self; 2] = [Self::Unheard, Self::Probe];

    /// How many such calls may be in flight, of `most` in all.
    fn most(self, most: usize) -> usize {
        match self {
            Self::Unheard => (most / 2).max(1),
            Self::Probe => (most / 4).max(1),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Dispatcher {
    /// The limit on all calls together.
    pub(crate) total: RateLimiter,
    /// How many calls may be in flight, as of the last poll.
    pub(super) max_calls: usize,
    /// Calls in flight, and those of them that are doubtful.
    in_flight: usize,
    doubtful: [usize; 2],
    /// Since when doubtful calls have left the last slot to others.
    reserved_since: Option<BootMs>,
    /// The attained service of whoever was served last.
    pub(super) virtual_time: u64,
    pub(super) eligible: BTreeSet<(CallClaim, AppIx, RouteId)>,
    waiting: BTreeSet<(BootMs, AppIx)>,
    waiting_routes: BTreeSet<(BootMs, RouteId)>,
    at_share: BTreeSet<(u32, AppIx)>,
    routes_at_share: BTreeSet<(u32, RouteId)>,
    behind_doubtful: [BTreeSet<(u64, AppIx)>; 2],
    /// The last place that was given behind doubtful calls.
    last_place: u64,
}

impl Dispatcher {
    pub(crate) fn new(total: Rate, now: BootMs) -> Self {
        Self {
            total: RateLimiter::new(total, now),
            max_calls: 0,
            in_flight: 0,
            doubtful: [0; 2],
            reserved_since: None,
            virtual_time: 0,
            eligible: BTreeSet::new(),
            waiting: BTreeSet::new(),
            waiting_routes: BTreeSet::new(),
            at_share: BTreeSet::new(),
            routes_at_share: BTreeSet::new(),
            behind_doubtful: [BTreeSet::new(), BTreeSet::new()],
            last_place: 0,
        }
    }

    /// How many slots are free; one at least, since the shell has room for a call.
    pub(super) fn free_slots(&self) -> u32 {
        u32::try_from(self.max_calls.saturating_sub(self.in_flight)).unwrap_or(u32::MAX).max(1)
    }

    pub(super) fn call_began(&mut self, now: BootMs, doubt: Option<Doubt>) {
        self.total.take(now);
        self.in_flight += 1;
        if let Some(doubt) = doubt {
            self.doubtful[doubt as usize] += 1;
            self.reserved_since = None;
        }
    }

    pub(crate) fn call_ended(&mut self, doubt: Option<Doubt>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(doubt) = doubt {
            let doubtful = &mut self.doubtful[doubt as usize];
            *doubtful = doubtful.saturating_sub(1);
        }
    }

    /// Whether as many such calls are in flight as may be.
    pub(super) fn is_full_of(&self, doubt: Doubt) -> bool {
        self.left_for(doubt) == 0
    }

    /// How many more such calls may begin. All kinds together leave a slot free, where there are two.
    pub(super) fn left_for(&self, doubt: Doubt) -> usize {
        let all = (self.max_calls * 3 / 4).max(1).saturating_sub(self.doubtful.iter().sum());
        doubt.most(self.max_calls).saturating_sub(self.doubtful[doubt as usize]).min(all)
    }

    /// Whether doubtful calls leave the last slot to others at this moment.
    pub(super) fn reserves_last_slot(&self, now: BootMs) -> bool {
        self.reserved_since.is_none_or(|since| now.since(since) < RESERVE_MS)
    }

    /// A doubtful call let another one have the last slot.
    pub(super) fn last_slot_left(&mut self, now: BootMs) {
        self.reserved_since.get_or_insert(now);
    }

    /// A place behind those that wait already.
    pub(super) fn next_place(&mut self) -> u64 {
        self.last_place += 1;
        self.last_place
    }

    /// An app's eligibility changed.
    pub(super) fn move_app(&mut self, ix: AppIx, from: Eligibility, to: Eligibility) {
        match from {
            Eligibility::Ineligible | Eligibility::Eligible(_) => {}
            Eligibility::Waiting(at) => _ = self.waiting.remove(&(at, ix)),
            Eligibility::AtShare(n) => _ = self.at_share.remove(&(n, ix)),
            Eligibility::BehindDoubtful(doubt, place) => _ = self.behind_doubtful[doubt as usize].remove(&(place, ix)),
        }
        match to {
            Eligibility::Ineligible | Eligibility::Eligible(_) => {}
            Eligibility::Waiting(at) => _ = self.waiting.insert((at, ix)),
            Eligibility::AtShare(n) => _ = self.at_share.insert((n, ix)),
            Eligibility::BehindDoubtful(doubt, place) => _ = self.behind_doubtful[doubt as usize].insert((place, ix)),
        }
    }

    /// A route's eligibility changed.
    pub(super) fn move_route(&mut self, id: RouteId, from: RouteEligibility, to: RouteEligibility) {
        match from {
            RouteEligibility::Ineligible => {}
            RouteEligibility::Waiting(at) => _ = self.waiting_routes.remove(&(at, id)),
            RouteEligibility::AtShare(n) => _ = self.routes_at_share.remove(&(n, id)),
            RouteEligibility::Eligible(claim, ix) => _ = self.eligible.remove(&(claim, ix, id)),
        }
        match to {
            RouteEligibility::Ineligible => {}
            RouteEligibility::Waiting(at) => _ = self.waiting_routes.insert((at, id)),
            RouteEligibility::AtShare(n) => _ = self.routes_at_share.insert((n, id)),
            RouteEligibility::Eligible(claim, ix) => _ = self.eligible.insert((claim, ix, id)),
        }
    }

    /// An app whose wait is over.
    pub(super) fn due_app(&self, now: BootMs) -> Option<AppIx> {
        self.waiting.first().filter(|(at, _)| *at <= now).map(|(_, ix)| *ix)
    }

    /// A route whose wait is over.
    pub(super) fn due_route(&self, now: BootMs) -> Option<RouteId> {
        self.waiting_routes.first().filter(|(at, _)| *at <= now).map(|(_, id)| *id)
    }

    /// An app whose share has grown beyond its calls in flight, now that so many slots are free.
    pub(super) fn app_below_share(&self, free: u32) -> Option<AppIx> {
        self.at_share.first().filter(|(n, _)| *n < free).map(|(_, ix)| *ix)
    }

    /// A route whose share has grown beyond its calls in flight, now that so many slots are free.
    pub(super) fn route_below_share(&self, free: u32) -> Option<RouteId> {
        self.routes_at_share.first().filter(|(n, _)| *n < free).map(|(_, id)| *id)
    }

    /// The apps that wait for such a call to end, in their order.
    pub(super) fn behind(&self, doubt: Doubt) -> impl Iterator<Item = AppIx> {
        self.behind_doubtful[doubt as usize].iter().map(|(_, ix)| *ix)
    }

    /// When time alone will make a call possible that is not possible now.
    pub(crate) fn next_at(&self, now: BootMs) -> Option<BootMs> {
        let total = self.total.next_at();
        if !self.eligible.is_empty() {
            return (total > now).then_some(total);
        }
        let app = self.waiting.first().map(|(at, _)| *at);
        let route = self.waiting_routes.first().map(|(at, _)| *at);
        [app, route].into_iter().flatten().min().map(|at| at.max(total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dispatcher(max_calls: usize) -> Dispatcher {
        Dispatcher { max_calls, ..Dispatcher::new(Rate::per_second(10), BootMs(0)) }
    }

    #[test]
    fn doubtful_calls_take_half_of_the_slots_and_probes_a_quarter() {
        let mut dispatcher = dispatcher(64);
        (0..32).for_each(|_| dispatcher.call_began(BootMs(0), Some(Doubt::Unheard)));
        assert!(dispatcher.is_full_of(Doubt::Unheard));
        assert_eq!(dispatcher.left_for(Doubt::Probe), 16);
        (0..16).for_each(|_| dispatcher.call_began(BootMs(0), Some(Doubt::Probe)));
        assert!(dispatcher.is_full_of(Doubt::Probe));
        assert_eq!(dispatcher.free_slots(), 16, "a quarter is never doubtful");
        dispatcher.call_ended(Some(Doubt::Unheard));
        assert_eq!((dispatcher.left_for(Doubt::Unheard), dispatcher.free_slots()), (1, 17));
    }

    #[test]
    fn an_app_waits_in_one_place_at_a_time() {
        let (mut dispatcher, ix) = (dispatcher(4), AppIx(7));
        let steps = [
            Eligibility::Waiting(BootMs(100)),
            Eligibility::AtShare(2),
            Eligibility::BehindDoubtful(Doubt::Probe, 1),
            Eligibility::Ineligible,
        ];
        let mut before = Eligibility::Ineligible;
        for step in steps {
            dispatcher.move_app(ix, before, step);
            before = step;
            let waits = dispatcher.due_app(BootMs(100)).is_some();
            let (at_share, behind) = (dispatcher.app_below_share(3), dispatcher.behind(Doubt::Probe).count());
            assert_eq!(waits, matches!(step, Eligibility::Waiting(_)));
            assert_eq!(at_share.is_some(), matches!(step, Eligibility::AtShare(_)));
            assert_eq!(behind == 1, matches!(step, Eligibility::BehindDoubtful(..)));
        }
        assert!(dispatcher.due_app(BootMs(99)).is_none() && dispatcher.app_below_share(2).is_none());
    }
}
