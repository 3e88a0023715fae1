//! The breaker of a group whose calls fail together: an app's tenants, or a route's apps. While it is open, one probe at a
//! time stands for all, and the others wait in their queues without backoff of their own. `docs/decisions/0031-circuit-breakers.md`
//! has the reasons and the figures.
//!
//! What opens it is evidence: several members failed one after the other, and nobody was served meanwhile. A member that
//! fails while others are served has trouble of its own, and says nothing about the group.
//!
//! Probes by members that have not failed yet (*fresh* ones) and those by members that have are spaced apart: the more
//! fresh ones have failed, the surer it is that the next will, too. So where three members fail for reasons of their own, the
//! first healthy one that comes along is called at once and closes the breaker. One that closes soon was perhaps a false
//! alarm, as where half of the members are in trouble of their own: the next takes twice as much evidence.

mod evidence;

pub(crate) use evidence::Doing;

use std::collections::BTreeSet;

use crate::domain::{BootMs, Failure};

/// Members that must fail, with nobody served meanwhile, before the group is blamed; all of a smaller group.
pub(crate) const ENOUGH: usize = 3;
/// Of members whose trouble is older than that somebody was last served, so many must fail, and nobody have been served for
/// so long, in milliseconds: an outage that began as a time of many failures.
const ENOUGH_ELDERS: usize = 8;
pub(crate) const AWAY_MS: u64 = 60_000;
/// So many after a few false alarms.
const ENOUGH_MOST: usize = 48;
/// A breaker that closes sooner was perhaps a false alarm, and such are remembered for so long, in milliseconds.
const SHORT_MS: u64 = 30_000;
const FALSE_ALARM_MS: u64 = 60_000;
/// The first wait between two probes, and the longest, in milliseconds.
const FIRST_MS: u64 = 1_000;
const LONGEST_MS: u64 = 15_000;
/// So many fresh members probe a second apart before their waits grow as well; to this, in milliseconds, and no longer: one
/// that is well shall not wait for long, however many are not.
const FRESH: u16 = 8;
const FRESH_LONGEST_MS: u64 = 4_000;
/// Where an answer asked for a wait, another member probes after this long, in milliseconds.
const HOLD_FIRST_MS: u64 = 2_000;
/// Probes under way at once: one that hangs must not keep the next from being sent.
const PROBES: u16 = 4;
/// How often it is said again that the breaker is open, in milliseconds.
const REMIND_MS: u64 = 60 * 60 * 1000;

#[derive(Debug)]
pub(crate) struct Breaker<K> {
    /// When a member was last served.
    served: BootMs,
    /// When the first of those failed that have failed since.
    began: BootMs,
    /// Who they are; no more than are enough.
    run: Vec<K>,
    /// Those who have failed since, long after, and did before.
    elders: Vec<K>,
    /// How many are enough at the moment, in a group that has so many, and since when.
    enough: usize,
    enough_since: BootMs,
    open: Option<Box<Open<K>>>,
}

/// What is known of a breaker that is open.
#[derive(Debug)]
pub(crate) struct Open<K> {
    /// What the last failed call said.
    pub(crate) failure: Failure,
    pub(crate) since: BootMs,
    /// Nobody is called before this moment.
    not_before: BootMs,
    /// The longest wait between two probes.
    longest_ms: u64,
    /// An answer asked for it, so nothing but a token ends it.
    is_hold: bool,
    /// Probes that were sent, and those of them by fresh members.
    probes: u16,
    fresh: u16,
    under_way: u16,
    last: Option<BootMs>,
    /// Who has failed: they come last, and are let go when it closes.
    tried: BTreeSet<K>,
    said: BootMs,
}

/// What a failed call means for the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The member's own trouble: others are served.
    Own,
    /// The group's, perhaps: nobody was served since.
    Unclear,
    /// The group's: the breaker opens with it.
    Opens,
    /// The group's: the breaker is open. `news`: that is to be said again.
    Open { news: bool },
}

impl<K> Default for Breaker<K> {
    fn default() -> Self {
        Self {
            served: BootMs(0),
            began: BootMs(0),
            run: Vec::new(),
            elders: Vec::new(),
            enough: ENOUGH,
            enough_since: BootMs(0),
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

    /// Who has failed since it opened, if it is open.
    pub(crate) fn into_opened(self) -> Option<BTreeSet<K>> {
        self.open.map(|open| open.tried)
    }

    /// When a member was last served.
    pub(crate) fn served(&self) -> BootMs {
        self.served
    }

    /// When the trouble of those began that fail, with nobody served since.
    pub(crate) fn trouble_since(&self) -> BootMs {
        self.began
    }

    /// Whether this member has failed since the breaker opened.
    pub(crate) fn has_tried(&self, who: K) -> bool {
        self.open.as_ref().is_some_and(|open| open.tried.contains(&who))
    }

    /// A member's call failed, in a way that may be the group's doing. `began`: when the member's trouble did; `members`: how
    /// many there are in all.
    pub(crate) fn failed(&mut self, now: BootMs, who: K, began: BootMs, members: usize, failure: &Failure) -> Verdict {
        if let Some(open) = &mut self.open {
            open.tried.insert(who);
            // What fails now is not what asked for a wait, and is not waited for as long.
            (open.is_hold, open.longest_ms) = (false, LONGEST_MS);
            let news = open.failure.kind != failure.kind || now.since(open.said) >= REMIND_MS;
            open.failure.clone_from(failure);
            if news {
                open.said = now;
            }
            return Verdict::Open { news };
        }
        let is_elder = began < self.served;
        if is_elder && now.since(self.served) < AWAY_MS {
            return Verdict::Own;
        }
        if now.since(self.enough_since) > FALSE_ALARM_MS {
            self.enough = ENOUGH;
        }
        let (run, enough) = match is_elder {
            true => (&mut self.elders, self.enough.max(ENOUGH_ELDERS)),
            false => (&mut self.run, self.enough),
        };
        if run.is_empty() {
            self.began = now;
        }
        if !run.contains(&who) && run.len() < enough {
            run.push(who);
        }
        if run.len() < members.clamp(1, enough) {
            return if is_elder { Verdict::Own } else { Verdict::Unclear };
        }
        let tried = self.run.drain(..).chain(self.elders.drain(..)).collect();
        self.open = Some(Box::new(Open { tried, ..Open::new(now, failure.clone(), now, LONGEST_MS) }));
        Verdict::Opens
    }

    /// An answer asked the group to wait for so long. Returns whether that is news.
    pub(crate) fn hold(&mut self, now: BootMs, who: K, wait_ms: u64, failure: &Failure) -> bool {
        let is_news = self.open.is_none();
        let open = self.open.get_or_insert_with(|| Box::new(Open::new(now, failure.clone(), now, LONGEST_MS)));
        open.is_hold = true;
        open.failure.clone_from(failure);
        open.longest_ms = open.longest_ms.max(wait_ms);
        open.not_before = open.not_before.max(now + HOLD_FIRST_MS.min(wait_ms));
        open.tried.insert(who);
        is_news
    }

    /// A member was answered, with a token or (`Served::InPart`) in another way that shows that the group is well. Returns
    /// those who wait to be let go, if that closes the breaker.
    pub(crate) fn answered(&mut self, now: BootMs, served: Served) -> Option<BTreeSet<K>> {
        self.served = now;
        self.run.clear();
        self.elders.clear();
        let open = self.open.take_if(|open| !(open.is_hold && served == Served::InPart))?;
        if now.since(open.since) < SHORT_MS && !open.is_hold {
            (self.enough, self.enough_since) = ((self.enough * 2).min(ENOUGH_MOST), now);
        }
        Some(open.tried)
    }

    /// How many fresh members have probed since it opened.
    pub(crate) fn fresh_probes(&self) -> u16 {
        self.open.as_ref().map_or(0, |open| open.fresh)
    }

    /// When a member may probe, whether it has failed already or not; `None`: not before a probe ends. It never waits for
    /// longer than `most_ms`, unless an answer asked for that.
    pub(crate) fn probe_at(&self, tried: bool, most_ms: u64) -> Option<BootMs> {
        let Some(open) = &self.open else { return Some(BootMs(0)) };
        if open.under_way >= PROBES {
            return None;
        }
        let (sent, doublings, longest_ms) = match tried || open.is_hold {
            true => (open.probes, open.probes.saturating_sub(1), open.longest_ms),
            false => (open.fresh, open.fresh.saturating_sub(FRESH), FRESH_LONGEST_MS),
        };
        let longest_ms = if open.is_hold { longest_ms } else { longest_ms.min(most_ms.max(FIRST_MS)) };
        let wait = if sent == 0 { 0 } else { (FIRST_MS << doublings.min(10)).min(longest_ms) };
        Some(open.last.map_or(open.not_before, |last| open.not_before.max(last + wait)))
    }

    /// A member that has trouble already wants to call: it comes last, and is let go when the breaker closes.
    pub(crate) fn note_tried(&mut self, who: K) {
        if let Some(open) = &mut self.open {
            open.tried.insert(who);
        }
    }

    /// A probe is sent.
    pub(crate) fn probe(&mut self, now: BootMs, tried: bool) {
        if let Some(open) = &mut self.open {
            open.probes = open.probes.saturating_add(1);
            open.fresh = open.fresh.saturating_add(u16::from(!tried));
            open.under_way += 1;
            open.last = Some(now);
        }
    }

    /// A call of the group ended that was sent at `sent`.
    pub(crate) fn call_ended(&mut self, sent: BootMs) {
        if let Some(open) = self.open.as_mut().filter(|open| sent >= open.since) {
            open.under_way = open.under_way.saturating_sub(1);
        }
    }

    /// What becomes of the probes under way will not be told.
    pub(crate) fn abandon_probes(&mut self) {
        if let Some(open) = &mut self.open {
            open.under_way = 0;
        }
    }

    /// The next probe need not wait: things have changed.
    pub(crate) fn hasten(&mut self) {
        if let Some(open) = self.open.as_mut().filter(|open| !open.is_hold) {
            (open.probes, open.fresh) = (0, 0);
        }
    }

    /// A member leaves.
    pub(crate) fn forget(&mut self, who: K) {
        self.run.retain(|member| *member != who);
        self.elders.retain(|member| *member != who);
        if let Some(open) = &mut self.open {
            open.tried.remove(&who);
        }
    }

    /// Whether enough probes have failed for somebody who waits for an outcome to give up.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.probes > ENOUGH as u16 && open.under_way < open.probes)
    }
}

/// How a member was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    /// It got a token, or an answer that is as good a sign.
    Wholly,
    /// The endpoint answered, but with "not so fast".
    InPart,
}

impl<K> Open<K> {
    /// Who has failed since it opened, and those who opened it.
    pub(crate) fn tried(&self) -> &BTreeSet<K> {
        &self.tried
    }

    fn new(now: BootMs, failure: Failure, not_before: BootMs, longest_ms: u64) -> Self {
        Self {
            failure,
            since: now,
            not_before,
            longest_ms,
            is_hold: false,
            probes: 0,
            fresh: 0,
            under_way: 0,
            last: None,
            tried: BTreeSet::new(),
            said: now,
        }
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
        let verdicts = [1, 2, 3].map(|who| breaker.failed(at(0), who, at(0), ENOUGH, &down()));
        assert_eq!(verdicts, [Verdict::Unclear, Verdict::Unclear, Verdict::Opens]);
        breaker
    }

    #[test]
    fn three_members_that_fail_with_nobody_served_open_it_and_one_alone_does_not() {
        let mut breaker = Breaker::default();
        for second in 0..100 {
            assert_eq!(breaker.failed(at(second), 1, at(0), ENOUGH, &down()), Verdict::Unclear);
        }
        breaker.answered(at(100), Served::Wholly);
        for who in 2..50 {
            breaker.failed(at(101), who, at(101), ENOUGH, &down());
            breaker.answered(at(102), Served::Wholly);
        }
        assert!(!breaker.is_open(), "others were served between any two");
        open();
    }

    #[test]
    fn a_member_that_failed_while_others_were_served_is_no_evidence() {
        let mut breaker = Breaker::default();
        breaker.answered(at(10), Served::Wholly);
        let verdicts = [1, 2, 3, 4].map(|who| breaker.failed(at(20), who, at(5), ENOUGH, &down()));
        assert_eq!(verdicts, [Verdict::Own; 4]);
    }

    #[test]
    fn probes_come_after_1_2_4_8_and_then_each_15_seconds_for_years() {
        let (mut breaker, mut now, mut waits) = (open(), at(0), Vec::new());
        for _ in 0..100_000 {
            let next = breaker.probe_at(true, 300_000).unwrap();
            waits.push(next.since(now) / 1000);
            now = now.max(next);
            breaker.probe(now, true);
            breaker.call_ended(now);
            breaker.failed(now, 1, at(0), ENOUGH, &down());
        }
        assert_eq!(waits[..7], [0, 1, 2, 4, 8, 15, 15]);
        assert!(waits[7..].iter().all(|wait| *wait == 15));
    }

    #[test]
    fn where_the_longest_backoff_is_shorter_probes_come_as_often() {
        let (mut breaker, mut now) = (open(), at(0));
        for _ in 0..10 {
            now = breaker.probe_at(true, 2_000).unwrap();
            breaker.probe(now, true);
            breaker.call_ended(now);
        }
        assert_eq!(breaker.probe_at(true, 2_000), Some(now + 2_000));
    }

    #[test]
    fn a_member_that_has_not_failed_is_called_at_once_however_long_the_others_have_failed() {
        let mut breaker = open();
        for second in 0..10 {
            breaker.probe(at(second * 15), true);
            breaker.call_ended(at(second * 15));
        }
        assert!(breaker.probe_at(false, 300_000).unwrap() <= at(9 * 15), "the first fresh one");
        let mut now = at(140);
        for wait in [1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 4, 4] {
            breaker.probe(now, false);
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
            breaker.probe(now, true);
        }
        assert_eq!(now, at(7), "after 0, 1, 3 and 7 seconds");
        breaker.call_ended(at(0));
        assert!(breaker.probe_at(true, 300_000).is_some());
    }

    #[test]
    fn a_false_alarm_makes_the_next_one_take_twice_the_evidence_for_a_minute() {
        let mut breaker = open();
        breaker.answered(at(1), Served::Wholly);
        let fails = |breaker: &mut Breaker<u32>, second, n: u32| {
            (10..10 + n).for_each(|who| _ = breaker.failed(at(second), who, at(second), 100, &down()));
            breaker.is_open()
        };
        assert!(!fails(&mut breaker, 2, 5) && fails(&mut breaker, 3, 6));
        breaker.answered(at(4), Served::Wholly);
        assert!(!fails(&mut breaker, 5, 11) && fails(&mut breaker, 6, 12));
        breaker.answered(at(100), Served::Wholly);
        assert!(!fails(&mut breaker, 101, 2) && fails(&mut breaker, 102, 3), "that one was none, and a minute is over");
    }

    #[test]
    fn an_answer_closes_it_and_lets_everybody_go() {
        let mut breaker = open();
        breaker.probe(at(1), false);
        breaker.call_ended(at(1));
        breaker.failed(at(1), 9, at(1), ENOUGH, &down());
        let let_go = breaker.answered(at(2), Served::InPart).unwrap();
        assert_eq!(let_go.into_iter().collect::<Vec<_>>(), [1, 2, 3, 9]);
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_hold_is_probed_after_two_seconds_and_ends_with_a_token_alone() {
        let mut breaker = Breaker::default();
        assert!(breaker.hold(at(0), 1, 300_000, &down()));
        assert_eq!(breaker.probe_at(false, 300_000), Some(at(2)));
        assert_eq!(breaker.answered(at(3), Served::InPart), None);
        assert!(breaker.answered(at(4), Served::Wholly).is_some());
    }

    #[test]
    fn it_is_said_again_once_an_hour_and_when_the_kind_changes() {
        let mut breaker = open();
        let timeout = Failure::new(FailureKind::Timeout, "no whole answer");
        assert_eq!(breaker.failed(at(10), 1, at(0), ENOUGH, &down()), Verdict::Open { news: false });
        assert_eq!(breaker.failed(at(20), 1, at(0), ENOUGH, &timeout), Verdict::Open { news: true });
        assert_eq!(breaker.failed(at(3_000), 1, at(0), ENOUGH, &timeout), Verdict::Open { news: false });
        assert_eq!(breaker.failed(at(3_700), 1, at(0), ENOUGH, &timeout), Verdict::Open { news: true });
    }
}
