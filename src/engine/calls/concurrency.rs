//! How many calls an app may have under way. It begins with a few, and with each answer may have twice as many; one that
//! hears nothing for a second may begin few more. So whoever is never answered holds few slots, however many tenants are due.
//! What it may have beside others is decided in `competition`. A route is counted in the same way, and is not held to it:
//! what hangs there may be one app's calls alone.

use crate::domain::BootMs;

/// Calls under way before the first answer.
const FIRST: u32 = 2;
/// More than anybody can have under way.
const UNBOUNDED: u32 = 1 << 20;
/// With calls under way and no answer for so long, a group is quiet: in milliseconds.
const QUIET_MS: u64 = 1_000;
/// So many calls may begin while it is, and then one a second.
const WHILE_QUIET: u32 = 2;

#[derive(Debug)]
pub(crate) struct Share {
    in_flight: u32,
    window: u32,
    /// When the last answer came, or the first of the calls under way was sent.
    heard: BootMs,
    /// Calls that began since it is quiet.
    since_quiet: u32,
    /// When the last call that was given up ended, and how long it had taken; until the next answer.
    given_up: Option<(BootMs, u64)>,
}

impl Default for Share {
    fn default() -> Self {
        Self { in_flight: 0, window: FIRST, heard: BootMs(0), since_quiet: 0, given_up: None }
    }
}

impl Share {
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

    /// Until when others have the slot that a call held in vain, where there is no other: for as long as it was held.
    pub(crate) fn rests_until(&self) -> BootMs {
        self.given_up.map_or(BootMs(0), |(at, took)| at + took)
    }

    /// Whether calls are under way, and nothing is heard.
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

    /// The group failed as a whole: it begins anew.
    pub(crate) fn begin_anew(&mut self) {
        self.window = FIRST;
    }

    /// So many calls that are under way are counted here from here on.
    pub(crate) fn take_over(&mut self, calls: u32, now: BootMs) {
        if self.in_flight == 0 {
            self.heard = now;
        }
        self.in_flight += calls;
    }

    /// So many calls that are under way are counted elsewhere from here on.
    pub(crate) fn give_away(&mut self, calls: u32) {
        self.in_flight = self.in_flight.saturating_sub(calls);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may_begin(share: &Share, now: u64) -> bool {
        share.next_at(BootMs(now)).is_some_and(|at| at <= BootMs(now))
    }

    /// Begins as many calls as it may; returns how many are under way then.
    fn fill(share: &mut Share, now: u64) -> u32 {
        while share.in_flight() < 10_000 && may_begin(share, now) {
            share.begin(BootMs(now));
        }
        share.in_flight()
    }

    #[test]
    fn it_begins_with_two_and_doubles_with_each_answer() {
        let mut share = Share::default();
        assert_eq!(fill(&mut share, 5_000), 2);
        share.end(BootMs(5_100), BootMs(5_100), true);
        assert_eq!(fill(&mut share, 5_100), 4);
        (0..4).for_each(|_| share.end(BootMs(5_200), BootMs(5_200), true));
        assert_eq!(fill(&mut share, 5_200), 64);
    }

    #[test]
    fn who_never_answers_holds_few_slots() {
        let mut share = Share::default();
        for now in (5_000..60_000).step_by(50) {
            assert!(fill(&mut share, now) <= 2);
            if now % 10_000 == 0 {
                (0..share.in_flight()).for_each(|_| share.end(BootMs(now), BootMs(now), false));
            }
        }
    }

    #[test]
    fn who_stops_answering_gets_two_calls_more_and_one_a_second() {
        let mut share = Share::default();
        (0..12).for_each(|_| {
            share.begin(BootMs(4_000));
            share.end(BootMs(4_000), BootMs(4_000), true);
        });
        let mut now = 5_000;
        while now < 15_000 {
            if may_begin(&share, now) {
                share.begin(BootMs(now));
            }
            now += 100;
        }
        assert_eq!(share.in_flight(), 10 + 2 + 7, "ten in the first second");
        share.end(BootMs(now), BootMs(now), true);
        assert!(may_begin(&share, now), "an answer ends it");
    }

    #[test]
    fn a_single_call_that_hangs_keeps_no_others_back_once_they_are_answered() {
        let mut share = Share::default();
        share.begin(BootMs(5_000));
        share.end(BootMs(5_010), BootMs(5_010), true);
        share.begin(BootMs(6_000));
        for now in (8_000..14_000).step_by(500) {
            assert!(may_begin(&share, now), "{now}");
            share.begin(BootMs(now));
            share.end(BootMs(now + 20), BootMs(now), true);
        }
    }
}
