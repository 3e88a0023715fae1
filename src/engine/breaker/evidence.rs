//! What a call's outcome says about the way that it went: whether its app and its route are answered at all.

use std::collections::BTreeSet;

use super::{AWAY_MS, ENOUGH, Served, Verdict};
use crate::domain::{Blame, BootMs, Failure, FailureKind, Now, OriginId, Rate, RouteId, Slot};
use crate::engine::Engine;
use crate::engine::apps::{App, AppIx, Origin};
use crate::engine::messages::{Notice, Scope};
use crate::engine::tenants::Phase;

/// A tenant that fails alone, while other apps of its route have been served for so long, has trouble of its own: in
/// milliseconds.
const OTHERS_SERVED_MS: u64 = 60_000;

/// Whose doing a failure is that may be the endpoint's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Not the endpoint's, by its kind; or the tenant's, since others are served.
    Own,
    /// The endpoint's, perhaps: nobody was served since.
    Unclear,
    /// The endpoint's: a breaker is open.
    Endpoint,
}

/// What an outcome shows of the way that the call went.
enum Sign {
    Served(Served),
    Failed,
    Nothing,
}

impl Engine {
    /// What a failure shows of the way that the call went. A tenant that was served before has no wrong corp_id, so "unknown
    /// error" is the endpoint's there.
    fn sign_of(&self, slot: Slot, kind: FailureKind) -> Sign {
        match kind.blame() {
            Blame::Transient => Sign::Failed,
            Blame::Suspect if self.tenants[slot].held.is_some() => Sign::Failed,
            Blame::Tenant => Sign::Served(Served::Wholly),
            Blame::App if kind != FailureKind::SecretUnreadable => Sign::Served(Served::Wholly),
            Blame::AppTooFast | Blame::EveryoneTooFast => Sign::Served(Served::InPart),
            Blame::App | Blame::Suspect | Blame::Banned => Sign::Nothing,
        }
    }

    /// A call ended, however it did: its slot is free.
    pub(crate) fn call_ended(&mut self, now: Now, slot: Slot, failure: Option<&Failure>) {
        let tenant = &mut self.tenants[slot];
        let (ix, sent, doubt) = (tenant.app, tenant.called, tenant.doubt.take());
        self.calls.call_ended(doubt);
        let kind = failure.map(|failure| failure.kind);
        let answered =
            !matches!(kind, Some(FailureKind::Timeout | FailureKind::Unreachable | FailureKind::SecretUnreadable));
        let app = self.app_mut(ix);
        app.share.end(now.boot, sent, answered);
        let (path, is_todays) = (app.path, sent >= app.path_since);
        let route = self.route_mut(path.route);
        let was_doubtful = route.share.is_doubtful(now.boot);
        route.share.end(now.boot, sent, answered);
        if was_doubtful && !route.share.is_doubtful(now.boot) {
            self.regate_crowd_of(now, path.route);
        }
        if !is_todays {
            return;
        }
        self.app_mut(ix).endpoint.call_ended(sent);
        self.route_mut(path.route).breaker.call_ended(sent);
        let is_unclear = kind.is_some_and(|kind| !matches!(self.sign_of(slot, kind), Sign::Served(_)));
        if is_unclear && self.origin_mut(path.origin).probe_was_unclear(now.boot, sent) {
            self.remember_ban(now, path.origin);
            self.regate_origin(now, path.origin);
        }
    }

    /// The app of a tenant had an answer that shows that it is served.
    pub(crate) fn path_answered(&mut self, now: Now, slot: Slot, kind: Option<FailureKind>) {
        let served = match kind.map(|kind| self.sign_of(slot, kind)) {
            None => Served::Wholly,
            Some(Sign::Served(served)) => served,
            Some(Sign::Failed | Sign::Nothing) => return,
        };
        let (ix, sent) = (self.tenants[slot].app, self.tenants[slot].called);
        let app = self.app_mut(ix);
        if sent < app.path_since {
            return;
        }
        let path = app.path;
        if let Some(tried) = app.endpoint.answered(now.boot, served) {
            self.say(Notice::BreakerClosed { scope: self.scope_of(ix) });
            self.let_go(now, ix, tried, Some(slot));
        }
        if self.route_mut(path.route).breaker.answered(now.boot, served).is_some() {
            self.say(Notice::BreakerClosed { scope: Scope::Route(path.route) });
            self.resume_route(now, path.route);
        }
        if self.origin_mut(path.origin).served(sent) {
            self.remember_ban(now, path.origin);
            self.regate_origin(now, path.origin);
        }
    }

    /// A tenant's call failed in a way that may be the endpoint's doing. Says whose it is.
    pub(crate) fn path_failed(&mut self, now: Now, slot: Slot, failure: &Failure) -> Doing {
        let tenant = &self.tenants[slot];
        let (ix, app) = (tenant.app, self.app(tenant.app));
        if !matches!(self.sign_of(slot, failure.kind), Sign::Failed) || tenant.called < app.path_since {
            return Doing::Own;
        }
        let began = self.troubles.get(&slot).map_or(now.boot, |trouble| trouble.began);
        let route = self.route(app.path.route);
        let (others_served, id) = (route.breaker.served(), app.path.route);
        let (members, is_open) = (app.members(), app.endpoint.is_open());
        // An app of one or two cannot tell from its own calls whether it is the endpoint.
        let has_own = (members < ENOUGH && others_served > began) || others_served > began + OTHERS_SERVED_MS;
        let has_own = has_own && now.boot.since(others_served) < AWAY_MS;
        let verdict = match has_own && !is_open {
            true => Verdict::Own,
            false => self.app_mut(ix).endpoint.failed(now.boot, slot, began, members, failure),
        };
        match verdict {
            Verdict::Own => {}
            Verdict::Opens => self.hold_app(now, ix, slot, failure),
            Verdict::Open { news: true } => self.say_held(self.scope_of(ix), failure),
            Verdict::Unclear | Verdict::Open { news: false } => {}
        }
        if verdict != Verdict::Own {
            self.route_failed(now, ix, failure);
        }
        match (verdict, self.app(ix).endpoint.is_open() || self.route(id).breaker.is_open()) {
            (_, true) => Doing::Endpoint,
            (Verdict::Own, false) => Doing::Own,
            (_, false) => Doing::Unclear,
        }
    }

    /// An app's breaker opens: those whose failures opened it need not wait for themselves.
    fn hold_app(&mut self, now: Now, ix: AppIx, last: Slot, failure: &Failure) {
        self.app_mut(ix).share.begin_anew();
        self.say_held(self.scope_of(ix), failure);
        let failed = self.app(ix).endpoint.opened().map(|open| open.tried().clone()).unwrap_or_default();
        for slot in failed.into_iter().filter(|slot| *slot != last) {
            self.forget_trouble(slot);
            self.call_again(now, ix, slot);
        }
    }

    /// One more app of a route has nobody who is served. With several of them, it is the route's doing.
    fn route_failed(&mut self, now: Now, ix: AppIx, failure: &Failure) {
        let app = self.app(ix);
        let (id, began) = (app.path.route, app.endpoint.trouble_since());
        let on_it = |other: &&AppIx| {
            let other = self.app(**other);
            other.path.route == id && other.policy.enabled && other.members() > 0
        };
        let members = self.app_index.values().filter(on_it).count();
        if members < 2 && !self.route(id).breaker.is_open() {
            return; // the app's own breaker is all that is needed
        }
        match self.route_mut(id).breaker.failed(now.boot, ix, began, members, failure) {
            Verdict::Opens => {
                self.route_mut(id).share.begin_anew();
                self.say_held(Scope::Route(id), failure);
                self.regate_apps_of(now, id);
            }
            Verdict::Open { news: true } => self.say_held(Scope::Route(id), failure),
            Verdict::Own | Verdict::Unclear | Verdict::Open { news: false } => {}
        }
    }

    fn say_held(&mut self, scope: Scope, failure: &Failure) {
        self.say(Notice::BreakerOpened { scope, failure: failure.clone() });
    }

    /// A route carries calls again: its apps that were thought not to be answered are probed at once.
    fn resume_route(&mut self, now: Now, id: RouteId) {
        let all: Vec<AppIx> = self.app_index.values().copied().filter(|ix| self.app(*ix).path.route == id).collect();
        for ix in all {
            if self.app(ix).endpoint.is_open() {
                self.app_mut(ix).endpoint.hasten();
                self.regate(now, ix);
            }
        }
        self.regate_apps_of(now, id);
    }

    /// The breaker closed: those who failed are called again, save one whose answer is just being judged.
    pub(crate) fn let_go(&mut self, now: Now, ix: AppIx, failed: BTreeSet<Slot>, judged: Option<Slot>) {
        for slot in failed.into_iter().filter(|slot| Some(*slot) != judged) {
            self.call_again(now, ix, slot);
        }
    }

    /// A tenant whose wait was for the endpoint's sake is called as soon as the limits allow it.
    fn call_again(&mut self, now: Now, ix: AppIx, slot: Slot) {
        if self.tenants.get(slot).is_none_or(|tenant| tenant.app != ix || tenant.gone) {
            return;
        }
        let waits = self.tenants[slot].phase == Phase::Waiting;
        let for_endpoint = |failure: &Failure| {
            failure.retry_after_s.is_none()
                && failure.kind != FailureKind::ShortLived
                && matches!(failure.kind.blame(), Blame::Transient | Blame::Suspect)
        };
        let trouble = self.troubles.get(&slot);
        match waits && trouble.is_some_and(|trouble| !trouble.refused && for_endpoint(&trouble.failure)) {
            true => self.schedule(now, slot, now.boot),
            false => self.reconsider(now, slot),
        }
    }

    /// Whether an app, its route or its origin is not called, a probe now and then apart.
    pub(crate) fn is_held(&self, app: &App) -> bool {
        app.endpoint.is_open()
            || self.route(app.path.route).breaker.is_open()
            || self.origin(app.path.origin).ban().is_some()
    }

    /// Whether somebody who waits for outcomes should wait for this app's: no longer once probes have failed, whatever is
    /// still under way, nor for the end of a ban.
    pub(crate) fn is_worth_waiting(&self, ix: AppIx) -> bool {
        let app = self.app(ix);
        let is_hopeless = app.endpoint.is_hopeless() || self.route(app.path.route).breaker.is_hopeless();
        let is_banned = self.origin(app.path.origin).ban().is_some();
        !is_hopeless && (app.share.in_flight() > 0 || (app.wants_calls() && !is_banned))
    }

    pub(crate) fn scope_of(&self, ix: AppIx) -> Scope {
        Scope::App(self.app(ix).name.clone())
    }

    /// A tenant leaves: it is no evidence any more.
    pub(crate) fn forget_on_path(&mut self, slot: Slot) {
        let ix = self.tenants[slot].app;
        let app = self.app_mut(ix);
        app.endpoint.forget(slot);
        let origin = app.path.origin;
        self.origin_mut(origin).forget(slot);
    }

    pub(crate) fn enter_origin(&mut self, now: Now, id: OriginId) {
        if !self.origins.contains_key(&id) {
            let origin = self.recalled_origin(now, id);
            self.origins.insert(id, origin);
        }
        self.origin_mut(id).apps += 1;
    }

    /// An origin that nobody calls from is kept as long as it is banned or slow: it may come back.
    pub(crate) fn leave_origin(&mut self, now: Now, id: OriginId) {
        let origin = self.origin_mut(id);
        origin.apps -= 1;
        if origin.apps == 0 && origin.to_remember(now) == (None, None) {
            self.origins.remove(&id);
        }
    }

    /// Works out anew when an origin's apps may call: a ban began, or ended.
    pub(crate) fn regate_origin(&mut self, now: Now, id: OriginId) {
        let routes: Vec<RouteId> =
            self.routes.iter().filter(|(_, route)| route.origin == id).map(|(id, _)| *id).collect();
        for route in routes {
            self.regate_apps_of(now, route);
        }
    }

    pub(crate) fn set_total(&mut self, now: Now, total: Rate) {
        self.total_rate = total;
        self.total.set_rate(now.boot, total);
        let all: Vec<OriginId> = self.origins.keys().copied().collect();
        for id in all {
            self.origin_mut(id).set_total(now.boot, total);
            self.regate_origin(now, id);
        }
    }

    pub(crate) fn origin(&self, id: OriginId) -> &Origin {
        self.origins.get(&id).expect("an origin outlives its routes")
    }

    pub(crate) fn origin_mut(&mut self, id: OriginId) -> &mut Origin {
        self.origins.get_mut(&id).expect("an origin outlives its routes")
    }

    /// When all that is called from here is paused by a ban, the moment when the first of them is probed.
    pub(crate) fn paused_until(&self) -> Option<BootMs> {
        let used = || self.origins.values().filter(|origin| origin.apps > 0);
        let all_banned = used().all(|origin| origin.ban().is_some());
        used().filter_map(|origin| origin.ban()).map(|ban| ban.until).min().filter(|_| all_banned)
    }
}
