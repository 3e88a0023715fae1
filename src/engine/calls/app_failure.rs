//! What a call's answer means for its app's credentials, and for everybody: who slows down, who stops, and who probes.
//! Whether an app is answered at all is told in `path`.

use crate::domain::{Blame, Failure, FailureKind, Now, OriginId, Slot};
use crate::engine::Engine;
use crate::engine::apps::{BAN_MS, Breaker};
use crate::engine::messages::{Notice, Scope};
use crate::engine::tenants::REMIND_MS;

/// The least that throttling holds calls back, in milliseconds.
const THROTTLE_MS: u64 = 1000;
/// A wait that an answer asks for holds its app, or everybody, back for so long; a longer one its tenant alone, and another
/// tenant probes meanwhile. In milliseconds.
const HOLD_MS: u64 = 2000;
/// The longest that the endpoint's `Retry-After` is followed, in milliseconds: a wrong one must not stop us for long.
const RETRY_AFTER_MOST_MS: u64 = 5 * 60 * 1000;

/// How long the endpoint asked us to wait, in milliseconds.
pub(crate) fn retry_after_ms(failure: &Failure) -> u64 {
    (u64::from(failure.retry_after_s.unwrap_or(0)) * 1000).min(RETRY_AFTER_MOST_MS)
}

/// How long a tenant whose call was throttled waits for itself, in milliseconds.
pub(crate) fn throttled_for_ms(failure: &Failure) -> u64 {
    let asked = retry_after_ms(failure);
    if asked > HOLD_MS { asked } else { 0 }
}

impl Engine {
    /// Draws from a failed call what it says about others than its tenant.
    pub(crate) fn heed(&mut self, now: Now, slot: Slot, failure: &Failure) {
        match failure.kind.blame() {
            Blame::Tenant => self.app_succeeded(now, slot),
            _ => self.path_answered(now, slot, Some(failure.kind)),
        }
        self.brake(now, slot, failure);
        self.probe_failed(now, slot, failure);
    }

    /// The endpoint knew the app's credentials: if they were thought wrong, they are right again. An answer to a call that was
    /// sent before that was found out, or with credentials that are no longer used, says nothing about it.
    pub(crate) fn app_succeeded(&mut self, now: Now, slot: Slot) {
        self.path_answered(now, slot, None);
        let origin = self.app(self.tenants[slot].app).path.origin;
        if self.origin_mut(origin).ease(now.boot) {
            self.remember_pace(now, origin);
        }
        let (ix, sent, stale) = (self.tenants[slot].app, self.tenants[slot].called, self.tenants[slot].stale);
        if self.app_mut(ix).limiter.ease(now.boot) {
            self.remember_rate(now, ix);
        }
        let app = self.app_mut(ix);
        if stale || app.breaker.as_ref().is_some_and(|open| sent < open.opened) {
            return;
        }
        let was_broken = std::mem::take(&mut app.awaits_proof);
        let broken = app.breaker.take().is_some();
        if broken || was_broken {
            let app = app.name.clone();
            self.say(Notice::AppRecovered { app });
        }
        if broken {
            self.remember_breaker(now, ix);
        }
    }

    /// Slows down, or stops, whom the endpoint wants to.
    fn brake(&mut self, now: Now, slot: Slot, failure: &Failure) {
        let hold = retry_after_ms(failure).clamp(THROTTLE_MS, HOLD_MS);
        let ix = self.tenants[slot].app;
        let path = self.app(ix).path;
        let says_of_path = self.tenants[slot].called >= self.app(ix).path_since;
        match failure.kind.blame() {
            // It is about a way that the app's calls no longer go.
            Blame::EveryoneTooFast | Blame::Banned | Blame::Transient if !says_of_path => {}
            Blame::AppTooFast => {
                let app = self.app_mut(ix);
                if app.limiter.slow_down(now.boot, hold) {
                    let (scope, percent) = (Scope::App(app.name.clone()), app.limiter.percent());
                    self.say(Notice::Throttled { scope, failure: failure.clone(), percent });
                }
                self.remember_rate(now, ix);
                self.hold_others(now, slot, failure);
            }
            Blame::EveryoneTooFast => {
                self.slow_down_origin(now, path.origin, hold, failure);
                self.hold_others(now, slot, failure);
            }
            Blame::Banned => self.banned(now, path.origin, failure),
            Blame::Transient if failure.kind == FailureKind::Blocked => {
                if self.origin_mut(path.origin).suspect(now.boot, slot) {
                    self.banned(now, path.origin, failure);
                }
            }
            Blame::Transient | Blame::Suspect | Blame::Tenant | Blame::App => {}
        }
    }

    fn slow_down_origin(&mut self, now: Now, id: OriginId, hold_ms: u64, failure: &Failure) {
        let total = self.total_rate;
        if self.origin_mut(id).slow_down(now.boot, total, hold_ms) {
            let percent = self.origin(id).percent();
            self.say(Notice::Throttled { scope: Scope::Origin(id), failure: failure.clone(), percent });
        }
        self.remember_pace(now, id);
    }

    /// The address is banned from the endpoint's host: whoever calls from it stops.
    fn banned(&mut self, now: Now, id: OriginId, failure: &Failure) {
        if self.origin_mut(id).bans(now.boot, failure) {
            self.say(Notice::Banned { origin: id, failure: failure.clone(), for_ms: BAN_MS });
        }
        let total = self.total_rate;
        self.origin_mut(id).slow_down(now.boot, total, 0);
        self.remember_ban(now, id);
        self.remember_pace(now, id);
        self.regate_origin(now, id);
    }

    /// An answer asks for a wait of more than a moment. Its tenant keeps it; of the others, one probes after a few seconds.
    fn hold_others(&mut self, now: Now, slot: Slot, failure: &Failure) {
        let (ix, asked) = (self.tenants[slot].app, throttled_for_ms(failure));
        if asked == 0 {
            return;
        }
        if failure.kind.blame() == Blame::EveryoneTooFast {
            let id = self.app(ix).path.route;
            if self.route_mut(id).breaker.hold(now.boot, ix, asked, failure) {
                self.say(Notice::BreakerOpened { scope: Scope::Route(id), failure: failure.clone() });
            }
            self.regate_apps_of(now, id);
        } else if self.app(ix).members() > 1 {
            if self.app_mut(ix).endpoint.hold(now.boot, slot, asked, failure) {
                self.say(Notice::BreakerOpened { scope: self.scope_of(ix), failure: failure.clone() });
            }
            self.regate(now, ix);
        }
    }

    /// Opens the app's breaker, or puts off the next probe of one that is open.
    fn probe_failed(&mut self, now: Now, slot: Slot, failure: &Failure) {
        let is_apps = failure.kind.blame() == Blame::App;
        let (sent, stale) = (self.tenants[slot].called, self.tenants[slot].stale);
        let ix = self.tenants[slot].app;
        let app = self.app_mut(ix);
        let (opened, probes, said) = match &app.breaker {
            None if !is_apps || stale => return, // not the app's fault, or that of credentials which are no longer used
            None => (now.boot, 0, None),
            Some(open) if stale || sent < open.opened => return,
            // A probe that failed for another reason has not shown that the credentials are still wrong: the next is due soon.
            Some(open) if !is_apps => (open.opened, 0, Some((open.kind, open.said))),
            Some(open) => (open.opened, open.probes.saturating_add(1), Some((open.kind, open.said))),
        };
        let kind = match (&app.breaker, is_apps) {
            (Some(open), false) => open.kind,
            _ => failure.kind,
        };
        let wait = Breaker::wait_ms(kind, probes).max(retry_after_ms(failure));
        let news = said.is_none_or(|(before, at)| before != kind || now.boot.since(at) >= REMIND_MS);
        let said = if news { now.boot } else { said.map_or(now.boot, |(_, at)| at) };
        app.breaker = Some(Breaker { kind, opened, probes, probe_at: now.boot + wait, said });
        if news {
            let notice = Notice::AppBroken { app: app.name.clone(), failure: failure.clone(), next_in_ms: wait };
            self.say(notice);
        }
        self.remember_breaker(now, ix);
    }
}
