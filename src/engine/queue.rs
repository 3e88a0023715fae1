//! An app's tenants that are due, in order: expired tokens, then valid ones with under a tenth of their life left, then
//! tenants that never had one, then by expiry. `docs/decisions/0011-order-of-calls.md` says why.
//!
//! A tenant that changes class, or leaves, is not looked for in here: its stamp moves on, and the old entry is void.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::tenant::Class;
use crate::domain::{BootMs, Slot};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// When the token expires; among tenants without one, when it joined.
    key: BootMs,
    slot: Slot,
    stamp: u32,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    lapsed: BinaryHeap<Reverse<Entry>>,
    urgent: BinaryHeap<Reverse<Entry>>,
    without: VecDeque<Entry>,
    early: BinaryHeap<Reverse<Entry>>,
}

/// The tenant that is to be called first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Best {
    pub(super) class: Class,
    pub(super) key: BootMs,
    pub(super) slot: Slot,
}

impl Queue {
    pub(super) fn push(&mut self, class: Class, key: BootMs, slot: Slot, stamp: u32) {
        let entry = Entry { key, slot, stamp };
        match class {
            Class::Lapsed => self.lapsed.push(Reverse(entry)),
            Class::Urgent => self.urgent.push(Reverse(entry)),
            Class::Without => self.without.push_back(entry),
            Class::Early => self.early.push(Reverse(entry)),
        }
    }

    /// How many entries there are, void ones included.
    pub(super) fn len(&self) -> usize {
        self.urgent.len() + self.lapsed.len() + self.without.len() + self.early.len()
    }

    /// Drops the entries that no longer hold, and gives back the room that they took.
    pub(super) fn tidy(&mut self, holds: impl Fn(Slot, u32) -> bool) {
        for heap in [&mut self.lapsed, &mut self.urgent, &mut self.early] {
            heap.retain(|Reverse(entry)| holds(entry.slot, entry.stamp));
            heap.shrink_to_fit();
        }
        self.without.retain(|entry| holds(entry.slot, entry.stamp));
        self.without.shrink_to_fit();
    }

    /// The first entry that still holds, after dropping those before it that do not.
    pub(super) fn best(&mut self, holds: impl Fn(Slot, u32) -> bool) -> Option<Best> {
        let void = |entry: &Entry| !holds(entry.slot, entry.stamp);
        for heap in [&mut self.lapsed, &mut self.urgent, &mut self.early] {
            while heap.peek().is_some_and(|Reverse(entry)| void(entry)) {
                heap.pop();
            }
        }
        while self.without.front().is_some_and(void) {
            self.without.pop_front();
        }
        let best = |class, entry: &Entry| Best { class, key: entry.key, slot: entry.slot };
        let top = |class, heap: &BinaryHeap<Reverse<Entry>>| heap.peek().map(|Reverse(entry)| best(class, entry));
        top(Class::Lapsed, &self.lapsed)
            .or_else(|| top(Class::Urgent, &self.urgent))
            .or_else(|| self.without.front().map(|entry| best(Class::Without, entry)))
            .or_else(|| top(Class::Early, &self.early))
    }
}
