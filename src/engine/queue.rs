//! An app's tenants that are due, in order: valid tokens with under a tenth of their life left, then tenants that have
//! none, then by expiry.
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
            Class::Urgent => self.urgent.push(Reverse(entry)),
            Class::Without => self.without.push_back(entry),
            Class::Early => self.early.push(Reverse(entry)),
        }
    }

    /// The first entry that still holds, after dropping those before it that do not.
    pub(super) fn best(&mut self, holds: impl Fn(Slot, u32) -> bool) -> Option<Best> {
        let void = |entry: &Entry| !holds(entry.slot, entry.stamp);
        while self.urgent.peek().is_some_and(|Reverse(entry)| void(entry)) {
            self.urgent.pop();
        }
        while self.without.front().is_some_and(void) {
            self.without.pop_front();
        }
        while self.early.peek().is_some_and(|Reverse(entry)| void(entry)) {
            self.early.pop();
        }
        let best = |class, entry: &Entry| Best { class, key: entry.key, slot: entry.slot };
        let urgent = self.urgent.peek().map(|Reverse(entry)| best(Class::Urgent, entry));
        let without = || self.without.front().map(|entry| best(Class::Without, entry));
        let early = || self.early.peek().map(|Reverse(entry)| best(Class::Early, entry));
        urgent.or_else(without).or_else(early)
    }
}
