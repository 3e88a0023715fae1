//! What waits for one lane, in fair shares: many publications of one app do not delay the few of another.
//!
//! Each app has a queue for each sink root of the lane, and they take turns. A turn is a few items long, since neighbours
//! mostly share a directory, which is then synced once for all of them.

use std::collections::{BTreeMap, VecDeque};

use crate::domain::{LaneId, RootId, SinkId, Slot, WithdrawalId};
use crate::engine::AppIx;

/// How many items a share gives before the next has its turn.
pub(super) const TURN: usize = 16;

/// One thing that a lane can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Item {
    Sink(Slot, SinkId),
    Withdraw(WithdrawalId),
}

/// An item, and where it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Queued {
    pub(super) lane: LaneId,
    pub(super) root: RootId,
    /// Whose place it is, as long as it is somebody's.
    pub(super) app: Option<AppIx>,
    pub(super) item: Item,
}

/// Whose items wait together: an app's in one sink root. Withdrawals have no app, since it may be gone.
pub(super) type Share = (RootId, Option<AppIx>);

/// The items of one lane that wait for room.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    /// None of them is empty.
    shares: BTreeMap<Share, VecDeque<Item>>,
    /// Each share that has items, once; the first one has the turn.
    turns: VecDeque<Share>,
    /// How many items the first share has given in this turn.
    given: usize,
}

impl FairQueue {
    pub(super) fn push(&mut self, share: Share, item: Item) {
        let queue = self.shares.entry(share).or_default();
        if queue.is_empty() {
            self.turns.push_back(share);
        }
        queue.push_back(item);
    }

    pub(super) fn pop(&mut self) -> Option<Item> {
        let share = *self.turns.front()?;
        let queue = self.shares.get_mut(&share)?;
        let item = queue.pop_front();
        self.given += 1;
        let is_empty = queue.is_empty();
        if is_empty {
            self.shares.remove(&share);
        }
        if is_empty || self.given >= TURN {
            self.given = 0;
            self.turns.pop_front();
            self.turns.extend((!is_empty).then_some(share));
        }
        item
    }

    /// Takes everything out that waits below a root, each item with its app.
    pub(super) fn take(&mut self, root: RootId) -> Vec<(Option<AppIx>, Item)> {
        let first = self.turns.front().copied();
        self.turns.retain(|share| share.0 != root);
        if self.turns.front().copied() != first {
            self.given = 0;
        }
        let taken = self.shares.extract_if(.., |share, _| share.0 == root);
        taken.flat_map(|((_, app), items)| items.into_iter().map(move |item| (app, item))).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(slot: u32) -> Item {
        Item::Sink(Slot(slot), SinkId(0))
    }

    fn share(root: u32, app: u32) -> Share {
        (RootId(root), Some(AppIx(app)))
    }

    #[test]
    fn one_item_waits_for_a_turn_of_each_other_share_however_many_they_have() {
        let mut queue = FairQueue::default();
        (0..100_000).for_each(|slot| queue.push(share(0, 0), item(slot)));
        (0..100_000).for_each(|slot| queue.push(share(1, 0), item(slot)));
        (0..5).for_each(|_| _ = queue.pop());
        queue.push(share(0, 1), item(u32::MAX));
        let before = std::iter::from_fn(|| queue.pop()).take_while(|next| *next != item(u32::MAX)).count();
        assert!(before < 2 * TURN, "{before} items went first");
    }

    #[test]
    fn what_waits_below_a_root_is_taken_out_and_the_rest_stays() {
        let mut queue = FairQueue::default();
        for slot in 0..100 {
            queue.push(share(slot % 4, slot % 3), item(slot));
        }
        queue.pop();
        let taken = queue.take(RootId(0));
        assert!(taken.len() == 24 && taken.iter().all(|(app, item)| matches!(item, Item::Sink(Slot(slot), _) if slot % 4 == 0 && *app == Some(AppIx(slot % 3)))));
        let rest: Vec<Item> = std::iter::from_fn(|| queue.pop()).collect();
        assert!(rest.len() == 75 && queue.is_empty());
    }

    #[test]
    fn every_item_comes_out_once_and_each_share_stays_in_order() {
        let mut queue = FairQueue::default();
        for slot in 0..1000 {
            queue.push(share(slot % 7, slot % 3), item(slot));
        }
        let mut last = BTreeMap::new();
        for _ in 0..1000 {
            let Some(Item::Sink(Slot(slot), _)) = queue.pop() else { panic!("an item is missing") };
            let before = last.insert((slot % 7, slot % 3), slot);
            assert!(before.is_none_or(|before| before < slot));
        }
        assert!(queue.pop().is_none() && queue.is_empty() && queue.shares.is_empty());
    }
}
