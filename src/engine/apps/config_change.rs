//! How a change of the config is applied to an app, and how it comes and goes.

use super::{App, Route};
use crate::domain::{AppName, AppPolicy, BootMs, CallPath, Freshness, Now, OriginId, Rate, TenantCounts};
use crate::engine::calls::breaker::Breaker;
use crate::engine::calls::{CallQueue, Concurrency, Eligibility, RateLimiter};
use crate::engine::messages::Notice;
use crate::engine::{AppIx, Engine};

impl Engine {
    pub(crate) fn set_app(&mut self, now: Now, name: AppName, policy: AppPolicy, path: CallPath, freshness: Freshness) {
        let Some(ix) = self.apps.find(&name) else {
            self.add_app(now, name, policy, path);
            return;
        };
        self.set_path(now, ix, path);
        let app = &mut self.apps[ix];
        let returned = std::mem::take(&mut app.removed);
        let before = std::mem::replace(&mut app.policy, policy);
        app.limiter.set_rate(now.boot, policy.rate);
        let is_stale = freshness == Freshness::Stale;
        let closed = (is_stale || returned) && app.credentials_breaker.take().is_some();
        app.recovery_unproven |= closed;
        if closed {
            self.save_breaker(now, ix);
        }
        if is_stale || before.refresh != policy.refresh || before.enabled != policy.enabled {
            self.reevaluate_app(now, ix, freshness);
        }
        self.update_route_membership(ix);
        self.update_eligibility(now, ix);
    }

    fn add_app(&mut self, now: Now, name: AppName, policy: AppPolicy, path: CallPath) {
        self.enter_path(now, path);
        let ix = self.apps.insert(App {
            name,
            policy,
            path,
            path_since: now.boot,
            limiter: RateLimiter::new(policy.rate, now.boot),
            queue: CallQueue::default(),
            eligibility: Eligibility::Ineligible,
            credentials_breaker: None,
            recovery_unproven: false,
            breaker: Breaker::default(),
            concurrency: Concurrency::default(),
            preferred_healthy: false,
            attained_service: 0,
            tenants: 0,
            counts: TenantCounts::default(),
            demand: 0,
            credentials_since: BootMs(0),
            reevaluation: None,
            repairs: 0,
            on_route: false,
            removed: false,
        });
        self.restore_app(now, ix);
    }

    /// An app's calls go another path from here on. What was learnt about the old one does not count for it.
    fn set_path(&mut self, now: Now, ix: AppIx, path: CallPath) {
        let before = self.apps[ix].path;
        if path == before {
            return;
        }
        self.enter_path(now, path);
        self.set_eligibility(now, ix, Eligibility::Ineligible);
        let app = &mut self.apps[ix];
        (app.path, app.path_since) = (path, now.boot);
        let in_flight = app.concurrency.in_flight();
        let breaker = std::mem::take(&mut app.breaker);
        if std::mem::take(&mut app.on_route) {
            self.route_mut(before.route).members -= 1;
        }
        if before.route != path.route {
            self.route_mut(before.route).concurrency.give_away(in_flight);
            self.route_mut(path.route).concurrency.take_over(in_flight, now.boot);
        }
        if in_flight > 0 {
            // Their answers will not be told from those of other calls, so none of them counts as a probe's.
            self.route_mut(before.route).breaker.abandon_probes();
            self.origin_mut(before.origin).abandon_probe();
            self.update_eligibility_on_origin(now, before.origin);
        }
        self.leave_path(now, ix, before);
        self.update_route_membership(ix);
        if let Some(failed) = breaker.into_failed() {
            self.notify(Notice::BreakerClosed { scope: self.scope_of(ix) });
            self.retry_failed(now, ix, failed, None);
        }
        self.update_eligibility(now, ix);
    }

    fn enter_path(&mut self, now: Now, path: CallPath) {
        self.routes.entry(path.route).or_insert_with(|| Route::new(path.origin)).apps += 1;
        if !self.origins.contains_key(&path.origin) {
            let origin = self.restored_origin(now, path.origin);
            self.origins.insert(path.origin, origin);
        }
        self.origin_mut(path.origin).apps += 1;
    }

    fn leave_path(&mut self, now: Now, ix: AppIx, path: CallPath) {
        let route = self.route_mut(path.route);
        route.breaker.forget(ix);
        route.apps -= 1;
        if route.apps == 0 {
            self.routes.remove(&path.route);
        }
        let origin = self.origin_mut(path.origin);
        origin.apps -= 1;
        // An origin that nobody calls from is kept as long as it is banned or slow: an app may come back to it.
        if origin.apps == 0 && origin.to_saved(now) == (None, None) {
            self.origins.remove(&path.origin);
        }
    }

    /// Only an enabled app with tenants counts when a route's breaker weighs how many of its apps fail.
    pub(crate) fn update_route_membership(&mut self, ix: AppIx) {
        let app = &mut self.apps[ix];
        let is_member = app.policy.enabled && app.counts.total() > 0;
        if std::mem::replace(&mut app.on_route, is_member) != is_member {
            let id = app.path.route;
            let members = &mut self.route_mut(id).members;
            *members = if is_member { *members + 1 } else { *members - 1 };
        }
    }

    pub(crate) fn remove_app(&mut self, now: Now, name: &AppName) {
        if let Some(ix) = self.apps.find(name) {
            self.apps[ix].removed = true;
            self.drop_app_if_empty(now, ix);
        }
    }

    /// Drops an app that left the config, once none of its tenants' calls is in flight.
    pub(crate) fn drop_app_if_empty(&mut self, now: Now, ix: AppIx) {
        let app = &mut self.apps[ix];
        if app.removed && app.tenants == 0 {
            app.queue = CallQueue::default();
            let path = app.path;
            self.clear_saved_app(now, ix);
            self.set_eligibility(now, ix, Eligibility::Ineligible);
            self.leave_path(now, ix, path);
            self.apps.remove(ix);
        }
    }

    /// The limit on all calls together changed.
    pub(crate) fn set_total_rate(&mut self, now: Now, total: Rate) {
        self.dispatcher.total.set_rate(now.boot, total);
        let origins: Vec<OriginId> = self.origins.keys().copied().collect();
        for id in origins {
            self.origin_mut(id).set_total(now.boot, total);
            self.update_eligibility_on_origin(now, id);
        }
    }
}
