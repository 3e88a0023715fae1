//! How one step of a plan is applied: tenants come, go, and change their sinks.

use super::sink_states::SinkStates;
use super::table::Past;
use super::tenant::{IDLE, Phase, Tenant, TokenInfo};
use crate::domain::{
    BootMs, Change, CorpId, Freshness, LaneId, Now, Place, Record, RootId, SinkSetId, Slot, TenantId, TenantState,
};
use crate::engine::messages::Action;
use crate::engine::{AppIx, Engine};

impl Engine {
    pub(crate) fn apply(&mut self, now: Now, change: Change) {
        match change {
            Change::SinkSet { id, sinks } => self.define_sinks(id, sinks),
            Change::App { name, policy, path, freshness } => self.set_app(now, name, policy, path, freshness),
            Change::Added { id, sinks, record } => self.add(now, id, sinks, record),
            Change::SinksChanged { id, sinks, withdraw } => self.change_sinks(now, &id, sinks, withdraw),
            Change::Removed { id, withdraw } => self.remove(now, &id, withdraw),
            Change::AppGone { name } => self.remove_app(now, &name),
        }
    }

    fn add(&mut self, now: Now, id: TenantId, sinks: SinkSetId, record: Option<Record>) {
        let Some(ix) = self.apps.find(&id.app) else {
            debug_assert!(false, "an app comes before its tenants");
            return;
        };
        if let Some(slot) = self.tenants.find(ix, &id.corp_id) {
            self.return_tenant(now, slot, sinks);
            return;
        }
        let make = |hash, past| new_tenant(ix, (id.corp_id.clone(), hash), sinks, past);
        let slot = self.tenants.insert(ix, &id.corp_id, make);
        self.apps[ix].tenants += 1;
        self.count_tenant(ix, TenantState::Pending);
        let mut due = now.boot;
        // Of a token that was given to two, an older version published both.
        let is_own = |record: &Record| self.refusal_of_duplicate(now, slot, record.fingerprint).is_none();
        if let Some(record) = record.filter(is_own) {
            let token = TokenInfo::restored(record, self.tenants[slot].seq, now);
            self.set_token(slot, Some(token));
            // A request later than now was recorded on another clock: nobody knows how long that token lives.
            due = if record.requested_at > now.wall { now.boot } else { self.refresh_point(slot, &token) };
            self.mark_dirty(slot, u16::MAX);
        }
        let due = self.restore_tenant(now, slot, &id).unwrap_or(due);
        self.schedule(now, slot, due);
    }

    fn count_tenant(&mut self, ix: AppIx, state: TenantState) {
        self.apps[ix].counts.add(state);
        self.update_route_membership(ix);
    }

    /// The state can be read at last. A tenant that has a token by now has a newer one; the others need no call before
    /// their time.
    pub(crate) fn tokens_found(&mut self, now: Now, found: Vec<(TenantId, Record)>, freshness: Freshness) {
        for (id, record) in found {
            let Some(slot) = self.slot(&id).filter(|&slot| self.tenants[slot].token.is_none()) else { continue };
            if self.refusal_of_duplicate(now, slot, record.fingerprint).is_some() {
                continue;
            }
            let tenant = &self.tenants[slot];
            // The number of a call in flight is not the token's: its answer is newer.
            let seq = if tenant.phase == Phase::Calling { tenant.seq.wrapping_sub(1) } else { tenant.seq };
            let token = TokenInfo::restored(record, seq, now);
            self.set_token(slot, Some(token));
            let tenant = &mut self.tenants[slot];
            tenant.stale |= freshness == Freshness::Stale;
            let is_due = tenant.stale || record.requested_at > now.wall;
            self.mark_dirty(slot, u16::MAX);
            let at = if is_due { now.boot } else { self.refresh_point(slot, &token) };
            let tenant = &self.tenants[slot];
            let (ix, at) = (tenant.app, if tenant.failures > 0 { at.max(tenant.due_at) } else { at });
            match tenant.phase {
                Phase::Calling => self.reevaluate(now, slot),
                _ => self.schedule(now, slot, at),
            }
            self.update_eligibility(now, ix);
        }
    }

    /// A tenant came back while a call or a publication from before was in flight. What the state held of it was deleted
    /// when it left.
    fn return_tenant(&mut self, now: Now, slot: Slot, sinks: SinkSetId) {
        let tenant = &mut self.tenants[slot];
        if !tenant.removed {
            debug_assert!(false, "a tenant is added once");
            return;
        }
        (tenant.removed, tenant.stale, tenant.is_saved) = (false, false, false);
        tenant.sinks.uncommitted = false;
        tenant.call_is_obsolete = tenant.phase == Phase::Calling;
        tenant.token = None;
        tenant.expiry_reported = false;
        tenant.failures = 0;
        let (ix, state, phase) = (tenant.app, tenant.state, tenant.phase);
        self.count_tenant(ix, state);
        self.use_sinks(slot, sinks);
        match phase {
            Phase::Calling => self.reevaluate(now, slot),
            _ => self.schedule(now, slot, now.boot),
        }
    }

    fn change_sinks(&mut self, now: Now, id: &TenantId, sinks: SinkSetId, withdraw: Vec<(LaneId, RootId, Place)>) {
        let Some(slot) = self.slot(id) else { return };
        let busy = self.busy_lanes(slot);
        self.use_sinks(slot, sinks);
        self.withdraw(slot, withdraw, busy);
        self.release_if_attempted(slot);
        self.reevaluate(now, slot);
    }

    fn remove(&mut self, now: Now, id: &TenantId, withdraw: Vec<(LaneId, RootId, Place)>) {
        let Some(slot) = self.slot(id) else { return };
        self.release_early(slot);
        let busy = self.busy_lanes(slot);
        self.forget_sinks(slot);
        self.drop_token(slot);
        let tenant = &mut self.tenants[slot];
        tenant.removed = true;
        if tenant.phase != Phase::Calling {
            self.leave_queue(slot);
        }
        let (ix, state) = (self.tenants[slot].app, self.tenants[slot].state);
        self.apps[ix].counts.remove(state);
        self.update_route_membership(ix);
        self.tenants.failures.forget(slot);
        self.forget_readers(slot);
        self.forget_evidence(slot);
        self.timers.clear(&mut self.tenants[slot].timer);
        self.outbox.push_back(Action::DeleteRecord(id.clone()));
        self.withdraw(slot, withdraw, busy);
        self.update_eligibility(now, ix);
        self.free_slot_if_idle(now, slot);
    }

    /// Frees the slot of a tenant that left, once nothing of it is in flight.
    pub(crate) fn free_slot_if_idle(&mut self, now: Now, slot: Slot) {
        self.begin_deferred_withdrawals(slot);
        let tenant = &self.tenants[slot];
        if tenant.phase == Phase::Calling || tenant.sinks.any_in_flight() {
            return;
        }
        let ix = tenant.app;
        self.skip_reevaluation(slot);
        self.tenants.remove(slot);
        self.apps[ix].tenants -= 1;
        self.drop_app_if_empty(now, ix);
    }
}

fn new_tenant(app: AppIx, (corp_id, hash): (CorpId, u32), sink_set: SinkSetId, past: Past) -> Tenant {
    Tenant {
        corp_id,
        hash,
        app,
        sink_set,
        sinks: SinkStates::default(),
        token: None,
        seq: past.seq.wrapping_add(1), // the number of the token from the state, should there be one
        phase: Phase::Waiting,
        state: TenantState::Pending,
        failures: 0,
        due_at: BootMs(0),
        called_at: BootMs(0),
        stamp: past.stamp,
        stale: false,
        call_is_obsolete: false,
        removed: false,
        is_saved: false,
        expiry_reported: false,
        doubt: None,
        timer: IDLE,
    }
}
