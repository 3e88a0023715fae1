//! What the outcome of a call shows about its app, its route and its origin: whether they are answered at all.

use std::collections::BTreeSet;

use super::{Served, THRESHOLD, UNSERVED_MS, Verdict};
use crate::domain::{Blame, BootMs, CallPath, Failure, FailureKind, Now, OriginId, RouteId, Slot};
use crate::engine::messages::{CallScope, Notice};
use crate::engine::tenants::Phase;
use crate::engine::{AppIx, Engine};

/// A tenant that fails alone, while other apps of its route have been served for so long, has a failure of its own: in
/// milliseconds.
const OTHERS_SERVED_MS: u64 = 60_000;

/// To whom a failure is attributed that may be the endpoint's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attribution {
    /// The tenant: its kind says so, or others are served.
    Tenant,
    /// The endpoint, perhaps: nobody was served since.
    Unclear,
    /// The endpoint: a breaker is open.
    Endpoint,
}

/// What an outcome shows about the path that the call went.
enum Evidence {
    Served(Served),
    Failed,
    Nothing,
}

impl Engine {
    /// What a failure shows about the path. A tenant that was served before has no wrong corp_id, so "unknown error" is the
    /// endpoint's there.
    fn evidence_of(&self, slot: Slot, kind: FailureKind) -> Evidence {
        match kind.blame() {
            Blame::Transient => Evidence::Failed,
            Blame::Suspect if self.tenants[slot].token.is_some() => Evidence::Failed,
            Blame::Tenant => Evidence::Served(Served::Fully),
            Blame::App if kind != FailureKind::SecretUnreadable => Evidence::Served(Served::Fully),
            Blame::AppTooFast | Blame::EveryoneTooFast => Evidence::Served(Served::Partly),
            Blame::App | Blame::Suspect | Blame::Banned => Evidence::Nothing,
        }
    }

    /// A call ended, however it did: its slot is free.
    pub(crate) fn free_call_slot(&mut self, now: Now, slot: Slot, failure: Option<&Failure>) {
        let tenant = &mut self.tenants[slot];
        let (ix, sent) = (tenant.app, tenant.called_at);
        self.dispatcher.call_ended(tenant.doubt.take());
        let kind = failure.map(|failure| failure.kind);
        let answered =
            !matches!(kind, Some(FailureKind::Timeout | FailureKind::Unreachable | FailureKind::SecretUnreadable));
        let app = &mut self.apps[ix];
        app.concurrency.end(now.boot, sent, answered);
        let (path, is_todays_path) = (app.path, sent >= app.path_since);
        let route = self.route_mut(path.route);
        let was_doubtful = route.concurrency.is_doubtful(now.boot);
        route.concurrency.end(now.boot, sent, answered);
        if was_doubtful && !route.concurrency.is_doubtful(now.boot) {
            self.readmit_doubtful(now, path.route);
        }
        if !is_todays_path {
            return;
        }
        self.apps[ix].breaker.call_ended(sent);
        self.route_mut(path.route).breaker.call_ended(sent);
        let is_unclear = kind.is_some_and(|kind| !matches!(self.evidence_of(slot, kind), Evidence::Served(_)));
        if is_unclear && self.origin_mut(path.origin).probe_was_unclear(now.boot, sent) {
            self.save_ban(now, path.origin);
            self.update_eligibility_on_origin(now, path.origin);
        }
    }

    /// A tenant's call was answered, with a token or this failure: closes the breakers that the answer proves wrong.
    pub(crate) fn path_answered(&mut self, now: Now, slot: Slot, kind: Option<FailureKind>) {
        let served = match kind.map(|kind| self.evidence_of(slot, kind)) {
            None => Served::Fully,
            Some(Evidence::Served(served)) => served,
            Some(Evidence::Failed | Evidence::Nothing) => return,
        };
        let (ix, sent) = (self.tenants[slot].app, self.tenants[slot].called_at);
        let app = &mut self.apps[ix];
        if sent < app.path_since {
            return;
        }
        let path = app.path;
        if let Some(failed) = app.breaker.answered(now.boot, served) {
            self.notify(Notice::BreakerClosed { scope: self.scope_of(ix) });
            self.retry_failed(now, ix, failed, Some(slot));
        }
        if self.route_mut(path.route).breaker.answered(now.boot, served).is_some() {
            self.notify(Notice::BreakerClosed { scope: CallScope::Route(path.route) });
            self.resume_route(now, path.route);
        }
        if self.origin_mut(path.origin).served(sent) {
            self.save_ban(now, path.origin);
            self.update_eligibility_on_origin(now, path.origin);
        }
    }

    /// A tenant's call failed in a way that may be the endpoint's doing. Returns to whom that is attributed.
    pub(crate) fn attribute_failure(&mut self, now: Now, slot: Slot, failure: &Failure) -> Attribution {
        let tenant = &self.tenants[slot];
        let (ix, app) = (tenant.app, &self.apps[tenant.app]);
        if !matches!(self.evidence_of(slot, failure.kind), Evidence::Failed) || tenant.called_at < app.path_since {
            return Attribution::Tenant;
        }
        let began = self.tenants.failure(slot).map_or(now.boot, |failure| failure.began);
        let id = app.path.route;
        let others_served = self.route(id).breaker.served();
        let members = app.members();
        // An app of one or two cannot tell from its own calls whether it is the endpoint.
        let is_own = (members < THRESHOLD && others_served > began) || others_served > began + OTHERS_SERVED_MS;
        let is_own = is_own && now.boot.since(others_served) < UNSERVED_MS && !app.breaker.is_open();
        let verdict = match is_own {
            true => Verdict::Own,
            false => self.apps[ix].breaker.failed(now.boot, slot, began, members, failure),
        };
        match verdict {
            Verdict::Own => {}
            Verdict::Opens => self.app_breaker_opened(now, ix, slot, failure),
            Verdict::Open { report: true } => self.report_breaker(self.scope_of(ix), failure),
            Verdict::Unclear | Verdict::Open { report: false } => {}
        }
        if verdict != Verdict::Own {
            self.app_on_route_failed(now, ix, failure);
        }
        match (verdict, self.apps[ix].breaker.is_open() || self.route(id).breaker.is_open()) {
            (_, true) => Attribution::Endpoint,
            (Verdict::Own, false) => Attribution::Tenant,
            (_, false) => Attribution::Unclear,
        }
    }

    /// An app's breaker opens: the members whose failures opened it have no backoff of their own any more.
    fn app_breaker_opened(&mut self, now: Now, ix: AppIx, last: Slot, failure: &Failure) {
        self.apps[ix].concurrency.begin_anew();
        self.report_breaker(self.scope_of(ix), failure);
        let failed = self.apps[ix].breaker.opened().map(|open| open.failed().clone()).unwrap_or_default();
        for slot in failed.into_iter().filter(|slot| *slot != last) {
            self.clear_saved(slot);
            self.retry_now(now, ix, slot);
        }
    }

    /// One more app of a route has nobody who is served. With several of them, it is the route's doing.
    fn app_on_route_failed(&mut self, now: Now, ix: AppIx, failure: &Failure) {
        let app = &self.apps[ix];
        let (id, began) = (app.path.route, app.breaker.failing_since());
        let route = self.route_mut(id);
        if route.members < 2 && !route.breaker.is_open() {
            return; // the app's own breaker is all that is needed
        }
        match route.breaker.failed(now.boot, ix, began, route.members, failure) {
            Verdict::Opens => {
                route.concurrency.begin_anew();
                self.report_breaker(CallScope::Route(id), failure);
                self.update_eligibility_on_route(now, id);
            }
            Verdict::Open { report: true } => self.report_breaker(CallScope::Route(id), failure),
            Verdict::Own | Verdict::Unclear | Verdict::Open { report: false } => {}
        }
    }

    pub(in crate::engine::calls) fn report_breaker(&mut self, scope: CallScope, failure: &Failure) {
        self.notify(Notice::BreakerOpened { scope, failure: failure.clone() });
    }

    /// A route carries calls again: its apps that were thought not to be answered are probed at once.
    fn resume_route(&mut self, now: Now, id: RouteId) {
        for ix in self.apps.on_route(id) {
            if self.apps[ix].breaker.is_open() {
                self.apps[ix].breaker.reset_waits();
                self.update_eligibility(now, ix);
            }
        }
        self.update_eligibility_on_route(now, id);
    }

    /// The breaker of an app closed: the members that failed are called again, save one whose answer is just being judged.
    pub(crate) fn retry_failed(&mut self, now: Now, ix: AppIx, failed: BTreeSet<Slot>, judged: Option<Slot>) {
        for slot in failed.into_iter().filter(|slot| Some(*slot) != judged) {
            self.retry_now(now, ix, slot);
        }
    }

    /// A tenant whose wait was the endpoint's doing is called as soon as the limits allow it.
    fn retry_now(&mut self, now: Now, ix: AppIx, slot: Slot) {
        if self.tenants.get(slot).is_none_or(|tenant| tenant.app != ix || tenant.removed) {
            return;
        }
        let waits = self.tenants[slot].phase == Phase::Waiting;
        let is_endpoints = |failure: &Failure| {
            failure.retry_after_s.is_none()
                && failure.kind != FailureKind::ShortLived
                && matches!(failure.kind.blame(), Blame::Transient | Blame::Suspect)
        };
        let failure = self.tenants.failure(slot);
        match waits && failure.is_some_and(|failure| !failure.refused && is_endpoints(&failure.failure)) {
            true => self.schedule(now, slot, now.boot),
            false => self.reevaluate(now, slot),
        }
    }

    /// Whether an app, its route or its origin is not called, but for a probe now and then.
    pub(crate) fn is_held_back(&self, ix: AppIx) -> bool {
        let app = &self.apps[ix];
        app.breaker.is_open() || self.is_path_held_back(app.path)
    }

    /// Whether a route or its origin is not called, but for a probe now and then.
    pub(crate) fn is_path_held_back(&self, path: CallPath) -> bool {
        self.route(path.route).breaker.is_open() || self.origin(path.origin).ban().is_some()
    }

    /// Whether somebody who waits for outcomes should wait for this app's: no longer once probes have failed, whatever is
    /// still in flight, nor for the end of a ban.
    pub(crate) fn is_worth_waiting(&self, ix: AppIx) -> bool {
        let app = &self.apps[ix];
        let is_hopeless = app.breaker.is_hopeless() || self.route(app.path.route).breaker.is_hopeless();
        let is_banned = self.origin(app.path.origin).ban().is_some();
        !is_hopeless && (app.concurrency.in_flight() > 0 || (app.wants_calls() && !is_banned))
    }

    pub(crate) fn scope_of(&self, ix: AppIx) -> CallScope {
        CallScope::App(self.apps[ix].name.clone())
    }

    /// A tenant leaves: it is no evidence any more.
    pub(crate) fn forget_evidence(&mut self, slot: Slot) {
        let app = &mut self.apps[self.tenants[slot].app];
        app.breaker.forget(slot);
        let origin = app.path.origin;
        self.origin_mut(origin).forget(slot);
    }

    /// While all that is called from here is banned: when the first ban is probed.
    pub(crate) fn paused_until(&self) -> Option<BootMs> {
        let used = || self.origins.values().filter(|origin| origin.apps > 0);
        let all_banned = used().all(|origin| origin.ban().is_some());
        used().filter_map(|origin| origin.ban()).map(|ban| ban.until).min().filter(|_| all_banned)
    }

    /// A ban of an origin began or ended.
    pub(crate) fn update_eligibility_on_origin(&mut self, now: Now, id: OriginId) {
        let on_origin = self.routes.iter().filter(|(_, route)| route.origin == id);
        let routes: Vec<RouteId> = on_origin.map(|(id, _)| *id).collect();
        for route in routes {
            self.update_eligibility_on_route(now, route);
        }
    }
}
