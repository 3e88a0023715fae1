//! Random sequences of events: a daemon's bad year in a few thousand steps, then peace, in which everything must come right.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use corptokend::domain::*;
use corptokend::engine::{Event, SinkRow, State};

use crate::daemon::{Daemon, lane_of, place, sink_set};
use crate::random_endpoint::{LIFETIMES, RandomEndpoint, Rng};

struct Play {
    daemon: Daemon,
    rng: Rng,
    world: Rc<RefCell<RandomEndpoint>>,
    apps: Vec<AppName>,
    policies: BTreeMap<AppName, AppPolicy>,
}

const RATES: [Rate; 5] =
    [Rate::per_second(1), Rate::per_second(3), Rate::per_second(15), Rate::per_second(200), Rate::per_minute(40)];
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
        let world = RandomEndpoint {
            rng: Rng::new(rng.below(u64::MAX)),
            failing: 10,
            kind: None,
            latency: 400,
            lifetimes: &[60],
            same_token: 50,
            remaining_life: false,
            sinks_fail: 10,
            given: BTreeMap::new(),
            tokens: 0,
        };
        let world = Rc::new(RefCell::new(world));
        let boot = rng.pick(&[1, 5_000, 86_400_000]);
        let mut daemon = Daemon::new(boot, rng.pick(&RATES[2..4]));
        let (calls, disk) = (Rc::clone(&world), Rc::clone(&world));
        daemon.endpoint = Box::new(move |now, id| calls.borrow_mut().call(now, id));
        daemon.disk = Box::new(move |_, _, _| disk.borrow_mut().attempt());
        for set in 0..SETS {
            daemon.change(sink_set(set, &random_outlets(&mut rng, set)));
        }
        let apps = ["a", "b", "c"].map(|name| AppName::new(name).unwrap()).to_vec();
        Self { daemon, rng, world, apps, policies: BTreeMap::new() }
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..30 => self.add(),
            30..38 => self.remove(),
            38..45 => self.resink(),
            45..53 => self.set_app(),
            53..55 => self.drop_app(),
            55..65 => self.change_world(),
            65..72 => self.tamper(),
            72..76 => self.daemon.commit_ms = self.rng.pick(&[0, 50, 200, 3_000]),
            76..80 => {
                let total = self.rng.pick(&RATES);
                self.daemon.invariants.limit(self.daemon.now.boot.0, total);
                self.daemon.tell(Event::Limit(total));
            }
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
        let rows = self.daemon.engine.page(self.daemon.now, Slot(0), usize::MAX);
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
        let record = (!self.daemon.invariants.knows(&id) && self.rng.percent(40)).then(|| {
            let asked = self.daemon.now.wall - self.rng.below(9_000_000);
            Record { asked, expires: asked + 7_200_000, fingerprint: Fingerprint(u64::MAX - self.rng.below(1 << 32)) }
        });
        if let Some(record) = record {
            self.daemon.stored.insert(id.clone(), (None, record));
        }
        let sinks = SinkSetId(self.rng.below(u64::from(SETS)) as u32);
        self.daemon.change(Change::Added { id, sinks, record });
    }

    fn remove(&mut self) {
        let Some(slot) = self.some_tenant() else { return };
        let id = self.daemon.engine.id(slot).unwrap();
        let withdraw = if self.rng.percent(70) { self.targets(slot, &id) } else { Vec::new() };
        self.daemon.change(Change::Removed { id, withdraw });
    }

    fn targets(&self, slot: Slot, id: &TenantId) -> Vec<(LaneId, RootId, Place)> {
        let set = &self.daemon.sets[&self.daemon.engine.sinks(slot).unwrap()];
        set.iter().map(|outlet| (outlet.lane, outlet.root, place(outlet, id))).collect()
    }

    fn resink(&mut self) {
        let Some(slot) = self.some_tenant() else { return };
        let id = self.daemon.engine.id(slot).unwrap();
        let sinks = SinkSetId(self.rng.below(u64::from(SETS)) as u32);
        let stay = self.daemon.places_of(sinks, &id);
        let withdraw = self.targets(slot, &id).into_iter().filter(|(_, _, place)| !stay.contains(place)).collect();
        self.daemon.change(Change::Resinked { id, sinks, withdraw });
    }

    fn set_app(&mut self) {
        let app = self.apps[self.rng.below(3) as usize].clone();
        if self.policies.contains_key(&app) {
            let freshness = if self.rng.percent(30) { Freshness::Stale } else { Freshness::Current };
            self.put_app(app, freshness);
        }
    }

    fn put_app(&mut self, name: AppName, freshness: Freshness) {
        let at = self.rng.pick(&[0.0, 0.5, 0.7, 0.95, 1.0]);
        let policy = AppPolicy {
            rate: self.rng.pick(&RATES),
            refresh: Refresh { at, jitter: 0.05 },
            retry: Retry { min: Duration::from_secs(1), max: Duration::from_secs(60) },
            enabled: self.rng.percent(85),
        };
        self.policies.insert(name.clone(), policy);
        let path = self.path_of(&name);
        self.daemon.change(Change::App { name, policy, path, freshness });
    }

    /// Two of the apps share an endpoint, mostly.
    fn path_of(&mut self, name: &AppName) -> CallPath {
        let shared = if self.rng.percent(90) { 1 } else { 2 };
        let number = if name.as_str() == "c" { 3 } else { shared };
        CallPath { route: RouteId(number), origin: OriginId(number / 2) }
    }

    fn drop_app(&mut self) {
        let name = self.apps[self.rng.below(3) as usize].clone();
        if self.policies.remove(&name).is_none() {
            return;
        }
        for row in self.daemon.engine.page(self.daemon.now, Slot(0), usize::MAX) {
            if row.id.app == name {
                let withdraw = self.targets(row.slot, &row.id);
                self.daemon.change(Change::Removed { id: row.id, withdraw });
            }
        }
        self.daemon.change(Change::AppGone { name });
    }

    fn change_world(&mut self) {
        let mut world = self.world.borrow_mut();
        let rng = &mut self.rng;
        world.failing = rng.pick(&[0, 0, 10, 50, 100]);
        world.kind = rng.percent(50).then(|| rng.pick(&FailureKind::ALL));
        world.latency = rng.pick(&[1, 100, 2_000, 12_000]);
        world.lifetimes = rng.pick(&LIFETIMES);
        world.same_token = rng.pick(&[0, 50, 100]);
        world.remaining_life = rng.percent(40);
        world.sinks_fail = rng.pick(&[0, 0, 30, 100]);
    }

    fn tamper(&mut self) {
        if let Some(slot) = self.some_tenant() {
            self.daemon.tamper(slot, SinkId(self.rng.below(4) as u8));
        }
    }

    /// What the summary counts is what the rows say.
    fn check_counts(&self) {
        let summary = self.daemon.engine.summary(self.daemon.now);
        let rows = self.daemon.engine.page(self.daemon.now, Slot(0), usize::MAX);
        for app in &summary.apps {
            for state in State::ALL {
                let rows = rows.iter().filter(|row| row.id.app == app.name && row.state == state).count();
                assert_eq!(app.counts.of(state) as usize, rows, "{}: {}", app.name, state.as_str());
            }
        }
        for state in State::ALL {
            let found = self.daemon.engine.first_in(self.daemon.now, state).map(|row| row.state);
            assert_eq!(found, (summary.counts.of(state) > 0).then_some(state), "somebody who is found");
        }
        assert_eq!(summary.counts.total() as usize, rows.len());
        assert_eq!(self.daemon.engine.tenant_count(), rows.len());
    }

    /// Everything works again. Two hours later all tenants are fresh, and all places hold what they should.
    fn peace(mut self) {
        {
            let mut world = self.world.borrow_mut();
            (world.failing, world.sinks_fail, world.latency) = (0, 0, 100);
            (world.lifetimes, world.same_token) = (&[30_000], 0);
        }
        for (name, policy) in self.policies.clone() {
            let policy = AppPolicy { enabled: true, refresh: Refresh { at: 0.7, jitter: 0.05 }, ..policy };
            let path = self.path_of(&name);
            self.daemon.change(Change::App { name, policy, path, freshness: Freshness::Current });
        }
        self.daemon.commit_ms = 50;
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
        let bound = 1_000 + 12 * self.daemon.actions;
        assert!(self.daemon.wakes < bound, "{} wakes for {} actions", self.daemon.wakes, self.daemon.actions);
    }

    fn is_quiet(&self) -> bool {
        let summary = self.daemon.engine.summary(self.daemon.now);
        summary.every_sink_had_an_attempt && summary.apps.iter().all(|app| app.in_flight == 0)
    }

    fn check_all_is_well(&self) {
        let daemon = &self.daemon;
        let summary = daemon.engine.summary(daemon.now);
        for row in daemon.engine.page(daemon.now, Slot(0), usize::MAX) {
            assert!(row.state == State::Fresh, "{row:?}");
            assert!(row.sinks.iter().all(|sink| *sink == SinkRow::Published), "{row:?}");
            let told = daemon.engine.record(row.slot).map(|record| record.expires.0);
            let stored = daemon.stored.get(&row.id).map(|(_, record)| record.expires.0).unwrap_or_default();
            assert!(told.is_some_and(|told| told.abs_diff(stored) < 1_000), "stored {stored}: {row:?}");
            let outlets = &daemon.sets[&daemon.engine.sinks(row.slot).unwrap()];
            for outlet in outlets {
                let place = place(outlet, &row.id);
                let content = daemon.places.get(&place).unwrap_or_else(|| panic!("{place} is empty: {row:?}"));
                assert_eq!(Some(content.fingerprint), row.fingerprint, "{place} holds another token: {row:?}");
                assert!(!outlet.shows_expiry || Some(content.expires) == row.expires, "{place} shows an old expiry");
            }
        }
        for (subject, memory) in &daemon.remembered {
            let lasts = match memory {
                Memory::Slowed { .. } | Memory::Paused(_) | Memory::Unextended(_) => true,
                // Nobody is left who could be its probe; or nobody needs a token yet, since the one that was due no longer is.
                Memory::Broken { kind, .. } => {
                    let app = summary.apps.iter().find(|app| Some(&app.name) == subject.app());
                    app.is_none_or(|app| app.counts.total() == 0 || app.broken == Some(*kind))
                }
                Memory::Failing(_) => false,
            };
            assert!(lasts, "{subject:?} is still remembered: {memory:?}");
        }
        for place in &daemon.withdrawn {
            assert!(!daemon.places.contains_key(place), "{place} was to be emptied");
        }
        assert!(summary.every_sink_had_an_attempt && summary.every_tenant_had_an_outcome);
        assert_eq!(daemon.engine.withdrawing().count(), 0);
        assert!(daemon.parked.is_empty(), "tokens stay in memory: {:?}", daemon.parked);
        assert!(summary.apps.iter().all(|app| app.in_flight == 0));
    }
}

fn random_outlets(rng: &mut Rng, set: u32) -> Vec<Outlet> {
    let outlet = |n: u64, rng: &mut Rng| {
        let root = RootId(n as u32 + if rng.percent(50) { 0 } else { set * 4 });
        let on_expiry = if root.0.is_multiple_of(3) { OnExpiry::Delete } else { OnExpiry::Keep };
        Outlet { root, lane: lane_of(root), shows_expiry: root.0.is_multiple_of(2), on_expiry }
    };
    (0..rng.below(5)).map(|n| outlet(n, rng)).collect()
}
