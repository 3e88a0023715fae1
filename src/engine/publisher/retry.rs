//! All sinks by set, lane and root: what waits for its lane, what failed and when it is tried again, and which places are
//! being emptied.
//!
//! A failing place waits with its root. The root has the backoff and the voice, so a full disk is one retry and one line,
//! not 100,000. A root is known here for just as long as one of its places fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::fair_queue::FairQueue;
use crate::domain::{
    BootMs, LaneId, Outlet, Place, Retry, RootId, SinkFailure, SinkFailureKind, SinkId, SinkSetId, Slot,
};
use crate::engine::apps::AppIx;
use crate::engine::messages::{Action, WithdrawId};
use crate::engine::scheduler::backoff;
use crate::engine::tenants::REMIND_MS;

/// Backoff of a failing sink root. Trying costs a system call or two, so it is tried sooner than an endpoint.
const RETRY: Retry = Retry { min: Duration::from_secs(1), max: Duration::from_secs(30) };
/// How many failing places of a root are tried at once.
const RETRY_BATCH: usize = 256;
/// How many failing places of a root have a message of their own. On a full disk a million places fail, and each message
/// is about 200 bytes.
const OWN_MESSAGES: usize = 1000;

/// One thing that a lane can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Item {
    Sink(Slot, SinkId),
    Withdraw(WithdrawId),
}

/// A sink root with failing places.
#[derive(Debug)]
struct Root {
    /// Places whose last attempt failed, and that wait for the next.
    waiting: BTreeMap<Item, FailingPlace>,
    /// Places whose last attempt failed, and that are being tried again.
    retried: BTreeMap<Item, FailingPlace>,
    /// Where in `waiting` the next round begins.
    next: Option<Item>,
    /// Rounds that failed in a row.
    failures: u16,
    /// When the next round begins; there is one as long as something waits.
    retry_at: Option<BootMs>,
    /// Each kind of failure that was met, the last one last; its places can fail in different ways.
    kinds: Vec<MetKind>,
}

/// A place whose last attempt failed.
#[derive(Debug)]
struct FailingPlace {
    /// Places below one root may lie on several file systems.
    lane: LaneId,
    /// Whose place it is, as long as it is somebody's.
    app: Option<AppIx>,
    kind: SinkFailureKind,
    /// What the attempt said, unless too many other places of the root fail as well.
    message: Option<Box<SinkFailure>>,
}

/// A kind of failure that places of a root met.
#[derive(Debug)]
struct MetKind {
    said_at: BootMs,
    /// The failure of this kind that was met last.
    last: SinkFailure,
}

impl Root {
    fn new() -> Self {
        let (waiting, retried) = (BTreeMap::new(), BTreeMap::new());
        Self { waiting, retried, next: None, failures: 0, retry_at: None, kinds: Vec::new() }
    }

    /// Notes a failure. Returns whether it is to be said: when its kind is new, and once an hour.
    fn is_news(&mut self, now: BootMs, failure: &SinkFailure) -> bool {
        let before = self.kinds.iter().position(|met| met.last.kind == failure.kind);
        let said_at = before.map(|at| self.kinds.remove(at).said_at).filter(|at| now.since(*at) < REMIND_MS);
        self.kinds.push(MetKind { said_at: said_at.unwrap_or(now), last: failure.clone() });
        said_at.is_none()
    }

    /// What the last attempt at this place said; of too many places only the kind is known, and what the last failure of
    /// that kind said.
    fn failure_of(&self, item: Item) -> Option<&SinkFailure> {
        let place = self.waiting.get(&item).or_else(|| self.retried.get(&item))?;
        let of_its_kind = || self.kinds.iter().find(|met| met.last.kind == place.kind).map(|met| &met.last);
        place.message.as_deref().or_else(of_its_kind)
    }

    /// Takes up to `most` waiting places for another try, each in its turn. Answers with each, its lane and its app.
    fn next_round(&mut self, most: usize) -> Vec<(Item, LaneId, Option<AppIx>)> {
        let from = self.next.unwrap_or(Item::Sink(Slot(0), SinkId(0)));
        let all = self.waiting.range(from..).chain(self.waiting.range(..from));
        let round: Vec<_> = all.take(most).map(|(item, place)| (*item, place.lane, place.app)).collect();
        for (item, ..) in &round {
            self.retried.extend(self.waiting.remove_entry(item));
        }
        self.next = self.waiting.range(from..).next().map(|(item, _)| *item);
        round
    }

    fn is_well(&self) -> bool {
        self.waiting.is_empty() && self.retried.is_empty()
    }
}

/// A place that no longer belongs to anybody.
#[derive(Debug)]
pub(crate) struct Withdrawal {
    pub(crate) lane: LaneId,
    pub(crate) root: RootId,
    pub(crate) place: Place,
}

impl Withdrawal {
    pub(crate) fn begin(&self, id: WithdrawId) -> Action {
        Action::Withdraw { id, lane: self.lane, root: self.root, place: self.place.clone() }
    }
}

#[derive(Default)]
pub(crate) struct Outlets {
    /// By number, as the lanes are: the shell counts both from 0.
    sets: Vec<Box<[Outlet]>>,
    lanes: Vec<FairQueue>,
    roots: BTreeMap<RootId, Root>,
    /// The roots' `retry_at`.
    retries: BTreeSet<(BootMs, RootId)>,
    withdrawals: BTreeMap<WithdrawId, Withdrawal>,
    next_withdrawal: u32,
    /// Withdrawals of places that a publication may still be under way to.
    leaving: BTreeMap<Slot, Vec<Withdrawal>>,
    /// Lanes that do not move.
    hanging: BTreeMap<LaneId, SinkFailure>,
    /// Publications and withdrawals under way.
    pub(crate) in_flight: usize,
    /// Tokens that are being kept, and will be published then.
    pub(crate) keeping: usize,
}

impl Outlets {
    /// Notes the sinks of a set. Answers which lane served which root in it until now, where that is another from here on:
    /// what waits there is to be [taken over](Self::take_over).
    pub(crate) fn define(&mut self, id: SinkSetId, outlets: Box<[Outlet]>) -> Vec<(LaneId, RootId)> {
        debug_assert!(outlets.len() <= SinkId::MAX);
        let number = id.0 as usize;
        self.sets.resize_with(self.sets.len().max(number + 1), Box::default);
        let before = std::mem::replace(&mut self.sets[number], outlets);
        let both = before.iter().zip(&*self.sets[number]);
        both.filter(|(old, new)| old.lane != new.lane).map(|(old, _)| (old.lane, old.root)).collect()
    }

    /// What waited for this lane below a root goes to the lanes that serve it now. Withdrawals stay where they are.
    pub(crate) fn take_over(&mut self, lane: LaneId, id: RootId, sinks_of: impl Fn(Slot) -> Option<SinkSetId>) {
        let waiting = self.lanes.get_mut(usize::from(lane.0)).map(|queue| queue.take(id)).unwrap_or_default();
        for (app, item) in waiting {
            let lane = self.lane_of(item, &sinks_of).unwrap_or(lane);
            self.push((lane, id), app, item);
        }
        let Some(mut root) = self.roots.remove(&id) else { return };
        for (item, place) in root.waiting.iter_mut().chain(&mut root.retried) {
            place.lane = self.lane_of(*item, &sinks_of).unwrap_or(place.lane);
        }
        self.roots.insert(id, root);
    }

    fn lane_of(&self, item: Item, sinks_of: impl Fn(Slot) -> Option<SinkSetId>) -> Option<LaneId> {
        let Item::Sink(slot, sink) = item else { return None };
        self.set(sinks_of(slot)?).get(usize::from(sink.0)).map(|outlet| outlet.lane)
    }

    pub(crate) fn set(&self, id: SinkSetId) -> &[Outlet] {
        self.sets.get(id.0 as usize).map_or(&[], |outlets| outlets)
    }

    /// The sinks of a set for which `chosen` holds, as bits.
    pub(crate) fn mask(&self, id: SinkSetId, chosen: impl Fn(&Outlet) -> bool) -> u16 {
        self.set(id).iter().enumerate().filter(|(_, outlet)| chosen(outlet)).fold(0, |mask, (bit, _)| mask | 1 << bit)
    }

    /// What the last attempt at a place said, if that failed.
    pub(crate) fn failure_of(&self, root: RootId, item: Item) -> Option<&SinkFailure> {
        self.roots.get(&root)?.failure_of(item)
    }

    /// The roots below which something fails: how many places, and what the last failure said.
    pub(crate) fn failing(&self) -> impl Iterator<Item = (RootId, usize, &SinkFailure)> {
        self.roots.iter().filter_map(|(id, root)| {
            let places = root.waiting.len() + root.retried.len();
            Some((*id, places, &root.kinds.last()?.last))
        })
    }

    /// What is known of a lane that does not move.
    pub(crate) fn hangs(&self, lane: LaneId) -> Option<&SinkFailure> {
        self.hanging.get(&lane)
    }

    pub(crate) fn hanging(&self) -> impl Iterator<Item = &SinkFailure> {
        self.hanging.values()
    }

    /// Notes whether a lane moves. Returns whether that is news.
    pub(crate) fn set_hanging(&mut self, lane: LaneId, failure: Option<SinkFailure>) -> bool {
        match failure {
            Some(failure) => self.hanging.insert(lane, failure).is_none(),
            None => self.hanging.remove(&lane).is_some(),
        }
    }

    /// Whether nothing is under way, and nothing waits but what failed.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.keeping == 0 && self.lanes.iter().all(FairQueue::is_empty)
    }

    pub(crate) fn next_retry(&self) -> Option<BootMs> {
        self.retries.first().map(|(at, _)| *at)
    }

    /// Puts a place of an app, below a root, into its lane's queue.
    pub(crate) fn push(&mut self, (lane, root): (LaneId, RootId), app: Option<AppIx>, item: Item) {
        let number = usize::from(lane.0);
        if number >= self.lanes.len() {
            self.lanes.resize_with(number + 1, FairQueue::default);
        }
        self.lanes[number].push((root, app), item);
    }

    pub(crate) fn pop(&mut self, lane: LaneId) -> Option<Item> {
        self.lanes.get_mut(usize::from(lane.0))?.pop()
    }

    /// Lets failing places be tried again whose wait is over.
    pub(crate) fn wake(&mut self, now: BootMs) {
        while let Some(&(at, id)) = self.retries.first().filter(|(at, _)| *at <= now) {
            self.retries.remove(&(at, id));
            let Some(root) = self.roots.get_mut(&id) else { continue };
            root.retry_at = None;
            // A root whose lane does not move needs no more to do. What others have in that lane does not count.
            let more = RETRY_BATCH.saturating_sub(root.retried.len());
            self.retry(id, more);
            self.arm(now, id);
        }
    }

    /// Notes that a place failed, and sees that it is tried again. Returns the wait in milliseconds if that is news.
    pub(crate) fn park(
        &mut self,
        now: BootMs,
        (id, lane): (RootId, LaneId),
        (item, app): (Item, Option<AppIx>),
        failure: &SinkFailure,
    ) -> Option<u64> {
        let root = self.roots.entry(id).or_insert_with(Root::new);
        let had_one = root.retried.remove(&item).is_some_and(|place| place.message.is_some());
        let has_few = root.waiting.len() + root.retried.len() < OWN_MESSAGES;
        let message = (had_one || has_few).then(|| Box::new(failure.clone()));
        root.waiting.insert(item, FailingPlace { lane, app, kind: failure.kind, message });
        let news = root.is_news(now, failure);
        let at = self.arm(now, id);
        news.then(|| at.map_or(0, |at| at.since(now)))
    }

    /// A place succeeded. If it had failed, the root's others are tried at once. Returns whether the root is well again.
    pub(crate) fn heal(&mut self, id: RootId, item: Item) -> bool {
        let ailing = self
            .roots
            .get(&id)
            .is_some_and(|root| root.retried.contains_key(&item) || root.waiting.contains_key(&item));
        if !ailing {
            return false;
        }
        let well = self.excuse(id, item);
        if let Some(root) = self.roots.get_mut(&id) {
            root.failures = 0;
            self.disarm(id);
            self.retry(id, usize::MAX);
        }
        well
    }

    /// A place need not be tried again, if it failed. Returns whether that makes the root well again.
    pub(crate) fn excuse(&mut self, id: RootId, item: Item) -> bool {
        let Some(root) = self.roots.get_mut(&id) else { return false };
        root.waiting.remove(&item);
        root.retried.remove(&item);
        if root.waiting.is_empty() {
            self.disarm(id);
        }
        let well = self.roots.get(&id).is_some_and(Root::is_well);
        if well {
            self.roots.remove(&id);
        }
        well
    }

    fn retry(&mut self, id: RootId, most: usize) {
        let Some(root) = self.roots.get_mut(&id) else { return };
        for (item, lane, app) in root.next_round(most) {
            self.push((lane, id), app, item);
        }
    }

    /// Sets when a root's waiting places are tried again, if there are any and it is not set.
    fn arm(&mut self, now: BootMs, id: RootId) -> Option<BootMs> {
        let root = self.roots.get_mut(&id).filter(|root| !root.waiting.is_empty())?;
        if root.retry_at.is_none() {
            let hash = backoff::hash([id.0.into(), root.failures.into(), now.0]);
            let at = now + backoff::wait_ms(RETRY, root.failures, hash);
            root.failures = root.failures.saturating_add(1);
            root.retry_at = Some(at);
            self.retries.insert((at, id));
        }
        root.retry_at
    }

    fn disarm(&mut self, id: RootId) {
        if let Some(at) = self.roots.get_mut(&id).and_then(|root| root.retry_at.take()) {
            self.retries.remove(&(at, id));
        }
    }

    /// Empties a place.
    pub(crate) fn withdraw_all(&mut self, places: Vec<(LaneId, RootId, Place)>) {
        for (lane, root, place) in places {
            self.withdraw(Withdrawal { lane, root, place });
        }
    }

    pub(crate) fn withdraw(&mut self, withdrawal: Withdrawal) {
        let id = WithdrawId(self.next_withdrawal);
        self.next_withdrawal = self.next_withdrawal.wrapping_add(1);
        self.push((withdrawal.lane, withdrawal.root), None, Item::Withdraw(id));
        self.withdrawals.insert(id, withdrawal);
    }

    /// Empties places once [`let_go`](Self::let_go) says that nothing is published there any more.
    pub(crate) fn withdraw_later(&mut self, slot: Slot, places: impl Iterator<Item = Withdrawal>) {
        let mut places = places.peekable();
        if places.peek().is_some() {
            self.leaving.entry(slot).or_default().extend(places);
        }
    }

    /// Nothing is published any more to the places that a tenant left.
    pub(crate) fn let_go(&mut self, slot: Slot) {
        for withdrawal in self.leaving.remove(&slot).unwrap_or_default() {
            self.withdraw(withdrawal);
        }
    }

    pub(crate) fn withdrawal(&self, id: WithdrawId) -> Option<&Withdrawal> {
        self.withdrawals.get(&id)
    }

    pub(crate) fn end_withdrawal(&mut self, id: WithdrawId) {
        self.withdrawals.remove(&id);
    }

    /// The places of all withdrawals that have not succeeded yet.
    pub(crate) fn withdrawing(&self) -> impl Iterator<Item = &Place> {
        self.withdrawals.values().chain(self.leaving.values().flatten()).map(|withdrawal| &withdrawal.place)
    }

    /// Drops the withdrawals of these places. Returns the roots that are well again thereby.
    pub(crate) fn reclaim(&mut self, places: &[Place]) -> Vec<RootId> {
        let places: BTreeSet<&Place> = places.iter().collect();
        for leaving in self.leaving.values_mut() {
            leaving.retain(|withdrawal| !places.contains(&withdrawal.place));
        }
        let off = self.withdrawals.iter().filter(|(_, withdrawal)| places.contains(&withdrawal.place));
        let off: Vec<(WithdrawId, RootId)> = off.map(|(id, withdrawal)| (*id, withdrawal.root)).collect();
        off.iter().for_each(|(id, _)| self.end_withdrawal(*id));
        off.into_iter().filter(|&(id, root)| self.excuse(root, Item::Withdraw(id))).map(|(_, root)| root).collect()
    }
}
