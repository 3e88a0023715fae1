//! Random sequences of events: a daemon's bad year in a few thousand steps, then peace, in which everything must come right.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use corptokend::domain::*;
use corptokend::engine::{Capacity, SinkStatus};

use crate::model::{Attempt, Daemon, Habit, Rng, Treatment};
use crate::scenarios::fixture::{lane_of, place, sink_set};

struct Play {
    daemon: Daemon,
    rng: Rng,
    /// How many attempts at places fail, in a thousand.
    sinks_fail: Rc<Cell<u32>>,
    apps: Vec<AppName>,
    policies: BTreeMap<AppName, AppPolicy>,
}

const RATES: [Rate; 5] =
    [Rate::per_second(1), Rate::per_second(3), Rate::per_second(15), Rate::per_second(200), Rate::per_minute(40)];
const LIFETIMES: [&[u32]; 4] = [&[1, 2, 5], &[10, 30, 60], &[600, 7200], &[1, 60, 7200, 86_400, 366 * 86_400]];
const SETS: u32 = 5;

/// Plays the sequence of events that belongs to a seed.
pub(crate) fn play(seed: u64) {
    let mut play = Play::new(seed);
    for _ in 0..150 {
        play.step();
        play.check_counts();
    }
    play.peace();
}

impl Play {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let boot = rng.pick(&[1, 5_000, 86_400_000]);
        let room = Capacity { calls: 64, max_calls: 64, lanes: vec![8; 4] };
        let mut daemon = Daemon::new(boot, seed, rng.pick(&RATES[2..4]), room);
        let apps = ["a", "b", "c"].map(|name| AppName::new(name).unwrap()).to_vec();
        for app in &apps {
            daemon.names.app(app);
            let mut treatment = Treatment::new(60, Habit::SameRenewed);
            (treatment.flaky, treatment.fickle) = (100, 500);
            daemon.endpoint.apps.push(treatment);
        }
        (daemon.endpoint.latency_ms, daemon.endpoint.asks_to_wait, daemon.endpoint.throttles) = ((1, 400), 200, false);
        let sinks_fail = Rc::new(Cell::new(100));
        daemon.sinks.attempt_with(attempts(Rng::new(rng.next()), Rc::clone(&sinks_fail)));
        for set in 0..SETS {
            daemon.change(sink_set(set, &random_outlets(&mut rng, set)));
        }
        Self { daemon, rng, sinks_fail, apps, policies: BTreeMap::new() }
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..30 => self.add(),
            30..38 => self.remove(),
            38..45 => self.resink(),
            45..53 => self.set_app(),
            53..55 => self.drop_app(),
            55..65 => self.change_endpoint_and_sinks(),
            65..72 => self.tamper(),
            72..76 => self.daemon.store.commit_ms = self.rng.pick(&[0, 50, 200, 3_000]),
            76..80 => self.daemon.set_total(self.rng.pick(&RATES)),
            80..82 => self.daemon.pass(self.rng.below(3 * 86_400_000)),
            82..84 => {
                let step = self.rng.below(2 * 86_400_000) as i64 - 86_400_000;
                self.daemon.step_clock(step);
            }
            _ => {}
        }
        let pause = self.rng.pick(&[0, 1, 40, 700, 5_000, 60_000]);
        let pause = self.rng.below(pause + 1);
        self.daemon.run_ms(pause);
    }

    fn some_tenant(&mut self) -> Option<Slot> {
        let rows = self.daemon.engine.page(self.daemon.now(), Slot(0), usize::MAX);
        (!rows.is_empty()).then(|| rows[self.rng.below(rows.len() as u64) as usize].slot)
    }

    fn add(&mut self) {
        let app = self.apps[self.rng.below(3) as usize].clone();
        if !self.policies.contains_key(&app) {
            self.put_app(app.clone(), Freshness::Current);
        }
        let id = TenantId { app, corp_id: CorpId::new(&format!("c{}", self.rng.below(12))).unwrap() };
        if self.daemon.engine.slot(&id).is_some() {
            return;
        }
        // The state remembers only those that this process has not known yet.
        let record = (!self.is_known(&id) && self.rng.per_mille(400)).then(|| {
            let asked = self.daemon.now().wall - self.rng.below(9_000_000);
            Record {
                requested_at: asked,
                expires_at: asked + 7_200_000,
                fingerprint: Fingerprint(u64::MAX - self.rng.below(1 << 32)),
            }
        });
        if let Some(record) = record {
            self.daemon.store_token(&id, record);
        }
        let sinks = SinkSetId(self.rng.below(u64::from(SETS)) as u32);
        self.daemon.change(Change::Added { id, sinks, record });
    }

    fn remove(&mut self) {
        let Some(slot) = self.some_tenant() else { return };
        let id = self.daemon.engine.id(slot).unwrap();
        let withdraw = if self.rng.per_mille(700) { self.targets(slot, &id) } else { Vec::new() };
        self.daemon.change(Change::Removed { id, withdraw });
    }

    fn targets(&self, slot: Slot, id: &TenantId) -> Vec<(LaneId, RootId, Place)> {
        self.daemon.places_of(self.daemon.engine.sinks(slot).unwrap(), id)
    }

    fn resink(&mut self) {
        let Some(slot) = self.some_tenant() else { return };
        let id = self.daemon.engine.id(slot).unwrap();
        let sinks = SinkSetId(self.rng.below(u64::from(SETS)) as u32);
        let stay: Vec<Place> = self.daemon.places_of(sinks, &id).into_iter().map(|(_, _, place)| place).collect();
        let withdraw = self.targets(slot, &id).into_iter().filter(|(_, _, place)| !stay.contains(place)).collect();
        self.daemon.change(Change::SinksChanged { id, sinks, withdraw });
    }

    fn set_app(&mut self) {
        let app = self.apps[self.rng.below(3) as usize].clone();
        if self.policies.contains_key(&app) {
            let freshness = if self.rng.per_mille(300) { Freshness::Stale } else { Freshness::Current };
            self.put_app(app, freshness);
        }
    }

    fn put_app(&mut self, name: AppName, freshness: Freshness) {
        let at = self.rng.pick(&[0.0, 0.5, 0.7, 0.95, 1.0]);
        let policy = AppPolicy {
            rate: self.rng.pick(&RATES),
            refresh: Refresh { at, jitter: 0.05 },
            retry: Retry { min: Duration::from_secs(1), max: Duration::from_secs(60) },
            enabled: self.rng.per_mille(850),
        };
        self.policies.insert(name.clone(), policy);
        let path = self.path_of(&name);
        self.daemon.change(Change::App { name, policy, path, freshness });
    }

    /// Two of the apps share an endpoint, mostly.
    fn path_of(&mut self, name: &AppName) -> CallPath {
        let shared = if self.rng.per_mille(900) { 1 } else { 2 };
        let number = if name.as_str() == "c" { 3 } else { shared };
        CallPath { route: RouteId(number), origin: OriginId(number / 2) }
    }

    fn drop_app(&mut self) {
        let name = self.apps[self.rng.below(3) as usize].clone();
        if self.policies.remove(&name).is_none() {
            return;
        }
        for row in self.daemon.engine.page(self.daemon.now(), Slot(0), usize::MAX) {
            if row.id.app == name {
                let withdraw = self.targets(row.slot, &row.id);
                self.daemon.change(Change::Removed { id: row.id, withdraw });
            }
        }
        self.daemon.change(Change::AppGone { name });
    }

    fn change_endpoint_and_sinks(&mut self) {
        let (endpoint, rng) = (&mut self.daemon.endpoint, &mut self.rng);
        endpoint.latency_ms = (1, rng.pick(&[1, 100, 2_000, 12_000]));
        for app in &mut endpoint.apps {
            app.flaky = rng.pick(&[0, 0, 100, 500, 1000]);
            app.flaws = if rng.per_mille(500) { vec![rng.pick(&FailureKind::ALL)] } else { FailureKind::ALL.to_vec() };
            app.lifetimes_s = rng.pick(&LIFETIMES).to_vec();
            app.fickle = rng.pick(&[0, 500, 1000]);
            app.habit = if rng.per_mille(400) { Habit::RemainingLife } else { Habit::SameRenewed };
        }
        self.sinks_fail.set(rng.pick(&[0, 0, 300, 1000]));
    }

    fn is_known(&mut self, id: &TenantId) -> bool {
        let no = self.daemon.names.number(id);
        self.daemon.invariants.tenants[no].life > 0
    }

    fn tamper(&mut self) {
        if let Some(slot) = self.some_tenant() {
            self.daemon.tamper(slot, SinkId(self.rng.below(4) as u8));
        }
    }

    /// What the summary counts is what the rows say.
    fn check_counts(&self) {
        let summary = self.daemon.engine.summary(self.daemon.now());
        let rows = self.daemon.engine.page(self.daemon.now(), Slot(0), usize::MAX);
        for app in &summary.apps {
            for state in TenantState::WORST_FIRST {
                let rows = rows.iter().filter(|row| row.id.app == app.name && row.state == state).count();
                assert_eq!(app.counts.of(state) as usize, rows, "{}: {}", app.name, state.as_str());
            }
        }
        for state in TenantState::WORST_FIRST {
            let found = self.daemon.engine.first_in(self.daemon.now(), state).map(|row| row.state);
            assert_eq!(found, (summary.counts.of(state) > 0).then_some(state), "somebody who is found");
        }
        assert_eq!(summary.counts.total() as usize, rows.len());
    }

    /// Everything works again. Two hours later all tenants are fresh, and all places hold what they should.
    fn peace(mut self) {
        self.daemon.endpoint.latency_ms = (1, 100);
        for app in &mut self.daemon.endpoint.apps {
            (app.flaky, app.fickle, app.lifetimes_s) = (0, 1000, vec![30_000]);
        }
        self.sinks_fail.set(0);
        for (name, policy) in self.policies.clone() {
            let policy = AppPolicy { enabled: true, refresh: Refresh { at: 0.7, jitter: 0.05 }, ..policy };
            let path = self.path_of(&name);
            self.daemon.change(Change::App { name, policy, path, freshness: Freshness::Current });
        }
        self.daemon.store.commit_ms = 50;
        self.daemon.run_ms(2 * 3_600_000);
        // Somebody may be in the midst of a refresh; not everybody, one after the other, all the time.
        for _ in 0..60 {
            if self.is_quiet() {
                break;
            }
            self.daemon.run_ms(1_000);
        }
        self.check_counts();
        self.check_all_is_well();
        let bound = 1_000 + 12 * self.daemon.seen.actions;
        assert!(
            self.daemon.seen.wakes < bound,
            "{} wakes for {} actions",
            self.daemon.seen.wakes,
            self.daemon.seen.actions
        );
    }

    fn is_quiet(&self) -> bool {
        let summary = self.daemon.engine.summary(self.daemon.now());
        summary.every_sink_had_an_attempt && summary.apps.iter().all(|app| app.in_flight == 0)
    }

    fn check_all_is_well(&mut self) {
        let daemon = &mut self.daemon;
        let summary = daemon.engine.summary(daemon.now());
        for row in daemon.engine.page(daemon.now(), Slot(0), usize::MAX) {
            assert!(row.state == TenantState::Fresh, "{row:?}");
            assert!(row.sinks.iter().all(|sink| *sink == SinkStatus::Published), "{row:?}");
            let told = daemon.engine.record(row.slot).map(|record| record.expires_at.0);
            let stored = daemon.stored(&row.id).map(|record| record.expires_at.0).unwrap_or_default();
            assert!(told.is_some_and(|told| told.abs_diff(stored) < 1_000), "stored {stored}: {row:?}");
            let outlets = daemon.sinks.sets[&daemon.engine.sinks(row.slot).unwrap()].clone();
            for outlet in &outlets {
                let place = place(outlet, &row.id);
                let content = daemon.shows(outlet.root, &row.id).unwrap_or_else(|| panic!("{place} is empty: {row:?}"));
                assert_eq!(Some(content.fingerprint), row.fingerprint, "{place} holds another token: {row:?}");
                assert!(
                    !outlet.shows_expiry || Some(content.expires_at) == row.expires_at,
                    "{place} shows an old expiry"
                );
            }
        }
        for (subject, memory) in &daemon.store.saved {
            let lasts = match memory {
                SavedState::Slowed { .. } | SavedState::Paused(_) | SavedState::Unextended(_) => true,
                // Nobody is left who could be its probe; or nobody needs a token yet, since the one that was due no longer is.
                SavedState::Broken { kind, .. } => {
                    let app = summary.apps.iter().find(|app| Some(&app.name) == subject.app());
                    app.is_none_or(|app| app.counts.total() == 0 || app.broken == Some(*kind))
                }
                SavedState::Failing(_) => false,
            };
            assert!(lasts, "{subject:?} is still remembered: {memory:?}");
        }
        let places = daemon.places();
        for place in &daemon.withdrawn {
            assert!(!places.contains_key(place), "{place} was to be emptied");
        }
        assert!(summary.every_sink_had_an_attempt && summary.every_tenant_had_an_outcome);
        assert_eq!(daemon.engine.withdrawing().count(), 0);
        assert!(daemon.store.in_memory.is_empty(), "tokens stay in memory: {:?}", daemon.store.in_memory);
        assert!(summary.apps.iter().all(|app| app.in_flight == 0));
    }
}

fn random_outlets(rng: &mut Rng, set: u32) -> Vec<SinkPolicy> {
    let outlet = |n: u64, rng: &mut Rng| {
        let root = RootId(n as u32 + if rng.per_mille(500) { 0 } else { set * 4 });
        let on_expiry = if root.0.is_multiple_of(3) { OnExpiry::Delete } else { OnExpiry::Keep };
        SinkPolicy { root, lane: lane_of(root), shows_expiry: root.0.is_multiple_of(2), on_expiry }
    };
    (0..rng.below(5)).map(|n| outlet(n, rng)).collect()
}

/// Attempts at places that take their time, and fail as often as `failing` says, in a thousand.
fn attempts(mut rng: Rng, failing: Rc<Cell<u32>>) -> impl FnMut(Now, RootId, &TenantId) -> Attempt {
    const KINDS: [SinkFailureKind; 4] =
        [SinkFailureKind::Full, SinkFailureKind::Denied, SinkFailureKind::Hangs, SinkFailureKind::Other];
    move |_, _, _| {
        let takes = if rng.per_mille(30) { rng.below(20_000) } else { rng.below(30) };
        let failure = SinkFailure { kind: rng.pick(&KINDS), detail: "as the seed has it".into() };
        (takes, if rng.per_mille(failing.get()) { Err(failure) } else { Ok(Wrote::Replaced) })
    }
}
