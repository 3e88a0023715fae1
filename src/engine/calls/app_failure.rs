//! What an answer means for others than its tenant: the app's credentials, and who slows down, stops and probes.

use crate::domain::{Blame, Failure, FailureKind, Now, OriginId, Slot};
use crate::engine::Engine;
use crate::engine::messages::{CallScope, Notice};

/// The least that throttling holds calls back, in milliseconds.
const THROTTLE_MS: u64 = 1000;
/// A wait that an answer asks for holds its app, or everybody, back for so long; a longer one its tenant alone, and another
/// tenant probes meanwhile. In milliseconds.
const HOLD_MS: u64 = 2000;
/// The longest that the endpoint's `Retry-After` is followed, in milliseconds: a wrong one must not stop us for long.
const RETRY_AFTER_MOST_MS: u64 = 5 * 60 * 1000;

/// How long the endpoint asked us to wait, in milliseconds.
pub(super) fn retry_after_ms(failure: &Failure) -> u64 {
    (u64::from(failure.retry_after_s.unwrap_or(0)) * 1000).min(RETRY_AFTER_MOST_MS)
}

/// How long a tenant waits for itself after a throttled call, in milliseconds.
pub(super) fn throttled_for_ms(failure: &Failure) -> u64 {
    let asked = retry_after_ms(failure);
    if asked > HOLD_MS { asked } else { 0 }
}

impl Engine {
    /// Applies what a failed call says about others than its tenant.
    pub(super) fn apply_failure_to_app(&mut self, now: Now, slot: Slot, failure: &Failure) {
        match failure.kind.blame() {
            Blame::Tenant => self.app_succeeded(now, slot),
            _ => self.path_answered(now, slot, Some(failure.kind)),
        }
        self.throttle(now, slot, failure);
        self.update_credentials_breaker(now, slot, failure);
    }

    /// The endpoint knew the app's credentials, which closes the credentials breaker. An answer to a call that was sent
    /// before that opened, or with credentials that are no longer used, says nothing about it.
    pub(super) fn app_succeeded(&mut self, now: Now, slot: Slot) {
        self.path_answered(now, slot, None);
        let tenant = &self.tenants[slot];
        let (ix, sent, stale) = (tenant.app, tenant.called_at, tenant.stale);
        let origin = self.apps[ix].path.origin;
        if self.origin_mut(origin).speed_up(now.boot) {
            self.save_pace(now, origin);
        }
        if self.apps[ix].limiter.speed_up(now.boot) {
            self.save_rate(now, ix);
        }
        let app = &mut self.apps[ix];
        if stale || app.credentials_breaker.as_ref().is_some_and(|open| sent < open.opened) {
            return;
        }
        let unproven = std::mem::take(&mut app.recovery_unproven);
        let closed = app.credentials_breaker.take().is_some();
        if closed || unproven {
            let app = app.name.clone();
            self.notify(Notice::AppRecovered { app });
        }
        if closed {
            self.save_breaker(now, ix);
        }
    }

    /// Slows down, or stops, whatever the endpoint wants to be slower.
    fn throttle(&mut self, now: Now, slot: Slot, failure: &Failure) {
        let hold = retry_after_ms(failure).clamp(THROTTLE_MS, HOLD_MS);
        let ix = self.tenants[slot].app;
        let app = &mut self.apps[ix];
        let origin = app.path.origin;
        let is_todays_path = self.tenants[slot].called_at >= app.path_since;
        match failure.kind.blame() {
            // It is about a path that the app's calls no longer go.
            Blame::EveryoneTooFast | Blame::Banned | Blame::Transient if !is_todays_path => {}
            Blame::AppTooFast => {
                if app.limiter.slow_down(now.boot, hold) {
                    let (scope, percent) = (CallScope::App(app.name.clone()), app.limiter.percent());
                    self.notify(Notice::Throttled { scope, failure: failure.clone(), percent });
                }
                self.save_rate(now, ix);
                self.hold_back_others(now, slot, failure);
            }
            Blame::EveryoneTooFast => {
                let total = self.dispatcher.total.rate();
                if self.origin_mut(origin).slow_down(now.boot, total, hold) {
                    let (scope, percent) = (CallScope::Origin(origin), self.origin(origin).percent());
                    self.notify(Notice::Throttled { scope, failure: failure.clone(), percent });
                }
                self.save_pace(now, origin);
                self.hold_back_others(now, slot, failure);
            }
            Blame::Banned => self.banned(now, origin, failure),
            Blame::Transient if failure.kind == FailureKind::Blocked => {
                if self.origin_mut(origin).suspect(now.boot, slot) {
                    self.banned(now, origin, failure);
                }
            }
            Blame::Transient | Blame::Suspect | Blame::Tenant | Blame::App => {}
        }
    }

    /// The endpoint's host bans the address: whoever calls from it stops.
    fn banned(&mut self, now: Now, id: OriginId, failure: &Failure) {
        if let Some(for_ms) = self.origin_mut(id).bans(now.boot, failure) {
            self.notify(Notice::Banned { origin: id, failure: failure.clone(), for_ms });
        }
        let total = self.dispatcher.total.rate();
        self.origin_mut(id).slow_down(now.boot, total, 0);
        self.save_ban(now, id);
        self.save_pace(now, id);
        self.update_eligibility_on_origin(now, id);
    }

    /// An answer asks for a wait of more than a moment. Its tenant keeps it; of the others, one probes after a few seconds.
    fn hold_back_others(&mut self, now: Now, slot: Slot, failure: &Failure) {
        let (ix, asked) = (self.tenants[slot].app, throttled_for_ms(failure));
        if asked == 0 {
            return;
        }
        if failure.kind.blame() == Blame::EveryoneTooFast {
            let id = self.apps[ix].path.route;
            if self.route_mut(id).breaker.wait_for(now.boot, ix, asked, failure) {
                self.report_breaker(CallScope::Route(id), failure);
            }
            self.update_eligibility_on_route(now, id);
        } else if self.apps[ix].members() > 1 {
            if self.apps[ix].breaker.wait_for(now.boot, slot, asked, failure) {
                self.report_breaker(self.scope_of(ix), failure);
            }
            self.update_eligibility(now, ix);
        }
    }

    /// Opens the credentials breaker of an app, or puts off the next probe of one that is open.
    fn update_credentials_breaker(&mut self, now: Now, slot: Slot, failure: &Failure) {
        let is_apps = failure.kind.blame() == Blame::App;
        let tenant = &self.tenants[slot];
        let (ix, sent, stale) = (tenant.app, tenant.called_at, tenant.stale);
        let app = &mut self.apps[ix];
        let is_old = app.credentials_breaker.as_ref().is_some_and(|open| sent < open.opened);
        // It is not the app's fault, or that of credentials which are no longer used.
        if stale || is_old || (app.credentials_breaker.is_none() && !is_apps) {
            return;
        }
        let is_due = app.credentials_failed(now.boot, is_apps.then_some(failure.kind), retry_after_ms(failure));
        if let Some(next_in_ms) = is_due {
            let app = app.name.clone();
            self.notify(Notice::AppBroken { app, failure: failure.clone(), next_in_ms });
        }
        self.save_breaker(now, ix);
    }
}
