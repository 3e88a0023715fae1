//! Limits on calls. Calls are spaced evenly, and over *any* period, not just one that begins at a convenient moment, no more
//! are sent than the rate allows.
//!
//! Two rules, of which each does what the other cannot. The *schedule* spaces calls, and is [`STRETCH`] slower than the rate
//! says. A call that is late moves only itself, not those after it, or on a busy machine each late wake-up would cost a piece
//! of the rate; so behind a late call others are closer together. The *window* remembers when the last calls were sent: a call
//! waits until the one that came `count` before it is a period and [`GUARD`] ago. That holds however late anybody was.

use std::collections::VecDeque;

use crate::domain::{BootMs, Memory, Now, Rate, Wait};

/// In a millisecond.
const NS: u64 = 1_000_000;
/// How early a call may be on the schedule, in nanoseconds: calls that are a millisecond apart share their wake-ups.
const TOLERANCE_NS: u64 = 4_000_000;
/// How late a call may be without those after it being put off, in nanoseconds. Beyond it nobody wanted to call.
const LATE_NS: u64 = 60_000_000;
/// How much longer than the rate says an interval is, in thousandths.
const STRETCH: u64 = 14;
/// How much longer than the period the window is, in thousandths of it: for the network, which delays one call more than
/// another. What is left of the stretch lets the window recover from late calls.
const GUARD: u64 = 5;
/// So many moments a window remembers at most; of a rate with more calls, those of every second, third, … call.
const MOMENTS: u32 = 256;
/// A limiter that was never slowed down.
const FULL: u32 = 1024;
/// The slowest: a 64th of the rate.
const SLOWEST: u32 = FULL / 64;
/// After a throttling answer, further ones within this time belong to the same burst of calls.
const SAME_BURST_MS: u64 = 2_000;
/// How long it takes to win back a sixteenth of the rate.
const STEP_MS: u64 = 10_000;

#[derive(Debug)]
pub(super) struct Limiter {
    rate: Rate,
    window: Window,
    /// The share of the rate in force, out of [`FULL`].
    share: u32,
    /// When the next call is due if calls are spaced perfectly, in nanoseconds.
    due_ns: u64,
    /// When the last call was sent.
    last: BootMs,
    /// When the share last changed.
    changed_at: BootMs,
    /// Nothing before this moment, whatever the rate.
    hold_until: BootMs,
}

impl Limiter {
    /// A limiter that is full: a predecessor may have made up for a delay just now, so the first call is that and one interval
    /// away.
    pub(super) fn new(rate: Rate, now: BootMs) -> Self {
        let never = BootMs(0);
        let window = Window::new(rate);
        let mut limiter =
            Self { rate, window, share: FULL, due_ns: 0, last: never, changed_at: never, hold_until: never };
        limiter.due_ns = limiter.full_at_ns(now);
        limiter
    }

    /// When the first call is due if nothing is known of those before.
    fn full_at_ns(&self, now: BootMs) -> u64 {
        now.0 * NS + LATE_NS + TOLERANCE_NS + self.spacing_ns()
    }

    /// The rate is this from here on. What is left of a longer wait under a slower rate is cut to that of a new limiter.
    pub(super) fn set_rate(&mut self, now: BootMs, rate: Rate) {
        if rate != self.rate {
            (self.rate, self.window) = (rate, Window::new(rate));
            self.due_ns = self.due_ns.min(self.full_at_ns(now));
        }
    }

    /// The first moment at which a call may be sent.
    pub(super) fn next_at(&self) -> BootMs {
        let due = BootMs(self.due_ns.saturating_sub(TOLERANCE_NS).div_ceil(NS));
        // Behind a late call the others catch up at twice the pace.
        let spaced = self.last + self.spacing_ns() / 2 / NS;
        due.max(spaced).max(self.window.next_at()).max(self.hold_until)
    }

    /// Counts a call that is sent now; the caller has checked [`next_at`](Self::next_at).
    pub(super) fn take(&mut self, now: BootMs) {
        let now_ns = now.0 * NS;
        let kept = now_ns.saturating_sub(self.due_ns) <= LATE_NS;
        self.due_ns = if kept { self.due_ns } else { now_ns } + self.spacing_ns();
        self.last = now;
        self.window.take(now);
    }

    /// The time between two calls at the share in force, in nanoseconds.
    fn spacing_ns(&self) -> u64 {
        let period_ns = u64::from(self.rate.period_ms()) * NS;
        let interval_ns = (period_ns * (1000 + STRETCH)).div_ceil(u64::from(self.window.capacity) * 1000);
        interval_ns * u64::from(FULL) / u64::from(self.share)
    }

    /// The endpoint said "too fast": half the rate, and nothing for `hold_ms`. Returns whether that was news.
    pub(super) fn slow_down(&mut self, now: BootMs, hold_ms: u64) -> bool {
        self.hold_until = self.hold_until.max(now + hold_ms);
        let news = self.changed_at == BootMs(0) || now.since(self.changed_at) >= SAME_BURST_MS;
        if news {
            self.share = (self.share / 2).max(SLOWEST);
            self.changed_at = now;
        }
        news
    }

    /// A call succeeded: after a while without trouble, a step back towards the full rate. Returns whether it was taken.
    pub(super) fn ease(&mut self, now: BootMs) -> bool {
        let due = self.share < FULL && now.since(self.changed_at) >= STEP_MS;
        if due {
            self.share = (self.share + FULL / 16).min(FULL);
            self.changed_at = now;
        }
        due
    }

    /// What a successor should know: how slow it is, if it is.
    pub(super) fn to_remember(&self, now: Now) -> Option<Memory> {
        let share = u16::try_from(self.share).ok().filter(|_| self.share < FULL)?;
        Some(Memory::Slowed { share, hold: Wait::until(now, self.hold_until) })
    }

    /// Goes on as slowly as a predecessor went.
    pub(super) fn resume(&mut self, now: BootMs, share: u16, hold_until: BootMs) {
        (self.share, self.changed_at) = (u32::from(share).clamp(SLOWEST, FULL), now);
        self.hold_until = hold_until;
        self.due_ns = self.full_at_ns(now);
    }

    /// The share of the rate in force, in percent.
    pub(super) fn percent(&self) -> u8 {
        u8::try_from(self.share * 100 / FULL).unwrap_or(100)
    }
}

/// When calls were sent, as far back as it matters, in blocks of equal size. Every call of a block is sent a whole window
/// after the last call of the block that is as many blocks before it as fit into a period; so a period never sees more
/// calls than that many blocks have.
#[derive(Debug)]
struct Window {
    length_ms: u64,
    /// How many calls a block has.
    block: u32,
    /// How many calls fit into a period: the rate's count, up to a part of a block less.
    capacity: u32,
    /// When the last call of each block that is full was sent; the oldest first.
    ends: VecDeque<BootMs>,
    /// How many calls the newest block, which is not full, has.
    begun: u32,
}

impl Window {
    fn new(rate: Rate) -> Self {
        let block = rate.count().div_ceil(MOMENTS);
        let blocks = rate.count() / block;
        let period_ms = u64::from(rate.period_ms());
        Self {
            length_ms: period_ms + period_ms * GUARD / 1000,
            block,
            capacity: blocks * block,
            ends: std::iter::repeat_n(BootMs(0), blocks as usize).collect(),
            begun: 0,
        }
    }

    fn next_at(&self) -> BootMs {
        match self.ends.front() {
            None | Some(BootMs(0)) => BootMs(0),
            Some(&end) => end + self.length_ms,
        }
    }

    fn take(&mut self, now: BootMs) {
        self.begun += 1;
        if self.begun == self.block {
            self.begun = 0;
            self.ends.pop_front();
            self.ends.push_back(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls as fast as the limiter lets it, looking every `tick` milliseconds; returns when each was sent.
    fn greedy(rate: Rate, tick: u64, until: u64) -> Vec<u64> {
        let mut limiter = Limiter::new(rate, BootMs(0));
        let mut sent = Vec::new();
        for now in (0..until).step_by(usize::try_from(tick).unwrap()) {
            while limiter.next_at() <= BootMs(now) {
                limiter.take(BootMs(now));
                sent.push(now);
            }
        }
        sent
    }

    /// The most calls that any second saw.
    fn most(sent: &[u64]) -> usize {
        sent.iter().enumerate().map(|(i, &at)| sent[i..].partition_point(|&t| t < at + 1000)).max().unwrap_or(0)
    }

    /// One wake-up in so many is late, by up to `most` milliseconds.
    fn greedy_but_late(rate: Rate, one_in: u64, most: u64, until: u64) -> Vec<u64> {
        let mut limiter = Limiter::new(rate, BootMs(0));
        let (mut sent, mut chance) = (Vec::new(), 1_u64);
        while limiter.next_at().0 < until {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let late = if (chance >> 20) % one_in == 0 { (chance >> 33) % (most + 1) } else { 0 };
            let now = limiter.next_at() + late;
            while limiter.next_at() <= now {
                limiter.take(now);
                sent.push(now.0);
            }
        }
        sent
    }

    #[test]
    fn no_period_sees_more_calls_than_the_rate_allows() {
        for (count, tick) in
            [(15, 1), (15, 7), (1, 1), (10, 3), (64, 1), (65, 2), (400, 1), (400, 9), (20_000, 1), (3, 100), (15, 50)]
        {
            let rate = Rate::per_second(count);
            let sent = greedy(rate, tick, 20_000);
            assert!(most(&sent) <= count as usize, "{rate} every {tick} ms: {}", most(&sent));
            for late in [1, 5, 20, 59, 70, 200] {
                let sent = greedy_but_late(rate, 2, late, 60_000);
                assert!(most(&sent) <= count as usize, "{rate} up to {late} ms late: {}", most(&sent));
            }
        }
    }

    #[test]
    fn a_busy_machine_takes_nothing_away() {
        for (one_in, late) in [(1, 5), (3, 20), (6, 40)] {
            let sent = greedy_but_late(Rate::per_second(15), one_in, late, 600_000).len();
            assert!(sent > 600 * 15 * 98 / 100, "one in {one_in} up to {late} ms late: {sent} of 9,000");
        }
    }

    #[test]
    fn calls_are_spaced_even_behind_one_that_was_late() {
        let mut limiter = Limiter::new(Rate::per_second(10), BootMs(0));
        let mut sent = Vec::new();
        for n in 0..20_u64 {
            let late = if n == 10 { 45 } else { 0 };
            let now = limiter.next_at() + late;
            limiter.take(now);
            sent.push(now.0);
        }
        let gaps: Vec<u64> = sent.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| (50..=150).contains(gap)), "{gaps:?}");
        assert!(sent[19] - sent[0] <= 19 * 102, "{gaps:?}: what was lost is made up for");
    }

    #[test]
    fn a_successor_and_its_predecessor_together_keep_the_rate() {
        for count in [1, 2, 15, 50, 400] {
            let rate = Rate::per_second(count);
            for stalled in [0, 10, 30, 60] {
                // It calls for two seconds, is held up, catches up for a while, and is replaced at once.
                let mut limiter = Limiter::new(rate, BootMs(0));
                let mut sent = Vec::new();
                let mut call = |limiter: &mut Limiter, now: u64| {
                    while limiter.next_at() <= BootMs(now) {
                        limiter.take(BootMs(now));
                        sent.push(now);
                    }
                };
                let replaced = 2_000 + stalled + 40;
                (0..2_000).chain(2_000 + stalled..replaced).for_each(|now| call(&mut limiter, now));
                let mut successor = Limiter::new(rate, BootMs(replaced));
                (replaced..4_000).for_each(|now| call(&mut successor, now));
                assert!(most(&sent) <= count as usize, "{rate}, {stalled} ms: {}", most(&sent));
            }
        }
    }

    #[test]
    fn the_rate_is_used_to_within_two_percent() {
        for rate in [15, 10, 400, 20_000] {
            let sent = greedy(Rate::per_second(rate), 1, 60_000).len() as f64;
            assert!(sent > f64::from(rate) * 60.0 * 0.98, "{rate}/s: {sent} in a minute");
        }
    }

    #[test]
    fn a_new_limiter_is_full() {
        let limiter = Limiter::new(Rate::per_second(10), BootMs(5_000));
        assert!(limiter.next_at() > BootMs(5_100), "{:?}", limiter.next_at());
    }

    #[test]
    fn throttling_halves_the_rate_once_a_burst_and_it_comes_back_in_steps() {
        let mut limiter = Limiter::new(Rate::per_second(16), BootMs(0));
        assert!(limiter.slow_down(BootMs(10_000), 1_000));
        assert!(!limiter.slow_down(BootMs(10_500), 1_000));
        assert_eq!(limiter.percent(), 50);
        assert!(limiter.next_at() >= BootMs(11_500));
        for step in 2..=100 {
            limiter.ease(BootMs(step * 10_000));
        }
        assert_eq!(limiter.percent(), 100);
    }
}
