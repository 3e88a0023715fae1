//! For how long the scheduler was busy at a stretch: while it is, no answer is taken in and no deadline is met.

use super::clock;
use crate::domain::{BootMs, Now};

/// The longest stretch so far.
pub(super) struct Pauses {
    woke: BootMs,
    longest_ms: u64,
}

impl Pauses {
    pub(super) fn new(now: Now) -> Self {
        Self { woke: now.boot, longest_ms: 0 }
    }

    /// Something woke the scheduler, now.
    pub(super) fn wakes(&mut self) -> Now {
        let now = clock::now();
        self.woke = now.boot;
        now
    }

    /// It has done all there is to do.
    pub(super) fn sleeps(&mut self) {
        self.longest_ms = self.longest_ms.max(clock::now().boot.since(self.woke));
    }

    /// The longest stretch since the start, in milliseconds.
    pub(super) fn longest_ms(&self) -> u64 {
        self.longest_ms
    }
}
