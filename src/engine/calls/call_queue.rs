//! An app's tenants that are due, in order: expired tokens, then valid ones with under a tenth of their life left, then
//! tenants that never had one, then by expiry. `docs/decisions/0011-order-of-calls.md` says why. Those that have failed while
//! the app's breaker is open come last.
//!
//! A tenant that changes class, or leaves, is not looked for in here: its stamp moves on, and the old entry is void.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::domain::{BootMs, Slot};
use crate::engine::scheduler::backoff::hash;
use crate::engine::tenants::Class;

/// So often an entry is drawn that may turn out to be void.
const TRIES: u64 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// When the token expires; among tenants without one, when it joined.
    key: BootMs,
    slot: Slot,
    stamp: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    lapsed: BinaryHeap<Reverse<Entry>>,
    urgent: BinaryHeap<Reverse<Entry>>,
    without: VecDeque<Entry>,
    early: BinaryHeap<Reverse<Entry>>,
    tried: BinaryHeap<Reverse<Entry>>,
}

/// The tenant that is to be called first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Best {
    pub(crate) class: Class,
    pub(crate) key: BootMs,
    pub(crate) slot: Slot,
}

impl Queue {
    pub(crate) fn push(&mut self, class: Class, key: BootMs, slot: Slot, stamp: u32) {
        let entry = Entry { key, slot, stamp };
        match class {
            Class::Lapsed => self.lapsed.push(Reverse(entry)),
            Class::Urgent => self.urgent.push(Reverse(entry)),
            Class::Without => self.without.push_back(entry),
            Class::Early => self.early.push(Reverse(entry)),
            Class::Tried => self.tried.push(Reverse(entry)),
        }
    }

    /// How many entries there are, void ones included.
    pub(crate) fn len(&self) -> usize {
        self.urgent.len() + self.lapsed.len() + self.without.len() + self.early.len() + self.tried.len()
    }

    /// Drops the entries that no longer hold, and gives back the room that they took.
    pub(crate) fn tidy(&mut self, holds: impl Fn(Slot, u32) -> bool) {
        for heap in [&mut self.lapsed, &mut self.urgent, &mut self.early, &mut self.tried] {
            heap.retain(|Reverse(entry)| holds(entry.slot, entry.stamp));
            heap.shrink_to_fit();
        }
        self.without.retain(|entry| holds(entry.slot, entry.stamp));
        self.without.shrink_to_fit();
    }

    /// Takes out those who come last.
    pub(crate) fn take_tried(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.tried).into_iter().map(|Reverse(entry)| entry.slot).collect()
    }

    /// The first entry that still holds, after dropping those before it that do not.
    pub(crate) fn best(&mut self, holds: impl Fn(Slot, u32) -> bool) -> Option<Best> {
        self.first(false, holds)
    }

    /// An entry to probe with. A tenant that was served before is better than one that never was. Most probes are by
    /// anybody, which `number` decides: those in front may all be in trouble of their own.
    pub(crate) fn probe(&mut self, number: u16, holds: impl Fn(Slot, u32) -> bool) -> Option<Best> {
        let first = self.first(true, &holds)?;
        if number % 4 == 3 || !matches!(first.class, Class::Lapsed | Class::Urgent | Class::Early) {
            return Some(first);
        }
        let (lapsed, urgent, early) = (self.lapsed.as_slice(), self.urgent.as_slice(), self.early.as_slice());
        let all = lapsed.len() + urgent.len() + early.len();
        let entry = |n: usize| match n {
            n if n < lapsed.len() => (Class::Lapsed, lapsed[n].0),
            n if n < lapsed.len() + urgent.len() => (Class::Urgent, urgent[n - lapsed.len()].0),
            n => (Class::Early, early[n - lapsed.len() - urgent.len()].0),
        };
        let drawn = (0..TRIES).map(|n| entry((hash([all as u64, number.into(), n]) % all as u64) as usize));
        let found = drawn.into_iter().find(|(_, entry)| holds(entry.slot, entry.stamp));
        Some(found.map_or(first, |(class, entry)| Best { class, key: entry.key, slot: entry.slot }))
    }

    fn first(&mut self, as_probe: bool, holds: impl Fn(Slot, u32) -> bool) -> Option<Best> {
        let void = |entry: &Entry| !holds(entry.slot, entry.stamp);
        for heap in [&mut self.lapsed, &mut self.urgent, &mut self.early, &mut self.tried] {
            while heap.peek().is_some_and(|Reverse(entry)| void(entry)) {
                heap.pop();
            }
        }
        while self.without.front().is_some_and(void) {
            self.without.pop_front();
        }
        let best = |class, entry: &Entry| Best { class, key: entry.key, slot: entry.slot };
        let top = |class, heap: &BinaryHeap<Reverse<Entry>>| heap.peek().map(|Reverse(entry)| best(class, entry));
        let (early, without) = (top(Class::Early, &self.early), self.without.front());
        let without = without.map(|entry| best(Class::Without, entry));
        top(Class::Lapsed, &self.lapsed)
            .or_else(|| top(Class::Urgent, &self.urgent))
            .or_else(|| if as_probe { early.or(without) } else { without.or(early) })
            .or_else(|| top(Class::Tried, &self.tried))
    }
}
