//! Which sink must be made equal to its record, and when a failing one is tried again.
//!
//! Sinks are level-triggered: a sink is either known to equal the record, or wanted, or under way. A failing sink waits in
//! its root's list; the root has the backoff and the voice, so a full disk is one retry and one line, not 100,000.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use super::calls::REMIND_MS;
use super::event::WithdrawId;
use super::tenant::Held;
use super::{Action, Engine, Notice, Room, backoff};
use crate::domain::{
    BootMs, LaneId, Now, OnExpiry, Outlet, Place, Retry, RootId, SinkFailure, SinkFailureKind, SinkId, SinkSetId, Slot,
    Ticket, Wrote,
};

/// Backoff of a failing sink root. Trying costs a system call or two, so it is tried sooner than an endpoint.
const RETRY: Retry = Retry { min: Duration::from_secs(1), max: Duration::from_secs(30) };
/// How many failing places of a root are tried at once.
const RETRY_BATCH: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Sink(Slot, SinkId),
    Withdraw(WithdrawId),
}

#[derive(Debug, Default)]
struct Root {
    /// Places whose last attempt failed, in the order in which they are tried again.
    failing: VecDeque<Item>,
    /// Failures in a row.
    failures: u16,
    /// When they are tried again; the entry in `retries` that says otherwise is void.
    retry_at: Option<BootMs>,
    said: Option<(SinkFailureKind, BootMs)>,
    last: Option<SinkFailure>,
}

#[derive(Debug)]
struct Withdrawal {
    lane: LaneId,
    root: RootId,
    place: Place,
}

/// All sinks, by set, lane and root.
#[derive(Default)]
pub(super) struct Outlets {
    sets: BTreeMap<SinkSetId, Box<[Outlet]>>,
    lanes: BTreeMap<LaneId, VecDeque<Item>>,
    roots: BTreeMap<RootId, Root>,
    retries: BinaryHeap<Reverse<(BootMs, RootId)>>,
    withdrawals: BTreeMap<WithdrawId, Withdrawal>,
    next_withdrawal: u32,
    /// Withdrawals of places that a publication is still under way to.
    leaving: BTreeMap<Slot, Vec<Withdrawal>>,
    in_flight: usize,
}

impl Outlets {
    pub(super) fn define(&mut self, id: SinkSetId, outlets: Box<[Outlet]>) {
        debug_assert!(outlets.len() <= SinkId::MAX);
        self.sets.insert(id, outlets);
    }

    pub(super) fn set(&self, id: SinkSetId) -> &[Outlet] {
        self.sets.get(&id).map_or(&[], |outlets| outlets)
    }

    /// The sinks of a set for which `chosen` holds, as bits.
    pub(super) fn mask(&self, id: SinkSetId, chosen: impl Fn(&Outlet) -> bool) -> u16 {
        self.set(id).iter().enumerate().filter(|(_, outlet)| chosen(outlet)).fold(0, |mask, (bit, _)| mask | 1 << bit)
    }

    /// What the last failure below a root said.
    pub(super) fn last_failure(&self, root: RootId) -> Option<&SinkFailure> {
        self.roots.get(&root)?.last.as_ref()
    }

    /// Whether nothing is under way, and nothing waits but what failed.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.lanes.values().all(VecDeque::is_empty)
    }

    pub(super) fn next_retry(&self) -> Option<BootMs> {
        self.retries.peek().map(|Reverse((at, _))| *at)
    }

    /// The places of all withdrawals that have not succeeded yet.
    pub(super) fn withdrawing(&self) -> impl Iterator<Item = &Place> {
        self.withdrawals.values().chain(self.leaving.values().flatten()).map(|withdrawal| &withdrawal.place)
    }

    /// Drops the withdrawals of these places.
    pub(super) fn reclaim(&mut self, places: &[Place]) {
        self.withdrawals.retain(|_, withdrawal| !places.contains(&withdrawal.place));
        for leaving in self.leaving.values_mut() {
            leaving.retain(|withdrawal| !places.contains(&withdrawal.place));
        }
    }

    /// Lets failing places be tried again whose wait is over.
    pub(super) fn wake(&mut self, now: BootMs) {
        while let Some(&Reverse((at, id))) = self.retries.peek() {
            if at > now {
                return;
            }
            self.retries.pop();
            if self.roots.get(&id).is_some_and(|root| root.retry_at == Some(at)) {
                self.release(id, RETRY_BATCH);
            }
        }
    }

    fn push(&mut self, lane: LaneId, item: Item) {
        self.lanes.entry(lane).or_default().push_back(item);
    }

    pub(super) fn withdraw_all(&mut self, places: Vec<(LaneId, RootId, Place)>) {
        for (lane, root, place) in places {
            self.withdraw(Withdrawal { lane, root, place });
        }
    }

    fn withdraw(&mut self, withdrawal: Withdrawal) {
        let id = WithdrawId(self.next_withdrawal);
        self.next_withdrawal = self.next_withdrawal.wrapping_add(1);
        self.push(withdrawal.lane, Item::Withdraw(id));
        self.withdrawals.insert(id, withdrawal);
    }

    fn begin_withdrawal(&self, id: WithdrawId) -> Option<Action> {
        let Withdrawal { lane, root, place } = self.withdrawals.get(&id)?;
        Some(Action::Withdraw { id, lane: *lane, root: *root, place: place.clone() })
    }

    /// Puts up to `most` failing places of a root back into its lanes' queues. Which lane a sink belongs to is known to its
    /// tenant alone, so sinks come back through [`Engine::requeue`].
    fn release(&mut self, id: RootId, most: usize) {
        let Some(root) = self.roots.get_mut(&id) else { return };
        root.retry_at = None;
        let many = most.min(root.failing.len());
        let items: Vec<Item> = root.failing.drain(..many).collect();
        for item in items {
            let lane = match item {
                Item::Withdraw(id) => self.withdrawals.get(&id).map(|withdrawal| withdrawal.lane),
                Item::Sink(..) => self.lane_of_root(id),
            };
            if let Some(lane) = lane {
                self.push(lane, item);
            }
        }
    }

    /// A root lies on one file system, so it has one lane.
    fn lane_of_root(&self, id: RootId) -> Option<LaneId> {
        self.sets.values().flatten().find(|outlet| outlet.root == id).map(|outlet| outlet.lane)
    }

    /// Notes that a place failed, and when its root is tried again. Returns the wait in milliseconds if that is news.
    fn park(&mut self, now: BootMs, id: RootId, item: Item, failure: &SinkFailure) -> Option<u64> {
        let root = self.roots.entry(id).or_default();
        root.failing.push_back(item);
        root.last = Some(failure.clone());
        let at = *root.retry_at.get_or_insert_with(|| {
            let hash = backoff::hash([id.0.into(), root.failures.into(), now.0]);
            let at = now + backoff::wait_ms(RETRY, root.failures, hash);
            root.failures = root.failures.saturating_add(1);
            self.retries.push(Reverse((at, id)));
            at
        });
        let news = root.said.is_none_or(|(kind, said)| kind != failure.kind || now.since(said) >= REMIND_MS);
        if news {
            root.said = Some((failure.kind, now));
        }
        news.then(|| at.since(now))
    }

    /// A place that had failed succeeded: the others are tried at once. Returns whether the root is well again.
    fn recovered(&mut self, id: RootId) -> bool {
        let Some(root) = self.roots.get_mut(&id) else { return false };
        root.failures = 0;
        if root.failing.is_empty() {
            root.retry_at = None;
            root.last = None;
            return root.said.take().is_some();
        }
        self.release(id, usize::MAX);
        false
    }
}

impl Engine {
    /// Makes sinks of a tenant wanted.
    pub(super) fn want(&mut self, slot: Slot, mask: u16) {
        let tenant = &mut self.tenants[slot];
        let new = mask & !tenant.wanted;
        tenant.wanted |= mask;
        let queue = new & !tenant.flying;
        let sinks = tenant.sinks;
        for bit in bits(queue) {
            if let Some(outlet) = self.outlets.set(sinks).get(usize::from(bit)) {
                self.outlets.push(outlet.lane, Item::Sink(slot, SinkId(bit)));
            }
        }
    }

    /// The next publication or withdrawal that a lane has room for.
    pub(super) fn next_publication(&mut self, now: Now, room: &Room) -> Option<Action> {
        for (number, &free) in room.lanes.iter().enumerate().filter(|(_, free)| **free > 0) {
            debug_assert!(free > 0);
            let lane = LaneId(u16::try_from(number).unwrap_or(u16::MAX));
            while let Some(item) = self.outlets.lanes.get_mut(&lane).and_then(VecDeque::pop_front) {
                let action = match item {
                    Item::Sink(slot, sink) => self.begin_publication(now, lane, slot, sink),
                    Item::Withdraw(id) => self.outlets.begin_withdrawal(id),
                };
                if action.is_some() {
                    self.outlets.in_flight += 1;
                    return action;
                }
            }
        }
        None
    }

    fn begin_publication(&mut self, now: Now, lane: LaneId, slot: Slot, sink: SinkId) -> Option<Action> {
        let bit = 1 << sink.0;
        let tenant = self.tenants.get(slot).filter(|t| !t.gone && t.wanted & bit != 0 && t.flying & bit == 0)?;
        let outlet = *self.outlets.set(tenant.sinks).get(usize::from(sink.0)).filter(|o| o.lane == lane)?;
        let (held, valid) = (tenant.held, tenant.is_valid(now.boot));
        let tenant = &mut self.tenants[slot];
        tenant.wanted &= !bit;
        let held: Held = held?; // nothing to publish yet: wanted again once there is
        tenant.flying |= bit;
        let ticket = Ticket { slot, seq: held.seq };
        Some(match outlet.on_expiry {
            OnExpiry::Delete if !valid => Action::Expire(ticket, sink),
            _ => Action::Publish(ticket, sink),
        })
    }

    /// A publication ended.
    pub(super) fn published(&mut self, now: Now, ticket: Ticket, sink: SinkId, outcome: Result<Wrote, SinkFailure>) {
        let (slot, bit) = (ticket.slot, 1_u16 << sink.0);
        self.outlets.in_flight = self.outlets.in_flight.saturating_sub(1);
        if self.tenants.get(slot).is_none_or(|tenant| tenant.flying & bit == 0) {
            return;
        }
        let tenant = &mut self.tenants[slot];
        tenant.flying &= !bit;
        let was_failing = tenant.failing & bit != 0;
        tenant.failing &= !bit;
        let outlet = self.outlets.set(tenant.sinks).get(usize::from(sink.0)).copied();
        if tenant.gone {
            self.bury(now, slot);
            return;
        }
        let superseded = tenant.wanted & bit != 0;
        if let Some(outlet) = outlet {
            match outcome {
                _ if superseded => self.outlets.push(outlet.lane, Item::Sink(slot, sink)),
                Ok(_) if was_failing => self.sink_recovered(outlet.root),
                Ok(_) => {}
                Err(failure) => {
                    tenant.wanted |= bit;
                    tenant.failing |= bit;
                    self.sink_failed(now, outlet.root, Item::Sink(slot, sink), failure);
                }
            }
        }
        self.withdraw_what_left(slot);
        self.release_if_done(slot);
    }

    /// A withdrawal ended.
    pub(super) fn withdrawn(&mut self, now: Now, id: WithdrawId, outcome: Result<(), SinkFailure>) {
        self.outlets.in_flight = self.outlets.in_flight.saturating_sub(1);
        let Some(withdrawal) = self.outlets.withdrawals.get(&id) else { return };
        let root = withdrawal.root;
        match outcome {
            Ok(()) => {
                self.outlets.withdrawals.remove(&id);
                self.sink_recovered(root);
            }
            Err(failure) => self.sink_failed(now, root, Item::Withdraw(id), failure),
        }
    }

    /// Somebody else changed what was published.
    pub(super) fn touched(&mut self, ticket: Ticket, sink: SinkId) {
        let bit = 1_u16 << sink.0;
        let current = |held: Held| held.seq == ticket.seq;
        if self.tenants.get(ticket.slot).is_some_and(|t| !t.gone && t.held.is_some_and(current)) {
            self.want(ticket.slot, bit);
        }
    }

    /// Places that are to be emptied, once no publication to the tenant's sinks is under way any more.
    pub(super) fn withdraw(&mut self, slot: Slot, places: Vec<(LaneId, RootId, Place)>) {
        if !places.is_empty() {
            let withdrawals = places.into_iter().map(|(lane, root, place)| Withdrawal { lane, root, place });
            self.outlets.leaving.entry(slot).or_default().extend(withdrawals);
            self.withdraw_what_left(slot);
        }
    }

    pub(super) fn withdraw_what_left(&mut self, slot: Slot) {
        if self.tenants.get(slot).is_none_or(|tenant| tenant.flying == 0) {
            for withdrawal in self.outlets.leaving.remove(&slot).unwrap_or_default() {
                self.outlets.withdraw(withdrawal);
            }
        }
    }

    /// Tells the shell when the tenant's token need not be held in memory any more.
    pub(super) fn release_if_done(&mut self, slot: Slot) {
        let tenant = &self.tenants[slot];
        let attempted = tenant.wanted & !tenant.failing == 0 && tenant.flying == 0 && tenant.after_keep == 0;
        if let Some(held) = tenant.held.filter(|_| attempted) {
            self.outbox.push_back(Action::Release(Ticket { slot, seq: held.seq }));
        }
    }

    fn sink_failed(&mut self, now: Now, root: RootId, item: Item, failure: SinkFailure) {
        let tenant = match item {
            Item::Sink(slot, _) => self.id(slot),
            Item::Withdraw(_) => None,
        };
        if let Some(next_in_ms) = self.outlets.park(now.boot, root, item, &failure) {
            self.say(Notice::SinkFailing { root, tenant, failure, next_in_ms });
        }
    }

    fn sink_recovered(&mut self, root: RootId) {
        if self.outlets.recovered(root) {
            self.say(Notice::SinkMended { root });
        }
    }
}

fn bits(mask: u16) -> impl Iterator<Item = u8> {
    (0..16).filter(move |bit| mask & (1 << bit) != 0)
}
