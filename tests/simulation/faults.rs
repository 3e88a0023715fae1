//! How strokes of fate inject the simulation, and what each excuses.

use corptokend::domain::*;
use corptokend::engine::Event;

use crate::driver::{BOOT_MS, Doom, Simulation};
use crate::fault_plan::{Fault, FaultEnd, StateTrouble};
use crate::tenant::{ROOTS, Tenant};

/// After an outage, the longest backoff: milliseconds.
const BACKOFF_MS: u64 = 300_000;
/// The longest wait for a probe of an app whose secret was wrong, in milliseconds.
const PROBE_MS: u64 = 900_000;
/// So long after a step of the clock its times are told anew in the database, and 20 ms for each 1,000 tenants, in milliseconds.
const RETOLD_MS: u64 = 1_000;
/// A ban stops everything for so long, and then everybody is slow for so long, in milliseconds.
const AFTER_BAN_MS: u64 = 300_000 + 600_000;

impl Simulation {
    pub(crate) fn inject(&mut self, fault: Fault) {
        let now = self.executor.t;
        match fault {
            Fault::Outage { app, kind, ms } => {
                *self.faults_of(app) = Some(kind);
                self.fault_plan.add(now + ms, Fault::End(FaultEnd::Outage(app)));
                self.excuse(now, ms, BACKOFF_MS, app);
            }
            Fault::WrongSecret { app, ms, mended_by_operator } => {
                *self.faults_of(Some(app)) = Some(FailureKind::WrongCredentials);
                self.fault_plan.add(now + ms / 2, Fault::Kill);
                self.fault_plan.add(now + ms, Fault::End(FaultEnd::WrongSecret { app, mended_by_operator }));
                self.excuse(now, ms, if mended_by_operator { 0 } else { PROBE_MS }, Some(app));
            }
            Fault::Ban { ms } => {
                *self.faults_of(None) = Some(FailureKind::Banned);
                self.fault_plan.add(now + ms / 2, Fault::Kill);
                self.fault_plan.add(now + ms, Fault::End(FaultEnd::Outage(None)));
                self.excuse(now, ms, AFTER_BAN_MS, None);
            }
            Fault::Flaky { app, per_mille, ms } => {
                self.executor.endpoint.apps[app].flaky = per_mille;
                self.fault_plan.add(now + ms, Fault::End(FaultEnd::Flaky(app)));
                self.excuse(now, if per_mille > 100 { ms } else { 0 }, BACKOFF_MS, Some(app));
            }
            Fault::Suspend { ms } => self.sleep(ms),
            Fault::ClockStep { by, ms } => {
                self.step_clock(by);
                self.fault_plan.add(now + ms / 2, Fault::Kill);
                self.fault_plan.add(now + ms, Fault::End(FaultEnd::ClockStep(-by)));
            }
            Fault::Restart => self.doom = Some(Doom::WithALoss),
            Fault::Kill => self.doom = Some(Doom::Now),
            Fault::Reboot => self.reboot(),
            Fault::SinksFail { root, ms } => {
                self.executor.failing_roots[root] = true;
                self.fault_plan.add(now + ms, Fault::End(FaultEnd::SinksFail(root)));
            }
            Fault::SlowCommits { ms } => {
                self.executor.commit_ms = 200;
                self.fault_plan.add(now + ms, Fault::End(FaultEnd::SlowCommits));
            }
            Fault::StateFails { how, ms } => {
                self.executor.state = Some((how, now));
                self.executor.state_failed_at.get_or_insert(now);
                self.fault_plan.add(now + ms, Fault::End(FaultEnd::StateFails));
                if how != StateTrouble::Unwritable {
                    // What a start makes of a state that it cannot read is not modelled.
                    self.no_restart_before = self.no_restart_before.max(now + ms);
                }
            }
            Fault::Join { app, n } => self.many(app, n, false, |simulation, number| simulation.join(number)),
            Fault::Leave { app, n } => self.many(app, n, true, Self::leave),
            Fault::Resink { app, n } => self.many(app, n, true, Self::resink),
            Fault::Rate { app, percent } => {
                let usual = self.setups[app].rate;
                let rate = Rate::per_minute((usual.hertz() * 0.6 * f64::from(percent)).ceil() as u32);
                self.set_rate(app, rate, Freshness::Current);
            }
            Fault::Disable { app, ms } => {
                self.executor.disabled[app] = true;
                self.put_app(app, Freshness::Current);
                self.fault_plan.add(now + ms, Fault::End(FaultEnd::Disabled(app)));
                self.excuse(now, ms, 0, Some(app));
            }
            Fault::NewSecret { app } => self.set_rate(app, self.rates[app], Freshness::Stale),
            Fault::Limit(rate) => self.set_total(rate),
            Fault::End(ending) => self.end(ending),
        }
    }

    fn end(&mut self, ending: FaultEnd) {
        match ending {
            FaultEnd::Outage(app) => *self.faults_of(app) = None,
            FaultEnd::WrongSecret { app, mended_by_operator } => {
                *self.faults_of(Some(app)) = None;
                if mended_by_operator {
                    self.set_rate(app, self.rates[app], Freshness::Stale);
                }
            }
            FaultEnd::Flaky(app) => self.executor.endpoint.apps[app].flaky = 1,
            FaultEnd::ClockStep(by) => self.step_clock(by),
            FaultEnd::SinksFail(root) => self.executor.failing_roots[root] = false,
            FaultEnd::Disabled(app) => {
                self.executor.disabled[app] = false;
                self.put_app(app, Freshness::Current);
            }
            FaultEnd::SlowCommits => self.executor.commit_ms = 50,
            FaultEnd::StateFails => self.executor.state_is_well(),
        }
    }

    fn faults_of(&mut self, app: Option<usize>) -> &mut Option<FailureKind> {
        match app {
            Some(app) => &mut self.executor.endpoint.apps[app].all_fail,
            None => &mut self.executor.endpoint.all_fail,
        }
    }

    /// Something that lasts for `ms`, and whose traces are gone `then` later, excuses those whom it hinders; and the time that
    /// the limits need to catch up with it.
    fn excuse(&mut self, now: u64, ms: u64, then: u64, app: Option<usize>) {
        for app in (0..self.setups.len()).filter(|n| app.is_none_or(|app| app == *n)) {
            let setup = self.setups[app];
            let all = (f64::from(setup.tenants) / self.rates[app].hertz() * 1000.0) as u64;
            let backlog = (ms + then) * 2;
            self.executor.excuses.add(now, now + ms + then + backlog.min(all + all / 2), Some(app));
        }
    }

    fn sleep(&mut self, ms: u64) {
        let now = self.executor.t;
        self.asleep_until = now + ms;
        self.excuse(now, ms, 0, None);
    }

    fn step_clock(&mut self, by: i64) {
        self.wall_off += by;
        self.events.push(Event::ClockStepped);
        self.executor.tenants.iter_mut().for_each(Tenant::clock_stepped);
        // Until the database is told of it, the next process would believe what the former clock said.
        let retold = self.executor.t + RETOLD_MS + self.executor.tenants.len() as u64 / 50;
        self.no_restart_before = self.no_restart_before.max(retold);
    }

    pub(crate) fn restart(&mut self) {
        if !self.may_restart() {
            return;
        }
        self.executor.statistics.restarts += 1;
        if let Some(since) = self.executor.state_failed_at.filter(|_| self.executor.has_uncommitted()) {
            // Tokens were published, and are lost with the process.
            self.excuse(since, self.executor.t - since, 0, None);
        }
        self.executor.crash();
        self.start();
    }

    /// Whether the database has been told of the clock's last step.
    pub(crate) fn may_restart(&self) -> bool {
        self.executor.t >= self.no_restart_before
    }

    fn reboot(&mut self) {
        if !self.may_restart() {
            return;
        }
        self.executor.t += BOOT_MS;
        self.booted = self.executor.t - BOOT_MS;
        self.executor.tenants.iter_mut().for_each(|tenant| tenant.shown = [0; ROOTS]);
        self.excuse(self.executor.t - BOOT_MS, BOOT_MS, 0, None);
        self.restart();
    }

    fn set_rate(&mut self, app: usize, rate: Rate, freshness: Freshness) {
        self.rates[app] = rate;
        self.executor.apps[app].set_rate(self.executor.t, rate);
        self.put_app(app, freshness);
        if freshness == Freshness::Stale {
            self.executor.forget_failures(app);
        }
    }

    fn put_app(&mut self, app: usize, freshness: Freshness) {
        let change = self.app(app, freshness);
        self.steps.push_back(change);
    }

    /// Does something to up to `n` tenants of an app that are in the config, or are not.
    fn many(&mut self, app: usize, n: u32, present: bool, mut act: impl FnMut(&mut Self, u32)) {
        let fits = |tenant: &Tenant| usize::from(tenant.app) == app && tenant.present == present;
        let all = 0..self.executor.tenants.len() as u32;
        let chosen: Vec<u32> = all.filter(|number| fits(&self.executor.tenants[*number as usize])).collect();
        if chosen.is_empty() {
            return;
        }
        let from = self.rng.below(chosen.len() as u64) as usize;
        for number in chosen.iter().cycle().skip(from).take(chosen.len().min(n as usize)) {
            act(self, *number);
        }
    }

    fn leave(&mut self, number: u32) {
        let withdraw = self.executor.places(number, self.executor.tenants[number as usize].set);
        self.steps.push_back(Change::Removed { id: self.executor.id(number), withdraw });
    }

    fn resink(&mut self, number: u32) {
        let (before, after) = (self.executor.tenants[number as usize].set, self.rng.below(3) as u8);
        let stay: Vec<Place> = self.executor.places(number, after).into_iter().map(|(_, _, place)| place).collect();
        let mut withdraw = self.executor.places(number, before);
        withdraw.retain(|(_, _, place)| !stay.contains(place));
        self.events.push(Event::Reclaimed(stay));
        self.steps.push_back(Change::Resinked {
            id: self.executor.id(number),
            sinks: SinkSetId(after.into()),
            withdraw,
        });
    }
}
