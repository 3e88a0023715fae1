//! Timers: one a tenant, in slots of one second, linked through the tenants themselves.
//!
//! A deadline within the running second waits in a small heap, so deadlines are exact to the millisecond although the
//! wheel is not; those that need not be exact are set on whole seconds, and fire together.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::table::Table;
use super::tenant::Timer;
use crate::domain::{BootMs, Slot};

/// Seconds in the wheel: a power of two that holds a token's usual life. A later deadline is passed over once a turn.
const SECONDS: usize = 8192;

pub(super) struct Wheel {
    /// The first tenant of each second, or [`Timer::NONE`].
    heads: Box<[u32; SECONDS]>,
    /// Which seconds have tenants.
    occupied: [u64; SECONDS / 64],
    /// Everything before this second has been taken out.
    second: u64,
    /// Deadlines of seconds that have begun. An entry holds only if the tenant's timer still says the same.
    soon: BinaryHeap<Reverse<(BootMs, Slot)>>,
}

fn cell(second: u64) -> usize {
    usize::try_from(second).unwrap_or(0) % SECONDS
}

impl Wheel {
    pub(super) fn new(now: BootMs) -> Self {
        Self {
            heads: Box::new([Timer::NONE; SECONDS]),
            occupied: [0; SECONDS / 64],
            second: now.seconds(),
            soon: BinaryHeap::new(),
        }
    }

    /// Sets (or moves) a tenant's timer.
    pub(super) fn set(&mut self, tenants: &mut Table, slot: Slot, at: BootMs) {
        self.clear(tenants, slot);
        tenants[slot].timer.at = at;
        if at.seconds() < self.second {
            self.soon.push(Reverse((at, slot)));
        } else {
            self.link(tenants, slot, at.seconds());
        }
    }

    /// Takes a tenant's timer away.
    pub(super) fn clear(&mut self, tenants: &mut Table, slot: Slot) {
        let timer = std::mem::replace(&mut tenants[slot].timer, Timer::IDLE);
        if timer.at == Timer::IDLE.at || timer.at.seconds() < self.second {
            return; // never set, or in `soon`, where the entry is void from now on
        }
        self.unlink(tenants, timer);
    }

    /// The next tenant whose deadline has come.
    pub(super) fn expire(&mut self, now: BootMs, tenants: &mut Table) -> Option<Slot> {
        self.begin_seconds(now, tenants);
        while let Some(&Reverse((at, slot))) = self.soon.peek() {
            if at > now {
                return None;
            }
            self.soon.pop();
            if tenants.get(slot).is_some_and(|tenant| tenant.timer.at == at) {
                tenants[slot].timer = Timer::IDLE;
                return Some(slot);
            }
        }
        None
    }

    /// When [`expire`](Self::expire) may next have something: never too late, at times too early.
    pub(super) fn next_at(&self) -> Option<BootMs> {
        let soon = self.soon.peek().map(|Reverse((at, _))| *at);
        soon.into_iter().chain(self.next_second().map(|second| BootMs(second * 1000))).min()
    }

    /// Moves the deadlines of all seconds that have begun by `now` into `soon`.
    fn begin_seconds(&mut self, now: BootMs, tenants: &mut Table) {
        // After a long sleep one round visits every cell; more would visit them again.
        let until = now.seconds();
        if until >= self.second + SECONDS as u64 {
            self.second = until - SECONDS as u64 + 1;
        }
        while let Some(second) = self.next_second().filter(|&second| second <= until) {
            self.second = second + 1;
            self.drain(second, now, tenants);
        }
        self.second = self.second.max(until + 1);
    }

    fn drain(&mut self, second: u64, now: BootMs, tenants: &mut Table) {
        let mut next = std::mem::replace(&mut self.heads[cell(second)], Timer::NONE);
        self.occupied[cell(second) / 64] &= !(1 << (cell(second) % 64));
        while next != Timer::NONE {
            let slot = Slot(next);
            let timer = &mut tenants[slot].timer;
            (next, timer.next, timer.prev) = (timer.next, Timer::NONE, Timer::NONE);
            let at = timer.at;
            if at.seconds() <= now.seconds() {
                self.soon.push(Reverse((at, slot)));
            } else {
                self.link(tenants, slot, at.seconds());
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

    fn link(&mut self, tenants: &mut Table, slot: Slot, second: u64) {
        let head = std::mem::replace(&mut self.heads[cell(second)], slot.0);
        self.occupied[cell(second) / 64] |= 1 << (cell(second) % 64);
        if head != Timer::NONE {
            tenants[Slot(head)].timer.prev = slot.0;
        }
        let timer = &mut tenants[slot].timer;
        (timer.next, timer.prev) = (head, Timer::NONE);
    }

    fn unlink(&mut self, tenants: &mut Table, timer: Timer) {
        if timer.next != Timer::NONE {
            tenants[Slot(timer.next)].timer.prev = timer.prev;
        }
        if timer.prev == Timer::NONE {
            let cell = cell(timer.at.seconds());
            self.heads[cell] = timer.next;
            if timer.next == Timer::NONE {
                self.occupied[cell / 64] &= !(1 << (cell % 64));
            }
        } else {
            tenants[Slot(timer.prev)].timer.next = timer.next;
        }
    }
}
