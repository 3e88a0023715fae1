//! What is known of a breaker while it is open: who has failed, and when the next probe is sent.
//!
//! Probes by members that have failed and by members that have not (*fresh* ones) are spaced apart: the more members have
//! failed, the surer it is that the next one will, too. So where three members fail for reasons of their own, the first
//! healthy one that comes along is called at once and closes the breaker.

use std::collections::BTreeSet;

use super::THRESHOLD;
use crate::domain::{BootMs, Failure, FailureKind};
use crate::engine::messages::Reminder;

/// The first wait between two probes, and the longest, in milliseconds.
const FIRST_MS: u64 = 1_000;
const LONGEST_MS: u64 = 15_000;
/// So many fresh members probe a second apart before their waits grow as well, up to this, in milliseconds: a healthy one
/// does not wait for long, however many are not.
const FRESH: u16 = 8;
const FRESH_LONGEST_MS: u64 = 4_000;
/// Where an answer asked for a wait, another member probes after this long, in milliseconds.
const ASKED_FIRST_MS: u64 = 2_000;
/// Probes in flight at once: one that hangs must not keep the next from being sent.
const PROBES: u16 = 4;

#[derive(Debug)]
pub(crate) struct Open<K> {
    /// What the last failed call said.
    pub(crate) failure: Failure,
    pub(crate) since: BootMs,
    /// Members that have failed: they come last, and are called again when the breaker closes.
    pub(super) failed: BTreeSet<K>,
    /// Nobody is called before this moment.
    not_before: BootMs,
    /// The longest wait between two probes.
    longest_ms: u64,
    /// An answer asked for the wait, so nothing but a token ends it.
    asked_for: bool,
    /// Probes that were sent, and those of them by fresh members.
    probes: u16,
    fresh: u16,
    in_flight: u16,
    last: Option<BootMs>,
    reminder: Reminder<FailureKind>,
}

impl<K: Ord + Copy> Open<K> {
    pub(super) fn new(now: BootMs, failure: Failure) -> Self {
        Self {
            reminder: Reminder::reported(now, failure.kind),
            failure,
            since: now,
            failed: BTreeSet::new(),
            not_before: now,
            longest_ms: LONGEST_MS,
            asked_for: false,
            probes: 0,
            fresh: 0,
            in_flight: 0,
            last: None,
        }
    }

    /// The members that have failed since it opened, and those that opened it.
    pub(crate) fn failed(&self) -> &BTreeSet<K> {
        &self.failed
    }

    pub(super) fn is_asked_for(&self) -> bool {
        self.asked_for
    }

    pub(super) fn fresh_probes(&self) -> u16 {
        self.fresh
    }

    /// Another call failed. Returns whether to report that the breaker is still open.
    pub(super) fn failed_again(&mut self, now: BootMs, who: K, failure: &Failure) -> bool {
        self.failed.insert(who);
        // What fails now is not what asked for a wait, and is not waited for as long.
        (self.asked_for, self.longest_ms) = (false, LONGEST_MS);
        self.failure.clone_from(failure);
        self.reminder.is_due(now, failure.kind)
    }

    pub(super) fn wait_for(&mut self, now: BootMs, who: K, wait_ms: u64, failure: &Failure) {
        self.asked_for = true;
        self.failure.clone_from(failure);
        self.longest_ms = self.longest_ms.max(wait_ms);
        self.not_before = self.not_before.max(now + ASKED_FIRST_MS.min(wait_ms));
        self.failed.insert(who);
    }

    /// When a member may probe, whether it has failed already or not; `None`: not before a probe ends. The wait is never
    /// longer than `most_ms`, unless an answer asked for that.
    pub(super) fn probe_at(&self, has_failed: bool, most_ms: u64) -> Option<BootMs> {
        if self.in_flight >= PROBES {
            return None;
        }
        let (sent, doublings, longest_ms) = match has_failed || self.asked_for {
            true => (self.probes, self.probes.saturating_sub(1), self.longest_ms),
            false => (self.fresh, self.fresh.saturating_sub(FRESH), FRESH_LONGEST_MS),
        };
        let longest_ms = if self.asked_for { longest_ms } else { longest_ms.min(most_ms.max(FIRST_MS)) };
        let wait = if sent == 0 { 0 } else { (FIRST_MS << doublings.min(10)).min(longest_ms) };
        Some(self.last.map_or(self.not_before, |last| self.not_before.max(last + wait)))
    }

    pub(super) fn probe_began(&mut self, now: BootMs, has_failed: bool) {
        self.probes = self.probes.saturating_add(1);
        self.fresh = self.fresh.saturating_add(u16::from(!has_failed));
        self.in_flight += 1;
        self.last = Some(now);
    }

    /// A call that was sent at `sent` ended. One from before the breaker opened is no probe.
    pub(super) fn probe_ended(&mut self, sent: BootMs) {
        if sent >= self.since {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
    }

    pub(super) fn abandon_probes(&mut self) {
        self.in_flight = 0;
    }

    pub(super) fn reset_waits(&mut self) {
        if !self.asked_for {
            (self.probes, self.fresh) = (0, 0);
        }
    }

    pub(super) fn is_hopeless(&self) -> bool {
        self.probes > THRESHOLD as u16 && self.in_flight < self.probes
    }
}
