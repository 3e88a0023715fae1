//! Which call goes first, and what its answer means.
//!
//! - Among those that want to call, whoever has had the least service goes first (start-time fair queueing, each call the
//!   same), so an app with a thousand tenants due does not delay one with a few. Within an app the order is that of
//!   `docs/decisions/0011-order-of-calls.md`.
//! - An app, and a route, may have fewer calls in flight than slots are free: the dynamic threshold of shared-buffer switches
//!   (Choudhury and Hahne, 1998). Whoever takes much leaves as much for the next, and some slots are always free.
//! - Calls whose answer is doubtful, because nothing was heard yet or the last one failed, take half of the slots together;
//!   probes of what is known to be down take a quarter.
//!
//! `docs/decisions/0032-shares-of-the-slots.md` has the reasons and the figures. In come answers and the capacity for calls;
//! out go `Call`, `Commit` and `Discard`. [`CallQueue`], [`Concurrency`], [`Dispatcher`], [`RateLimiter`] and
//! [`Breaker`](breaker::Breaker) know nothing of the engine.

mod app_failure;
pub(crate) mod breaker;
mod call_queue;
mod call_result;
mod concurrency;
mod dispatcher;
mod eligibility;
mod rate_limiter;

use crate::domain::{Now, RouteId, Ticket};
use crate::engine::messages::{Action, Capacity};
use crate::engine::tenants::{Class, Doubt, Phase};
use crate::engine::{AppIx, Engine};
use call_queue::Best;
pub(crate) use call_queue::CallQueue;
pub(crate) use concurrency::Concurrency;
pub(crate) use dispatcher::{CallClaim, Dispatcher, Eligibility, RouteEligibility};
pub(crate) use rate_limiter::RateLimiter;

impl Engine {
    /// The call that goes first, if there is capacity, and the limits allow one.
    pub(crate) fn next_call(&mut self, now: Now, capacity: &Capacity) -> Option<Action> {
        if capacity.calls == 0 || now.boot < self.dispatcher.total.next_at() {
            return None;
        }
        self.dispatcher.max_calls = capacity.max_calls.max(1);
        let free = self.dispatcher.free_slots();
        self.readmit_for_free_slots(now, free);
        let mut set_aside = Vec::new();
        let reserves = free == 1 && self.dispatcher.reserves_last_slot(now.boot);
        let call = self.first_call(now, free, reserves.then_some(&mut set_aside));
        if call.is_some() && !set_aside.is_empty() {
            self.dispatcher.last_slot_left(now.boot);
        }
        for ix in &set_aside {
            self.update_eligibility(now, *ix);
        }
        call.or_else(|| if set_aside.is_empty() { None } else { self.first_call(now, free, None) })
    }

    /// The call that goes first, of those that shares allow. With a `set_aside` to put them, apps whose answer is doubtful
    /// are left for later: they must not take the last slot from one that would give it back soon.
    fn first_call(&mut self, now: Now, free: u32, mut set_aside: Option<&mut Vec<AppIx>>) -> Option<Action> {
        while let Some(&first) = self.dispatcher.eligible.first() {
            let (_, ix, id) = first;
            // Both may have had to wait since they came here: others of the same origin called, or nothing was heard.
            self.update_eligibility(now, ix);
            self.update_route_eligibility(now, id);
            if self.dispatcher.eligible.first() != Some(&first) {
                continue;
            }
            let (on_route, of_app) = (self.route(id).concurrency.in_flight(), self.apps[ix].concurrency.in_flight());
            if self.routes.len() > 1 && on_route >= free {
                self.set_route_eligibility(id, RouteEligibility::AtShare(on_route));
                continue;
            }
            if self.apps.len() > 1 && of_app >= self.left_for_app(id, free) {
                self.set_eligibility(now, ix, Eligibility::AtShare(of_app));
                continue;
            }
            let doubt = self.doubt(now, ix);
            if let Some(doubt) = doubt.filter(|doubt| self.dispatcher.is_full_of(*doubt)) {
                let place = self.dispatcher.next_place();
                self.set_eligibility(now, ix, Eligibility::BehindDoubtful(doubt, place));
                continue;
            }
            match (&mut set_aside, doubt) {
                (Some(set_aside), Some(_)) => {
                    set_aside.push(ix);
                    self.set_eligibility(now, ix, Eligibility::Ineligible);
                }
                _ => return self.begin_call(now, ix, doubt),
            }
        }
        None
    }

    /// How many calls an app of a route may have in flight, with so many slots free. Where the route has a share of its own,
    /// which all its apps want a part of, one of them does not take all of that.
    fn left_for_app(&self, id: RouteId, free: u32) -> u32 {
        let route = self.route(id);
        match self.routes.len() > 1 && route.apps > 1 {
            true => free.saturating_sub(route.concurrency.in_flight()).max(1),
            false => free,
        }
    }

    fn begin_call(&mut self, now: Now, ix: AppIx, doubt: Option<Doubt>) -> Option<Action> {
        let Best { slot, class, .. } = self.next_tenant(now, ix)?;
        let app = &mut self.apps[ix];
        let (path, Eligibility::Eligible(CallClaim { start, .. })) = (app.path, app.eligibility) else { return None };
        // An app that could not be served for a while, though it wanted to, has no claim to all that it missed.
        let start = start.max(self.dispatcher.virtual_time);
        self.dispatcher.virtual_time = start;
        self.dispatcher.call_began(now.boot, doubt);
        app.limiter.take(now.boot);
        app.concurrency.begin(now.boot);
        app.breaker.call_began(now.boot, class == Class::Failing);
        app.attained_service = start + 1;
        let route = self.route_mut(path.route);
        route.concurrency.begin(now.boot);
        let has_failed = route.breaker.has_failed(ix);
        route.breaker.call_began(now.boot, has_failed);
        self.origin_mut(path.origin).take(now.boot);
        self.leave_queue(slot);
        let tenant = &mut self.tenants[slot];
        tenant.phase = Phase::Calling;
        tenant.seq = tenant.seq.wrapping_add(1);
        tenant.called_at = now.boot;
        tenant.stale = false;
        tenant.doubt = doubt;
        let (ticket, held) = (Ticket { slot, seq: tenant.seq }, tenant.token.map(|token| token.fingerprint));
        self.set_eligibility(now, ix, Eligibility::Ineligible);
        self.reevaluate(now, slot);
        self.update_eligibility(now, ix);
        self.update_route_eligibility(now, path.route);
        Some(Action::Call { ticket, id: self.id(slot)?, held })
    }
}
