//! Which sink is made equal to its record, and when.
//!
//! Sinks are level-triggered: a sink of a tenant is known to equal the record, or dirty, or in flight, or failing. Whatever the
//! reason (a new token, other sinks, a changed file, a restart), it becomes dirty, and a publication makes it equal again. A token
//! is published once it is committed, never before.
//!
//! In come commits, outcomes of publications and withdrawals, drift, and hanging lanes; out go `Publish`, `Expire`, `Withdraw` and
//! `Release`. [`Publisher`] and the types that it is made of know nothing of the engine. `publication` joins them to it; the
//! `impl Engine` of `drift` and of `unpublished`, below their types, does so for these two.

mod drift;
mod fair_queue;
mod publication;
mod retry;
mod unpublished;
mod withdrawals;

use std::collections::BTreeMap;

use crate::domain::{BootMs, LaneId, Place, RootId, SinkFailure, SinkId, SinkPolicy, SinkSetId, Slot, WithdrawalId};
use crate::engine::AppIx;
use crate::engine::tenants::SinkMask;
use drift::Drift;
use fair_queue::{FairQueue, Item, Queued};
use retry::RetryQueue;
use unpublished::Unpublished;
use withdrawals::{Withdrawal, Withdrawals};

/// All sinks: what waits for its lane, what failed, what is being emptied, and what somebody else changed.
#[derive(Default)]
pub(crate) struct Publisher {
    /// The sinks of each set, by number: the shell counts sets and lanes from 0.
    sets: Vec<Box<[SinkPolicy]>>,
    /// What waits for each lane.
    lanes: Vec<FairQueue>,
    retries: RetryQueue,
    withdrawals: Withdrawals,
    drift: Drift,
    unpublished: Unpublished,
    /// Lanes that do not move.
    hanging: BTreeMap<LaneId, SinkFailure>,
    /// Publications and withdrawals in flight.
    in_flight: usize,
    /// Commits in flight; their tokens are published then.
    commits: usize,
}

impl Publisher {
    /// Whether nothing is in flight, and nothing waits but what failed.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.commits == 0 && self.lanes.iter().all(FairQueue::is_empty)
    }

    /// When something is to be done next that only time brings.
    pub(crate) fn next_at(&self) -> Option<BootMs> {
        [self.retries.next_at(), self.drift.next_at()].into_iter().flatten().min()
    }

    pub(crate) fn set(&self, id: SinkSetId) -> &[SinkPolicy] {
        self.sets.get(id.0 as usize).map_or(&[], |sinks| sinks)
    }

    fn policy(&self, set: SinkSetId, sink: SinkId) -> Option<SinkPolicy> {
        self.set(set).get(usize::from(sink.0)).copied()
    }

    /// The sinks of a set for which `chosen` holds.
    pub(crate) fn mask(&self, id: SinkSetId, chosen: impl Fn(&SinkPolicy) -> bool) -> SinkMask {
        self.set(id).iter().enumerate().filter(|(_, sink)| chosen(sink)).fold(0, |mask, (bit, _)| mask | 1 << bit)
    }

    /// What the last attempt at a sink said, if that failed.
    pub(crate) fn failure_of(&self, root: RootId, slot: Slot, sink: SinkId) -> Option<&SinkFailure> {
        self.retries.failure_of(root, Item::Sink(slot, sink))
    }

    /// What is known of a lane that does not move.
    pub(crate) fn hangs(&self, lane: LaneId) -> Option<&SinkFailure> {
        self.hanging.get(&lane)
    }

    /// Whether somebody else changed a sink that is left so for now.
    pub(crate) fn has_drifted(&self, slot: Slot, sink: SinkId) -> bool {
        self.drift.has_drifted(slot, sink)
    }

    /// What is known of lanes that do not move.
    pub(crate) fn hanging(&self) -> impl Iterator<Item = &SinkFailure> {
        self.hanging.values()
    }

    /// The roots below which something fails: how many places, and what the last failure said.
    pub(crate) fn failing_roots(&self) -> impl Iterator<Item = (RootId, usize, &SinkFailure)> {
        self.retries.failing()
    }

    /// The places that are being emptied, or wait to be.
    pub(crate) fn withdrawals(&self) -> impl Iterator<Item = &Place> {
        self.withdrawals.places()
    }

    /// Notes whether a lane moves. Returns whether that is news.
    fn set_hanging(&mut self, lane: LaneId, failure: Option<SinkFailure>) -> bool {
        match failure {
            Some(failure) => self.hanging.insert(lane, failure).is_none(),
            None => self.hanging.remove(&lane).is_some(),
        }
    }

    /// Notes the sinks of a set, or that other lanes serve them from here on. What waited for a lane that no longer serves them
    /// goes to the one that does; withdrawals stay where they are.
    fn define(&mut self, id: SinkSetId, sinks: Box<[SinkPolicy]>, set_of: impl Fn(Slot) -> Option<SinkSetId>) {
        debug_assert!(sinks.len() <= SinkId::MAX);
        let number = id.0 as usize;
        self.sets.resize_with(self.sets.len().max(number + 1), Box::default);
        let before = std::mem::replace(&mut self.sets[number], sinks);
        for (old, new) in before.iter().zip(self.sets[number].clone()) {
            if old.lane != new.lane {
                self.move_waiting(old.lane, old.root, &set_of);
            }
        }
    }

    fn move_waiting(&mut self, from: LaneId, root: RootId, set_of: &impl Fn(Slot) -> Option<SinkSetId>) {
        let sets = &self.sets;
        let lane_of = |item| {
            let Item::Sink(slot, sink) = item else { return None };
            sets.get(set_of(slot)?.0 as usize)?.get(usize::from(sink.0)).map(|policy| policy.lane)
        };
        self.retries.move_lanes(root, lane_of);
        let waiting = self.lanes.get_mut(usize::from(from.0)).map(|queue| queue.take(root)).unwrap_or_default();
        let moved: Vec<Queued> = waiting
            .into_iter()
            .map(|(app, item)| Queued { lane: lane_of(item).unwrap_or(from), root, app, item })
            .collect();
        moved.into_iter().for_each(|queued| self.push(queued));
    }

    fn push(&mut self, Queued { lane, root, app, item }: Queued) {
        let number = usize::from(lane.0);
        if number >= self.lanes.len() {
            self.lanes.resize_with(number + 1, FairQueue::default);
        }
        self.lanes[number].push((root, app), item);
    }

    fn push_sink(&mut self, slot: Slot, sink: SinkId, app: AppIx, policy: SinkPolicy) {
        let SinkPolicy { lane, root, .. } = policy;
        self.push(Queued { lane, root, app: Some(app), item: Item::Sink(slot, sink) });
    }

    fn pop(&mut self, lane: LaneId) -> Option<Item> {
        self.lanes.get_mut(usize::from(lane.0))?.pop()
    }

    /// Queues failing places whose wait is over.
    fn queue_retries(&mut self, now: BootMs) {
        self.retries.due(now).into_iter().for_each(|place| self.push(place));
    }

    /// A place succeeded. Returns whether that ends the failure of its root.
    fn succeeded(&mut self, root: RootId, item: Item) -> bool {
        let recovery = self.retries.succeeded(root, item);
        recovery.retried.into_iter().for_each(|place| self.push(place));
        recovery.is_complete
    }

    /// Empties a place.
    pub(crate) fn withdraw(&mut self, place: (LaneId, RootId, Place)) {
        self.begin_withdrawal(place.into());
    }

    fn begin_withdrawal(&mut self, withdrawal: Withdrawal) {
        let (lane, root) = (withdrawal.lane, withdrawal.root);
        let item = Item::Withdraw(self.withdrawals.begin(withdrawal));
        self.push(Queued { lane, root, app: None, item });
    }

    /// Nothing is published any more to the places that a tenant left: they are emptied.
    fn begin_deferred(&mut self, slot: Slot) {
        self.withdrawals.take_deferred(slot).into_iter().for_each(|withdrawal| self.begin_withdrawal(withdrawal));
    }

    /// Drops the withdrawals of places that belong to somebody again. Returns the roots whose failure that ends.
    fn reclaim(&mut self, places: &[Place]) -> Vec<RootId> {
        let dropped = self.withdrawals.reclaim(places);
        let ended = |(id, root): &(WithdrawalId, RootId)| self.retries.forget(*root, Item::Withdraw(*id));
        dropped.into_iter().filter(ended).map(|(_, root)| root).collect()
    }
}
