//! How many jobs a lane is sent ahead: about what it does in a quarter of a second. The next one to come waits for those, so
//! on a disk that takes 10 ms for a file they must be few; and enough share a directory's sync on one that is fast.

use crate::domain::BootMs;

/// The fewest and the most that a lane is sent ahead.
const FEWEST: usize = 16;
const MOST: usize = 256;

/// What a lane should need for all of them, in milliseconds.
const AHEAD_MS: u64 = 250;

/// What one lane was sent, and may be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct PublicationWindow {
    /// Sent, and not reported.
    in_flight: usize,
    /// Publications whose token is still being read.
    reserved: usize,
    /// How many of both there may be.
    size: usize,
    /// When the lane last reported, or was given something to do.
    since: BootMs,
}

impl PublicationWindow {
    pub(super) fn new() -> Self {
        Self { in_flight: 0, reserved: 0, size: FEWEST, since: BootMs(0) }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many more the lane is to be given.
    pub(super) fn capacity(&self) -> usize {
        self.size.saturating_sub(self.in_flight + self.reserved)
    }

    pub(super) fn reserve(&mut self) {
        self.reserved += 1;
    }

    pub(super) fn release(&mut self) {
        self.reserved = self.reserved.saturating_sub(1);
    }

    pub(super) fn sent(&mut self, now: BootMs) {
        if self.in_flight == 0 {
            self.since = now;
        }
        self.in_flight += 1;
    }

    /// The lane reported the end of so many jobs together.
    pub(super) fn reported(&mut self, now: BootMs, jobs: usize) {
        if jobs == 0 {
            return;
        }
        self.in_flight = self.in_flight.saturating_sub(jobs);
        let took_ms = now.since(std::mem::replace(&mut self.since, now)).max(1);
        let in_time = usize::try_from(jobs as u64 * AHEAD_MS / took_ms).unwrap_or(MOST);
        // It doubles at most: one quick batch tells little.
        self.size = in_time.min(self.size * 2).clamp(FEWEST, MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a lane is sent ahead that needs so long for a job, in the end.
    fn ahead(job_us: u64) -> usize {
        let (mut window, mut now) = (PublicationWindow::new(), 1_000_000);
        for _ in 0..20 {
            let jobs = window.capacity().min(64);
            (0..jobs).for_each(|_| window.sent(BootMs(now / 1000)));
            now += job_us * jobs as u64;
            window.reported(BootMs(now / 1000), jobs);
        }
        window.capacity()
    }

    #[test]
    fn a_slow_lane_is_sent_what_it_does_in_a_moment_and_a_fast_one_much() {
        assert_eq!(ahead(100), MOST);
        assert!((20..=25).contains(&ahead(10_000)), "{}", ahead(10_000));
        assert_eq!(ahead(500_000), FEWEST);
    }

    #[test]
    fn a_publication_whose_token_is_being_read_takes_a_place_and_is_not_waited_for_as_a_job() {
        let mut window = PublicationWindow::new();
        (0..FEWEST).for_each(|_| window.reserve());
        assert_eq!((window.capacity(), window.in_flight()), (0, 0));
        window.release();
        window.sent(BootMs(1));
        assert_eq!((window.capacity(), window.in_flight()), (0, 1));
    }
}
