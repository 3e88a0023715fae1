//! Timers: one a tenant, in cells of one second.
//!
//! A timer that is moved leaves its old entry behind: an entry holds only if the tenant's timer still says the same. To look
//! for it would cost more than it takes, since its neighbours are anywhere in memory.
//!
//! A deadline within the running second waits in a small heap, so deadlines are exact to the millisecond although the
//! wheel is not; those that need not be exact are set on whole seconds, and fire together.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::domain::{BootMs, Slot};
use crate::engine::tenants::{IDLE, Table};

/// Seconds in the wheel: a power of two that holds a token's usual life. A later deadline is passed over once a turn.
const SECONDS: usize = 8192;

pub(crate) struct Wheel {
    /// Whose deadlines lie in each second.
    cells: Box<[Vec<Slot>]>,
    /// Which seconds have entries.
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
    pub(crate) fn new(now: BootMs) -> Self {
        Self {
            cells: vec![Vec::new(); SECONDS].into(),
            occupied: [0; SECONDS / 64],
            second: now.seconds(),
            soon: BinaryHeap::new(),
        }
    }

    /// Sets (or moves) a tenant's timer.
    pub(crate) fn set(&mut self, tenants: &mut Table, slot: Slot, at: BootMs) {
        if std::mem::replace(&mut tenants[slot].timer, at) == at {
            return;
        }
        if at.seconds() < self.second {
            self.soon.push(Reverse((at, slot)));
        } else {
            self.enter(slot, at.seconds());
        }
    }

    /// Takes a tenant's timer away.
    pub(crate) fn clear(&mut self, tenants: &mut Table, slot: Slot) {
        tenants[slot].timer = IDLE;
    }

    /// The next tenant whose deadline has come.
    pub(crate) fn expire(&mut self, now: BootMs, tenants: &mut Table) -> Option<Slot> {
        self.begin_seconds(now, tenants);
        while let Some(&Reverse((at, slot))) = self.soon.peek() {
            if at > now {
                return None;
            }
            self.soon.pop();
            if tenants.get(slot).is_some_and(|tenant| tenant.timer == at) {
                tenants[slot].timer = IDLE;
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
    fn begin_seconds(&mut self, now: BootMs, tenants: &Table) {
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

    fn drain(&mut self, second: u64, now: BootMs, tenants: &Table) {
        let entries = std::mem::take(&mut self.cells[cell(second)]);
        self.occupied[cell(second) / 64] &= !(1 << (cell(second) % 64));
        for slot in entries {
            let Some(at) = tenants.get(slot).map(|tenant| tenant.timer) else { continue };
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
