//! How many jobs a lane is sent ahead: about what it does in a quarter of a second. Whoever comes next waits for those, so on
//! a disk that takes 10 ms for a file they must be few; and enough share a directory's sync on one that is fast.

use crate::domain::BootMs;

/// The fewest and the most that a lane is sent ahead.
const FEWEST: usize = 16;
const MOST: usize = 256;

/// What a lane should need for all of them, in milliseconds.
const AHEAD_MS: u64 = 250;

/// The jobs that one lane was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow {
    under_way: usize,
    most: usize,
    /// When it last reported, or was given something to do.
    since: BootMs,
}

impl Flow {
    pub(crate) fn new() -> Self {
        Self { under_way: 0, most: FEWEST, since: BootMs(0) }
    }

    pub(crate) fn under_way(&self) -> usize {
        self.under_way
    }

    /// How many more the lane is to be given.
    pub(crate) fn room(&self) -> usize {
        self.most.saturating_sub(self.under_way)
    }

    pub(crate) fn begins(&mut self, now: BootMs) {
        if self.under_way == 0 {
            self.since = now;
        }
        self.under_way += 1;
    }

    pub(crate) fn ended(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// The lane reported so many jobs together.
    pub(crate) fn reported(&mut self, now: BootMs, jobs: usize) {
        if jobs == 0 {
            return;
        }
        let took_ms = now.since(std::mem::replace(&mut self.since, now)).max(1);
        let in_time = usize::try_from(jobs as u64 * AHEAD_MS / took_ms).unwrap_or(MOST);
        // Up step by step: one quick batch tells little.
        self.most = in_time.min(self.most * 2).clamp(FEWEST, MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a lane is sent ahead that needs so long for a job, in the end.
    fn ahead(job_us: u64) -> usize {
        let (mut flow, mut now) = (Flow::new(), 1_000_000);
        for _ in 0..20 {
            let jobs = flow.room().min(64);
            (0..jobs).for_each(|_| flow.begins(BootMs(now / 1000)));
            now += job_us * jobs as u64;
            (0..jobs).for_each(|_| flow.ended());
            flow.reported(BootMs(now / 1000), jobs);
        }
        flow.room()
    }

    #[test]
    fn a_slow_lane_is_sent_what_it_does_in_a_moment_and_a_fast_one_much() {
        assert_eq!(ahead(100), MOST);
        assert!((20..=25).contains(&ahead(10_000)), "{}", ahead(10_000));
        assert_eq!(ahead(500_000), FEWEST);
    }
}
