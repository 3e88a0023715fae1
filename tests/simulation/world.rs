//! The simulation itself: virtual time, the daemon's turn, and what befalls it.

use std::collections::VecDeque;
use std::time::Duration;

use corptokend::daemon::turn::turn;
use corptokend::domain::*;
use corptokend::engine::{Engine, Event};

use crate::chance::Chance;
use crate::endpoint::{Endpoint, Habit, Treatment};
use crate::script::Script;
use crate::stage::Stage;
use crate::tenant::{ROOTS, Tenant};

/// When the simulation begins, on the wall clock.
const WALL_MS: u64 = 1_700_000_000_000;
/// How long after its machine a daemon starts, in milliseconds.
pub(crate) const BOOT_MS: u64 = 20_000;
/// How many steps of a plan are applied a turn.
const STEPS_A_TURN: usize = 1000;

/// The way to an endpoint, by its number.
pub(crate) fn way(endpoint: u64) -> CallPath {
    CallPath { route: RouteId(endpoint), origin: OriginId(endpoint) }
}

/// One app of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AppSetup {
    pub(crate) tenants: u32,
    pub(crate) rate: Rate,
    pub(crate) lifetime_s: u32,
    pub(crate) habit: Habit,
    /// Tenants that the endpoint refuses for good, in a thousand.
    pub(crate) refused: u32,
    /// Which endpoint it calls: apps with the same number share it, and whatever hangs or bans there.
    pub(crate) endpoint: u64,
}

/// When a process is to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doom {
    Now,
    /// When a token is not committed yet.
    WithALoss,
}

pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) stage: Stage,
    pub(crate) script: Script,
    pub(crate) setups: Vec<AppSetup>,
    pub(crate) chance: Chance,
    pub(crate) rates: Vec<Rate>,
    total: Rate,
    seed: u64,
    /// What the wall clock shows beyond what it should, in milliseconds.
    pub(crate) wall_off: i64,
    /// Where the boot clock's zero lies.
    pub(crate) booted: u64,
    pub(crate) steps: VecDeque<Change>,
    pub(crate) events: Vec<Event>,
    wake: Option<u64>,
    /// The process dies, now or as soon as a token would be lost by that.
    pub(crate) doom: Option<Doom>,
    pub(crate) no_restart_before: u64,
    /// The machine sleeps until then.
    pub(crate) asleep_until: u64,
}

pub(crate) fn policy(rate: Rate) -> AppPolicy {
    let retry = Retry { min: Duration::from_secs(1), max: Duration::from_secs(300) };
    AppPolicy { rate, refresh: Refresh { at: 0.7, jitter: 0.05 }, retry, enabled: true }
}

/// The sinks that tenants have: a plain file; a file that shows the expiry and a key that is deleted with it; those elsewhere.
fn sink_sets() -> Vec<Box<[Outlet]>> {
    let file =
        |root, shows_expiry| Outlet { root: RootId(root), lane: LaneId(0), shows_expiry, on_expiry: OnExpiry::Keep };
    let key = |root| Outlet { root: RootId(root), lane: LaneId(1), shows_expiry: true, on_expiry: OnExpiry::Delete };
    vec![[file(0, false)].into(), [file(0, true), key(1)].into(), [file(2, false), key(3)].into()]
}

impl World {
    /// A world in which a daemon has just been started, with all tenants in its config and none in its state.
    pub(crate) fn new(seed: u64, total: Rate, setups: Vec<AppSetup>) -> Self {
        let mut chance = Chance::new(seed);
        let treatments = setups.iter().map(|setup| Treatment::new(setup.lifetime_s, setup.habit, 1)).collect();
        let endpoint = Endpoint::new(treatments, Chance::new(chance.next()));
        let name = |n: usize| AppName::new(&format!("app{n}")).expect("a name");
        let apps = setups.iter().enumerate().map(|(n, setup)| (name(n), setup.rate)).collect();
        let mut stage = Stage::new(endpoint, total, apps, sink_sets());
        stage.endpoints = setups.iter().map(|setup| setup.endpoint).collect();
        for (app, setup) in setups.iter().enumerate() {
            for _ in 0..setup.tenants {
                let mut tenant = Tenant::new(app as u16, chance.below(3) as u8);
                let kinds = [FailureKind::Unauthorized, FailureKind::SuspectCorp];
                tenant.refuses = chance.per_mille(setup.refused).then(|| chance.pick(&kinds));
                stage.tenants.push(tenant);
            }
        }
        let rates = setups.iter().map(|setup| setup.rate).collect();
        let now = Now { boot: BootMs(BOOT_MS), wall: WallMs(WALL_MS + BOOT_MS) };
        let mut world = Self {
            engine: Engine::new(now, seed, total),
            stage,
            script: Script::default(),
            setups,
            chance,
            rates,
            total,
            seed,
            wall_off: 0,
            booted: 0,
            steps: VecDeque::new(),
            events: Vec::new(),
            wake: None,
            doom: None,
            no_restart_before: 0,
            asleep_until: 0,
        };
        world.stage.t = BOOT_MS;
        world.stage.crash();
        world
    }

    pub(crate) fn now(&self) -> Now {
        let t = self.stage.t;
        Now { boot: BootMs(t - self.booted), wall: WallMs((WALL_MS + t).saturating_add_signed(self.wall_off)) }
    }

    /// Starts the daemon on its config, with what the database holds.
    pub(crate) fn start(&mut self) {
        let now = self.now();
        self.engine = Engine::new(now, self.seed, self.total);
        self.events.clear();
        self.steps.clear();
        self.events.push(Event::Recalled(self.stage.memories.all()));
        for (number, outlets) in self.stage.sets.iter().enumerate() {
            self.steps.push_back(Change::SinkSet { id: SinkSetId(number as u32), outlets: outlets.clone() });
        }
        for app in 0..self.setups.len() {
            let change = self.app(app, Freshness::Current);
            self.steps.push_back(change);
        }
        for number in 0..self.stage.tenants.len() as u32 {
            self.restore(number);
        }
        self.turn();
    }

    /// An app as it is in the config at the moment.
    pub(crate) fn app(&self, app: usize, freshness: Freshness) -> Change {
        let policy = AppPolicy { enabled: !self.stage.disabled[app], ..policy(self.rates[app]) };
        Change::App { name: self.stage.names[app].clone(), policy, path: way(self.setups[app].endpoint), freshness }
    }

    /// What a start makes of a tenant: places that are not its own any more are emptied, and who left is forgotten.
    fn restore(&mut self, number: u32) {
        let tenant = &mut self.stage.tenants[number as usize];
        let (set, shown) = (tenant.present.then_some(tenant.set), tenant.shown);
        match set {
            None => {
                tenant.kept = None;
                self.stage.memories.forget(self.stage.id(number));
            }
            Some(set) => {
                let (id, record) =
                    (self.stage.id(number), self.stage.tenants[number as usize].kept.map(|kept| kept.record));
                self.steps.push_back(Change::Added { id, sinks: SinkSetId(set.into()), record });
            }
        }
        if shown != [0; ROOTS] {
            let own = set.map_or(Vec::new(), |set| self.stage.places(number, set));
            let all = (0..self.stage.sets.len() as u8).flat_map(|set| self.stage.places(number, set));
            let foreign = |place: &(LaneId, RootId, Place)| shown[place.1.0 as usize] != 0 && !own.contains(place);
            let left: Vec<_> = all.filter(foreign).collect();
            self.events.push(Event::Vacated(left));
        }
    }

    /// Adds a tenant to the config.
    pub(crate) fn join(&mut self, number: u32) {
        let (id, set) = (self.stage.id(number), self.stage.tenants[number as usize].set);
        let (sinks, owned) = (SinkSetId(set.into()), self.stage.places(number, set));
        self.events.push(Event::Reclaimed(owned.into_iter().map(|(_, _, place)| place).collect()));
        self.steps.push_back(Change::Added { id, sinks, record: None });
    }

    pub(crate) fn set_total(&mut self, rate: Rate) {
        self.total = rate;
        self.stage.total.set_rate(self.stage.t, rate);
        self.events.push(Event::Limit(rate));
    }

    /// Lives on until this moment.
    pub(crate) fn run_until(&mut self, end: u64) {
        loop {
            let steps = (!self.steps.is_empty()).then_some(self.stage.t + 1);
            let due = [self.stage.agenda.next_at(), self.wake, self.script.next_at(), steps];
            let Some(next) = due.into_iter().flatten().min().filter(|at| *at <= end) else { break };
            self.stage.t = next.max(self.stage.t).max(std::mem::take(&mut self.asleep_until));
            while let Some(happening) = self.stage.agenda.take(self.stage.t) {
                self.stage.happen(happening, &mut self.events);
            }
            while self.steps.is_empty()
                && let Some(twist) = self.script.take(self.stage.t)
            {
                if std::env::var_os("SIMULATION_TRACE").is_some() {
                    println!("  at {}: {twist:?}", self.stage.t);
                }
                self.befall(twist);
            }
            self.turn();
            let strikes = self.doom.is_some_and(|doom| doom == Doom::Now || self.stage.has_uncommitted());
            if strikes && self.steps.is_empty() && self.may_restart() {
                self.doom = None;
                self.restart();
            }
        }
        self.stage.t = end.max(self.stage.t);
    }

    /// Peace: nothing fails, and nothing is changed any more. What is under way comes to its end, and all must be well.
    pub(crate) fn come_to_an_end(&mut self) {
        self.stage.room.calls = 0;
        let quiet = 3_000;
        self.run_until(self.stage.t + quiet);
        self.stage.judge_end(quiet);
    }

    fn turn(&mut self) {
        let now = self.now();
        let most = self.steps.len().min(STEPS_A_TURN);
        self.steps.iter().take(most).for_each(|change| self.stage.enact(change));
        self.stage.figures.turns += 1;
        let events = self.events.drain(..).chain(self.steps.drain(..most).map(Event::Change));
        let wake = turn(&mut self.engine, now, events, &mut self.stage);
        self.stage.check_verdicts();
        assert!(wake.is_none_or(|at| at > now.boot), "spins: would wake at {wake:?}, and it is {now:?}");
        self.wake = wake.map(|at| at.0 + self.booted);
    }
}
