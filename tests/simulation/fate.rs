//! How strokes of fate befall the world, and what each excuses.

use corptokend::domain::*;
use corptokend::engine::Event;

use crate::script::{Ending, StateTrouble, Twist};
use crate::tenant::{ROOTS, Tenant};
use crate::world::{BOOT_MS, Doom, World};

/// After an outage, the longest backoff: milliseconds.
const BACKOFF_MS: u64 = 300_000;
/// The longest wait for a probe of an app whose secret was wrong, in milliseconds.
const PROBE_MS: u64 = 900_000;
/// So long after a step of the clock its times are told anew in the database, and 20 ms for each 1,000 tenants, in milliseconds.
const RETOLD_MS: u64 = 1_000;
/// A ban stops everything for so long, and then everybody is slow for so long, in milliseconds.
const AFTER_BAN_MS: u64 = 300_000 + 600_000;

impl World {
    pub(crate) fn befall(&mut self, twist: Twist) {
        let now = self.stage.t;
        match twist {
            Twist::Outage { app, kind, ms } => {
                *self.faults_of(app) = Some(kind);
                self.script.add(now + ms, Twist::End(Ending::Outage(app)));
                self.excuse(now, ms, BACKOFF_MS, app);
            }
            Twist::WrongSecret { app, ms, mended_by_operator } => {
                *self.faults_of(Some(app)) = Some(FailureKind::WrongCredentials);
                self.script.add(now + ms / 2, Twist::Kill);
                self.script.add(now + ms, Twist::End(Ending::WrongSecret { app, mended_by_operator }));
                self.excuse(now, ms, if mended_by_operator { 0 } else { PROBE_MS }, Some(app));
            }
            Twist::Ban { ms } => {
                *self.faults_of(None) = Some(FailureKind::Banned);
                self.script.add(now + ms / 2, Twist::Kill);
                self.script.add(now + ms, Twist::End(Ending::Outage(None)));
                self.excuse(now, ms, AFTER_BAN_MS, None);
            }
            Twist::Flaky { app, per_mille, ms } => {
                self.stage.endpoint.apps[app].flaky = per_mille;
                self.script.add(now + ms, Twist::End(Ending::Flaky(app)));
                self.excuse(now, if per_mille > 100 { ms } else { 0 }, BACKOFF_MS, Some(app));
            }
            Twist::Suspend { ms } => self.sleep(ms),
            Twist::ClockStep { by, ms } => {
                self.step_clock(by);
                self.script.add(now + ms / 2, Twist::Kill);
                self.script.add(now + ms, Twist::End(Ending::ClockStep(-by)));
            }
            Twist::Restart => self.doom = Some(Doom::WithALoss),
            Twist::Kill => self.doom = Some(Doom::Now),
            Twist::Reboot => self.reboot(),
            Twist::SinksFail { root, ms } => {
                self.stage.failing_roots[root] = true;
                self.script.add(now + ms, Twist::End(Ending::SinksFail(root)));
            }
            Twist::SlowCommits { ms } => {
                self.stage.commit_ms = 200;
                self.script.add(now + ms, Twist::End(Ending::SlowCommits));
            }
            Twist::StateFails { how, ms } => {
                self.stage.state = Some((how, now));
                self.stage.state_failed_at.get_or_insert(now);
                self.script.add(now + ms, Twist::End(Ending::StateFails));
                if how != StateTrouble::Unwritable {
                    // What a start makes of a state that it cannot read is not modelled.
                    self.no_restart_before = self.no_restart_before.max(now + ms);
                }
            }
            Twist::Join { app, n } => self.many(app, n, false, |world, number| world.join(number)),
            Twist::Leave { app, n } => self.many(app, n, true, Self::leave),
            Twist::Resink { app, n } => self.many(app, n, true, Self::resink),
            Twist::Rate { app, percent } => {
                let usual = self.setups[app].rate;
                let rate = Rate::per_minute((usual.hertz() * 0.6 * f64::from(percent)).ceil() as u32);
                self.set_rate(app, rate, Freshness::Current);
            }
            Twist::Disable { app, ms } => {
                self.stage.disabled[app] = true;
                self.put_app(app, Freshness::Current);
                self.script.add(now + ms, Twist::End(Ending::Disabled(app)));
                self.excuse(now, ms, 0, Some(app));
            }
            Twist::NewSecret { app } => self.set_rate(app, self.rates[app], Freshness::Stale),
            Twist::Limit(rate) => self.set_total(rate),
            Twist::End(ending) => self.end(ending),
        }
    }

    fn end(&mut self, ending: Ending) {
        match ending {
            Ending::Outage(app) => *self.faults_of(app) = None,
            Ending::WrongSecret { app, mended_by_operator } => {
                *self.faults_of(Some(app)) = None;
                if mended_by_operator {
                    self.set_rate(app, self.rates[app], Freshness::Stale);
                }
            }
            Ending::Flaky(app) => self.stage.endpoint.apps[app].flaky = 1,
            Ending::ClockStep(by) => self.step_clock(by),
            Ending::SinksFail(root) => self.stage.failing_roots[root] = false,
            Ending::Disabled(app) => {
                self.stage.disabled[app] = false;
                self.put_app(app, Freshness::Current);
            }
            Ending::SlowCommits => self.stage.commit_ms = 50,
            Ending::StateFails => self.stage.state_is_well(),
        }
    }

    fn faults_of(&mut self, app: Option<usize>) -> &mut Option<FailureKind> {
        match app {
            Some(app) => &mut self.stage.endpoint.apps[app].all_fail,
            None => &mut self.stage.endpoint.all_fail,
        }
    }

    /// Something that lasts for `ms`, and whose traces are gone `then` later, excuses those whom it hinders; and the time that
    /// the limits need to catch up with it.
    fn excuse(&mut self, now: u64, ms: u64, then: u64, app: Option<usize>) {
        for app in (0..self.setups.len()).filter(|n| app.is_none_or(|app| app == *n)) {
            let setup = self.setups[app];
            let all = (f64::from(setup.tenants) / self.rates[app].hertz() * 1000.0) as u64;
            let backlog = (ms + then) * 2;
            self.stage.excuses.add(now, now + ms + then + backlog.min(all + all / 2), Some(app));
        }
    }

    fn sleep(&mut self, ms: u64) {
        let now = self.stage.t;
        self.asleep_until = now + ms;
        self.excuse(now, ms, 0, None);
    }

    fn step_clock(&mut self, by: i64) {
        self.wall_off += by;
        self.events.push(Event::ClockStepped);
        self.stage.tenants.iter_mut().for_each(Tenant::clock_stepped);
        // Until the database is told of it, the next process would believe what the former clock said.
        let retold = self.stage.t + RETOLD_MS + self.stage.tenants.len() as u64 / 50;
        self.no_restart_before = self.no_restart_before.max(retold);
    }

    pub(crate) fn restart(&mut self) {
        if !self.may_restart() {
            return;
        }
        self.stage.figures.restarts += 1;
        if let Some(since) = self.stage.state_failed_at.filter(|_| self.stage.has_uncommitted()) {
            // Tokens were published, and are lost with the process.
            self.excuse(since, self.stage.t - since, 0, None);
        }
        self.stage.crash();
        self.start();
    }

    /// Whether the database has been told of the clock's last step.
    pub(crate) fn may_restart(&self) -> bool {
        self.stage.t >= self.no_restart_before
    }

    fn reboot(&mut self) {
        if !self.may_restart() {
            return;
        }
        self.stage.t += BOOT_MS;
        self.booted = self.stage.t - BOOT_MS;
        self.stage.tenants.iter_mut().for_each(|tenant| tenant.shown = [0; ROOTS]);
        self.excuse(self.stage.t - BOOT_MS, BOOT_MS, 0, None);
        self.restart();
    }

    fn set_rate(&mut self, app: usize, rate: Rate, freshness: Freshness) {
        self.rates[app] = rate;
        self.stage.apps[app].set_rate(self.stage.t, rate);
        self.put_app(app, freshness);
        if freshness == Freshness::Stale {
            self.stage.forget_failures(app);
        }
    }

    fn put_app(&mut self, app: usize, freshness: Freshness) {
        let change = self.app(app, freshness);
        self.steps.push_back(change);
    }

    /// Does something to up to `n` tenants of an app that are in the config, or are not.
    fn many(&mut self, app: usize, n: u32, present: bool, mut act: impl FnMut(&mut Self, u32)) {
        let fits = |tenant: &Tenant| usize::from(tenant.app) == app && tenant.present == present;
        let all = 0..self.stage.tenants.len() as u32;
        let chosen: Vec<u32> = all.filter(|number| fits(&self.stage.tenants[*number as usize])).collect();
        if chosen.is_empty() {
            return;
        }
        let from = self.chance.below(chosen.len() as u64) as usize;
        for number in chosen.iter().cycle().skip(from).take(chosen.len().min(n as usize)) {
            act(self, *number);
        }
    }

    fn leave(&mut self, number: u32) {
        let withdraw = self.stage.places(number, self.stage.tenants[number as usize].set);
        self.steps.push_back(Change::Removed { id: self.stage.id(number), withdraw });
    }

    fn resink(&mut self, number: u32) {
        let (before, after) = (self.stage.tenants[number as usize].set, self.chance.below(3) as u8);
        let stay: Vec<Place> = self.stage.places(number, after).into_iter().map(|(_, _, place)| place).collect();
        let mut withdraw = self.stage.places(number, before);
        withdraw.retain(|(_, _, place)| !stay.contains(place));
        self.events.push(Event::Reclaimed(stay));
        self.steps.push_back(Change::Resinked { id: self.stage.id(number), sinks: SinkSetId(after.into()), withdraw });
    }
}
