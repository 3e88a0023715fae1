//! How one step of a plan is applied.

use super::app::{App, AppIx, Gate};
use super::limit::Limiter;
use super::queue::Queue;
use super::tenant::{Held, Phase, Tenant, Timer};
use super::view::{Counts, State};
use super::{Action, Engine};
use crate::domain::{
    AppName, AppPolicy, BootMs, Change, CorpId, Freshness, LaneId, Now, Place, Record, RootId, SinkSetId, Slot,
    TenantId,
};

impl Engine {
    pub(super) fn apply(&mut self, now: Now, change: Change) {
        match change {
            Change::SinkSet { id, outlets } => self.outlets.define(id, outlets),
            Change::App { name, policy, freshness } => self.set_app(now, name, policy, freshness),
            Change::Added { id, sinks, record } => self.add(now, id, sinks, record),
            Change::Resinked { id, sinks, withdraw } => self.resink(now, &id, sinks, withdraw),
            Change::Removed { id, withdraw } => self.remove(now, &id, withdraw),
            Change::AppGone { name } => {
                if let Some(&ix) = self.app_index.get(&name) {
                    self.app_mut(ix).gone = true;
                    self.drop_app_if_empty(ix);
                }
            }
        }
    }

    fn set_app(&mut self, now: Now, name: AppName, policy: AppPolicy, freshness: Freshness) {
        let Some(&ix) = self.app_index.get(&name) else {
            self.add_app(now, name, policy);
            return;
        };
        let app = self.app_mut(ix);
        app.gone = false;
        let before = std::mem::replace(&mut app.policy, policy);
        if before.rate != policy.rate {
            app.limiter.set_rate(policy.rate);
        }
        if freshness == Freshness::Stale {
            app.awaits_proof |= app.breaker.take().is_some();
        }
        if freshness == Freshness::Stale || before.refresh != policy.refresh || before.enabled != policy.enabled {
            self.revisit_app(now, ix, freshness);
        }
        self.regate(now, ix);
    }

    fn add_app(&mut self, now: Now, name: AppName, policy: AppPolicy) {
        let app = App {
            name: name.clone(),
            policy,
            limiter: Limiter::new(policy.rate, now.boot),
            queue: Queue::default(),
            gate: Gate::Closed,
            breaker: None,
            awaits_proof: false,
            in_flight: 0,
            tenants: 0,
            counts: Counts::default(),
            gone: false,
        };
        let free = self.apps.iter().position(Option::is_none);
        let number = free.unwrap_or_else(|| {
            self.apps.push(None);
            self.apps.len() - 1
        });
        self.apps[number] = Some(app);
        self.app_index.insert(name, AppIx(u32::try_from(number).expect("fewer than 2^32 apps")));
    }

    /// Looks at all tenants of an app again after its policy or its credentials changed.
    fn revisit_app(&mut self, now: Now, ix: AppIx, freshness: Freshness) {
        let slots: Vec<Slot> = self.tenants.slots_from(Slot(0)).filter(|&slot| self.tenants[slot].app == ix).collect();
        for slot in slots {
            if self.tenants[slot].gone {
                continue;
            }
            let refresh_at = self.tenants[slot].held.map(|held| self.refresh_point(slot, &held));
            let tenant = &mut self.tenants[slot];
            if freshness == Freshness::Stale {
                tenant.stale = true;
                tenant.failures = 0;
                tenant.due = now.boot;
            } else if let (0, Some(at)) = (tenant.failures, refresh_at) {
                tenant.due = at;
            }
            self.reconsider(now, slot);
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
        let slot = self.tenants.insert(ix, &id.corp_id, |seq| Self::newcomer(ix, id.corp_id.clone(), sinks, seq));
        let app = self.app_mut(ix);
        app.tenants += 1;
        app.counts.add(State::Pending);
        let mut due = now.boot;
        if let Some(record) = record {
            let held = Self::restored(now, record, self.tenants[slot].seq);
            self.tenants[slot].held = Some(held);
            due = self.refresh_point(slot, &held);
            let all = self.outlets.mask(sinks, |_| true);
            self.want(slot, all);
        }
        self.schedule(now, slot, due);
    }

    fn newcomer(app: AppIx, corp_id: CorpId, sinks: SinkSetId, seq: u32) -> Tenant {
        Tenant {
            corp_id,
            app,
            sinks,
            held: None,
            seq: seq.wrapping_add(1), // the number of the token from the state, should there be one
            phase: Phase::Waiting,
            state: State::Pending,
            failures: 0,
            due: BootMs(0),
            called: BootMs(0),
            wanted: 0,
            flying: 0,
            failing: 0,
            after_keep: 0,
            stamp: 0,
            stale: false,
            gone: false,
            timer: Timer::IDLE,
        }
    }

    fn restored(now: Now, record: Record, seq: u32) -> Held {
        Held {
            seq,
            fingerprint: record.fingerprint,
            asked: record.asked,
            expires: record.expires,
            expires_boot: Record::on_boot_clock(record.expires, now),
            restored: true,
        }
    }

    /// A tenant came back while a call (or a publication) from its former life was still under way.
    fn revive(&mut self, now: Now, slot: Slot, sinks: SinkSetId) {
        let tenant = &mut self.tenants[slot];
        if !tenant.gone {
            debug_assert!(false, "a tenant is added once");
            return;
        }
        tenant.gone = false;
        tenant.held = None;
        tenant.stale = true;
        let (ix, state) = (tenant.app, tenant.state);
        self.app_mut(ix).counts.add(state);
        self.use_sinks(slot, sinks);
        match self.tenants[slot].phase {
            Phase::Calling => self.reconsider(now, slot),
            _ => self.schedule(now, slot, now.boot),
        }
    }

    fn resink(&mut self, now: Now, id: &TenantId, sinks: SinkSetId, withdraw: Vec<(LaneId, RootId, Place)>) {
        let Some(slot) = self.slot(id) else { return };
        self.use_sinks(slot, sinks);
        self.withdraw(slot, withdraw);
        self.reconsider(now, slot);
    }

    /// Publishes a tenant in other sinks from here on.
    fn use_sinks(&mut self, slot: Slot, sinks: SinkSetId) {
        let tenant = &mut self.tenants[slot];
        tenant.sinks = sinks;
        (tenant.wanted, tenant.failing) = (0, 0);
        let all = self.outlets.mask(sinks, |_| true);
        if tenant.after_keep != 0 {
            tenant.after_keep = all; // they become wanted together with the token that is on its way
        } else if tenant.held.is_some() {
            self.want(slot, all);
        }
    }

    fn remove(&mut self, now: Now, id: &TenantId, withdraw: Vec<(LaneId, RootId, Place)>) {
        let Some(slot) = self.slot(id) else { return };
        let tenant = &mut self.tenants[slot];
        tenant.gone = true;
        (tenant.wanted, tenant.failing, tenant.after_keep) = (0, 0, 0);
        tenant.stamp = tenant.stamp.wrapping_add(1);
        if tenant.phase != Phase::Calling {
            tenant.phase = Phase::Waiting;
        }
        let (ix, state) = (tenant.app, tenant.state);
        self.app_mut(ix).counts.take(state);
        self.troubles.remove(&slot);
        self.wheel.clear(&mut self.tenants, slot);
        self.outbox.push_back(Action::Forget(id.clone()));
        self.withdraw(slot, withdraw);
        self.bury(now, slot);
        if self.apps[ix.0 as usize].is_some() {
            self.regate(now, ix);
        }
    }

    /// Frees the slot of a tenant that left, once nothing for it is under way.
    pub(super) fn bury(&mut self, _now: Now, slot: Slot) {
        self.withdraw_what_left(slot);
        let tenant = &self.tenants[slot];
        if tenant.phase == Phase::Calling || tenant.flying != 0 {
            return;
        }
        let ix = tenant.app;
        self.wheel.clear(&mut self.tenants, slot);
        self.tenants.remove(slot);
        self.app_mut(ix).tenants -= 1;
        self.drop_app_if_empty(ix);
    }

    fn drop_app_if_empty(&mut self, ix: AppIx) {
        let app = self.app(ix);
        if app.gone && app.tenants == 0 {
            let name = app.name.clone();
            if let Gate::Eligible(class, key) = app.gate {
                self.eligible.remove(&(class, key, ix));
            }
            self.apps[ix.0 as usize] = None;
            self.app_index.remove(&name);
        }
    }

    /// The wall clock was set: what is told on it is told anew.
    ///
    /// A token that this process obtained has its life on the boot clock, which did not step. One that came from the state
    /// was told on the wall clock; if that clock was wrong when the state was read, it is right now. The earlier of both
    /// expiries is believed, since a call too many costs less than an expired token.
    pub(super) fn clock_stepped(&mut self, now: Now) {
        let slots: Vec<Slot> = self.tenants.slots_from(Slot(0)).collect();
        for slot in slots {
            let tenant = &mut self.tenants[slot];
            let Some(held) = tenant.held.as_mut().filter(|_| !tenant.gone) else { continue };
            let life = held.lifetime_ms();
            if held.restored {
                held.expires_boot = held.expires_boot.min(Record::on_boot_clock(held.expires, now));
            } else {
                held.expires = match held.expires_boot >= now.boot {
                    true => now.wall + held.expires_boot.since(now.boot),
                    false => now.wall - now.boot.since(held.expires_boot),
                };
                held.asked = held.expires - life;
            }
            let (held, waits_for_refresh) = (*held, tenant.phase == Phase::Waiting && tenant.failures == 0);
            if held.restored && waits_for_refresh {
                let due = self.refresh_point(slot, &held).min(self.tenants[slot].due);
                self.tenants[slot].due = due;
            }
            let shows = self.outlets.mask(self.tenants[slot].sinks, |outlet| outlet.shows_expiry);
            self.want(slot, shows);
            self.reconsider(now, slot);
        }
    }
}
