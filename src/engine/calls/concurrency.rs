//! How many calls an app may have in flight. It begins with a few, and each answer doubles that; one that hears nothing for
//! a second may begin few more. So whoever is never answered occupies few slots, however many of its tenants are due. What
//! it may have beside others is decided in `eligibility`. A route is counted in the same way and not limited by it: what hangs
//! there may be one app's calls alone.

use crate::domain::BootMs;

/// Calls in flight before the first answer.
const FIRST: u32 = 2;
/// More than anybody can have in flight.
const UNBOUNDED: u32 = 1 << 20;
/// With calls in flight and no answer for so long, a group is quiet: in milliseconds.
const QUIET_MS: u64 = 1_000;
/// So many calls may begin while it is, and then one a second.
const WHILE_QUIET: u32 = 2;

#[derive(Debug)]
pub(crate) struct Concurrency {
    in_flight: u32,
    window: u32,
    /// When the last answer came, or the first of the calls in flight was sent.
    heard: BootMs,
    /// Calls that began since the group fell quiet.
    since_quiet: u32,
    /// When the last call ended that was given up, and how long it had taken; until the next answer.
    given_up: Option<(BootMs, u64)>,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self { in_flight: 0, window: FIRST, heard: BootMs(0), since_quiet: 0, given_up: None }
    }
}

impl Concurrency {
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// When one more call may begin; `None`: not before one ends.
    pub(crate) fn next_at(&self, now: BootMs) -> Option<BootMs> {
        match self.is_quiet(now) && self.since_quiet >= WHILE_QUIET {
            _ if self.in_flight >= self.window => None,
            true => Some(self.heard + QUIET_MS * u64::from(self.since_quiet + 1)),
            false => Some(BootMs(0)),
        }
    }

    /// Whether it is doubtful that a call that begins now is answered soon.
    pub(crate) fn is_doubtful(&self, now: BootMs) -> bool {
        self.window == FIRST || self.is_quiet(now)
    }

    /// Whether the last call that ended was not answered.
    pub(crate) fn was_given_up(&self) -> bool {
        self.given_up.is_some()
    }

    /// Where there is a single slot: until when others have it after a call that was given up, which is as long as that took.
    pub(crate) fn yields_until(&self) -> BootMs {
        self.given_up.map_or(BootMs(0), |(at, took)| at + took)
    }

    /// Whether calls are in flight, and nothing is heard.
    pub(crate) fn is_quiet(&self, now: BootMs) -> bool {
        self.in_flight > 0 && now.since(self.heard) >= QUIET_MS
    }

    pub(crate) fn begin(&mut self, now: BootMs) {
        if self.in_flight == 0 {
            (self.heard, self.since_quiet) = (now, 0);
        } else if self.is_quiet(now) {
            self.since_quiet += 1;
        }
        self.in_flight += 1;
    }

    /// A call that was sent at `sent` ended. `answered`: by an answer, of whatever kind.
    pub(crate) fn end(&mut self, now: BootMs, sent: BootMs, answered: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.given_up = (!answered).then(|| (now, now.since(sent)));
        if answered {
            self.window = (self.window * 2).min(UNBOUNDED);
            (self.heard, self.since_quiet) = (now, 0);
        }
    }

    /// The group failed as a whole: it begins with few calls again.
    pub(crate) fn begin_anew(&mut self) {
        self.window = FIRST;
    }

    /// So many calls in flight count here from now on.
    pub(crate) fn take_over(&mut self, calls: u32, now: BootMs) {
        if self.in_flight == 0 {
            self.heard = now;
        }
        self.in_flight += calls;
    }

    /// So many calls in flight count elsewhere from now on.
    pub(crate) fn give_away(&mut self, calls: u32) {
        self.in_flight = self.in_flight.saturating_sub(calls);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may_begin(calls: &Concurrency, now: u64) -> bool {
        calls.next_at(BootMs(now)).is_some_and(|at| at <= BootMs(now))
    }

    /// Begins as many calls as it may; returns how many are in flight then.
    fn fill(calls: &mut Concurrency, now: u64) -> u32 {
        while calls.in_flight() < 10_000 && may_begin(calls, now) {
            calls.begin(BootMs(now));
        }
        calls.in_flight()
    }

    #[test]
    fn it_begins_with_two_and_doubles_with_each_answer() {
        let mut calls = Concurrency::default();
        assert_eq!(fill(&mut calls, 5_000), 2);
        calls.end(BootMs(5_100), BootMs(5_100), true);
        assert_eq!(fill(&mut calls, 5_100), 4);
        (0..4).for_each(|_| calls.end(BootMs(5_200), BootMs(5_200), true));
        assert_eq!(fill(&mut calls, 5_200), 64);
    }

    #[test]
    fn who_never_answers_occupies_few_slots() {
        let mut calls = Concurrency::default();
        for now in (5_000..60_000).step_by(50) {
            assert!(fill(&mut calls, now) <= 2);
            if now % 10_000 == 0 {
                (0..calls.in_flight()).for_each(|_| calls.end(BootMs(now), BootMs(now), false));
            }
        }
    }

    #[test]
    fn who_stops_answering_gets_two_calls_more_and_one_a_second() {
        let mut calls = Concurrency::default();
        (0..12).for_each(|_| {
            calls.begin(BootMs(4_000));
            calls.end(BootMs(4_000), BootMs(4_000), true);
        });
        let mut now = 5_000;
        while now < 15_000 {
            if may_begin(&calls, now) {
                calls.begin(BootMs(now));
            }
            now += 100;
        }
        assert_eq!(calls.in_flight(), 10 + 2 + 7, "ten in the first second");
        calls.end(BootMs(now), BootMs(now), true);
        assert!(may_begin(&calls, now), "an answer ends it");
    }

    #[test]
    fn a_single_call_that_hangs_keeps_no_others_back_once_they_are_answered() {
        let mut calls = Concurrency::default();
        calls.begin(BootMs(5_000));
        calls.end(BootMs(5_010), BootMs(5_010), true);
        calls.begin(BootMs(6_000));
        for now in (8_000..14_000).step_by(500) {
            assert!(may_begin(&calls, now), "{now}");
            calls.begin(BootMs(now));
            calls.end(BootMs(now + 20), BootMs(now), true);
        }
    }
}
