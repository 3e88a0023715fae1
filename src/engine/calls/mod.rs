//! Which call goes first: the competition of apps and routes for the calls that may be under way.
//!
//! - Among those who want to call, whoever has had the least service goes first (start-time fair queueing, every call the
//!   same), so an app with a thousand tenants due does not delay one with a few. Within an app the order is that of
//!   `docs/decisions/0011-order-of-calls.md`.
//! - An app, and a route, may have fewer calls under way than slots are free: the dynamic threshold of shared-buffer switches
//!   (Choudhury and Hahne, 1998). Whoever takes much leaves as much for the next, and some slots are always free.
//! - Calls whose answer is doubtful, as long as nothing was heard or because the last one failed, take half of the slots
//!   together; probes of what is known to be down take a quarter.
//!
//! `docs/decisions/0032-shares-of-the-slots.md` has the reasons and the figures.

mod app_failure;
mod call_queue;
mod call_result;
mod concurrency;
mod rate_limiter;
mod short_lived;

pub(crate) use call_queue::Queue;
pub(crate) use concurrency::Share;
pub(crate) use rate_limiter::Limiter;

use std::collections::BTreeSet;

use crate::domain::{BootMs, Now, RouteId, Slot, Ticket};
use crate::engine::Engine;
use crate::engine::apps::{App, AppIx, Candidate, Route, RouteGate};
use crate::engine::messages::{Action, Capacity};
use crate::engine::scheduler::backoff::millis;
use crate::engine::tenants::{Class, Phase, Standing, Table};
use call_queue::Best;

/// A queue with so many void entries is tidied, on top of two for each tenant.
const UNTIDY: usize = 1024;
/// For so long a doubtful call lets others have the last slot, in milliseconds: they may never be done.
const PASSED_OVER_MS: u64 = 60_000;

/// Where an app stands in the competition for calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// It has nothing to call for, or may not until an answer comes.
    Closed,
    /// It may call from this moment on.
    Waiting(BootMs),
    /// It may call, as far as it is concerned: its claim among those of its route.
    Ready(Candidate),
    /// It has so many calls under way, which is its share while others want slots.
    Squeezed(u32),
    /// Too many doubtful calls are under way; it has this place among those who wait for one of them to end.
    Crowded(Doubt, u64),
}

/// Why it is doubtful that a call is answered soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doubt {
    /// Its app or its route has not answered yet, or not for a while; or the last call for its tenant failed.
    Unheard,
    /// It is a probe of what is down.
    Probe,
}

impl Doubt {
    const ALL: [Self; 2] = [Self::Unheard, Self::Probe];

    /// How many such calls may be under way, of `most` in all.
    fn most(self, most: usize) -> usize {
        match self {
            Self::Unheard => (most / 2).max(1),
            Self::Probe => (most / 4).max(1),
        }
    }
}

/// Who waits for what, and what is under way.
#[derive(Debug, Default)]
pub(crate) struct Competition {
    /// How many calls may be under way, as of the last look.
    most: usize,
    /// Calls under way, and those of them that are doubtful.
    in_flight: usize,
    doubtful: [usize; 2],
    /// Since when doubtful calls have let others have the last slot.
    passed_over: Option<BootMs>,
    /// The service that whoever was served last had had.
    served: u64,
    open: BTreeSet<(Candidate, AppIx, RouteId)>,
    waiting: BTreeSet<(BootMs, AppIx)>,
    waiting_routes: BTreeSet<(BootMs, RouteId)>,
    squeezed: BTreeSet<(u32, AppIx)>,
    squeezed_routes: BTreeSet<(u32, RouteId)>,
    crowds: [BTreeSet<(u64, AppIx)>; 2],
    tickets: u64,
}

impl Competition {
    /// A call ended.
    pub(crate) fn call_ended(&mut self, doubt: Option<Doubt>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(doubt) = doubt {
            let doubtful = &mut self.doubtful[doubt as usize];
            *doubtful = doubtful.saturating_sub(1);
        }
    }

    /// Whether as many such calls are under way as may be.
    fn is_full_of(&self, doubt: Doubt) -> bool {
        self.left_for(doubt) == 0
    }

    /// How many more such calls may begin. Of all kinds together they leave a slot, where there are two.
    fn left_for(&self, doubt: Doubt) -> usize {
        let all = (self.most * 3 / 4).max(1).saturating_sub(self.doubtful.iter().sum());
        doubt.most(self.most).saturating_sub(self.doubtful[doubt as usize]).min(all)
    }

    fn enter(&mut self, ix: AppIx, gate: Gate) {
        match gate {
            Gate::Closed | Gate::Ready(_) => {}
            Gate::Waiting(at) => _ = self.waiting.insert((at, ix)),
            Gate::Squeezed(n) => _ = self.squeezed.insert((n, ix)),
            Gate::Crowded(doubt, place) => _ = self.crowds[doubt as usize].insert((place, ix)),
        }
    }

    fn leave(&mut self, ix: AppIx, gate: Gate) {
        match gate {
            Gate::Closed | Gate::Ready(_) => {}
            Gate::Waiting(at) => _ = self.waiting.remove(&(at, ix)),
            Gate::Squeezed(n) => _ = self.squeezed.remove(&(n, ix)),
            Gate::Crowded(doubt, place) => _ = self.crowds[doubt as usize].remove(&(place, ix)),
        }
    }

    fn enter_route(&mut self, id: RouteId, gate: RouteGate) {
        match gate {
            RouteGate::Closed => {}
            RouteGate::Waiting(at) => _ = self.waiting_routes.insert((at, id)),
            RouteGate::Squeezed(n) => _ = self.squeezed_routes.insert((n, id)),
            RouteGate::Open(candidate, ix) => _ = self.open.insert((candidate, ix, id)),
        }
    }

    fn leave_route(&mut self, id: RouteId, gate: RouteGate) {
        match gate {
            RouteGate::Closed => {}
            RouteGate::Waiting(at) => _ = self.waiting_routes.remove(&(at, id)),
            RouteGate::Squeezed(n) => _ = self.squeezed_routes.remove(&(n, id)),
            RouteGate::Open(candidate, ix) => _ = self.open.remove(&(candidate, ix, id)),
        }
    }
}

impl Engine {
    /// Works out an app's place in the competition for calls.
    pub(crate) fn regate(&mut self, now: Now, ix: AppIx) {
        let mut gate = self.gate(now, ix);
        let app = self.app(ix);
        if let (Gate::Ready(_), before) = (gate, app.gate) {
            match before {
                Gate::Squeezed(n) if n == app.share.in_flight() => gate = before,
                // Whose answers are no longer doubtful has no place in the crowd.
                Gate::Crowded(doubt, _) if self.doubt(now, ix) == Some(doubt) => gate = before,
                _ => {}
            }
        }
        self.set_gate(now, ix, gate);
    }

    /// A route is heard of again: those of its apps that waited in the crowd for that take their places.
    pub(crate) fn regate_crowd_of(&mut self, now: Now, id: RouteId) {
        let crowd = &self.calls.crowds[Doubt::Unheard as usize];
        let theirs: Vec<AppIx> = crowd.iter().map(|(_, ix)| *ix).filter(|ix| self.app(*ix).path.route == id).collect();
        for ix in theirs {
            self.regate(now, ix);
        }
    }

    pub(crate) fn set_gate(&mut self, now: Now, ix: AppIx, gate: Gate) {
        let app = self.app_mut(ix);
        let before = std::mem::replace(&mut app.gate, gate);
        if gate == before {
            return;
        }
        let id = app.path.route;
        self.calls.leave(ix, before);
        self.calls.enter(ix, gate);
        let route = self.route_mut(id);
        if let Gate::Ready(candidate) = before {
            route.ready.remove(&(candidate, ix));
        }
        if let Gate::Ready(candidate) = gate {
            route.ready.insert((candidate, ix));
        }
        if matches!(before, Gate::Ready(_)) || matches!(gate, Gate::Ready(_)) {
            self.regate_route(now, id);
        }
    }

    /// Where an app stands, shares of slots apart.
    fn gate(&mut self, now: Now, ix: AppIx) -> Gate {
        let Some(best) = self.next_tenant(now, ix) else { return Gate::Closed };
        let app = self.app(ix);
        let tried = best.class == Class::Tried;
        let (Some(own), Some(probe)) = (app.next_at(), app.endpoint.probe_at(tried, longest_wait(app))) else {
            return Gate::Closed;
        };
        let share = if app.endpoint.is_open() { Some(BootMs(0)) } else { app.share.next_at(now.boot) };
        let Some(share) = share else { return Gate::Closed };
        // With a single slot, a call that hangs is all that happens: others have as much time as it took.
        let rest = if self.calls.most == 1 && self.app_index.len() > 1 { app.share.rests_until() } else { BootMs(0) };
        let at = own.max(probe).max(share).max(rest);
        if at > now.boot {
            return Gate::Waiting(at);
        }
        // An app's own probe stands for nobody else: it has its turn as any call.
        let path = app.path;
        let ban = self.origin(path.origin).ban();
        let stands_for_others = self.route(path.route).breaker.is_open() || ban.is_some();
        let rank = match best.class {
            _ if !stands_for_others => 0,
            _ if tried || self.route(app.path.route).breaker.has_tried(ix) => 2,
            Class::Without => 1,
            _ => 0,
        };
        let start = match app.gate {
            Gate::Ready(candidate) => candidate.start,
            _ => app.attained.max(self.calls.served),
        };
        // Whoever was served last is the likeliest to be well; but whoever has failed since takes turns with the others.
        let by_service = stands_for_others && rank < 2 && ban.is_none_or(|ban| ban.probes == 0);
        let served = if by_service { u64::MAX - app.endpoint.served().0 } else { 0 };
        Gate::Ready(Candidate { rank, served, start, class: best.class as u8, key: best.key.0 })
    }

    /// Whether a call for this app would be a probe of what is down.
    fn is_probe(&self, ix: AppIx) -> bool {
        self.is_held(self.app(ix))
    }

    /// The tenant of an app that is to be called first. Where a probe is wanted, those that were served before come first.
    fn next_tenant(&mut self, now: Now, ix: AppIx) -> Option<Best> {
        self.end_preference(now, ix);
        let is_probe = self.is_probe(ix);
        loop {
            let tenants = &self.tenants;
            let app = self.apps[ix.0 as usize].as_mut().expect("an app outlives its tenants");
            let holds = |slot: Slot, stamp: u32| stands(tenants, ix, slot, stamp);
            if app.queue.len() > 2 * app.tenants as usize + UNTIDY {
                app.queue.tidy(holds);
            }
            let best = match is_probe {
                true => app.queue.probe(app.endpoint.fresh_probes(), holds)?,
                false => app.queue.best(holds)?,
            };
            // Whether those in trouble come last may have changed since it was put there.
            if self.place(now, best.slot).0 == best.class {
                return Some(best);
            }
            self.requeue(now, best.slot);
        }
    }

    /// Whether those of an app whose last call failed let the others go first: hardly anything is answered, and others may be.
    pub(crate) fn prefers_untroubled(&self, now: Now, ix: AppIx) -> bool {
        let app = self.app(ix);
        app.endpoint.is_open() || app.share.is_quiet(now.boot) || self.calls.is_full_of(Doubt::Unheard)
    }

    /// Those of an app that had to come last take their places again, once that is over.
    fn end_preference(&mut self, now: Now, ix: AppIx) {
        let prefers = self.prefers_untroubled(now, ix);
        if std::mem::replace(&mut self.app_mut(ix).preferred_untroubled, prefers) && !prefers {
            for slot in self.app_mut(ix).queue.take_tried() {
                if self.tenants.get(slot).is_some_and(|t| t.app == ix && t.phase == Phase::Ready(Class::Tried)) {
                    self.requeue(now, slot);
                }
            }
        }
    }

    /// Works out a route's place in the competition for calls.
    pub(crate) fn regate_route(&mut self, now: Now, id: RouteId) {
        let mut gate = self.route_gate(now, id);
        let route = self.route(id);
        if let (RouteGate::Open(..), RouteGate::Squeezed(n)) = (gate, route.gate)
            && n == route.share.in_flight()
        {
            gate = route.gate;
        }
        self.set_route_gate(id, gate);
    }

    fn set_route_gate(&mut self, id: RouteId, gate: RouteGate) {
        let before = std::mem::replace(&mut self.route_mut(id).gate, gate);
        if gate != before {
            self.calls.leave_route(id, before);
            self.calls.enter_route(id, gate);
        }
    }

    fn route_gate(&self, now: Now, id: RouteId) -> RouteGate {
        let route = self.route(id);
        let Some(&(candidate, ix)) = route.ready.first() else { return RouteGate::Closed };
        let tried = route.breaker.has_tried(ix);
        let (probe, origin) =
            (route.breaker.probe_at(tried, longest_wait(self.app(ix))), self.origin(route.origin).next_at());
        let (Some(probe), Some(origin)) = (probe, origin) else { return RouteGate::Closed };
        match probe.max(origin) {
            at if at > now.boot => RouteGate::Waiting(at),
            // Beside other routes it has its turn, even if others always have work.
            _ => RouteGate::Open(Candidate { rank: 0, served: 0, ..candidate }, ix),
        }
    }

    /// Works out the places of all apps of a route anew: whether a probe is wanted has changed.
    pub(crate) fn regate_apps_of(&mut self, now: Now, id: RouteId) {
        let ready: Vec<AppIx> = self.route(id).ready.iter().map(|(_, ix)| *ix).collect();
        for ix in ready {
            self.regate(now, ix);
        }
        self.regate_route(now, id);
    }

    /// Lets the apps and routes compete again whose wait is over.
    pub(crate) fn wake_apps(&mut self, now: Now) {
        while let Some(&(_, ix)) = self.calls.waiting.first().filter(|(at, _)| *at <= now.boot) {
            self.regate(now, ix);
        }
        while let Some(&(_, id)) = self.calls.waiting_routes.first().filter(|(at, _)| *at <= now.boot) {
            self.regate_route(now, id);
        }
    }

    /// Lets those compete again whose share has grown, now that so many slots are free.
    fn relax(&mut self, now: Now, free: u32) {
        while let Some(&(_, id)) = self.calls.squeezed_routes.first().filter(|(n, _)| *n < free) {
            self.set_route_gate(id, RouteGate::Closed);
            self.regate_route(now, id);
        }
        while let Some(&(_, ix)) = self.calls.squeezed.first().filter(|(n, _)| *n < free) {
            self.set_gate(now, ix, Gate::Closed);
            self.regate(now, ix);
        }
        for doubt in Doubt::ALL {
            for _ in 0..self.calls.left_for(doubt) {
                let Some(&(_, ix)) = self.calls.crowds[doubt as usize].first() else { break };
                self.set_gate(now, ix, Gate::Closed);
                self.regate(now, ix);
            }
        }
    }

    /// The call that goes first, if there is room, and the limits allow one.
    pub(crate) fn next_call(&mut self, now: Now, room: &Capacity) -> Option<Action> {
        if room.calls == 0 || now.boot < self.total.next_at() {
            return None;
        }
        let most = room.max_calls.max(1);
        self.calls.most = most;
        let free = u32::try_from(most.saturating_sub(self.calls.in_flight)).unwrap_or(u32::MAX).max(1);
        self.relax(now, free);
        let mut set_aside = Vec::new();
        let long = self.calls.passed_over.is_some_and(|since| now.boot.since(since) >= PASSED_OVER_MS);
        let call = self.first_call(now, free, (free == 1 && !long).then_some(&mut set_aside));
        if call.is_some() && !set_aside.is_empty() {
            self.calls.passed_over.get_or_insert(now.boot);
        }
        for ix in &set_aside {
            self.regate(now, *ix);
        }
        call.or_else(|| if set_aside.is_empty() { None } else { self.first_call(now, free, None) })
    }

    /// The call that goes first, of those that shares allow. With a `doubtful` to put them, those whose answer is doubtful
    /// are left for later: they shall not take the last slot from one that would give it back soon.
    fn first_call(&mut self, now: Now, free: u32, mut doubtful: Option<&mut Vec<AppIx>>) -> Option<Action> {
        while let Some(&first) = self.calls.open.first() {
            let (_, ix, id) = first;
            // Both may have had to wait since they came here: others of the same origin called, or nothing was heard.
            self.regate(now, ix);
            self.regate_route(now, id);
            if self.calls.open.first() != Some(&first) {
                continue;
            }
            if self.routes.len() > 1 && self.route(id).share.in_flight() >= free {
                self.set_route_gate(id, RouteGate::Squeezed(self.route(id).share.in_flight()));
                continue;
            }
            if self.app_index.len() > 1 && self.app(ix).share.in_flight() >= self.left_for_app(id, free) {
                self.set_gate(now, ix, Gate::Squeezed(self.app(ix).share.in_flight()));
                continue;
            }
            let doubt = self.doubt(now, ix);
            if let Some(doubt) = doubt.filter(|doubt| self.calls.is_full_of(*doubt)) {
                self.calls.tickets += 1;
                self.set_gate(now, ix, Gate::Crowded(doubt, self.calls.tickets));
                continue;
            }
            match (&mut doubtful, doubt) {
                (Some(set_aside), Some(_)) => {
                    set_aside.push(ix);
                    self.set_gate(now, ix, Gate::Closed);
                }
                _ => return self.begin_call(now, ix, doubt),
            }
        }
        None
    }

    /// How many calls an app of a route may have under way, with so many slots free. Where the route has a share of its own,
    /// which all its apps want a part of, one of them does not take all of that.
    fn left_for_app(&self, id: RouteId, free: u32) -> u32 {
        let route = self.route(id);
        match self.routes.len() > 1 && route.apps > 1 {
            true => free.saturating_sub(route.share.in_flight()).max(1),
            false => free,
        }
    }

    fn doubt(&mut self, now: Now, ix: AppIx) -> Option<Doubt> {
        let is_troubled = self
            .next_tenant(now, ix)
            .is_some_and(|best| self.standing(best.slot) == Standing::Good && self.troubles.contains_key(&best.slot));
        let app = self.app(ix);
        let own = app.share.is_doubtful(now.boot) || app.share.was_given_up();
        let unheard = own || is_troubled || self.route(app.path.route).share.is_doubtful(now.boot);
        match self.is_probe(ix) {
            true => Some(Doubt::Probe),
            false => unheard.then_some(Doubt::Unheard),
        }
    }

    fn begin_call(&mut self, now: Now, ix: AppIx, doubt: Option<Doubt>) -> Option<Action> {
        let Best { slot, class, .. } = self.next_tenant(now, ix)?;
        let (path, Gate::Ready(Candidate { start, .. })) = (self.app(ix).path, self.app(ix).gate) else { return None };
        // Who could not be served for a while, though it wanted to, has no claim to all that it missed.
        let served = self.calls.served;
        let app = self.app_mut(ix);
        app.limiter.take(now.boot);
        app.share.begin(now.boot);
        app.endpoint.probe(now.boot, class == Class::Tried);
        app.attained = start.max(served) + 1;
        let route = self.route_mut(path.route);
        route.share.begin(now.boot);
        let tried = route.breaker.has_tried(ix);
        route.breaker.probe(now.boot, tried);
        self.origin_mut(path.origin).take(now.boot);
        self.total.take(now.boot);
        self.calls.served = served.max(start);
        self.calls.in_flight += 1;
        if let Some(doubt) = doubt {
            self.calls.doubtful[doubt as usize] += 1;
            self.calls.passed_over = None;
        }
        self.leave_queue(slot);
        let tenant = &mut self.tenants[slot];
        tenant.phase = Phase::Calling;
        tenant.seq = tenant.seq.wrapping_add(1);
        tenant.called = now.boot;
        tenant.stale = false;
        tenant.doubt = doubt;
        let ticket = Ticket { slot, seq: tenant.seq };
        let held = tenant.held.map(|held| held.fingerprint);
        self.set_gate(now, ix, Gate::Closed);
        self.reconsider(now, slot);
        self.regate(now, ix);
        self.regate_route(now, path.route);
        Some(Action::Call { ticket, id: self.id(slot)?, held })
    }

    /// When time alone will make a call possible that is not possible now.
    pub(crate) fn next_call_opportunity(&self, now: Now) -> Option<BootMs> {
        let total = self.total.next_at();
        if !self.calls.open.is_empty() {
            return (total > now.boot).then_some(total);
        }
        let app = self.calls.waiting.first().map(|(at, _)| *at);
        let route = self.calls.waiting_routes.first().map(|(at, _)| *at);
        [app, route].into_iter().flatten().min().map(|at| at.max(total))
    }

    pub(crate) fn route(&self, id: RouteId) -> &Route {
        self.routes.get(&id).expect("a route outlives its apps")
    }

    pub(crate) fn route_mut(&mut self, id: RouteId) -> &mut Route {
        self.routes.get_mut(&id).expect("a route outlives its apps")
    }
}

/// How long an app's calls wait for another try at most, as its operator wants it.
fn longest_wait(app: &App) -> u64 {
    millis(app.policy.retry.max)
}

/// Whether a queue's entry is its tenant's own.
fn stands(tenants: &Table, ix: AppIx, slot: Slot, stamp: u32) -> bool {
    tenants.get(slot).is_some_and(|t| t.app == ix && t.stamp == stamp && matches!(t.phase, Phase::Ready(_)))
}
