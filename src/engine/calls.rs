//! What a call's answer means: for its tenant, its app, and everybody.

use super::app::Breaker;
use super::backoff;
use super::tenant::{Held, Phase};
use super::view::Trouble;
use super::{Action, Engine, Notice};
use crate::domain::{Blame, BootMs, Failure, FailureKind, Grant, Now, Record, Slot, Ticket};

/// A tenant that is refused is tried again after this long, in milliseconds.
const REFUSED_MS: u64 = 15 * 60 * 1000;
/// A tenant that never had a token, and gets "unknown error" this often, is suspected of a wrong corp_id.
const SUSPECT_AFTER: u16 = 4;
/// The least that a ban lasts, in milliseconds.
const BAN_MS: u64 = 5 * 60 * 1000;
/// The least that throttling holds calls back, in milliseconds.
const THROTTLE_MS: u64 = 1000;
/// How often a failure that goes on is said again, in milliseconds.
pub(super) const REMIND_MS: u64 = 60 * 60 * 1000;
/// An expiry that differs by less is the same: answers count in seconds, and calls take time. In milliseconds.
const SAME_EXPIRY_MS: u64 = 1500;

impl Engine {
    /// A call ended.
    pub(super) fn called(&mut self, now: Now, ticket: Ticket, outcome: Result<Grant, Failure>) {
        let slot = ticket.slot;
        let expected = self.tenants.get(slot).is_some_and(|t| t.seq == ticket.seq && t.phase == Phase::Calling);
        if !expected {
            if outcome.is_ok() {
                self.outbox.push_back(Action::Discard(ticket));
            }
            return;
        }
        let ix = self.tenants[slot].app;
        self.app_mut(ix).in_flight -= 1;
        self.tenants[slot].phase = Phase::Waiting;
        if self.tenants[slot].gone {
            if outcome.is_ok() {
                self.outbox.push_back(Action::Discard(ticket));
            }
            self.bury(now, slot);
        } else {
            match outcome {
                Ok(grant) => self.granted(now, ticket, grant),
                Err(failure) => self.failed(now, slot, failure),
            }
        }
        if self.apps[ix.0 as usize].is_some() {
            self.regate(now, ix);
        }
    }

    fn granted(&mut self, now: Now, ticket: Ticket, grant: Grant) {
        let slot = ticket.slot;
        self.app_succeeded(now, slot);
        self.mend(slot);
        let tenant = &self.tenants[slot];
        let held = held_from(now, tenant.called, ticket.seq, grant);
        let old = tenant.held;
        let same = old.filter(|old| old.fingerprint == held.fingerprint);
        match same {
            Some(old) if !extends(&old, &held) => self.not_extended(now, ticket, old, held),
            _ => {
                self.keep(ticket, held, same.is_some());
                let at = self.refresh_point(slot, &held);
                self.schedule_after_answer(now, slot, at);
            }
        }
    }

    /// The endpoint answered with the token that we have and, more or less, the expiry that we knew. Asking again soon would
    /// bring the same again, ever faster; the token is asked for anew when it has expired.
    fn not_extended(&mut self, now: Now, ticket: Ticket, old: Held, new: Held) {
        let slot = ticket.slot;
        let held = Held { asked: old.asked, ..new };
        if new.expires.0.abs_diff(old.expires.0) < SAME_EXPIRY_MS {
            self.outbox.push_back(Action::Discard(ticket));
        } else {
            self.keep(ticket, held, true);
        }
        let at = self.tenants[slot].held.map_or(now.boot, |held| held.expires_boot);
        self.schedule_after_answer(now, slot, at);
    }

    /// Takes a token for the tenant's own; it is published once it is kept.
    fn keep(&mut self, ticket: Ticket, held: Held, renewed: bool) {
        let slot = ticket.slot;
        let tenant = &mut self.tenants[slot];
        tenant.held = Some(held);
        let mask = self.outlets.mask(tenant.sinks, |outlet| !renewed || outlet.shows_expiry);
        tenant.after_keep |= mask;
        let record = Record { asked: held.asked, expires: held.expires, fingerprint: held.fingerprint };
        let (fingerprint, lifetime_s) = (held.fingerprint, record.lifetime_s());
        self.outbox.push_back(Action::Keep(ticket, record));
        if let Some(tenant) = self.id(slot) {
            self.say(match renewed {
                true => Notice::Renewed { tenant, fingerprint, lifetime_s },
                false => Notice::Rotated { tenant, fingerprint, lifetime_s },
            });
        }
    }

    /// The token of this ticket may be published.
    pub(super) fn kept(&mut self, now: Now, ticket: Ticket) {
        let slot = ticket.slot;
        let current = |held: Held| held.seq == ticket.seq;
        if self.tenants.get(slot).is_none_or(|t| t.gone || !t.held.is_some_and(current)) {
            self.outbox.push_back(Action::Release(ticket));
            return;
        }
        let mask = std::mem::take(&mut self.tenants[slot].after_keep);
        self.want(slot, mask);
        self.release_if_done(slot);
        self.settle(now, slot);
    }

    /// The token that a tenant is thought to have is nowhere to be read.
    pub(super) fn lost(&mut self, now: Now, ticket: Ticket) {
        let slot = ticket.slot;
        if self.tenants.get(slot).is_some_and(|t| !t.gone && t.held.is_some_and(|held| held.seq == ticket.seq)) {
            let tenant = &mut self.tenants[slot];
            tenant.held = None;
            (tenant.wanted, tenant.failing) = (0, 0);
            if tenant.phase == Phase::Calling {
                self.settle(now, slot);
            } else {
                self.schedule(now, slot, now.boot);
            }
        }
    }

    fn failed(&mut self, now: Now, slot: Slot, failure: Failure) {
        let retry_after_ms = u64::from(failure.retry_after_s.unwrap_or(0)) * 1000;
        let wait = match failure.kind.blame() {
            Blame::Transient => self.count_failure(now, slot, &failure).max(retry_after_ms),
            Blame::Suspect => match self.count_failure(now, slot, &failure) {
                _ if self.is_suspect(slot) => REFUSED_MS,
                wait => wait,
            },
            Blame::Tenant => {
                self.app_succeeded(now, slot);
                self.count_failure(now, slot, &failure);
                REFUSED_MS
            }
            Blame::App => {
                self.count_failure(now, slot, &failure);
                0
            }
            // The tenant did nothing wrong: it waits for its turn, and only `status` says what became of its call.
            Blame::AppTooFast | Blame::EveryoneTooFast | Blame::Banned => {
                self.note_trouble(now, slot, &failure, false);
                0
            }
        };
        self.brake(now, slot, &failure, retry_after_ms);
        self.probe_failed(now, slot, &failure);
        self.schedule_after_answer(now, slot, now.boot + wait);
        self.complain(now, slot, failure);
    }

    /// Whether a tenant that gets "unknown error" is to be suspected: one that has worked before is not.
    fn is_suspect(&self, slot: Slot) -> bool {
        let tenant = &self.tenants[slot];
        tenant.held.is_none() && tenant.failures >= SUSPECT_AFTER
    }

    /// Counts a failure of the tenant's and returns how long exponential backoff would wait.
    fn count_failure(&mut self, now: Now, slot: Slot, failure: &Failure) -> u64 {
        let key = self.tenants.hash_of(slot);
        let retry = self.app(self.tenants[slot].app).policy.retry;
        let tenant = &mut self.tenants[slot];
        let failures = tenant.failures;
        tenant.failures = failures.saturating_add(1);
        let refused = match failure.kind.blame() {
            Blame::Tenant | Blame::App => true,
            Blame::Suspect => self.is_suspect(slot),
            _ => false,
        };
        self.note_trouble(now, slot, failure, refused);
        backoff::wait_ms(retry, failures, backoff::hash([self.seed, key, failures.into()]))
    }

    fn note_trouble(&mut self, now: Now, slot: Slot, failure: &Failure, refused: bool) {
        let trouble = self.troubles.entry(slot).or_insert_with(|| Trouble::new(failure.clone(), now));
        trouble.at = now.wall;
        trouble.refused = refused;
        trouble.failure = failure.clone();
    }

    /// Says a tenant's failure, if that is news. What an app or everybody suffers from is said by `brake` and `probe_failed`.
    fn complain(&mut self, now: Now, slot: Slot, failure: Failure) {
        if !matches!(failure.kind.blame(), Blame::Transient | Blame::Suspect | Blame::Tenant) {
            return;
        }
        let next_in_ms = self.tenants[slot].due.since(now.boot);
        let attempt = self.tenants[slot].failures;
        let news = self.troubles.get_mut(&slot).is_some_and(|trouble| trouble.is_news(now));
        if let Some(tenant) = self.id(slot).filter(|_| news) {
            self.say(Notice::Failing { tenant, failure, attempt, next_in_ms });
        }
    }

    /// A tenant's trouble is over.
    fn mend(&mut self, slot: Slot) {
        let attempts = std::mem::take(&mut self.tenants[slot].failures);
        if self.troubles.remove(&slot).is_some_and(|trouble| trouble.was_said())
            && let Some(tenant) = self.id(slot)
        {
            self.say(Notice::Mended { tenant, attempts });
        }
    }

    /// Slows down, or stops, whom the endpoint wants to.
    fn brake(&mut self, now: Now, slot: Slot, failure: &Failure, retry_after_ms: u64) {
        let hold = retry_after_ms.max(THROTTLE_MS);
        match failure.kind.blame() {
            Blame::AppTooFast => {
                let app = self.app_mut(self.tenants[slot].app);
                if app.limiter.slow_down(now.boot, hold) {
                    let (app, percent) = (Some(app.name.clone()), app.limiter.percent());
                    self.say(Notice::SlowedDown { app, failure: failure.clone(), percent });
                }
            }
            Blame::EveryoneTooFast => {
                if self.total.slow_down(now.boot, hold) {
                    let percent = self.total.percent();
                    self.say(Notice::SlowedDown { app: None, failure: failure.clone(), percent });
                }
            }
            Blame::Banned => {
                let for_ms = retry_after_ms.max(BAN_MS);
                if now.boot >= self.paused_until {
                    self.say(Notice::Paused { failure: failure.clone(), for_ms });
                }
                self.paused_until = self.paused_until.max(now.boot + for_ms);
                self.total.slow_down(now.boot, 0);
            }
            Blame::Transient | Blame::Suspect | Blame::Tenant | Blame::App => {}
        }
    }

    /// Opens the app's breaker, or puts off the next probe of one that is open.
    fn probe_failed(&mut self, now: Now, slot: Slot, failure: &Failure) {
        let is_apps = failure.kind.blame() == Blame::App;
        let (sent, stale) = (self.tenants[slot].called, self.tenants[slot].stale);
        let app = self.app_mut(self.tenants[slot].app);
        let (opened, probes, said) = match &app.breaker {
            None if !is_apps || stale => return, // not the app's fault, or that of credentials which are no longer used
            None => (now.boot, 0, None),
            Some(open) if sent < open.opened => return,
            Some(open) => (open.opened, open.probes.saturating_add(1), Some((open.kind, open.said))),
        };
        let kind = match (&app.breaker, is_apps) {
            (Some(open), false) => open.kind,
            _ => failure.kind,
        };
        let wait = Breaker::wait_ms(kind, probes);
        let news = said.is_none_or(|(before, at)| before != kind || now.boot.since(at) >= REMIND_MS);
        let said = if news { now.boot } else { said.map_or(now.boot, |(_, at)| at) };
        app.breaker = Some(Breaker { kind, opened, probes, probe_at: now.boot + wait, said });
        if news {
            let notice = Notice::AppBroken { app: app.name.clone(), failure: failure.clone(), next_in_ms: wait };
            self.say(notice);
        }
    }

    /// The endpoint knew the app's credentials: if they were thought wrong, they are right again.
    fn app_succeeded(&mut self, now: Now, slot: Slot) {
        self.total.ease(now.boot);
        let app = self.app_mut(self.tenants[slot].app);
        app.limiter.ease(now.boot);
        let was_broken = std::mem::take(&mut app.awaits_proof);
        if app.breaker.take().is_some() || was_broken {
            let app = app.name.clone();
            self.say(Notice::AppMended { app });
        }
    }

    /// The next call: at `at`, or now if the credentials changed while the last one was under way.
    fn schedule_after_answer(&mut self, now: Now, slot: Slot, at: BootMs) {
        let at = if self.tenants[slot].stale { now.boot } else { at };
        self.schedule(now, slot, at);
    }
}

impl Trouble {
    fn new(failure: Failure, now: Now) -> Self {
        Self { failure, since: now.wall, at: now.wall, refused: false, said: None }
    }

    /// Whether this trouble is to be said now: at its start, when its kind changes, and once an hour.
    fn is_news(&mut self, now: Now) -> bool {
        let kind: (FailureKind, bool) = (self.failure.kind, self.refused);
        let news = self.said.is_none_or(|(said, at)| said != kind || now.boot.since(at) >= REMIND_MS);
        if news {
            self.said = Some((kind, now.boot));
        }
        news
    }

    fn was_said(&self) -> bool {
        self.said.is_some()
    }
}

/// The token's life is counted from before the call, so it never seems longer than the endpoint thinks it is.
fn held_from(now: Now, called: BootMs, seq: u32, grant: Grant) -> Held {
    let asked = now.wall - now.boot.since(called);
    let life = u64::from(grant.lifetime_s) * 1000;
    Held {
        seq,
        fingerprint: grant.fingerprint,
        asked,
        expires: asked + life,
        expires_boot: called + life,
        restored: false,
    }
}

/// Whether the same token, asked for again, lives noticeably longer: by at least half of the time that passed between.
fn extends(old: &Held, new: &Held) -> bool {
    let passed = new.asked.since(old.asked);
    new.expires_boot.since(old.expires_boot) * 2 >= passed.max(1)
}
