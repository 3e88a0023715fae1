//! How faults come and go, and what each excuses.

use corptokend::domain::*;

use crate::fault_plan::{Fault, FaultEnd};
use crate::model::TenantNo;
use crate::simulation::{BOOT_MS, Kill, Simulation, any_sinks};

/// After an outage, the longest backoff: milliseconds.
const BACKOFF_MS: u64 = 300_000;
/// The longest wait for a probe of an app whose secret was wrong, in milliseconds.
const PROBE_MS: u64 = 900_000;
/// So long after a step of the clock its times are told anew in the state, and 20 ms for each 1,000 tenants, in milliseconds.
const RETOLD_MS: u64 = 1_000;
/// A ban stops everything for so long, and then everybody is slow for so long, in milliseconds.
const AFTER_BAN_MS: u64 = 300_000 + 600_000;

impl Simulation {
    pub(crate) fn inject(&mut self, fault: Fault) {
        let now = self.daemon.clock.t;
        let mut end_after = |ms: u64, end: FaultEnd| self.fault_plan.add(now + ms, Fault::End(end));
        match fault {
            Fault::Outage { app, kind, ms } => {
                end_after(ms, FaultEnd::Outage(app));
                *self.all_fail(app) = Some(kind);
                self.excuse(now, ms, BACKOFF_MS, app);
            }
            Fault::WrongSecret { app, ms, mended_by_operator } => {
                end_after(ms, FaultEnd::WrongSecret { app, mended_by_operator });
                *self.all_fail(Some(app)) = Some(FailureKind::WrongCredentials);
                self.fault_plan.add(now + ms / 2, Fault::Kill);
                self.excuse(now, ms, if mended_by_operator { 0 } else { PROBE_MS }, Some(app));
            }
            Fault::Ban { ms } => {
                end_after(ms, FaultEnd::Outage(None));
                *self.all_fail(None) = Some(FailureKind::Banned);
                self.fault_plan.add(now + ms / 2, Fault::Kill);
                self.excuse(now, ms, AFTER_BAN_MS, None);
            }
            Fault::Flaky { app, per_mille, ms } => {
                end_after(ms, FaultEnd::Flaky(app));
                self.daemon.endpoint.apps[app].flaky = per_mille;
                self.excuse(now, if per_mille > 100 { ms } else { 0 }, BACKOFF_MS, Some(app));
            }
            Fault::Suspend { ms } => {
                self.excuse(now, ms, 0, None);
                self.daemon.pass(ms);
            }
            Fault::ClockStep { by, ms } => {
                end_after(ms, FaultEnd::ClockStep(-by));
                self.fault_plan.add(now + ms / 2, Fault::Kill);
                self.step_clock(by);
            }
            Fault::Restart => self.kill = Some(Kill::WithALoss),
            Fault::Kill => self.kill = Some(Kill::Now),
            Fault::Reboot => self.reboot(),
            Fault::SinksFail { root, ms } => {
                end_after(ms, FaultEnd::SinksFail(root));
                self.daemon.set_root_fails(RootId(root), true);
            }
            Fault::LaneHangs { lane, ms } => {
                end_after(ms, FaultEnd::LaneHangs(lane));
                self.daemon.set_lane_hangs(LaneId(lane), true);
            }
            Fault::SlowCommits { ms } => {
                end_after(ms, FaultEnd::SlowCommits);
                self.daemon.store.commit_ms = 200;
            }
            Fault::StateFails { how, ms } => {
                end_after(ms, FaultEnd::StateFails);
                self.daemon.set_store_fault(Some(how));
            }
            Fault::Join { app, n } => {
                for no in self.pick(app, n, false) {
                    let sinks = any_sinks(&mut self.rng);
                    self.join(no, sinks);
                }
            }
            Fault::Leave { app, n } => self.pick(app, n, true).into_iter().for_each(|no| self.leave(no)),
            Fault::Resink { app, n } => self.pick(app, n, true).into_iter().for_each(|no| self.resink(no)),
            Fault::Rate { app, percent } => {
                let usual = self.setups[app].rate;
                self.rates[app] = Rate::per_minute((usual.hertz() * 0.6 * f64::from(percent)).ceil() as u32);
                self.put_app(app, Freshness::Current);
            }
            Fault::Disable { app, ms } => {
                end_after(ms, FaultEnd::Disabled(app));
                self.disabled[app] = true;
                self.put_app(app, Freshness::Current);
                self.excuse(now, ms, 0, Some(app));
            }
            Fault::NewSecret { app } => self.renew_secret(app),
            Fault::AppLeaves { app, ms } if self.left[app].is_none() => {
                end_after(ms, FaultEnd::AppLeft(app));
                self.app_leaves(app);
            }
            Fault::AppLeaves { .. } => {}
            Fault::Limit(rate) => self.daemon.set_total(rate),
            Fault::End(end) => self.end(end),
        }
    }

    fn end(&mut self, end: FaultEnd) {
        match end {
            FaultEnd::Outage(app) => *self.all_fail(app) = None,
            FaultEnd::WrongSecret { app, mended_by_operator } => {
                *self.all_fail(Some(app)) = None;
                if mended_by_operator {
                    self.renew_secret(app);
                }
            }
            FaultEnd::Flaky(app) => self.daemon.endpoint.apps[app].flaky = 1,
            FaultEnd::ClockStep(by) => self.step_clock(by),
            FaultEnd::SinksFail(root) => self.daemon.set_root_fails(RootId(root), false),
            FaultEnd::LaneHangs(lane) => self.daemon.set_lane_hangs(LaneId(lane), false),
            FaultEnd::Disabled(app) => {
                self.disabled[app] = false;
                self.put_app(app, Freshness::Current);
            }
            FaultEnd::SlowCommits => self.daemon.store.commit_ms = 50,
            FaultEnd::StateFails => self.state_is_well(),
            FaultEnd::AppLeft(app) => self.app_returns(app),
        }
    }

    /// How every call of an app, or of everybody, fails.
    fn all_fail(&mut self, app: Option<usize>) -> &mut Option<FailureKind> {
        match app {
            Some(app) => &mut self.daemon.endpoint.apps[app].all_fail,
            None => &mut self.daemon.endpoint.all_fail,
        }
    }

    /// Something that lasts for `ms`, and whose traces are gone `then` later, excuses those whom it hinders; and the time that
    /// the limits need to catch up with it.
    pub(crate) fn excuse(&mut self, now: u64, ms: u64, then: u64, app: Option<usize>) {
        for app in (0..self.setups.len()).filter(|n| app.is_none_or(|app| app == *n)) {
            let all = (f64::from(self.setups[app].tenants) / self.rates[app].hertz() * 1000.0) as u64;
            let backlog = ((ms + then) * 2).min(all + all / 2);
            self.daemon.invariants.availability.excuse(now, now + ms + then + backlog, Some(app));
        }
    }

    fn step_clock(&mut self, by: i64) {
        self.clock_was_set = true;
        self.daemon.step_clock(by);
        self.times_are_told_anew();
    }

    /// Until the state is told of the clock's step, the next process would believe what the former clock said.
    fn times_are_told_anew(&mut self) {
        let retold = self.daemon.clock.t + RETOLD_MS + u64::from(self.present()) / 50;
        let can_be_told = self.daemon.store.fault.is_none();
        self.no_restart_before = if can_be_told { self.no_restart_before.max(retold) } else { u64::MAX };
    }

    pub(crate) fn may_restart(&self) -> bool {
        self.daemon.clock.t >= self.no_restart_before
    }

    fn state_is_well(&mut self) {
        self.daemon.set_store_fault(None);
        self.take_over_state();
        self.stale.clear();
        if self.no_restart_before == u64::MAX {
            self.no_restart_before = 0;
            self.times_are_told_anew();
        }
    }

    fn reboot(&mut self) {
        if !self.may_restart() {
            return;
        }
        self.excuse(self.daemon.clock.t, BOOT_MS, 0, None);
        self.daemon.clock.reboot(BOOT_MS);
        self.daemon.sinks.clear();
        self.restart();
    }

    /// All of an app's tenants are fetched anew, whatever was asked before.
    fn renew_secret(&mut self, app: usize) {
        self.put_app(app, Freshness::Stale);
        let name = self.daemon.names.app_name(app).clone();
        self.daemon.store.forget_app(&name);
        if self.daemon.store.fault.is_some() {
            self.stale.insert(app);
        }
    }

    /// Up to `n` tenants of an app that are in the config, or are not.
    fn pick(&mut self, app: usize, n: u32, present: bool) -> Vec<TenantNo> {
        let all = (0..self.setups[app].tenants).map(|n| TenantNo { app: app as u16, n });
        let fits = |no: &TenantNo| self.daemon.invariants.tenants[*no].present == present && self.left[app].is_none();
        let chosen: Vec<TenantNo> = all.filter(fits).collect();
        if chosen.is_empty() {
            return chosen;
        }
        let from = self.rng.below(chosen.len() as u64) as usize;
        chosen.iter().copied().cycle().skip(from).take(chosen.len().min(n as usize)).collect()
    }

    fn leave(&mut self, no: TenantNo) {
        let (id, sinks) = (self.id(no), self.daemon.invariants.tenants[no].sinks.expect("it has sinks"));
        let withdraw = self.daemon.places_of(sinks, &id);
        self.daemon.plan(Change::Removed { id, withdraw });
    }

    fn resink(&mut self, no: TenantNo) {
        let (id, before) = (self.id(no), self.daemon.invariants.tenants[no].sinks.expect("it has sinks"));
        let sinks = any_sinks(&mut self.rng);
        let stay = self.daemon.places_of(sinks, &id);
        let mut withdraw = self.daemon.places_of(before, &id);
        withdraw.retain(|place| !stay.contains(place));
        self.daemon.plan(Change::SinksChanged { id, sinks, withdraw });
    }

    fn app_leaves(&mut self, app: usize) {
        let tenants = self.pick(app, u32::MAX, true);
        tenants.iter().for_each(|no| self.leave(*no));
        self.daemon.plan(Change::AppGone { name: self.daemon.names.app_name(app).clone() });
        self.left[app] = Some(tenants);
    }

    fn app_returns(&mut self, app: usize) {
        if self.daemon.is_settled() && !self.awaits_state {
            let name = self.daemon.names.app_name(app).clone();
            self.daemon.check_app_is_gone(&name);
        }
        let tenants = self.left[app].take().expect("it left");
        self.put_app(app, Freshness::Current);
        for no in tenants {
            let sinks = any_sinks(&mut self.rng);
            self.join(no, sinks);
        }
    }
}
