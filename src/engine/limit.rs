//! Limits on calls. Calls are spaced evenly, so that over *any* period, not just one that begins at a convenient moment,
//! no more are sent than the rate allows.
//!
//! This is the generic cell rate algorithm with a small tolerance, so that a wake-up that came late is made up for. The
//! proof: the n-th call after any call leaves at least `n × interval − TOLERANCE` later. The interval is [`STRETCH`] longer
//! than the rate says; after `count` calls that is more than the tolerance, so call `count + 1` is outside the period.
//! What is left over of the stretch absorbs the network's own jitter.

use crate::domain::{BootMs, Memory, Now, Rate, Wait};

/// How early a call may be, in microseconds.
const TOLERANCE_US: u64 = 4_000;
/// How much longer than the rate says an interval is, in thousandths: 1.5 %.
const STRETCH: u64 = 15;
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
    interval_us: u64,
    /// The share of the rate in force, out of [`FULL`].
    share: u32,
    /// The "theoretical arrival time": when the next call is due if calls were spaced perfectly, in microseconds.
    due_us: u64,
    /// When the share last changed.
    changed_at: BootMs,
    /// Nothing before this moment, whatever the rate.
    hold_until: BootMs,
}

impl Limiter {
    /// A limiter that is full: the first call is one interval away.
    pub(super) fn new(rate: Rate, now: BootMs) -> Self {
        let never = BootMs(0);
        let mut limiter = Self { interval_us: 0, share: FULL, due_us: u64::MAX, changed_at: never, hold_until: never };
        limiter.set_rate(now, rate);
        limiter
    }

    /// The rate is this from here on. What is left of a longer wait under a slower rate is cut to one interval of the new
    /// one; that is still a full interval after the last call, so the proof holds across the change.
    pub(super) fn set_rate(&mut self, now: BootMs, rate: Rate) {
        let period_us = u64::from(rate.period_ms()) * 1000;
        self.interval_us = (period_us * (1000 + STRETCH)).div_ceil(u64::from(rate.count()) * 1000);
        self.due_us = self.due_us.min(now.0 * 1000 + self.spacing_us() + TOLERANCE_US);
    }

    /// The first moment at which a call may be sent.
    pub(super) fn next_at(&self) -> BootMs {
        BootMs(self.due_us.saturating_sub(TOLERANCE_US).div_ceil(1000)).max(self.hold_until)
    }

    /// Counts a call that is sent now; the caller has checked [`next_at`](Self::next_at).
    pub(super) fn take(&mut self, now: BootMs) {
        self.due_us = self.due_us.max(now.0 * 1000) + self.spacing_us();
    }

    /// The time between two calls at the share in force, in microseconds.
    fn spacing_us(&self) -> u64 {
        self.interval_us * u64::from(FULL) / u64::from(self.share)
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
        self.due_us = self.due_us.max(now.0 * 1000 + self.spacing_us());
    }

    /// The share of the rate in force, in percent.
    pub(super) fn percent(&self) -> u8 {
        u8::try_from(self.share * 100 / FULL).unwrap_or(100)
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

    #[test]
    fn no_period_sees_more_calls_than_the_rate_allows() {
        for (rate, tick) in [(15, 1), (15, 7), (1, 1), (10, 3), (400, 1), (400, 9), (20_000, 1), (3, 100)]
            .map(|(n, t)| (Rate::per_second(n), t))
        {
            let sent = greedy(rate, tick, 20_000);
            let most = sent.iter().enumerate().map(|(i, &at)| sent[i..].partition_point(|&t| t < at + 1000)).max();
            assert!(most.unwrap() <= rate.count() as usize, "{rate} every {tick} ms: {most:?}");
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
