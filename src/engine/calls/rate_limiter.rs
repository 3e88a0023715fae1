//! Limits on calls. Calls are spaced evenly, and over *any* period, not just one that begins at a convenient moment, no more
//! are sent than the rate allows.
//!
//! Two rules, of which each does what the other cannot. The *schedule* spaces calls, and is [`STRETCH`] slower than the rate
//! says. A call that is late moves only itself, not those after it, or on a busy machine each late wake-up would cost a piece
//! of the rate; so behind a late call others are closer together. The *window* remembers when the last calls were handed out: a
//! call waits until the one that came `count` before it is a period and [`GUARD`] ago, however late anybody was.

use std::collections::VecDeque;

use crate::domain::{BootMs, Now, Rate, SavedState, Wait};

/// In a millisecond.
const NS: u64 = 1_000_000;
/// How early a call may be on the schedule, in nanoseconds: calls that are a millisecond apart share their wake-ups.
const TOLERANCE_NS: u64 = 4_000_000;
/// How late a call may be without those after it being put off, in nanoseconds. Beyond it nobody wanted to call.
const LATE_NS: u64 = 60_000_000;
/// How much longer than the rate says an interval is, in thousandths.
const STRETCH: u64 = 14;
/// How much longer than the period the window is, in thousandths of it: for the way from here to the endpoint, which delays
/// one call more than another. What is left of the stretch lets the window recover from late calls.
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
pub(crate) struct RateLimiter {
    rate: Rate,
    window: Window,
    /// The share of the rate in force, out of [`FULL`].
    share: u32,
    /// When the next call is due if calls are spaced perfectly, in nanoseconds.
    due_ns: u64,
    /// When the last call was handed out.
    last: BootMs,
    /// When the share last changed.
    changed_at: BootMs,
    /// Nothing before this moment, whatever the rate.
    hold_until: BootMs,
}

impl RateLimiter {
    /// A limiter that is full: a predecessor may have made up for a delay just now, so the first call is that and one interval
    /// away.
    pub(crate) fn new(rate: Rate, now: BootMs) -> Self {
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

    /// The rate is this from here on. The last call is taken to have made up for a delay, as if by a predecessor; but what is
    /// left of a longer wait under a slower rate is cut to that of a new limiter.
    pub(crate) fn set_rate(&mut self, now: BootMs, rate: Rate) {
        if rate == self.rate {
            return;
        }
        let before_ns = self.spacing_ns();
        (self.rate, self.window) = (rate, Window::new(rate));
        let after_last_ns = self.last.0 * NS + LATE_NS + TOLERANCE_NS + before_ns.min(self.spacing_ns());
        self.due_ns = self.due_ns.max(after_last_ns).min(self.full_at_ns(now));
    }

    pub(crate) fn rate(&self) -> Rate {
        self.rate
    }

    /// The first moment at which a call may be sent.
    pub(crate) fn next_at(&self) -> BootMs {
        let due = BootMs(self.due_ns.saturating_sub(TOLERANCE_NS).div_ceil(NS));
        // Behind a late call the others catch up at twice the pace; from 500/s on, where that is less than a millisecond, at once.
        let spaced = self.last + self.spacing_ns() / 2 / NS;
        due.max(spaced).max(self.window.next_at()).max(self.hold_until)
    }

    /// Counts a call that is sent now; the caller has checked [`next_at`](Self::next_at).
    pub(crate) fn take(&mut self, now: BootMs) {
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
    pub(crate) fn slow_down(&mut self, now: BootMs, hold_ms: u64) -> bool {
        self.hold_until = self.hold_until.max(now + hold_ms);
        let news = self.changed_at == BootMs(0) || now.since(self.changed_at) >= SAME_BURST_MS;
        if news {
            self.share = (self.share / 2).max(SLOWEST);
            self.changed_at = now;
        }
        news
    }

    /// A call succeeded: after a while without trouble, a step back towards the full rate. Returns whether it was taken.
    pub(crate) fn speed_up(&mut self, now: BootMs) -> bool {
        let due = self.share < FULL && now.since(self.changed_at) >= STEP_MS;
        if due {
            self.share = (self.share + FULL / 16).min(FULL);
            self.changed_at = now;
        }
        due
    }

    /// What a successor should know: how slow it is, if it is.
    pub(crate) fn to_saved(&self, now: Now) -> Option<SavedState> {
        let share = u16::try_from(self.share).ok().filter(|_| self.share < FULL)?;
        Some(SavedState::Slowed { share, hold: Wait::until(now, self.hold_until) })
    }

    /// Goes on as slowly as a predecessor went.
    pub(crate) fn resume(&mut self, now: BootMs, share: u16, hold_until: BootMs) {
        (self.share, self.changed_at) = (u32::from(share).clamp(SLOWEST, FULL), now);
        self.hold_until = hold_until;
        self.due_ns = self.full_at_ns(now);
    }

    /// The share of the rate in force, in percent.
    pub(crate) fn percent(&self) -> u8 {
        u8::try_from(self.share * 100 / FULL).unwrap_or(100)
    }
}

/// When calls were handed out, as far back as it matters, in blocks of equal size. With n blocks to a period, every call of a
/// block comes at least the window's length after the last call of the n-th block before it; so a period that begins in that
/// block has ended before this one, and sees no more calls than n blocks have.
#[derive(Debug)]
struct Window {
    length_ms: u64,
    /// How many calls a block has.
    block: u32,
    /// How many calls fit into a period: the rate's count, up to a part of a block less.
    capacity: u32,
    /// When the last call of each of the last n full blocks was; the oldest first. `None` where there were none yet.
    ends: VecDeque<Option<BootMs>>,
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
            ends: std::iter::repeat_n(None, blocks as usize).collect(),
            begun: 0,
        }
    }

    fn next_at(&self) -> BootMs {
        self.ends.front().copied().flatten().map_or(BootMs(0), |end| end + self.length_ms)
    }

    fn take(&mut self, now: BootMs) {
        self.begun += 1;
        if self.begun == self.block {
            self.begun = 0;
            self.ends.pop_front();
            self.ends.push_back(Some(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls as fast as the limiter lets it, looking every `tick` milliseconds; returns when each was sent.
    fn greedy(rate: Rate, tick: u64, until: u64) -> Vec<u64> {
        let mut limiter = RateLimiter::new(rate, BootMs(0));
        let mut sent = Vec::new();
        for now in (0..until).step_by(usize::try_from(tick).unwrap()) {
            while limiter.next_at() <= BootMs(now) {
                limiter.take(BootMs(now));
                sent.push(now);
            }
        }
        sent
    }

    /// The most calls that any time of this length saw.
    fn most(sent: &[u64], length_ms: u64) -> u32 {
        let most = sent.iter().enumerate().map(|(i, &at)| sent[i..].partition_point(|&t| t < at + length_ms)).max();
        u32::try_from(most.unwrap_or(0)).unwrap()
    }

    /// A period, and the guard on top of it.
    fn guarded(rate: Rate) -> u64 {
        u64::from(rate.period_ms()) * (1000 + GUARD) / 1000
    }

    /// One wake-up in so many is late, by up to `most` milliseconds.
    fn greedy_but_late(rate: Rate, one_in: u64, most: u64, until: u64) -> Vec<u64> {
        let mut limiter = RateLimiter::new(rate, BootMs(0));
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
        let rates = [1, 3, 10, 15, 256, 257, 400, 515, 20_000].map(Rate::per_second);
        let slow = [1, 90, 600].map(Rate::per_minute);
        for (rate, tick) in rates.into_iter().chain(slow).flat_map(|rate| [1, 7, 50].map(|tick| (rate, tick))) {
            let periods = 10 * u64::from(rate.period_ms());
            let sent = most(&greedy(rate, tick, periods), guarded(rate));
            assert!(sent <= rate.count(), "{rate} every {tick} ms: {sent}");
            for late in [1, 20, 59, 200] {
                let sent = most(&greedy_but_late(rate, 2, late, periods), guarded(rate));
                assert!(sent <= rate.count(), "{rate} up to {late} ms late: {sent}");
            }
        }
        let everything = Rate::per_second(1_000_000);
        assert!(most(&greedy(everything, 10, 3_000), 1000) <= 1_000_000);
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
        let mut limiter = RateLimiter::new(Rate::per_second(10), BootMs(0));
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

    /// It calls for two seconds, is held up, catches up for a while, and is then changed; the most calls of any second.
    fn most_around(rate: Rate, stalled: u64, after: u64, change: impl FnOnce(&mut RateLimiter, BootMs)) -> u32 {
        let mut limiter = RateLimiter::new(rate, BootMs(0));
        let mut sent = Vec::new();
        let mut call = |limiter: &mut RateLimiter, now: u64| {
            while limiter.next_at() <= BootMs(now) {
                limiter.take(BootMs(now));
                sent.push(now);
            }
        };
        let changed = 2_000 + stalled + after;
        (0..2_000).chain(2_000 + stalled..changed).for_each(|now| call(&mut limiter, now));
        change(&mut limiter, BootMs(changed));
        (changed..4_000).for_each(|now| call(&mut limiter, now));
        most(&sent, 1000)
    }

    #[test]
    fn a_successor_and_its_predecessor_together_keep_the_rate() {
        for rate in [1, 2, 15, 50, 400].map(Rate::per_second) {
            for (stalled, after) in
                [0, 10, 30, 60].into_iter().flat_map(|stalled| [1, 40].map(|after| (stalled, after)))
            {
                let sent = most_around(rate, stalled, after, |limiter, now| *limiter = RateLimiter::new(rate, now));
                assert!(sent <= rate.count(), "{rate}, {stalled} ms and {after} ms: {sent}");
            }
        }
    }

    #[test]
    fn a_period_in_which_the_rate_changes_sees_no_more_than_the_higher_allows() {
        for (old, new) in [(15, 16), (16, 15), (400, 401), (400, 10), (10, 400), (1, 15)] {
            for (stalled, after) in
                [0, 10, 30, 60].into_iter().flat_map(|stalled| [1, 40].map(|after| (stalled, after)))
            {
                let change = |limiter: &mut RateLimiter, now| limiter.set_rate(now, Rate::per_second(new));
                let sent = most_around(Rate::per_second(old), stalled, after, change);
                assert!(sent <= old.max(new), "{old}/s to {new}/s, {stalled} ms and {after} ms: {sent}");
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
        let limiter = RateLimiter::new(Rate::per_second(10), BootMs(5_000));
        assert!(limiter.next_at() > BootMs(5_100), "{:?}", limiter.next_at());
    }

    #[test]
    fn throttling_halves_the_rate_once_a_burst_and_it_comes_back_in_steps() {
        let mut limiter = RateLimiter::new(Rate::per_second(16), BootMs(0));
        assert!(limiter.slow_down(BootMs(10_000), 1_000));
        assert!(!limiter.slow_down(BootMs(10_500), 1_000));
        assert_eq!(limiter.percent(), 50);
        assert!(limiter.next_at() >= BootMs(11_500));
        for step in 2..=100 {
            limiter.speed_up(BootMs(step * 10_000));
        }
        assert_eq!(limiter.percent(), 100);
    }
}
