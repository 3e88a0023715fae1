//! Which apps and routes may call now, and with which claim.

use super::call_queue::Best;
use super::dispatcher::{CallClaim, Eligibility, RouteEligibility};
use crate::domain::{BootMs, Now, RouteId};
use crate::engine::scheduler::backoff::millis;
use crate::engine::tenants::{Class, Doubt, Phase, Standing};
use crate::engine::{AppIx, Engine};

/// A queue with so many void entries is tidied, on top of two for each tenant.
const UNTIDY: usize = 1024;

impl Engine {
    /// Works out whether an app may call.
    pub(crate) fn update_eligibility(&mut self, now: Now, ix: AppIx) {
        let mut eligibility = self.eligibility(now, ix);
        let app = &self.apps[ix];
        if let (Eligibility::Eligible(_), before) = (eligibility, app.eligibility) {
            match before {
                Eligibility::AtShare(n) if n == app.concurrency.in_flight() => eligibility = before,
                // An app whose answers are no longer doubtful need not wait for doubtful calls.
                Eligibility::BehindDoubtful(doubt, _) if self.doubt(now, ix) == Some(doubt) => eligibility = before,
                _ => {}
            }
        }
        self.set_eligibility(now, ix, eligibility);
    }

    pub(crate) fn set_eligibility(&mut self, now: Now, ix: AppIx, eligibility: Eligibility) {
        let app = &mut self.apps[ix];
        let before = std::mem::replace(&mut app.eligibility, eligibility);
        if eligibility == before {
            return;
        }
        let id = app.path.route;
        self.dispatcher.move_app(ix, before, eligibility);
        let route = self.route_mut(id);
        if let Eligibility::Eligible(claim) = before {
            route.eligible.remove(&(claim, ix));
        }
        if let Eligibility::Eligible(claim) = eligibility {
            route.eligible.insert((claim, ix));
        }
        if matches!(before, Eligibility::Eligible(_)) || matches!(eligibility, Eligibility::Eligible(_)) {
            self.update_route_eligibility(now, id);
        }
    }

    /// Whether an app may call, its share of the slots apart.
    fn eligibility(&mut self, now: Now, ix: AppIx) -> Eligibility {
        let Some(best) = self.next_tenant(now, ix) else { return Eligibility::Ineligible };
        let app = &self.apps[ix];
        let has_failed = best.class == Class::Failing;
        let (own, probe) = (app.next_at(), app.breaker.probe_at(has_failed, self.longest_wait(ix)));
        let share = if app.breaker.is_open() { Some(BootMs(0)) } else { app.concurrency.next_at(now.boot) };
        let (Some(own), Some(probe), Some(share)) = (own, probe, share) else { return Eligibility::Ineligible };
        // With a single slot, a call that hangs is all that happens: others have as much time as it took.
        let is_crammed = self.dispatcher.max_calls == 1 && self.apps.len() > 1;
        let yields = if is_crammed { app.concurrency.yields_until() } else { BootMs(0) };
        let at = own.max(probe).max(share).max(yields);
        if at > now.boot {
            return Eligibility::Waiting(at);
        }
        Eligibility::Eligible(self.claim(ix, best))
    }

    /// An app's claim to the next call.
    fn claim(&self, ix: AppIx, best: Best) -> CallClaim {
        let app = &self.apps[ix];
        let route_breaker = &self.route(app.path.route).breaker;
        let ban = self.origin(app.path.origin).ban();
        // An app's own probe stands for nobody else: it has its turn as any call.
        let stands_for_others = route_breaker.is_open() || ban.is_some();
        let rank = match best.class {
            _ if !stands_for_others => 0,
            Class::Failing => 2,
            _ if route_breaker.has_failed(ix) => 2,
            Class::NoToken => 1,
            _ => 0,
        };
        let start = match app.eligibility {
            Eligibility::Eligible(claim) => claim.start,
            _ => app.attained_service.max(self.dispatcher.virtual_time),
        };
        // Whoever was served last is the likeliest to be well; but whoever has failed since takes turns with the others.
        let by_service = stands_for_others && rank < 2 && ban.is_none_or(|ban| ban.probes == 0);
        let served = if by_service { u64::MAX - app.breaker.served().0 } else { 0 };
        CallClaim { rank, served, start, class: best.class as u8, key: best.key.0 }
    }

    /// The tenant of an app that is to be called first. Where a probe is wanted, those that were served before come first.
    pub(super) fn next_tenant(&mut self, now: Now, ix: AppIx) -> Option<Best> {
        self.end_preference(now, ix);
        let is_probe = self.is_held_back(ix);
        loop {
            let tenants = &self.tenants;
            let app = &mut self.apps[ix];
            let is_current = |slot, stamp| {
                let is_own = |t: &crate::engine::tenants::Tenant| t.app == ix && t.stamp == stamp;
                tenants.get(slot).is_some_and(|t| is_own(t) && matches!(t.phase, Phase::Ready(_)))
            };
            if app.queue.len() > 2 * app.tenants as usize + UNTIDY {
                app.queue.tidy(is_current);
            }
            let best = match is_probe {
                true => app.queue.probe(app.breaker.fresh_probes(), is_current)?,
                false => app.queue.best(is_current)?,
            };
            // Whether failing tenants come last may have changed since it was put there.
            if self.queue_position(now, best.slot).0 == best.class {
                return Some(best);
            }
            self.requeue(now, best.slot);
        }
    }

    /// Whether the tenants of an app whose last call failed let the others go first: hardly anything is answered, and the
    /// others may be.
    pub(crate) fn prefers_healthy(&self, now: Now, ix: AppIx) -> bool {
        let app = &self.apps[ix];
        app.breaker.is_open() || app.concurrency.is_quiet(now.boot) || self.dispatcher.is_full_of(Doubt::Unheard)
    }

    /// Tenants of an app that had to come last take their places again, once that is over.
    fn end_preference(&mut self, now: Now, ix: AppIx) {
        let prefers = self.prefers_healthy(now, ix);
        if std::mem::replace(&mut self.apps[ix].preferred_healthy, prefers) && !prefers {
            for slot in self.apps[ix].queue.take_failing() {
                let is_queued = |t: &crate::engine::tenants::Tenant| t.phase == Phase::Ready(Class::Failing);
                if self.tenants.get(slot).is_some_and(|t| t.app == ix && is_queued(t)) {
                    self.requeue(now, slot);
                }
            }
        }
    }

    /// Why it is doubtful that an app's next call is answered soon, if it is.
    pub(super) fn doubt(&mut self, now: Now, ix: AppIx) -> Option<Doubt> {
        let fails = self.next_tenant(now, ix).is_some_and(|best| {
            self.standing(best.slot) == Standing::Good && self.tenants.failure(best.slot).is_some()
        });
        let app = &self.apps[ix];
        let own = app.concurrency.is_doubtful(now.boot) || app.concurrency.was_given_up();
        let unheard = own || fails || self.route(app.path.route).concurrency.is_doubtful(now.boot);
        match self.is_held_back(ix) {
            true => Some(Doubt::Probe),
            false => unheard.then_some(Doubt::Unheard),
        }
    }

    /// Works out whether a route may carry another call.
    pub(crate) fn update_route_eligibility(&mut self, now: Now, id: RouteId) {
        let mut eligibility = self.route_eligibility(now, id);
        let route = self.route(id);
        if let (RouteEligibility::Eligible(..), RouteEligibility::AtShare(n)) = (eligibility, route.eligibility)
            && n == route.concurrency.in_flight()
        {
            eligibility = route.eligibility;
        }
        self.set_route_eligibility(id, eligibility);
    }

    pub(super) fn set_route_eligibility(&mut self, id: RouteId, eligibility: RouteEligibility) {
        let before = std::mem::replace(&mut self.route_mut(id).eligibility, eligibility);
        if eligibility != before {
            self.dispatcher.move_route(id, before, eligibility);
        }
    }

    fn route_eligibility(&self, now: Now, id: RouteId) -> RouteEligibility {
        let route = self.route(id);
        let Some(&(claim, ix)) = route.eligible.first() else { return RouteEligibility::Ineligible };
        let probe = route.breaker.probe_at(route.breaker.has_failed(ix), self.longest_wait(ix));
        let (Some(probe), Some(origin)) = (probe, self.origin(route.origin).next_at()) else {
            return RouteEligibility::Ineligible;
        };
        match probe.max(origin) {
            at if at > now.boot => RouteEligibility::Waiting(at),
            // Beside other routes it has its turn, even if others always have work.
            _ => RouteEligibility::Eligible(CallClaim { rank: 0, served: 0, ..claim }, ix),
        }
    }

    /// Works out anew whether the apps of a route may call: whether a probe is wanted has changed.
    pub(crate) fn update_eligibility_on_route(&mut self, now: Now, id: RouteId) {
        let eligible: Vec<AppIx> = self.route(id).eligible.iter().map(|(_, ix)| *ix).collect();
        for ix in eligible {
            self.update_eligibility(now, ix);
        }
        self.update_route_eligibility(now, id);
    }

    /// A route is heard of again: those of its apps that waited for doubtful calls because of it need not any more.
    pub(crate) fn readmit_doubtful(&mut self, now: Now, id: RouteId) {
        let waiting = self.dispatcher.behind(Doubt::Unheard);
        let on_route: Vec<AppIx> = waiting.filter(|ix| self.apps[*ix].path.route == id).collect();
        for ix in on_route {
            self.update_eligibility(now, ix);
        }
    }

    /// Readmits the apps and routes whose wait is over.
    pub(crate) fn readmit_due(&mut self, now: Now) {
        while let Some(ix) = self.dispatcher.due_app(now.boot) {
            self.update_eligibility(now, ix);
        }
        while let Some(id) = self.dispatcher.due_route(now.boot) {
            self.update_route_eligibility(now, id);
        }
    }

    /// Readmits those whose share has grown, now that so many slots are free, and those for whom a doubtful call ended.
    pub(super) fn readmit_for_free_slots(&mut self, now: Now, free: u32) {
        while let Some(id) = self.dispatcher.route_below_share(free) {
            self.set_route_eligibility(id, RouteEligibility::Ineligible);
            self.update_route_eligibility(now, id);
        }
        while let Some(ix) = self.dispatcher.app_below_share(free) {
            self.set_eligibility(now, ix, Eligibility::Ineligible);
            self.update_eligibility(now, ix);
        }
        for doubt in Doubt::ALL {
            for _ in 0..self.dispatcher.left_for(doubt) {
                let Some(ix) = self.dispatcher.behind(doubt).next() else { break };
                self.set_eligibility(now, ix, Eligibility::Ineligible);
                self.update_eligibility(now, ix);
            }
        }
    }

    /// How long an app's calls wait for another try at most, as its operator wants it: in milliseconds.
    fn longest_wait(&self, ix: AppIx) -> u64 {
        millis(self.apps[ix].policy.retry.max)
    }
}
