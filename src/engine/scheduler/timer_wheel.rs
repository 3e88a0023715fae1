//! Timers: one a slot, in cells of one second.
//!
//! A timer that is moved leaves its old entry behind: an entry is void unless the slot's timer is still set to its time. To
//! look for it would cost more than it takes, since its neighbours are anywhere in memory.
//!
//! A deadline within the running second waits in a small heap, so deadlines are exact to the millisecond although the
//! wheel is not; those that need not be exact are set on whole seconds, and fire together.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::domain::{BootMs, Slot};
use crate::engine::tenants::IDLE;

/// Seconds in the wheel: a power of two that holds a token's usual life. A later deadline is passed over once a round.
const SECONDS: usize = 8192;

pub(crate) struct TimerWheel {
    /// The slots with a deadline in each second.
    cells: Box<[Vec<Slot>]>,
    /// Which seconds have entries.
    occupied: [u64; SECONDS / 64],
    /// Everything before this second has been taken out.
    second: u64,
    /// Deadlines of seconds that have begun.
    soon: BinaryHeap<Reverse<(BootMs, Slot)>>,
}

fn cell(second: u64) -> usize {
    usize::try_from(second).unwrap_or(0) % SECONDS
}

impl TimerWheel {
    pub(crate) fn new(now: BootMs) -> Self {
        Self {
            cells: vec![Vec::new(); SECONDS].into(),
            occupied: [0; SECONDS / 64],
            second: now.seconds(),
            soon: BinaryHeap::new(),
        }
    }

    /// Sets, or moves, the timer of a slot.
    pub(crate) fn set(&mut self, slot: Slot, timer: &mut BootMs, at: BootMs) {
        if std::mem::replace(timer, at) == at {
            return;
        }
        if at.seconds() < self.second {
            self.soon.push(Reverse((at, slot)));
        } else {
            self.enter(slot, at.seconds());
        }
    }

    /// Clears the timer of a slot.
    pub(crate) fn clear(&self, timer: &mut BootMs) {
        *timer = IDLE;
    }

    /// The next slot whose timer has fired. The caller clears it. `timer_of`: what the timer of a slot is set to.
    pub(crate) fn expire(&mut self, now: BootMs, timer_of: impl Fn(Slot) -> Option<BootMs>) -> Option<Slot> {
        self.begin_seconds(now, &timer_of);
        while let Some(&Reverse((at, slot))) = self.soon.peek().filter(|Reverse((at, _))| *at <= now) {
            self.soon.pop();
            if timer_of(slot) == Some(at) {
                return Some(slot);
            }
        }
        None
    }

    /// When [`expire`](Self::expire) may next have something: never too late, at times too early.
    pub(crate) fn next_at(&self) -> Option<BootMs> {
        let soon = self.soon.peek().map(|Reverse((at, _))| *at);
        soon.into_iter().chain(self.next_second().map(|second| BootMs(second * 1000))).min()
    }

    /// Moves the deadlines of all seconds that have begun by `now` into `soon`.
    fn begin_seconds(&mut self, now: BootMs, timer_of: &impl Fn(Slot) -> Option<BootMs>) {
        // After a long sleep one round visits every cell; more would visit them again.
        let until = now.seconds();
        if until >= self.second + SECONDS as u64 {
            self.second = until - SECONDS as u64 + 1;
        }
        while let Some(second) = self.next_second().filter(|&second| second <= until) {
            self.second = second + 1;
            self.drain(second, now, timer_of);
        }
        self.second = self.second.max(until + 1);
    }

    fn drain(&mut self, second: u64, now: BootMs, timer_of: &impl Fn(Slot) -> Option<BootMs>) {
        let entries = std::mem::take(&mut self.cells[cell(second)]);
        self.occupied[cell(second) / 64] &= !(1 << (cell(second) % 64));
        for slot in entries {
            let Some(at) = timer_of(slot) else { continue };
            if at.seconds() <= now.seconds() {
                self.soon.push(Reverse((at, slot)));
            } else if at != IDLE && cell(at.seconds()) == cell(second) {
                self.enter(slot, at.seconds()); // a later round's; any other stands in its own cell
            }
        }
    }

    /// The first second from `self.second` on whose cell is occupied.
    fn next_second(&self) -> Option<u64> {
        let start = cell(self.second);
        let words = self.occupied.len();
        (0..=words).find_map(|step| {
            let word = (start / 64 + step) % words;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            } else if step == words {
                bits &= !(u64::MAX << (start % 64));
            }
            (bits != 0).then(|| {
                let found = word * 64 + bits.trailing_zeros() as usize;
                self.second + ((found + SECONDS - start) % SECONDS) as u64
            })
        })
    }

    fn enter(&mut self, slot: Slot, second: u64) {
        self.cells[cell(second)].push(slot);
        self.occupied[cell(second) / 64] |= 1 << (cell(second) % 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct Timers(BTreeMap<Slot, BootMs>);

    impl Timers {
        fn set(&mut self, wheel: &mut TimerWheel, slot: u32, at: u64) {
            wheel.set(Slot(slot), self.0.entry(Slot(slot)).or_insert(IDLE), BootMs(at));
        }

        fn fired(&mut self, wheel: &mut TimerWheel, now: u64) -> Vec<u32> {
            let mut fired = Vec::new();
            while let Some(slot) = wheel.expire(BootMs(now), |slot| self.0.get(&slot).copied()) {
                self.0.insert(slot, IDLE);
                fired.push(slot.0);
            }
            fired
        }
    }

    #[test]
    fn a_timer_fires_once_to_the_millisecond_however_often_it_was_moved() {
        let (mut wheel, mut timers) = (TimerWheel::new(BootMs(5_000)), Timers::default());
        timers.set(&mut wheel, 1, 9_500);
        timers.set(&mut wheel, 1, 7_250);
        timers.set(&mut wheel, 1, 8_250);
        assert!(wheel.next_at() <= Some(BootMs(8_250)));
        assert!(timers.fired(&mut wheel, 8_249).is_empty());
        assert_eq!(timers.fired(&mut wheel, 8_250), [1]);
        assert!(timers.fired(&mut wheel, 100_000).is_empty());
        assert_eq!(wheel.next_at(), None);
    }

    #[test]
    fn deadlines_beyond_a_round_and_after_a_long_sleep_fire_in_their_order() {
        let round = SECONDS as u64 * 1000;
        let (mut wheel, mut timers) = (TimerWheel::new(BootMs(0)), Timers::default());
        for (slot, at) in [(1, 3 * round), (2, round + 500), (3, 400), (4, 3 * round + 1)] {
            timers.set(&mut wheel, slot, at);
        }
        assert_eq!(timers.fired(&mut wheel, 400), [3]);
        assert!(timers.fired(&mut wheel, round).is_empty());
        assert_eq!(timers.fired(&mut wheel, 10 * round), [2, 1, 4]);
    }

    #[test]
    fn a_timer_that_was_cleared_does_not_fire() {
        let (mut wheel, mut timers) = (TimerWheel::new(BootMs(0)), Timers::default());
        timers.set(&mut wheel, 1, 2_000);
        wheel.clear(timers.0.get_mut(&Slot(1)).unwrap());
        assert!(timers.fired(&mut wheel, 10_000).is_empty());
    }
}
