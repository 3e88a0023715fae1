//! From a dirty sink to a publication and its outcome: what joins the publisher to the tenants.

use super::fair_queue::{Item, Queued};
use super::withdrawals::Withdrawal;
use crate::domain::{
    LaneId, Now, OnExpiry, Place, RootId, SinkFailure, SinkId, SinkPolicy, SinkSetId, Slot, Ticket, WithdrawalId, Wrote,
};
use crate::engine::Engine;
use crate::engine::messages::{Action, Capacity, Expire, Notice, Publish};
use crate::engine::tenants::{SinkMask, sinks};

impl Engine {
    /// Makes sinks of a tenant dirty.
    pub(crate) fn mark_dirty(&mut self, slot: Slot, mask: SinkMask) {
        let tenant = &mut self.tenants[slot];
        let known = self.publisher.mask(tenant.sink_set, |_| true);
        let new = tenant.sinks.mark_dirty(mask & known);
        self.queue_sinks(slot, new);
        self.update_visible(slot);
    }

    /// Puts dirty sinks into their lanes' queues, as far as they can be published now.
    fn queue_sinks(&mut self, slot: Slot, mask: SinkMask) {
        let tenant = &self.tenants[slot];
        for sink in sinks(tenant.sinks.publishable(mask)) {
            if let Some(policy) = self.publisher.policy(tenant.sink_set, sink) {
                self.publisher.push_sink(slot, sink, tenant.app, policy);
            }
        }
    }

    /// The next publication or withdrawal that a lane has room for.
    pub(crate) fn next_publication(&mut self, now: Now, capacity: &Capacity) -> Option<Action> {
        for (number, _) in capacity.lanes.iter().enumerate().filter(|(_, free)| **free > 0) {
            let lane = LaneId(u16::try_from(number).unwrap_or(u16::MAX));
            while let Some(item) = self.publisher.pop(lane) {
                let action = match item {
                    Item::Sink(slot, sink) => self.begin_publication(now, lane, slot, sink),
                    Item::Withdraw(id) => self.publisher.withdrawals.get(id).map(|withdrawal| withdrawal.action(id)),
                };
                if action.is_some() {
                    self.publisher.in_flight += 1;
                    return action;
                }
            }
        }
        None
    }

    fn begin_publication(&mut self, now: Now, lane: LaneId, slot: Slot, sink: SinkId) -> Option<Action> {
        let tenant = self.tenants.get(slot).filter(|tenant| tenant.sinks.publishable(u16::MAX) & 1 << sink.0 != 0)?;
        let policy = self.publisher.policy(tenant.sink_set, sink).filter(|policy| policy.lane == lane)?;
        let (token, id, sinks) = (tenant.token?, self.id(slot)?, tenant.sink_set);
        let (ticket, is_valid) = (Ticket { slot, seq: token.seq }, tenant.is_valid(now.boot));
        self.tenants[slot].sinks.begin(sink);
        if policy.on_expiry == OnExpiry::Delete && !is_valid {
            // To empty a place is not to repair it.
            self.publisher.drift.is_right(now.boot, slot, sink, Wrote::Unchanged);
            return Some(Action::Expire(Expire { ticket, id, sinks, sink, lane }));
        }
        let (fingerprint, expires_at) = (token.fingerprint, token.expires_at);
        Some(Action::Publish(Publish { ticket, id, sinks, sink, lane, fingerprint, expires_at }))
    }

    /// Queues failing places and drifted ones whose wait is over.
    pub(crate) fn wake_publisher(&mut self, now: Now) {
        self.publisher.queue_retries(now.boot);
        self.repair_drift(now);
    }

    /// A publication ended.
    pub(crate) fn published(&mut self, now: Now, ticket: Ticket, sink: SinkId, outcome: Result<Wrote, SinkFailure>) {
        let slot = ticket.slot;
        self.publisher.in_flight = self.publisher.in_flight.saturating_sub(1);
        if self.tenants.get(slot).is_none_or(|tenant| !tenant.sinks.is_in_flight(sink)) {
            return;
        }
        let tenant = &mut self.tenants[slot];
        let is_current = tenant.sinks.end(sink);
        if tenant.removed {
            self.free_slot_if_idle(now, slot);
            return;
        }
        // What became of a place that is no longer the tenant's is nobody's concern.
        if is_current {
            self.conclude(now, slot, sink, outcome);
        }
        if !self.tenants[slot].sinks.is_failing(sink) {
            self.queue_sinks(slot, 1 << sink.0);
        }
        self.begin_deferred_withdrawals(slot);
        self.release_if_attempted(slot);
        self.update_state(now, slot);
    }

    /// What the end of a publication means for the sink and its root.
    fn conclude(&mut self, now: Now, slot: Slot, sink: SinkId, outcome: Result<Wrote, SinkFailure>) {
        let tenant = &mut self.tenants[slot];
        let Some(policy) = self.publisher.policy(tenant.sink_set, sink) else { return };
        let SinkPolicy { root, lane, .. } = policy;
        match outcome {
            Ok(wrote) => {
                tenant.sinks.succeeded(sink);
                // A sink that is dirty again was changed after this publication began.
                if !tenant.sinks.is_dirty(sink) {
                    self.note_repair(now, slot, sink, root, wrote);
                }
                if self.publisher.succeeded(root, Item::Sink(slot, sink)) {
                    self.notify(Notice::SinkRecovered { root });
                }
            }
            Err(failure) => {
                tenant.sinks.failed(sink);
                self.sink_failed(now, (root, lane), Item::Sink(slot, sink), failure);
            }
        }
    }

    /// A withdrawal ended.
    pub(crate) fn withdrawn(&mut self, now: Now, id: WithdrawalId, outcome: Result<(), SinkFailure>) {
        self.publisher.in_flight = self.publisher.in_flight.saturating_sub(1);
        let Some(&Withdrawal { root, lane, .. }) = self.publisher.withdrawals.get(id) else { return };
        match outcome {
            Ok(()) => {
                self.publisher.withdrawals.end(id);
                if self.publisher.succeeded(root, Item::Withdraw(id)) {
                    self.notify(Notice::SinkRecovered { root });
                }
            }
            Err(failure) => self.sink_failed(now, (root, lane), Item::Withdraw(id), failure),
        }
    }

    fn sink_failed(&mut self, now: Now, (root, lane): (RootId, LaneId), item: Item, failure: SinkFailure) {
        let (tenant, app) = match item {
            Item::Sink(slot, _) => (self.id(slot), self.tenants.get(slot).map(|tenant| tenant.app)),
            Item::Withdraw(_) => (None, None),
        };
        if let Some(next_in_ms) = self.publisher.retries.failed(now.boot, Queued { lane, root, app, item }, &failure) {
            self.notify(Notice::SinkFailing { root, tenant, failure, next_in_ms });
        }
    }

    pub(crate) fn lane_stalled(&mut self, lane: LaneId, failure: SinkFailure) {
        if self.publisher.set_hanging(lane, Some(failure.clone())) {
            self.notify(Notice::LaneStalled { lane, failure });
        }
    }

    pub(crate) fn lane_resumed(&mut self, lane: LaneId) {
        if self.publisher.set_hanging(lane, None) {
            self.notify(Notice::LaneResumed { lane });
        }
    }

    /// Places that were withdrawn, or were to be, belong to somebody again.
    pub(crate) fn reclaimed(&mut self, places: &[Place]) {
        for root in self.publisher.reclaim(places) {
            self.notify(Notice::SinkRecovered { root });
        }
    }

    /// A token was taken for a tenant's own, and is to be committed.
    pub(crate) fn begin_commit(&mut self, slot: Slot) {
        self.tenants[slot].sinks.uncommitted = true;
        self.publisher.commits += 1;
    }

    /// The token of this ticket may be published.
    pub(crate) fn commit_ended(&mut self, ticket: Ticket) {
        self.publisher.commits = self.publisher.commits.saturating_sub(1);
        let slot = ticket.slot;
        if self.tenants.get(slot).is_none_or(|tenant| tenant.removed || tenant.ticket(slot) != Some(ticket)) {
            self.outbox.push_back(Action::Release(ticket));
            return;
        }
        if std::mem::take(&mut self.tenants[slot].sinks.uncommitted) {
            self.queue_sinks(slot, u16::MAX);
        }
        self.release_if_attempted(slot);
    }

    /// Notes the sinks of a set, or that other lanes serve them from here on.
    pub(crate) fn define_sinks(&mut self, id: SinkSetId, sinks: Box<[SinkPolicy]>) {
        let tenants = &self.tenants;
        self.publisher.define(id, sinks, |slot| tenants.get(slot).map(|tenant| tenant.sink_set));
    }

    /// Publishes a tenant in other sinks from here on.
    pub(crate) fn use_sinks(&mut self, slot: Slot, set: SinkSetId) {
        self.forget_sinks(slot);
        let tenant = &mut self.tenants[slot];
        tenant.sink_set = set;
        tenant.sinks.sinks_changed();
        if tenant.token.is_some() {
            self.mark_dirty(slot, SinkMask::MAX);
        }
    }

    /// The sinks that a tenant has are not its concern any more.
    pub(crate) fn forget_sinks(&mut self, slot: Slot) {
        self.forget_drift(slot);
        let tenant = &mut self.tenants[slot];
        let set = tenant.sink_set;
        for sink in sinks(tenant.sinks.forget()) {
            let Some(SinkPolicy { root, .. }) = self.publisher.policy(set, sink) else { continue };
            if self.publisher.retries.forget(root, Item::Sink(slot, sink)) {
                self.notify(Notice::SinkRecovered { root });
            }
        }
    }

    /// The lanes in which publications of a tenant are in flight; `None`: it cannot be told.
    pub(crate) fn busy_lanes(&self, slot: Slot) -> Option<Vec<LaneId>> {
        let tenant = &self.tenants[slot];
        let lane = |sink| self.publisher.policy(tenant.sink_set, sink).map(|policy| policy.lane);
        (!tenant.sinks.any_obsolete()).then(|| tenant.sinks.in_flight().filter_map(lane).collect())
    }

    /// Empties places that a tenant left. Where its lane is `busy` with the tenant's publications, that waits for their end.
    pub(crate) fn withdraw(&mut self, slot: Slot, places: Vec<(LaneId, RootId, Place)>, busy: Option<Vec<LaneId>>) {
        let waits = |lane: &LaneId| busy.as_ref().is_none_or(|busy| busy.contains(lane));
        let (later, now): (Vec<_>, Vec<_>) = places.into_iter().partition(|(lane, ..)| waits(lane));
        now.into_iter().for_each(|place| self.publisher.withdraw(place));
        self.publisher.withdrawals.defer(slot, later.into_iter().map(Withdrawal::from).collect());
        self.begin_deferred_withdrawals(slot);
    }

    /// Empties the places that a tenant left, once nothing is in flight to them.
    pub(crate) fn begin_deferred_withdrawals(&mut self, slot: Slot) {
        let tenant = &self.tenants[slot];
        let is_busy = if tenant.removed { tenant.sinks.any_in_flight() } else { tenant.sinks.any_obsolete() };
        if !is_busy {
            self.publisher.begin_deferred(slot);
        }
    }

    /// Lets the executor drop the tenant's token from memory when every sink has had its attempt.
    pub(crate) fn release_if_attempted(&mut self, slot: Slot) {
        let tenant = &self.tenants[slot];
        if let Some(ticket) = tenant.ticket(slot).filter(|_| tenant.sinks.is_attempted()) {
            self.outbox.push_back(Action::Release(ticket));
        }
    }

    /// The tenant's token is about to be succeeded, or to go: one that was not released yet will not be needed again.
    pub(crate) fn release_early(&mut self, slot: Slot) {
        let tenant = &self.tenants[slot];
        let is_held_back = !tenant.sinks.uncommitted && !tenant.sinks.is_attempted();
        if let Some(ticket) = tenant.ticket(slot).filter(|_| is_held_back) {
            self.outbox.push_back(Action::Release(ticket));
        }
    }

    /// The state was begun anew: tokens that are still in memory are committed again, lest the next start lose them. Tokens that
    /// have been released are in their sinks alone.
    pub(crate) fn commit_again(&mut self) {
        let unreleased = |&slot: &Slot| {
            let tenant = &self.tenants[slot];
            !tenant.removed && !tenant.sinks.uncommitted && !tenant.sinks.is_attempted()
        };
        let slots: Vec<Slot> = self.tenants.slots_from(Slot(0)).filter(unreleased).collect();
        for slot in slots {
            if let (Some(id), Some(record), Some(ticket)) = (self.id(slot), self.record(slot), self.ticket(slot)) {
                self.publisher.commits += 1;
                self.outbox.push_back(Action::Commit { ticket, id, record });
            }
        }
    }
}
