//! What a call's answer means for its tenant.

use super::app_failure::{retry_after_ms, throttled_for_ms};
use crate::domain::{Blame, BootMs, Failure, Grant, Now, OnExpiry, Record, Slot, Ticket};
use crate::engine::Engine;
use crate::engine::breaker::{Doing, ENOUGH};
use crate::engine::messages::{Action, Notice};
use crate::engine::tenants::{Held, Phase};

/// A tenant that is refused is tried again after this long, in milliseconds.
const REFUSED_MS: u64 = 15 * 60 * 1000;
/// As long as the endpoint may be to blame, a tenant is tried again after this long at most, in milliseconds.
const UNCLEAR_MS: u64 = 15_000;
/// An expiry that differs by less is the same: answers count in seconds, and calls take time. In milliseconds.
const SAME_EXPIRY_MS: u64 = 1500;

impl Engine {
    /// A call ended.
    pub(crate) fn called(&mut self, now: Now, ticket: Ticket, outcome: Result<Grant, Failure>) {
        let slot = ticket.slot;
        let expected = self.tenants.get(slot).is_some_and(|t| t.seq == ticket.seq && t.phase == Phase::Calling);
        if !expected {
            if outcome.is_ok() {
                self.outbox.push_back(Action::Discard(ticket));
            }
            return;
        }
        let ix = self.tenants[slot].app;
        self.call_ended(now, slot, outcome.as_ref().err());
        let credentials_since = self.app(ix).credentials_since;
        let tenant = &mut self.tenants[slot];
        tenant.stale |= tenant.called < credentials_since;
        tenant.phase = Phase::Waiting;
        match std::mem::take(&mut tenant.disowned) || tenant.gone {
            true => self.called_for_another(now, ticket, &outcome),
            false => match outcome {
                Ok(grant) => self.granted(now, ticket, grant),
                Err(failure) => self.failed(now, slot, failure),
            },
        }
        if let Some(app) = &self.apps[ix.0 as usize] {
            let route = app.path.route;
            self.regate(now, ix);
            self.regate_route(now, route);
        }
    }

    /// The answer to a call that was made for a tenant that left the config since, even if it came back. What it says about
    /// the app and the endpoint is true all the same.
    fn called_for_another(&mut self, now: Now, ticket: Ticket, outcome: &Result<Grant, Failure>) {
        let slot = ticket.slot;
        match outcome {
            Ok(_) => {
                self.app_succeeded(now, slot);
                self.outbox.push_back(Action::Discard(ticket));
            }
            Err(failure) => self.heed(now, slot, failure),
        }
        if self.tenants[slot].gone {
            self.bury(now, slot);
        } else {
            self.schedule(now, slot, now.boot);
        }
    }

    fn granted(&mut self, now: Now, ticket: Ticket, grant: Grant) {
        let slot = ticket.slot;
        if let Some(refusal) = self.refusal_of_shared(now, slot, grant.fingerprint) {
            self.outbox.push_back(Action::Discard(ticket));
            self.failed(now, slot, refusal);
            return;
        }
        self.app_succeeded(now, slot);
        let tenant = &self.tenants[slot];
        let held = held_from(now, tenant.called, ticket.seq, grant);
        let same = tenant.held.filter(|old| old.fingerprint == held.fingerprint);
        match same {
            Some(old) if !extends(&old, &held) => {
                self.mend(slot);
                self.not_extended(now, ticket, old, held);
            }
            _ => {
                self.keep(now, ticket, held, same.is_some());
                if self.lives_too_short(slot) {
                    self.wait_out_short_life(now, slot);
                    return;
                }
                self.mend(slot);
                self.forget_trouble(slot);
                let at = self.refresh_point(slot, &held);
                self.schedule_after_answer(now, slot, at);
            }
        }
    }

    /// The endpoint answered with the token that we have and, more or less, the expiry that we knew. Asking again soon would
    /// bring the same again, ever faster; the token is asked for anew when it has expired.
    fn not_extended(&mut self, now: Now, ticket: Ticket, old: Held, new: Held) {
        let slot = ticket.slot;
        if new.expires_boot.0.abs_diff(old.expires_boot.0) < SAME_EXPIRY_MS {
            self.outbox.push_back(Action::Discard(ticket));
            if let Some(held) = &mut self.tenants[slot].held {
                held.restored = false; // its life was heard of anew, on the clock that does not step
                if held.tell_anew(now) {
                    self.amend(slot);
                }
            }
        } else {
            // Its life began when it was first asked for; the wall clock may have been set since.
            let requested_at = new.requested_at - asked_ms_later(&old, &new);
            self.keep(now, ticket, Held { requested_at, ..new }, true);
        }
        self.remember_unextended(slot);
        let at = self.tenants[slot].held.map_or(now.boot, |held| held.expires_boot);
        self.schedule_after_answer(now, slot, at);
    }

    /// Takes a token for the tenant's own; it is published once it is kept.
    fn keep(&mut self, now: Now, ticket: Ticket, held: Held, renewed: bool) {
        let slot = ticket.slot;
        self.release_early(slot);
        if !renewed {
            self.note_shown(slot);
        }
        let lapsed = !self.tenants[slot].is_valid(now.boot);
        self.hold(slot, Some(held));
        let tenant = &mut self.tenants[slot];
        tenant.expiry_said = false;
        // The same token shows nowhere but in the expiry, unless it expired and was deleted for that.
        let mask = self.publisher.mask(tenant.sink_set, |sink| {
            !renewed || sink.shows_expiry || (lapsed && sink.on_expiry == OnExpiry::Delete)
        });
        self.begin_commit(slot);
        self.mark_dirty(slot, mask);
        let record =
            Record { requested_at: held.requested_at, expires_at: held.expires_at, fingerprint: held.fingerprint };
        let (fingerprint, lifetime_s) = (held.fingerprint, record.lifetime_s());
        let Some(id) = self.id(slot) else { return };
        self.outbox.push_back(Action::Commit { ticket, id: id.clone(), record });
        self.say(match renewed {
            true => Notice::Renewed { tenant: id, fingerprint, lifetime_s },
            false => Notice::Rotated { tenant: id, fingerprint, lifetime_s },
        });
    }

    /// The token that a tenant is thought to have is nowhere to be read: it has none, and is called for.
    pub(crate) fn lost(&mut self, now: Now, ticket: Ticket) {
        let slot = ticket.slot;
        if self.tenants.get(slot).is_none_or(|t| t.gone || t.sinks.uncommitted || t.ticket(slot) != Some(ticket)) {
            return;
        }
        self.forget_sinks(slot);
        self.hold(slot, None);
        self.tenants[slot].expiry_said = false;
        if self.tenants[slot].phase == Phase::Calling {
            self.reconsider(now, slot);
        } else {
            self.schedule(now, slot, now.boot);
        }
        // It may have stood in its app's queue.
        self.regate(now, self.tenants[slot].app);
    }

    fn failed(&mut self, now: Now, slot: Slot, failure: Failure) {
        let doing = self.path_failed(now, slot, &failure);
        let wait = match failure.kind.blame() {
            // The tenant did nothing wrong: it waits for its turn, and only `status` says what became of its call.
            Blame::AppTooFast | Blame::EveryoneTooFast | Blame::Banned => {
                self.note_trouble(now, slot, &failure);
                throttled_for_ms(&failure)
            }
            Blame::Transient | Blame::Suspect if doing == Doing::Endpoint => {
                self.note_trouble(now, slot, &failure);
                retry_after_ms(&failure)
            }
            blame => self.wait_of_its_own(now, slot, (blame, doing), &failure),
        };
        self.heed(now, slot, &failure);
        self.schedule_after_answer(now, slot, now.boot + wait);
        if doing == Doing::Endpoint {
            // Whether it is the endpoint's still is nothing that the next process could not find out with one call.
            self.forget_trouble(slot);
        } else {
            self.remember_failure(now, slot);
        }
        // Of many that fail alike, the breaker says it once.
        if doing != Doing::Endpoint || self.app(self.tenants[slot].app).members() < ENOUGH {
            self.complain(now, slot, failure);
        }
    }

    /// Counts a failure as the tenant's, and returns how long it waits, in milliseconds.
    fn wait_of_its_own(&mut self, now: Now, slot: Slot, (blame, doing): (Blame, Doing), failure: &Failure) -> u64 {
        let backoff = self.count_failure(now, slot, failure);
        match blame {
            Blame::Tenant => REFUSED_MS,
            Blame::Suspect if self.is_refused(slot) => REFUSED_MS,
            Blame::Transient | Blame::Suspect if doing == Doing::Unclear => {
                backoff.min(UNCLEAR_MS).max(retry_after_ms(failure))
            }
            Blame::Transient | Blame::Suspect => backoff.max(retry_after_ms(failure)),
            // The breaker, the limits and the ban hold it back.
            Blame::App | Blame::AppTooFast | Blame::EveryoneTooFast | Blame::Banned => 0,
        }
    }

    /// The next call: at `at`, or now if the credentials changed while the last one was under way.
    pub(crate) fn schedule_after_answer(&mut self, now: Now, slot: Slot, at: BootMs) {
        let at = if self.tenants[slot].stale { now.boot } else { at };
        self.schedule(now, slot, at);
    }
}

/// The token's life is counted from before the call, so it never seems longer than the endpoint thinks it is.
fn held_from(now: Now, called: BootMs, seq: u32, grant: Grant) -> Held {
    let requested_at = now.wall - now.boot.since(called);
    let life = u64::from(grant.lifetime_s) * 1000;
    Held {
        seq,
        fingerprint: grant.fingerprint,
        requested_at,
        expires_at: requested_at + life,
        expires_boot: called + life,
        restored: false,
    }
}

/// How long after the old token the new one was asked for, in milliseconds, on the clock that does not step.
fn asked_ms_later(old: &Held, new: &Held) -> u64 {
    (new.expires_boot + old.lifetime_ms()).0.saturating_sub(old.expires_boot.0 + new.lifetime_ms())
}

/// Whether the same token, asked for again, lives noticeably longer: by at least half of the time that passed between.
fn extends(old: &Held, new: &Held) -> bool {
    new.expires_boot.since(old.expires_boot) * 2 >= asked_ms_later(old, new).max(1)
}
