//! How one step of a plan is applied.

use super::table::Past;
use super::tenant::{Held, IDLE, Phase, Tenant};
use crate::domain::{
    BootMs, Change, CorpId, Freshness, LaneId, Now, Place, Record, RootId, SinkSetId, Slot, TenantId, TenantState,
};
use crate::engine::Engine;
use crate::engine::apps::AppIx;
use crate::engine::messages::Action;
use crate::engine::publisher::SinkStates;

impl Engine {
    pub(crate) fn apply(&mut self, now: Now, change: Change) {
        match change {
            Change::SinkSet { id, sinks } => self.define_sinks(id, sinks),
            Change::App { name, policy, path, freshness } => self.set_app(now, name, policy, path, freshness),
            Change::Added { id, sinks, record } => self.add(now, id, sinks, record),
            Change::SinksChanged { id, sinks, withdraw } => self.resink(now, &id, sinks, withdraw),
            Change::Removed { id, withdraw } => self.remove(now, &id, withdraw),
            Change::AppGone { name } => {
                if let Some(&ix) = self.app_index.get(&name) {
                    self.app_mut(ix).gone = true;
                    self.drop_app_if_empty(now, ix);
                }
            }
        }
    }

    fn add(&mut self, now: Now, id: TenantId, sinks: SinkSetId, record: Option<Record>) {
        let Some(&ix) = self.app_index.get(&id.app) else {
            debug_assert!(false, "an app comes before its tenants");
            return;
        };
        if let Some(slot) = self.tenants.find(ix, &id.corp_id) {
            self.revive(now, slot, sinks);
            return;
        }
        let newcomer = |hash, past| Self::newcomer(ix, (id.corp_id.clone(), hash), sinks, past);
        let slot = self.tenants.insert(ix, &id.corp_id, newcomer);
        let app = self.app_mut(ix);
        app.tenants += 1;
        app.counts.add(TenantState::Pending);
        let mut due = now.boot;
        // Of a token that was given to two, an older version published both.
        let own = |record: &Record| self.refusal_of_shared(now, slot, record.fingerprint).is_none();
        if let Some(record) = record.filter(own) {
            let held = Self::restored(now, record, self.tenants[slot].seq);
            self.hold(slot, Some(held));
            // A token that was asked for later than now was recorded on another clock: nobody knows how long it lives.
            due = if record.requested_at > now.wall { now.boot } else { self.refresh_point(slot, &held) };
            self.mark_dirty(slot, u16::MAX);
        }
        let due = self.recall_tenant(now, slot, &id).unwrap_or(due);
        self.schedule(now, slot, due);
    }

    /// The state can be read at last. Who has a token by now has a newer one; the others need no call before their time.
    pub(crate) fn found(&mut self, now: Now, found: Vec<(TenantId, Record)>, freshness: Freshness) {
        for (id, record) in found {
            let Some(slot) = self.slot(&id).filter(|&slot| self.tenants[slot].held.is_none()) else { continue };
            if self.refusal_of_shared(now, slot, record.fingerprint).is_some() {
                continue;
            }
            let tenant = &mut self.tenants[slot];
            // A call that is under way has a number of its own: its answer is newer.
            let seq = if tenant.phase == Phase::Calling { tenant.seq.wrapping_sub(1) } else { tenant.seq };
            let held = Self::restored(now, record, seq);
            self.hold(slot, Some(held));
            let tenant = &mut self.tenants[slot];
            tenant.stale |= freshness == Freshness::Stale;
            let is_due = tenant.stale || record.requested_at > now.wall;
            self.mark_dirty(slot, u16::MAX);
            let at = if is_due { now.boot } else { self.refresh_point(slot, &held) };
            let tenant = &self.tenants[slot];
            let (ix, at) = (tenant.app, if tenant.failures > 0 { at.max(tenant.due) } else { at });
            match tenant.phase {
                Phase::Calling => self.reconsider(now, slot),
                _ => self.schedule(now, slot, at),
            }
            self.regate(now, ix);
        }
    }

    fn newcomer(app: AppIx, (corp_id, hash): (CorpId, u32), sink_set: SinkSetId, past: Past) -> Tenant {
        Tenant {
            corp_id,
            hash,
            app,
            sink_set,
            sinks: SinkStates::default(),
            held: None,
            seq: past.seq.wrapping_add(1), // the number of the token from the state, should there be one
            phase: Phase::Waiting,
            state: TenantState::Pending,
            failures: 0,
            due: BootMs(0),
            called: BootMs(0),
            stamp: past.stamp,
            stale: false,
            disowned: false,
            gone: false,
            remembered: false,
            expiry_said: false,
            doubt: None,
            timer: IDLE,
        }
    }

    /// A token that the state remembers. Its life was told on the wall clock; should that be wrong today, it still has no more
    /// than its whole life ahead of it.
    fn restored(now: Now, record: Record, seq: u32) -> Held {
        let latest = now.boot + record.expires_at.since(record.requested_at);
        Held {
            seq,
            fingerprint: record.fingerprint,
            requested_at: record.requested_at,
            expires_at: record.expires_at,
            expires_boot: Record::on_boot_clock(record.expires_at, now).min(latest),
            restored: true,
        }
    }

    /// A tenant came back while a call (or a publication) from its former life was still under way. What the state knew of it
    /// was forgotten when it left.
    fn revive(&mut self, now: Now, slot: Slot, sinks: SinkSetId) {
        let tenant = &mut self.tenants[slot];
        if !tenant.gone {
            debug_assert!(false, "a tenant is added once");
            return;
        }
        (tenant.gone, tenant.stale, tenant.remembered) = (false, false, false);
        tenant.sinks.uncommitted = false;
        tenant.disowned = tenant.phase == Phase::Calling;
        tenant.held = None;
        tenant.expiry_said = false;
        tenant.failures = 0;
        let (ix, state, phase) = (tenant.app, tenant.state, tenant.phase);
        self.app_mut(ix).counts.add(state);
        self.use_sinks(slot, sinks);
        match phase {
            Phase::Calling => self.reconsider(now, slot),
            _ => self.schedule(now, slot, now.boot),
        }
    }

    fn resink(&mut self, now: Now, id: &TenantId, sinks: SinkSetId, withdraw: Vec<(LaneId, RootId, Place)>) {
        let Some(slot) = self.slot(id) else { return };
        let busy = self.busy_lanes(slot);
        self.use_sinks(slot, sinks);
        self.withdraw(slot, withdraw, busy);
        self.release_if_attempted(slot);
        self.reconsider(now, slot);
    }

    fn remove(&mut self, now: Now, id: &TenantId, withdraw: Vec<(LaneId, RootId, Place)>) {
        let Some(slot) = self.slot(id) else { return };
        self.release_early(slot);
        let busy = self.busy_lanes(slot);
        self.forget_sinks(slot);
        self.let_go_of(slot);
        let tenant = &mut self.tenants[slot];
        tenant.gone = true;
        if tenant.phase != Phase::Calling {
            self.leave_queue(slot);
        }
        let (ix, state) = (self.tenants[slot].app, self.tenants[slot].state);
        self.app_mut(ix).counts.remove(state);
        self.troubles.remove(&slot);
        self.forget_readers(slot);
        self.forget_on_path(slot);
        self.wheel.clear(&mut self.tenants, slot);
        self.outbox.push_back(Action::DeleteRecord(id.clone()));
        self.withdraw(slot, withdraw, busy);
        self.regate(now, ix);
        self.bury(now, slot);
    }

    /// Frees the slot of a tenant that left, once nothing for it is under way.
    pub(crate) fn bury(&mut self, now: Now, slot: Slot) {
        self.begin_deferred_withdrawals(slot);
        let tenant = &self.tenants[slot];
        if tenant.phase == Phase::Calling || tenant.sinks.any_in_flight() {
            return;
        }
        let ix = tenant.app;
        self.pass_over(slot);
        self.tenants.remove(slot);
        self.app_mut(ix).tenants -= 1;
        self.drop_app_if_empty(now, ix);
    }
}
