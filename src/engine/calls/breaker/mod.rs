//! The circuit breaker of a group whose calls fail together: an app's tenants, or a route's apps. While it is open, one
//! probe at a time stands for all, and the others wait in their queues without a backoff of their own.
//! `docs/decisions/0031-breakers.md` has the reasons and the figures.
//!
//! It takes evidence to open one: several members failed one after the other, and nobody was served meanwhile. A member
//! that fails while others are served has a failure of its own, which says nothing about the group. A breaker that closes
//! soon was perhaps a false alarm, as where half of the members fail for reasons of their own: the next one takes twice as
//! much evidence.

mod evidence;
mod open;

use std::collections::BTreeSet;

use crate::domain::{BootMs, Failure};
pub(crate) use evidence::Attribution;
pub(crate) use open::Open;

/// Members that must fail, with nobody served meanwhile, before the group is blamed; all of a smaller group.
pub(crate) const THRESHOLD: usize = 3;
/// Of members that began to fail before somebody was last served, so many must fail, and nobody have been served for so
/// long, in milliseconds: an outage that began as a time of many failures.
const THRESHOLD_OLDER: usize = 8;
const UNSERVED_MS: u64 = 60_000;
/// The threshold doubles with each false alarm, up to this.
const THRESHOLD_MOST: usize = 48;
/// A breaker that closes sooner was perhaps a false alarm, and such are remembered for so long, in milliseconds.
const SHORT_MS: u64 = 30_000;
const FALSE_ALARM_MS: u64 = 60_000;

#[derive(Debug)]
pub(crate) struct Breaker<K> {
    /// When a member was last served.
    served: BootMs,
    /// When the first of those failed that have failed since.
    failing_since: BootMs,
    /// Members that have failed since, up to the threshold.
    failed: Vec<K>,
    /// Members that have failed since, long after, and failed before.
    older: Vec<K>,
    /// The threshold at the moment, and since when it stands.
    threshold: usize,
    threshold_since: BootMs,
    open: Option<Box<Open<K>>>,
}

/// What a failed call means for the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The failure is the member's own: others are served.
    Own,
    /// It is the group's, perhaps: nobody was served since.
    Unclear,
    /// It is the group's, and opens the breaker.
    Opens,
    /// It is the group's: the breaker is open. `report`: that is to be reported again.
    Open { report: bool },
}

/// How a member was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    /// It got a token, or an answer that is as good a sign.
    Fully,
    /// The endpoint answered, but with "not so fast".
    Partly,
}

impl<K> Default for Breaker<K> {
    fn default() -> Self {
        Self {
            served: BootMs(0),
            failing_since: BootMs(0),
            failed: Vec::new(),
            older: Vec::new(),
            threshold: THRESHOLD,
            threshold_since: BootMs(0),
            open: None,
        }
    }
}

impl<K: Ord + Copy> Breaker<K> {
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(crate) fn opened(&self) -> Option<&Open<K>> {
        self.open.as_deref()
    }

    /// The members that have failed since it opened, if it is open.
    pub(crate) fn into_failed(self) -> Option<BTreeSet<K>> {
        self.open.map(|open| open.failed)
    }

    /// When a member was last served.
    pub(crate) fn served(&self) -> BootMs {
        self.served
    }

    /// When the first of those failed that have failed since anybody was served.
    pub(crate) fn failing_since(&self) -> BootMs {
        self.failing_since
    }

    /// Whether this member has failed since the breaker opened.
    pub(crate) fn has_failed(&self, who: K) -> bool {
        self.open.as_ref().is_some_and(|open| open.failed.contains(&who))
    }

    /// A member's call failed, in a way that may be the group's doing. `began`: since when the member has failed;
    /// `members`: how many there are in all.
    pub(crate) fn failed(&mut self, now: BootMs, who: K, began: BootMs, members: usize, failure: &Failure) -> Verdict {
        if let Some(open) = &mut self.open {
            return Verdict::Open { report: open.failed_again(now, who, failure) };
        }
        let is_older = began < self.served;
        if is_older && now.since(self.served) < UNSERVED_MS {
            return Verdict::Own;
        }
        if now.since(self.threshold_since) > FALSE_ALARM_MS {
            self.threshold = THRESHOLD;
        }
        let (failed, threshold) = match is_older {
            true => (&mut self.older, self.threshold.max(THRESHOLD_OLDER)),
            false => (&mut self.failed, self.threshold),
        };
        if failed.is_empty() {
            self.failing_since = now;
        }
        if !failed.contains(&who) && failed.len() < threshold {
            failed.push(who);
        }
        if failed.len() < members.clamp(1, threshold) {
            return if is_older { Verdict::Own } else { Verdict::Unclear };
        }
        let mut open = Open::new(now, failure.clone());
        open.failed.extend(self.failed.drain(..).chain(self.older.drain(..)));
        self.open = Some(Box::new(open));
        Verdict::Opens
    }

    /// An answer asked the group to wait for so long. Returns whether that opens the breaker.
    pub(crate) fn wait_for(&mut self, now: BootMs, who: K, wait_ms: u64, failure: &Failure) -> bool {
        let opens = self.open.is_none();
        let open = self.open.get_or_insert_with(|| Box::new(Open::new(now, failure.clone())));
        open.wait_for(now, who, wait_ms, failure);
        opens
    }

    /// A member was answered. Returns the members that have failed, if that closes the breaker.
    pub(crate) fn answered(&mut self, now: BootMs, served: Served) -> Option<BTreeSet<K>> {
        self.served = now;
        self.failed.clear();
        self.older.clear();
        let open = self.open.take_if(|open| !(open.is_asked_for() && served == Served::Partly))?;
        if now.since(open.since) < SHORT_MS && !open.is_asked_for() {
            (self.threshold, self.threshold_since) = ((self.threshold * 2).min(THRESHOLD_MOST), now);
        }
        Some(open.failed)
    }

    /// How many probes were sent, since it opened, by members that had not failed.
    pub(crate) fn fresh_probes(&self) -> u16 {
        self.open.as_ref().map_or(0, |open| open.fresh_probes())
    }

    /// When a member may probe; `None`: not before a probe ends. See [`Open::probe_at`].
    pub(crate) fn probe_at(&self, has_failed: bool, most_ms: u64) -> Option<BootMs> {
        self.open.as_ref().map_or(Some(BootMs(0)), |open| open.probe_at(has_failed, most_ms))
    }

    /// A member that fails already wants to call: it comes last, and is called again when the breaker closes.
    pub(crate) fn note_failed(&mut self, who: K) {
        if let Some(open) = &mut self.open {
            open.failed.insert(who);
        }
    }

    /// A call of the group begins; while the breaker is open, it is a probe.
    pub(crate) fn call_began(&mut self, now: BootMs, has_failed: bool) {
        if let Some(open) = &mut self.open {
            open.probe_began(now, has_failed);
        }
    }

    /// A call of the group ended that was sent at `sent`.
    pub(crate) fn call_ended(&mut self, sent: BootMs) {
        if let Some(open) = &mut self.open {
            open.probe_ended(sent);
        }
    }

    /// The answers of the probes in flight will not be recognised.
    pub(crate) fn abandon_probes(&mut self) {
        if let Some(open) = &mut self.open {
            open.abandon_probes();
        }
    }

    /// The next probe need not wait: conditions have changed.
    pub(crate) fn reset_waits(&mut self) {
        if let Some(open) = &mut self.open {
            open.reset_waits();
        }
    }

    /// A member leaves.
    pub(crate) fn forget(&mut self, who: K) {
        self.failed.retain(|member| *member != who);
        self.older.retain(|member| *member != who);
        if let Some(open) = &mut self.open {
            open.failed.remove(&who);
        }
    }

    /// Whether enough probes have failed for somebody who waits for an outcome to give up.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.is_hopeless())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::FailureKind;

    fn down() -> Failure {
        Failure::new(FailureKind::Unreachable, "nobody answers")
    }

    fn at(seconds: u64) -> BootMs {
        BootMs(100_000 + seconds * 1000)
    }

    /// A breaker that three members have opened.
    fn open() -> Breaker<u32> {
        let mut breaker = Breaker::default();
        let verdicts = [1, 2, 3].map(|who| breaker.failed(at(0), who, at(0), THRESHOLD, &down()));
        assert_eq!(verdicts, [Verdict::Unclear, Verdict::Unclear, Verdict::Opens]);
        breaker
    }

    #[test]
    fn three_members_that_fail_with_nobody_served_open_it_and_one_alone_does_not() {
        let mut breaker = Breaker::default();
        for second in 0..100 {
            assert_eq!(breaker.failed(at(second), 1, at(0), THRESHOLD, &down()), Verdict::Unclear);
        }
        breaker.answered(at(100), Served::Fully);
        for who in 2..50 {
            breaker.failed(at(101), who, at(101), THRESHOLD, &down());
            breaker.answered(at(102), Served::Fully);
        }
        assert!(!breaker.is_open(), "others were served between any two");
        open();
    }

    #[test]
    fn a_member_that_failed_while_others_were_served_is_no_evidence() {
        let mut breaker = Breaker::default();
        breaker.answered(at(10), Served::Fully);
        let verdicts = [1, 2, 3, 4].map(|who| breaker.failed(at(20), who, at(5), THRESHOLD, &down()));
        assert_eq!(verdicts, [Verdict::Own; 4]);
    }

    #[test]
    fn probes_come_after_1_2_4_8_and_then_each_15_seconds_for_years() {
        let (mut breaker, mut now, mut waits) = (open(), at(0), Vec::new());
        for _ in 0..100_000 {
            let next = breaker.probe_at(true, 300_000).unwrap();
            waits.push(next.since(now) / 1000);
            now = now.max(next);
            breaker.call_began(now, true);
            breaker.call_ended(now);
            breaker.failed(now, 1, at(0), THRESHOLD, &down());
        }
        assert_eq!(waits[..7], [0, 1, 2, 4, 8, 15, 15]);
        assert!(waits[7..].iter().all(|wait| *wait == 15));
    }

    #[test]
    fn where_the_longest_backoff_is_shorter_probes_come_as_often() {
        let (mut breaker, mut now) = (open(), at(0));
        for _ in 0..10 {
            now = breaker.probe_at(true, 2_000).unwrap();
            breaker.call_began(now, true);
            breaker.call_ended(now);
        }
        assert_eq!(breaker.probe_at(true, 2_000), Some(now + 2_000));
    }

    #[test]
    fn a_member_that_has_not_failed_is_called_at_once_however_long_the_others_have_failed() {
        let mut breaker = open();
        for second in 0..10 {
            breaker.call_began(at(second * 15), true);
            breaker.call_ended(at(second * 15));
        }
        assert!(breaker.probe_at(false, 300_000).unwrap() <= at(9 * 15), "the first fresh one");
        let mut now = at(140);
        for wait in [1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 4, 4] {
            breaker.call_began(now, false);
            breaker.call_ended(now);
            assert_eq!(
                breaker.probe_at(false, 300_000),
                Some(now + wait * 1000),
                "and the next ones a second later, for a while"
            );
            now = now + wait * 1000;
        }
    }

    #[test]
    fn probes_that_hang_do_not_keep_the_next_from_being_sent_but_are_few() {
        let mut breaker = open();
        let mut now = at(0);
        while let Some(next) = breaker.probe_at(true, 300_000) {
            now = now.max(next);
            breaker.call_began(now, true);
        }
        assert_eq!(now, at(7), "after 0, 1, 3 and 7 seconds");
        breaker.call_ended(at(0));
        assert!(breaker.probe_at(true, 300_000).is_some());
    }

    #[test]
    fn a_false_alarm_makes_the_next_one_take_twice_the_evidence_for_a_minute() {
        let mut breaker = open();
        breaker.answered(at(1), Served::Fully);
        let fails = |breaker: &mut Breaker<u32>, second, n: u32| {
            (10..10 + n).for_each(|who| _ = breaker.failed(at(second), who, at(second), 100, &down()));
            breaker.is_open()
        };
        assert!(!fails(&mut breaker, 2, 5) && fails(&mut breaker, 3, 6));
        breaker.answered(at(4), Served::Fully);
        assert!(!fails(&mut breaker, 5, 11) && fails(&mut breaker, 6, 12));
        breaker.answered(at(100), Served::Fully);
        assert!(!fails(&mut breaker, 101, 2) && fails(&mut breaker, 102, 3), "that one was none, and a minute is over");
    }

    #[test]
    fn an_answer_closes_it_and_returns_all_that_failed() {
        let mut breaker = open();
        breaker.call_began(at(1), false);
        breaker.call_ended(at(1));
        breaker.failed(at(1), 9, at(1), THRESHOLD, &down());
        let failed = breaker.answered(at(2), Served::Partly).unwrap();
        assert_eq!(failed.into_iter().collect::<Vec<_>>(), [1, 2, 3, 9]);
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_wait_that_was_asked_for_is_probed_after_two_seconds_and_ends_with_a_token_alone() {
        let mut breaker = Breaker::default();
        assert!(breaker.wait_for(at(0), 1, 300_000, &down()));
        assert_eq!(breaker.probe_at(false, 300_000), Some(at(2)));
        assert_eq!(breaker.answered(at(3), Served::Partly), None);
        assert!(breaker.answered(at(4), Served::Fully).is_some());
    }

    #[test]
    fn it_is_reported_again_once_an_hour_and_when_the_kind_changes() {
        let mut breaker = open();
        let timeout = Failure::new(FailureKind::Timeout, "no whole answer");
        assert_eq!(breaker.failed(at(10), 1, at(0), THRESHOLD, &down()), Verdict::Open { report: false });
        assert_eq!(breaker.failed(at(20), 1, at(0), THRESHOLD, &timeout), Verdict::Open { report: true });
        assert_eq!(breaker.failed(at(3_000), 1, at(0), THRESHOLD, &timeout), Verdict::Open { report: false });
        assert_eq!(breaker.failed(at(3_700), 1, at(0), THRESHOLD, &timeout), Verdict::Open { report: true });
    }
}
