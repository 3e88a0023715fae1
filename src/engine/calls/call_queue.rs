//! An app's tenants that are due, in order: expired tokens, then valid ones with under a tenth of their life left, then
//! tenants that never had one, then by expiry. `docs/decisions/0011-order-of-calls.md` says why. Those whose calls fail
//! come last.
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
struct QueueEntry {
    /// When the token expires; among tenants without one, when it joined.
    key: BootMs,
    slot: Slot,
    stamp: u32,
}

#[derive(Debug, Default)]
pub(crate) struct CallQueue {
    expired: BinaryHeap<Reverse<QueueEntry>>,
    urgent: BinaryHeap<Reverse<QueueEntry>>,
    no_token: VecDeque<QueueEntry>,
    early: BinaryHeap<Reverse<QueueEntry>>,
    failing: BinaryHeap<Reverse<QueueEntry>>,
}

/// The tenant that is to be called first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Best {
    pub(crate) class: Class,
    pub(crate) key: BootMs,
    pub(crate) slot: Slot,
}

impl CallQueue {
    pub(crate) fn push(&mut self, class: Class, key: BootMs, slot: Slot, stamp: u32) {
        let entry = QueueEntry { key, slot, stamp };
        match class {
            Class::Expired => self.expired.push(Reverse(entry)),
            Class::Urgent => self.urgent.push(Reverse(entry)),
            Class::NoToken => self.no_token.push_back(entry),
            Class::Early => self.early.push(Reverse(entry)),
            Class::Failing => self.failing.push(Reverse(entry)),
        }
    }

    /// How many entries there are, void ones included.
    pub(crate) fn len(&self) -> usize {
        self.urgent.len() + self.expired.len() + self.no_token.len() + self.early.len() + self.failing.len()
    }

    /// Drops void entries, and gives back the memory that they took.
    pub(crate) fn tidy(&mut self, is_current: impl Fn(Slot, u32) -> bool) {
        for heap in [&mut self.expired, &mut self.urgent, &mut self.early, &mut self.failing] {
            heap.retain(|Reverse(entry)| is_current(entry.slot, entry.stamp));
            heap.shrink_to_fit();
        }
        self.no_token.retain(|entry| is_current(entry.slot, entry.stamp));
        self.no_token.shrink_to_fit();
    }

    /// Takes out the tenants that come last.
    pub(crate) fn take_failing(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.failing).into_iter().map(|Reverse(entry)| entry.slot).collect()
    }

    /// The first entry that is current, after dropping the void ones before it.
    pub(crate) fn best(&mut self, is_current: impl Fn(Slot, u32) -> bool) -> Option<Best> {
        self.first(false, is_current)
    }

    /// An entry to probe with. A tenant that was served before is better than one that never was. Most probes are drawn from
    /// all such tenants, by the probe's `number`: those in front may all fail for reasons of their own.
    pub(crate) fn probe(&mut self, number: u16, is_current: impl Fn(Slot, u32) -> bool) -> Option<Best> {
        let first = self.first(true, &is_current)?;
        if number % 4 == 3 || !matches!(first.class, Class::Expired | Class::Urgent | Class::Early) {
            return Some(first);
        }
        let (expired, urgent, early) = (self.expired.as_slice(), self.urgent.as_slice(), self.early.as_slice());
        let all = expired.len() + urgent.len() + early.len();
        let entry = |n: usize| match n {
            n if n < expired.len() => (Class::Expired, expired[n].0),
            n if n < expired.len() + urgent.len() => (Class::Urgent, urgent[n - expired.len()].0),
            n => (Class::Early, early[n - expired.len() - urgent.len()].0),
        };
        let drawn = (0..TRIES).map(|n| entry((hash([all as u64, number.into(), n]) % all as u64) as usize));
        let found = drawn.into_iter().find(|(_, entry)| is_current(entry.slot, entry.stamp));
        Some(found.map_or(first, |(class, entry)| Best { class, key: entry.key, slot: entry.slot }))
    }

    fn first(&mut self, as_probe: bool, is_current: impl Fn(Slot, u32) -> bool) -> Option<Best> {
        let void = |entry: &QueueEntry| !is_current(entry.slot, entry.stamp);
        for heap in [&mut self.expired, &mut self.urgent, &mut self.early, &mut self.failing] {
            while heap.peek().is_some_and(|Reverse(entry)| void(entry)) {
                heap.pop();
            }
        }
        while self.no_token.front().is_some_and(void) {
            self.no_token.pop_front();
        }
        let best = |class, entry: &QueueEntry| Best { class, key: entry.key, slot: entry.slot };
        let top = |class, heap: &BinaryHeap<Reverse<QueueEntry>>| heap.peek().map(|Reverse(entry)| best(class, entry));
        let (early, no_token) = (top(Class::Early, &self.early), self.no_token.front());
        let no_token = no_token.map(|entry| best(Class::NoToken, entry));
        top(Class::Expired, &self.expired)
            .or_else(|| top(Class::Urgent, &self.urgent))
            .or_else(|| if as_probe { early.or(no_token) } else { no_token.or(early) })
            .or_else(|| top(Class::Failing, &self.failing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(queue: &mut CallQueue) -> Vec<u32> {
        let mut called = Vec::new();
        loop {
            let taken = called.clone();
            let Some(best) = queue.best(|slot, stamp| stamp == 1 && !taken.contains(&slot.0)) else { return called };
            called.push(best.slot.0);
        }
    }

    #[test]
    fn classes_come_in_their_order_and_each_by_its_key_and_void_entries_not_at_all() {
        let mut queue = CallQueue::default();
        let entries = [
            (Class::Failing, 1, 7),
            (Class::Early, 20, 6),
            (Class::Early, 10, 5),
            (Class::NoToken, 99, 4),
            (Class::Urgent, 30, 3),
            (Class::Expired, 50, 2),
            (Class::Expired, 40, 1),
        ];
        for (class, key, slot) in entries {
            queue.push(class, BootMs(key), Slot(slot), 0);
            queue.push(class, BootMs(key), Slot(slot), 1);
        }
        queue.tidy(|_, stamp| stamp == 1);
        assert_eq!(queue.len(), entries.len());
        assert_eq!(order(&mut queue), [1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_probe_prefers_a_tenant_that_was_served_before() {
        let mut queue = CallQueue::default();
        queue.push(Class::NoToken, BootMs(1), Slot(1), 1);
        queue.push(Class::Early, BootMs(2), Slot(2), 1);
        assert_eq!(queue.best(|_, _| true).map(|best| best.slot), Some(Slot(1)));
        assert_eq!(queue.probe(0, |_, _| true).map(|best| best.slot), Some(Slot(2)));
    }
}
