//! What a call's answer means for its tenant.

use super::app_failure::{retry_after_ms, throttled_for_ms};
use super::breaker::{Attribution, THRESHOLD};
use crate::domain::{Blame, BootMs, Failure, FailureKind, Grant, Now, OnExpiry, Slot, Ticket};
use crate::engine::Engine;
use crate::engine::messages::{Action, Notice};
use crate::engine::scheduler::backoff;
use crate::engine::tenants::{Phase, TokenInfo};

/// A tenant that is refused is called again after this long, in milliseconds.
const REFUSED_MS: u64 = 15 * 60 * 1000;
/// As long as the endpoint may be to blame, a tenant is called again after this long at most, in milliseconds.
const UNCLEAR_MS: u64 = 15_000;
/// An expiry that differs by less is the same: answers count in seconds, and calls take time. In milliseconds.
const SAME_EXPIRY_MS: u64 = 1500;

impl Engine {
    /// A call ended. An answer to any but the tenant's latest call is discarded.
    pub(crate) fn call_ended(&mut self, now: Now, ticket: Ticket, mut outcome: Result<Grant, Failure>) {
        let slot = ticket.slot;
        let expected = self.tenants.get(slot).is_some_and(|t| t.seq == ticket.seq && t.phase == Phase::Calling);
        if !expected {
            if outcome.is_ok() {
                self.outbox.push_back(Action::Discard(ticket));
            }
            return;
        }
        if let (Err(failure), Some(token)) = (&mut outcome, self.tenants[slot].token) {
            // The state may have turned out to hold it while the call was in flight.
            failure.remove_token(token.fingerprint);
        }
        let ix = self.tenants[slot].app;
        self.free_call_slot(now, slot, outcome.as_ref().err());
        let credentials_since = self.apps[ix].credentials_since;
        let tenant = &mut self.tenants[slot];
        tenant.stale |= tenant.called_at < credentials_since;
        tenant.phase = Phase::Waiting;
        match std::mem::take(&mut tenant.call_is_obsolete) || tenant.removed {
            true => self.obsolete_call_ended(now, ticket, &outcome),
            false => match outcome {
                Ok(grant) => self.token_received(now, ticket, grant),
                Err(failure) => self.call_failed(now, slot, failure),
            },
        }
        if let Some(app) = self.apps.get(ix) {
            let route = app.path.route;
            self.update_eligibility(now, ix);
            self.update_route_eligibility(now, route);
        }
    }

    /// The tenant left the config after the call was sent, even if it came back. What the answer says about the app and the
    /// endpoint is true all the same.
    fn obsolete_call_ended(&mut self, now: Now, ticket: Ticket, outcome: &Result<Grant, Failure>) {
        let slot = ticket.slot;
        match outcome {
            Ok(_) => {
                self.app_succeeded(now, slot);
                self.outbox.push_back(Action::Discard(ticket));
            }
            Err(failure) => self.apply_failure_to_app(now, slot, failure),
        }
        if self.tenants[slot].removed {
            self.free_slot_if_idle(now, slot);
        } else {
            self.schedule(now, slot, now.boot);
        }
    }

    fn token_received(&mut self, now: Now, ticket: Ticket, grant: Grant) {
        let slot = ticket.slot;
        if let Some(refusal) = self.refusal_of_duplicate(now, slot, grant.fingerprint) {
            self.outbox.push_back(Action::Discard(ticket));
            self.call_failed(now, slot, refusal);
            return;
        }
        self.app_succeeded(now, slot);
        let tenant = &self.tenants[slot];
        let token = token_from(now, tenant.called_at, ticket.seq, grant);
        let same = tenant.token.filter(|old| old.fingerprint == token.fingerprint);
        if let Some(old) = same.filter(|old| !extends(old, &token)) {
            self.clear_failure(slot);
            self.token_not_extended(now, ticket, old, token);
            return;
        }
        self.commit(now, ticket, token, same.is_some());
        let ix = self.tenants[slot].app;
        if self.apps[ix].lives_too_short(&token) {
            self.wait_out_short_life(now, slot, &token);
        } else {
            self.clear_failure(slot);
            self.clear_saved(slot);
            let at = self.refresh_point(slot, &token);
            self.schedule_after_answer(now, slot, at);
        }
    }

    /// The endpoint answered with the token that we have and, more or less, the expiry that we knew. To ask again soon would
    /// bring the same again, ever faster; the next call is due when the token has expired.
    fn token_not_extended(&mut self, now: Now, ticket: Ticket, old: TokenInfo, new: TokenInfo) {
        let slot = ticket.slot;
        if new.expires_boot.0.abs_diff(old.expires_boot.0) < SAME_EXPIRY_MS {
            self.outbox.push_back(Action::Discard(ticket));
            if let Some(token) = &mut self.tenants[slot].token {
                token.restored = false; // the answer confirms its life on the clock that does not step
                if token.rebase(now) {
                    self.update_record(slot);
                }
            }
        } else {
            // Its life began when it was first asked for; the wall clock may have been set since.
            let requested_at = new.requested_at - requested_ms_later(&old, &new);
            self.commit(now, ticket, TokenInfo { requested_at, ..new }, true);
        }
        self.save_unextended(slot);
        let at = self.tenants[slot].token.map_or(now.boot, |token| token.expires_boot);
        self.schedule_after_answer(now, slot, at);
    }

    /// A token whose life is too short is published all the same, but its tenant waits as one whose calls fail, and no less
    /// than for its refresh point.
    fn wait_out_short_life(&mut self, now: Now, slot: Slot, token: &TokenInfo) {
        let life_s = token.lifetime_ms() / 1000;
        let why = format!(
            "tokens live {life_s} s: too short to keep them fresh within the app's `rate`; it is published all \
             the same, and the next call waits as after a failure"
        );
        let failure = Failure::new(FailureKind::ShortLived, why);
        let wait = self.count_failure(now, slot, &failure);
        let at = self.refresh_point(slot, token).max(now.boot + wait);
        self.schedule_after_answer(now, slot, at);
        self.save_failure(now, slot);
        self.report_failure(now, slot, failure);
    }

    /// Takes a token for the tenant's own; it is published once it is committed.
    fn commit(&mut self, now: Now, ticket: Ticket, token: TokenInfo, is_renewal: bool) {
        let slot = ticket.slot;
        self.release_early(slot);
        if !is_renewal {
            self.note_shown(slot);
        }
        let had_expired = !self.tenants[slot].is_valid(now.boot);
        self.set_token(slot, Some(token));
        let tenant = &mut self.tenants[slot];
        tenant.expiry_reported = false;
        // A renewal shows nowhere but in the expiry, unless the token had expired and was deleted for that.
        let mask = self.publisher.mask(tenant.sink_set, |sink| {
            !is_renewal || sink.shows_expiry || (had_expired && sink.on_expiry == OnExpiry::Delete)
        });
        self.begin_commit(slot);
        self.mark_dirty(slot, mask);
        let record = token.record();
        let (fingerprint, lifetime_s) = (token.fingerprint, record.lifetime_s());
        let Some(id) = self.id(slot) else { return };
        self.outbox.push_back(Action::Commit { ticket, id: id.clone(), record });
        self.notify(match is_renewal {
            true => Notice::Renewed { tenant: id, fingerprint, lifetime_s },
            false => Notice::Rotated { tenant: id, fingerprint, lifetime_s },
        });
    }

    /// The token that a tenant is thought to have cannot be read anywhere: it has none, and is called for.
    pub(crate) fn token_lost(&mut self, now: Now, ticket: Ticket) {
        let slot = ticket.slot;
        if self.tenants.get(slot).is_none_or(|t| t.removed || t.sinks.uncommitted || t.ticket(slot) != Some(ticket)) {
            return;
        }
        self.forget_sinks(slot);
        self.set_token(slot, None);
        self.tenants[slot].expiry_reported = false;
        if self.tenants[slot].phase == Phase::Calling {
            self.reevaluate(now, slot);
        } else {
            self.schedule(now, slot, now.boot);
        }
        // It may have stood in its app's queue.
        self.update_eligibility(now, self.tenants[slot].app);
    }

    fn call_failed(&mut self, now: Now, slot: Slot, failure: Failure) {
        let attribution = self.attribute_failure(now, slot, &failure);
        let is_endpoints = attribution == Attribution::Endpoint;
        let wait = match failure.kind.blame() {
            // The tenant did nothing wrong: it waits for its turn, and only `status` says what became of its call.
            Blame::AppTooFast | Blame::EveryoneTooFast | Blame::Banned => {
                self.tenants.failures.record(now, slot, &failure);
                throttled_for_ms(&failure)
            }
            Blame::Transient | Blame::Suspect if is_endpoints => {
                self.tenants.failures.record(now, slot, &failure);
                retry_after_ms(&failure)
            }
            _ => self.own_wait_ms(now, slot, attribution, &failure),
        };
        self.apply_failure_to_app(now, slot, &failure);
        self.schedule_after_answer(now, slot, now.boot + wait);
        if is_endpoints {
            // Whether it still is the endpoint's is nothing that the next process could not find out with one call.
            self.clear_saved(slot);
        } else {
            self.save_failure(now, slot);
        }
        // Of many that fail alike, the breaker reports it once.
        if !is_endpoints || self.apps[self.tenants[slot].app].members() < THRESHOLD {
            self.report_failure(now, slot, failure);
        }
    }

    /// Counts a failure as the tenant's own. Returns how long it waits, in milliseconds.
    fn own_wait_ms(&mut self, now: Now, slot: Slot, attribution: Attribution, failure: &Failure) -> u64 {
        let backoff = self.count_failure(now, slot, failure);
        match failure.kind.blame() {
            Blame::Tenant => REFUSED_MS,
            Blame::Suspect if self.is_refused(slot) => REFUSED_MS,
            Blame::Transient | Blame::Suspect if attribution == Attribution::Unclear => {
                backoff.min(UNCLEAR_MS).max(retry_after_ms(failure))
            }
            Blame::Transient | Blame::Suspect => backoff.max(retry_after_ms(failure)),
            // The breaker, the limits and the ban hold it back.
            Blame::App | Blame::AppTooFast | Blame::EveryoneTooFast | Blame::Banned => 0,
        }
    }

    /// Counts a failure as the tenant's own. Returns how long its backoff is, in milliseconds.
    fn count_failure(&mut self, now: Now, slot: Slot, failure: &Failure) -> u64 {
        let tenant = &mut self.tenants[slot];
        let (failures, has_token) = (tenant.failures, tenant.token.is_some());
        tenant.failures = failures.saturating_add(1);
        self.tenants.failures.record_own(now, slot, failure, has_token);
        let tenant = &self.tenants[slot];
        let jitter = backoff::hash([self.seed, tenant.hash.into(), failures.into()]);
        backoff::wait_ms(self.apps[tenant.app].policy.retry, failures, jitter)
    }

    /// The next call is due at `at`, or now if the credentials changed while the last one was in flight.
    fn schedule_after_answer(&mut self, now: Now, slot: Slot, at: BootMs) {
        let at = if self.tenants[slot].stale { now.boot } else { at };
        self.schedule(now, slot, at);
    }
}

/// The token's life is counted from before the call, so it never seems longer than the endpoint thinks it is.
fn token_from(now: Now, called_at: BootMs, seq: u32, grant: Grant) -> TokenInfo {
    let requested_at = now.wall - now.boot.since(called_at);
    let life = u64::from(grant.lifetime_s) * 1000;
    TokenInfo {
        seq,
        fingerprint: grant.fingerprint,
        requested_at,
        expires_at: requested_at + life,
        expires_boot: called_at + life,
        restored: false,
    }
}

/// How long after the old token the new one was requested, in milliseconds, on the clock that does not step.
fn requested_ms_later(old: &TokenInfo, new: &TokenInfo) -> u64 {
    (new.expires_boot + old.lifetime_ms()).0.saturating_sub(old.expires_boot.0 + new.lifetime_ms())
}

/// Whether the same token, asked for again, lives noticeably longer: by at least half of the time that passed between.
fn extends(old: &TokenInfo, new: &TokenInfo) -> bool {
    new.expires_boot.since(old.expires_boot) * 2 >= requested_ms_later(old, new).max(1)
}
