//! What a call's answer means for its app, and for everybody: who slows down, who stops, and who probes.

use super::app::Breaker;
use super::trouble::REMIND_MS;
use super::{Engine, Notice};
use crate::domain::{Blame, Failure, Now, Slot};

/// The least that a ban lasts, in milliseconds.
const BAN_MS: u64 = 5 * 60 * 1000;
/// The least that throttling holds calls back, in milliseconds.
const THROTTLE_MS: u64 = 1000;
/// The longest that the endpoint's `Retry-After` is followed, in milliseconds: a wrong one must not stop us for years.
const RETRY_AFTER_MOST_MS: u64 = 60 * 60 * 1000;

/// How long the endpoint asked us to wait, in milliseconds.
pub(super) fn retry_after_ms(failure: &Failure) -> u64 {
    (u64::from(failure.retry_after_s.unwrap_or(0)) * 1000).min(RETRY_AFTER_MOST_MS)
}

impl Engine {
    /// Draws from a failed call what it says about others than its tenant.
    pub(super) fn heed(&mut self, now: Now, slot: Slot, failure: &Failure) {
        if failure.kind.blame() == Blame::Tenant {
            self.app_succeeded(now, slot);
        }
        self.brake(now, slot, failure);
        self.probe_failed(now, slot, failure);
    }

    /// The endpoint knew the app's credentials: if they were thought wrong, they are right again. An answer to a call that was
    /// sent before that was found out, or with credentials that are no longer used, says nothing about it.
    pub(super) fn app_succeeded(&mut self, now: Now, slot: Slot) {
        self.forget_old_ban(now);
        if self.total.ease(now.boot) {
            self.remember_total(now);
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
            self.say(Notice::AppMended { app });
        }
        if broken {
            self.remember_breaker(now, ix);
        }
    }

    /// Slows down, or stops, whom the endpoint wants to.
    fn brake(&mut self, now: Now, slot: Slot, failure: &Failure) {
        let hold = retry_after_ms(failure).max(THROTTLE_MS);
        match failure.kind.blame() {
            Blame::AppTooFast => {
                let ix = self.tenants[slot].app;
                let app = self.app_mut(ix);
                if app.limiter.slow_down(now.boot, hold) {
                    let (app, percent) = (Some(app.name.clone()), app.limiter.percent());
                    self.say(Notice::SlowedDown { app, failure: failure.clone(), percent });
                }
                self.remember_rate(now, ix);
            }
            Blame::EveryoneTooFast => {
                if self.total.slow_down(now.boot, hold) {
                    let percent = self.total.percent();
                    self.say(Notice::SlowedDown { app: None, failure: failure.clone(), percent });
                }
                self.remember_total(now);
            }
            Blame::Banned => {
                let for_ms = retry_after_ms(failure).max(BAN_MS);
                if now.boot >= self.paused_until {
                    self.say(Notice::Paused { failure: failure.clone(), for_ms });
                }
                self.paused_until = self.paused_until.max(now.boot + for_ms);
                self.total.slow_down(now.boot, 0);
                self.remember_ban(now);
                self.remember_total(now);
            }
            Blame::Transient | Blame::Suspect | Blame::Tenant | Blame::App => {}
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
