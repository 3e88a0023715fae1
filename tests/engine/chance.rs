//! Random sequences of events: a daemon's bad year in a few thousand steps, then peace, in which everything must come right.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use corptokend::domain::*;
use corptokend::engine::{Event, SinkRow, State};

use crate::shell::{Shell, lane_of, place, sink_set};
use crate::world::{Chance, LIFETIMES, World};

struct Play {
    shell: Shell,
    chance: Chance,
    world: Rc<RefCell<World>>,
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
        let mut chance = Chance::new(seed);
        let world = World {
            chance: Chance::new(chance.below(u64::MAX)),
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
        let boot = chance.pick(&[1, 5_000, 86_400_000]);
        let mut shell = Shell::new(boot, chance.pick(&RATES[2..4]));
        let (calls, disk) = (Rc::clone(&world), Rc::clone(&world));
        shell.endpoint = Box::new(move |now, id| calls.borrow_mut().call(now, id));
        shell.disk = Box::new(move |_, _, _| disk.borrow_mut().attempt());
        for set in 0..SETS {
            shell.change(sink_set(set, &random_outlets(&mut chance, set)));
        }
        let apps = ["a", "b", "c"].map(|name| AppName::new(name).unwrap()).to_vec();
        Self { shell, chance, world, apps, policies: BTreeMap::new() }
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..30 => self.add(),
            30..38 => self.remove(),
            38..45 => self.resink(),
            45..53 => self.set_app(),
            53..55 => self.drop_app(),
            55..65 => self.change_world(),
            65..72 => self.vandalise(),
            72..76 => self.shell.commit_ms = self.chance.pick(&[0, 50, 200, 3_000]),
            76..80 => {
                let total = self.chance.pick(&RATES);
                self.shell.judge.limit(self.shell.now.boot.0, total);
                self.shell.tell(Event::Limit(total));
            }
            80..82 => self.shell.pass(self.chance.below(3 * 86_400_000)),
            82..84 => {
                let step = self.chance.below(2 * 86_400_000) as i64 - 86_400_000;
                self.shell.step_clock(step);
            }
            _ => {}
        }
        let pause = self.chance.pick(&[0, 1, 40, 700, 5_000, 60_000]);
        let pause = self.chance.below(pause + 1);
        self.shell.run_ms(pause);
    }

    fn some_tenant(&mut self) -> Option<Slot> {
        let rows = self.shell.engine.page(self.shell.now, Slot(0), usize::MAX);
        (!rows.is_empty()).then(|| rows[self.chance.below(rows.len() as u64) as usize].slot)
    }

    fn add(&mut self) {
        let app = self.apps[self.chance.below(3) as usize].clone();
        if !self.policies.contains_key(&app) {
            self.put_app(app.clone(), Freshness::Current);
        }
        let id = TenantId { app, corp_id: CorpId::new(&format!("c{}", self.chance.below(12))).unwrap() };
        if self.shell.engine.slot(&id).is_some() {
            return;
        }
        // The state remembers only those that this process has not known yet.
        let record = (!self.shell.judge.knows(&id) && self.chance.percent(40)).then(|| {
            let asked = self.shell.now.wall - self.chance.below(9_000_000);
            Record {
                asked,
                expires: asked + 7_200_000,
                fingerprint: Fingerprint(u64::MAX - self.chance.below(1 << 32)),
            }
        });
        if let Some(record) = record {
            self.shell.stored.insert(id.clone(), (None, record));
        }
        let sinks = SinkSetId(self.chance.below(u64::from(SETS)) as u32);
        self.shell.change(Change::Added { id, sinks, record });
    }

    fn remove(&mut self) {
        let Some(slot) = self.some_tenant() else { return };
        let id = self.shell.engine.id(slot).unwrap();
        let withdraw = if self.chance.percent(70) { self.targets(slot, &id) } else { Vec::new() };
        self.shell.change(Change::Removed { id, withdraw });
    }

    fn targets(&self, slot: Slot, id: &TenantId) -> Vec<(LaneId, RootId, Place)> {
        let set = &self.shell.sets[&self.shell.engine.sinks(slot).unwrap()];
        set.iter().map(|outlet| (outlet.lane, outlet.root, place(outlet, id))).collect()
    }

    fn resink(&mut self) {
        let Some(slot) = self.some_tenant() else { return };
        let id = self.shell.engine.id(slot).unwrap();
        let sinks = SinkSetId(self.chance.below(u64::from(SETS)) as u32);
        let stay = self.shell.places_of(sinks, &id);
        let withdraw = self.targets(slot, &id).into_iter().filter(|(_, _, place)| !stay.contains(place)).collect();
        self.shell.change(Change::Resinked { id, sinks, withdraw });
    }

    fn set_app(&mut self) {
        let app = self.apps[self.chance.below(3) as usize].clone();
        if self.policies.contains_key(&app) {
            let freshness = if self.chance.percent(30) { Freshness::Stale } else { Freshness::Current };
            self.put_app(app, freshness);
        }
    }

    fn put_app(&mut self, name: AppName, freshness: Freshness) {
        let at = self.chance.pick(&[0.0, 0.5, 0.7, 0.95, 1.0]);
        let policy = AppPolicy {
            rate: self.chance.pick(&RATES),
            refresh: Refresh { at, jitter: 0.05 },
            retry: Retry { min: Duration::from_secs(1), max: Duration::from_secs(60) },
            enabled: self.chance.percent(85),
        };
        self.policies.insert(name.clone(), policy);
        let path = self.path_of(&name);
        self.shell.change(Change::App { name, policy, path, freshness });
    }

    /// Two of the apps share an endpoint, mostly.
    fn path_of(&mut self, name: &AppName) -> CallPath {
        let shared = if self.chance.percent(90) { 1 } else { 2 };
        let number = if name.as_str() == "c" { 3 } else { shared };
        CallPath { route: RouteId(number), origin: OriginId(number / 2) }
    }

    fn drop_app(&mut self) {
        let name = self.apps[self.chance.below(3) as usize].clone();
        if self.policies.remove(&name).is_none() {
            return;
        }
        for row in self.shell.engine.page(self.shell.now, Slot(0), usize::MAX) {
            if row.id.app == name {
                let withdraw = self.targets(row.slot, &row.id);
                self.shell.change(Change::Removed { id: row.id, withdraw });
            }
        }
        self.shell.change(Change::AppGone { name });
    }

    fn change_world(&mut self) {
        let mut world = self.world.borrow_mut();
        let chance = &mut self.chance;
        world.failing = chance.pick(&[0, 0, 10, 50, 100]);
        world.kind = chance.percent(50).then(|| chance.pick(&FailureKind::ALL));
        world.latency = chance.pick(&[1, 100, 2_000, 12_000]);
        world.lifetimes = chance.pick(&LIFETIMES);
        world.same_token = chance.pick(&[0, 50, 100]);
        world.remaining_life = chance.percent(40);
        world.sinks_fail = chance.pick(&[0, 0, 30, 100]);
    }

    fn vandalise(&mut self) {
        if let Some(slot) = self.some_tenant() {
            self.shell.vandalise(slot, SinkId(self.chance.below(4) as u8));
        }
    }

    /// What the summary counts is what the rows say.
    fn check_counts(&self) {
        let summary = self.shell.engine.summary(self.shell.now);
        let rows = self.shell.engine.page(self.shell.now, Slot(0), usize::MAX);
        for app in &summary.apps {
            for state in State::ALL {
                let rows = rows.iter().filter(|row| row.id.app == app.name && row.state == state).count();
                assert_eq!(app.counts.of(state) as usize, rows, "{}: {}", app.name, state.as_str());
            }
        }
        for state in State::ALL {
            let found = self.shell.engine.first_in(self.shell.now, state).map(|row| row.state);
            assert_eq!(found, (summary.counts.of(state) > 0).then_some(state), "somebody who is found");
        }
        assert_eq!(summary.counts.total() as usize, rows.len());
        assert_eq!(self.shell.engine.tenant_count(), rows.len());
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
            self.shell.change(Change::App { name, policy, path, freshness: Freshness::Current });
        }
        self.shell.commit_ms = 50;
        self.shell.run_ms(2 * 3_600_000);
        // Somebody may be in the midst of a refresh; not everybody, one after the other, all the time.
        for _ in 0..60 {
            if self.is_quiet() {
                break;
            }
            self.shell.run_ms(1_000);
        }
        self.check_counts();
        self.check_all_is_well();
        let bound = 1_000 + 12 * self.shell.actions;
        assert!(self.shell.wakes < bound, "{} wakes for {} actions", self.shell.wakes, self.shell.actions);
    }

    fn is_quiet(&self) -> bool {
        let summary = self.shell.engine.summary(self.shell.now);
        summary.every_sink_had_an_attempt && summary.apps.iter().all(|app| app.in_flight == 0)
    }

    fn check_all_is_well(&self) {
        let shell = &self.shell;
        let summary = shell.engine.summary(shell.now);
        for row in shell.engine.page(shell.now, Slot(0), usize::MAX) {
            assert!(row.state == State::Fresh, "{row:?}");
            assert!(row.sinks.iter().all(|sink| *sink == SinkRow::Published), "{row:?}");
            let told = shell.engine.record(row.slot).map(|record| record.expires.0);
            let stored = shell.stored.get(&row.id).map(|(_, record)| record.expires.0).unwrap_or_default();
            assert!(told.is_some_and(|told| told.abs_diff(stored) < 1_000), "stored {stored}: {row:?}");
            let outlets = &shell.sets[&shell.engine.sinks(row.slot).unwrap()];
            for outlet in outlets {
                let place = place(outlet, &row.id);
                let content = shell.places.get(&place).unwrap_or_else(|| panic!("{place} is empty: {row:?}"));
                assert_eq!(Some(content.fingerprint), row.fingerprint, "{place} holds another token: {row:?}");
                assert!(!outlet.shows_expiry || Some(content.expires) == row.expires, "{place} shows an old expiry");
            }
        }
        for (subject, memory) in &shell.remembered {
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
        for place in &shell.withdrawn {
            assert!(!shell.places.contains_key(place), "{place} was to be emptied");
        }
        assert!(summary.every_sink_had_an_attempt && summary.every_tenant_had_an_outcome);
        assert_eq!(shell.engine.withdrawing().count(), 0);
        assert!(shell.parked.is_empty(), "tokens stay in memory: {:?}", shell.parked);
        assert!(summary.apps.iter().all(|app| app.in_flight == 0));
    }
}

fn random_outlets(chance: &mut Chance, set: u32) -> Vec<Outlet> {
    let outlet = |n: u64, chance: &mut Chance| {
        let root = RootId(n as u32 + if chance.percent(50) { 0 } else { set * 4 });
        let on_expiry = if root.0.is_multiple_of(3) { OnExpiry::Delete } else { OnExpiry::Keep };
        Outlet { root, lane: lane_of(root), shows_expiry: root.0.is_multiple_of(2), on_expiry }
    };
    (0..chance.below(5)).map(|n| outlet(n, chance)).collect()
}
