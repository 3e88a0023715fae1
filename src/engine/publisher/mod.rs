//! Which sink must be made equal to its record.
//!
//! Sinks are level-triggered: a sink is either known to equal the record, or wanted, or under way. A token is published
//! once it is kept, never before.

mod drift;
mod fair_queue;
mod retry;
mod unpublished;

pub(crate) use drift::Repairs;
pub(crate) use retry::{Item, Outlets};
pub(crate) use unpublished::{Seen, Unseen};

use crate::domain::{
    LaneId, Now, OnExpiry, Outlet, Place, RootId, SinkFailure, SinkId, SinkSetId, Slot, Ticket, Wrote,
};
use crate::engine::Engine;
use crate::engine::messages::{Action, Notice, Room, WithdrawId};
use retry::Withdrawal;

impl Engine {
    /// Makes sinks of a tenant wanted.
    pub(crate) fn want(&mut self, slot: Slot, mask: u16) {
        let known = self.outlets.mask(self.tenants[slot].sinks, |_| true);
        let tenant = &mut self.tenants[slot];
        let new = mask & known & !tenant.wanted;
        tenant.wanted |= new;
        self.line_up(slot, new);
        self.look_at_sinks(slot);
    }

    /// Puts wanted sinks into their lanes' queues, as far as they may be published now.
    fn line_up(&mut self, slot: Slot, mask: u16) {
        let tenant = &self.tenants[slot];
        if tenant.unkept {
            return; // `kept` does it
        }
        let (sinks, app, mask) = (tenant.sinks, tenant.app, mask & !tenant.flying);
        for bit in bits(mask) {
            if let Some(outlet) = self.outlet(sinks, SinkId(bit)) {
                self.outlets.push((outlet.lane, outlet.root), Some(app), Item::Sink(slot, SinkId(bit)));
            }
        }
    }

    /// The next publication or withdrawal that a lane has room for.
    pub(crate) fn next_publication(&mut self, now: Now, room: &Room) -> Option<Action> {
        for (number, _) in room.lanes.iter().enumerate().filter(|(_, free)| **free > 0) {
            let lane = LaneId(u16::try_from(number).unwrap_or(u16::MAX));
            while let Some(item) = self.outlets.pop(lane) {
                let action = match item {
                    Item::Sink(slot, sink) => self.begin_publication(now, lane, slot, sink),
                    Item::Withdraw(id) => self.outlets.withdrawal(id).map(|withdrawal| withdrawal.begin(id)),
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
        let tenant = self.tenants.get(slot).filter(|t| t.wanted & bit != 0 && t.flying & bit == 0 && !t.unkept)?;
        let outlet = self.outlet(tenant.sinks, sink).filter(|outlet| outlet.lane == lane)?;
        let (ticket, valid) = (tenant.ticket(slot)?, tenant.is_valid(now.boot));
        let tenant = &mut self.tenants[slot];
        tenant.wanted &= !bit;
        tenant.flying |= bit;
        Some(match outlet.on_expiry {
            OnExpiry::Delete if !valid => {
                // To empty a place is not to mend it.
                self.repairs.settled(now.boot, slot, sink, Wrote::Unchanged);
                Action::Expire(ticket, sink)
            }
            _ => Action::Publish(ticket, sink),
        })
    }

    /// A publication ended.
    pub(crate) fn published(&mut self, now: Now, ticket: Ticket, sink: SinkId, outcome: Result<Wrote, SinkFailure>) {
        let (slot, bit) = (ticket.slot, 1_u16 << sink.0);
        self.outlets.in_flight = self.outlets.in_flight.saturating_sub(1);
        if self.tenants.get(slot).is_none_or(|tenant| tenant.flying & bit == 0) {
            return;
        }
        let tenant = &mut self.tenants[slot];
        tenant.flying &= !bit;
        if tenant.gone {
            self.bury(now, slot);
            return;
        }
        // What became of a place that is no longer the tenant's is nobody's concern.
        let orphaned = tenant.orphaned & bit != 0;
        tenant.orphaned &= !bit;
        if !orphaned {
            self.conclude(now, slot, sink, outcome);
        }
        let tenant = &self.tenants[slot];
        self.line_up(slot, tenant.wanted & !tenant.failing & bit);
        self.withdraw_what_left(slot);
        self.release_if_done(slot);
        self.settle(now, slot);
    }

    /// What the end of a publication means for the sink and its root.
    fn conclude(&mut self, now: Now, slot: Slot, sink: SinkId, outcome: Result<Wrote, SinkFailure>) {
        let Some(outlet) = self.outlet(self.tenants[slot].sinks, sink) else { return };
        let (bit, item) = (1_u16 << sink.0, Item::Sink(slot, sink));
        let tenant = &mut self.tenants[slot];
        match outcome {
            Ok(wrote) => {
                tenant.failing &= !bit;
                // What is wanted again was touched after this publication began.
                if tenant.wanted & bit == 0 {
                    self.note_repair(now, slot, sink, outlet.root, wrote);
                }
                if self.outlets.heal(outlet.root, item) {
                    self.say(Notice::SinkMended { root: outlet.root });
                }
            }
            Err(failure) => {
                tenant.wanted |= bit;
                tenant.failing |= bit;
                self.sink_failed(now, (outlet.root, outlet.lane), item, failure);
            }
        }
    }

    /// A withdrawal ended.
    pub(crate) fn withdrawn(&mut self, now: Now, id: WithdrawId, outcome: Result<(), SinkFailure>) {
        self.outlets.in_flight = self.outlets.in_flight.saturating_sub(1);
        let Some(withdrawal) = self.outlets.withdrawal(id) else { return };
        let (root, lane) = (withdrawal.root, withdrawal.lane);
        match outcome {
            Ok(()) => {
                self.outlets.end_withdrawal(id);
                if self.outlets.heal(root, Item::Withdraw(id)) {
                    self.say(Notice::SinkMended { root });
                }
            }
            Err(failure) => self.sink_failed(now, (root, lane), Item::Withdraw(id), failure),
        }
    }

    pub(crate) fn lane_hangs(&mut self, lane: LaneId, failure: SinkFailure) {
        if self.outlets.set_hanging(lane, Some(failure.clone())) {
            self.say(Notice::LaneHangs { lane, failure });
        }
    }

    pub(crate) fn lane_moves(&mut self, lane: LaneId) {
        if self.outlets.set_hanging(lane, None) {
            self.say(Notice::LaneMoves { lane });
        }
    }

    /// Places that were withdrawn, or were to be, belong to somebody again.
    pub(crate) fn reclaimed(&mut self, places: &[Place]) {
        for root in self.outlets.reclaim(places) {
            self.say(Notice::SinkMended { root });
        }
    }

    /// The token of this ticket may be published.
    pub(crate) fn kept(&mut self, ticket: Ticket) {
        self.outlets.keeping = self.outlets.keeping.saturating_sub(1);
        let slot = ticket.slot;
        if self.tenants.get(slot).is_none_or(|t| t.gone || t.ticket(slot) != Some(ticket)) {
            self.outbox.push_back(Action::Release(ticket));
            return;
        }
        let tenant = &mut self.tenants[slot];
        tenant.unkept = false;
        let wanted = tenant.wanted;
        self.line_up(slot, wanted);
        self.release_if_done(slot);
    }

    /// Notes the sinks of a set, or that other lanes serve them from here on.
    pub(crate) fn define_sinks(&mut self, id: SinkSetId, outlets: Box<[Outlet]>) {
        for (lane, root) in self.outlets.define(id, outlets) {
            let tenants = &self.tenants;
            self.outlets.take_over(lane, root, |slot| tenants.get(slot).map(|tenant| tenant.sinks));
        }
    }

    /// Publishes a tenant in other sinks from here on.
    pub(crate) fn use_sinks(&mut self, slot: Slot, sinks: SinkSetId) {
        self.excuse_sinks(slot);
        let tenant = &mut self.tenants[slot];
        tenant.sinks = sinks;
        tenant.orphaned |= tenant.flying;
        if tenant.held.is_some() {
            self.want(slot, u16::MAX);
        }
    }

    /// The sinks that a tenant has are not its concern any more.
    pub(crate) fn excuse_sinks(&mut self, slot: Slot) {
        self.forget_repairs(slot);
        let tenant = &mut self.tenants[slot];
        let (sinks, failing) = (tenant.sinks, std::mem::take(&mut tenant.failing));
        tenant.wanted = 0;
        for bit in bits(failing) {
            if let Some(outlet) = self.outlet(sinks, SinkId(bit))
                && self.outlets.excuse(outlet.root, Item::Sink(slot, SinkId(bit)))
            {
                self.say(Notice::SinkMended { root: outlet.root });
            }
        }
    }

    /// The lanes in which publications of a tenant are under way; `None`: it cannot be told.
    pub(crate) fn busy_lanes(&self, slot: Slot) -> Option<Vec<LaneId>> {
        let tenant = &self.tenants[slot];
        let lane = |bit| self.outlet(tenant.sinks, SinkId(bit)).map(|outlet| outlet.lane);
        (tenant.orphaned == 0).then(|| bits(tenant.flying).filter_map(lane).collect())
    }

    /// Empties places that a tenant left. Where its lane is `busy` with the tenant's publications, that waits for their end.
    pub(crate) fn withdraw(&mut self, slot: Slot, places: Vec<(LaneId, RootId, Place)>, busy: Option<Vec<LaneId>>) {
        let places = places.into_iter().map(|(lane, root, place)| Withdrawal { lane, root, place });
        let waits = |lane: &LaneId| busy.as_ref().is_none_or(|busy| busy.contains(lane));
        let (later, now): (Vec<_>, Vec<_>) = places.partition(|withdrawal| waits(&withdrawal.lane));
        now.into_iter().for_each(|withdrawal| self.outlets.withdraw(withdrawal));
        self.outlets.withdraw_later(slot, later.into_iter());
        self.withdraw_what_left(slot);
    }

    pub(crate) fn withdraw_what_left(&mut self, slot: Slot) {
        let tenant = &self.tenants[slot];
        let under_way = if tenant.gone { tenant.flying } else { tenant.orphaned };
        if under_way == 0 {
            self.outlets.let_go(slot);
        }
    }

    /// Tells the shell when the tenant's token need not be held in memory any more.
    pub(crate) fn release_if_done(&mut self, slot: Slot) {
        let tenant = &self.tenants[slot];
        if let Some(ticket) = tenant.ticket(slot).filter(|_| tenant.is_attempted()) {
            self.outbox.push_back(Action::Release(ticket));
        }
    }

    /// The tenant's token is about to be succeeded, or to go: what was not released yet will not be needed again.
    pub(crate) fn release_early(&mut self, slot: Slot) {
        let tenant = &self.tenants[slot];
        if let Some(ticket) = tenant.ticket(slot).filter(|_| !tenant.unkept && !tenant.is_attempted()) {
            self.outbox.push_back(Action::Release(ticket));
        }
    }

    fn sink_failed(&mut self, now: Now, place: (RootId, LaneId), item: Item, failure: SinkFailure) {
        let (tenant, app) = match item {
            Item::Sink(slot, _) => (self.id(slot), self.tenants.get(slot).map(|tenant| tenant.app)),
            Item::Withdraw(_) => (None, None),
        };
        if let Some(next_in_ms) = self.outlets.park(now.boot, place, (item, app), &failure) {
            self.say(Notice::SinkFailing { root: place.0, tenant, failure, next_in_ms });
        }
    }

    pub(crate) fn outlet(&self, sinks: SinkSetId, sink: SinkId) -> Option<Outlet> {
        self.outlets.set(sinks).get(usize::from(sink.0)).copied()
    }
}

fn bits(mask: u16) -> impl Iterator<Item = u8> {
    (0..16).filter(move |bit| mask & (1 << bit) != 0)
}
