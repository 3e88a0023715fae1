//! The simulation itself: virtual time, the daemon's turn, and what befalls it.

use std::collections::VecDeque;
use std::time::Duration;

use corptokend::daemon::turn::turn;
use corptokend::domain::*;
use corptokend::engine::{Engine, Event};

use crate::endpoint::{Endpoint, Habit, Treatment};
use crate::executor::Executor;
use crate::fault_plan::FaultPlan;
use crate::rng::Rng;
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

pub(crate) struct Simulation {
    pub(crate) engine: Engine,
    pub(crate) executor: Executor,
    pub(crate) fault_plan: FaultPlan,
    pub(crate) setups: Vec<AppSetup>,
    pub(crate) rng: Rng,
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

impl Simulation {
    /// A simulation in which a daemon has just been started, with all tenants in its config and none in its state.
    pub(crate) fn new(seed: u64, total: Rate, setups: Vec<AppSetup>) -> Self {
        let mut rng = Rng::new(seed);
        let treatments = setups.iter().map(|setup| Treatment::new(setup.lifetime_s, setup.habit, 1)).collect();
        let endpoint = Endpoint::new(treatments, Rng::new(rng.next()));
        let name = |n: usize| AppName::new(&format!("app{n}")).expect("a name");
        let apps = setups.iter().enumerate().map(|(n, setup)| (name(n), setup.rate)).collect();
        let mut executor = Executor::new(endpoint, total, apps, sink_sets());
        executor.endpoints = setups.iter().map(|setup| setup.endpoint).collect();
        for (app, setup) in setups.iter().enumerate() {
            for _ in 0..setup.tenants {
                let mut tenant = Tenant::new(app as u16, rng.below(3) as u8);
                let kinds = [FailureKind::Unauthorized, FailureKind::SuspectCorp];
                tenant.refuses = rng.per_mille(setup.refused).then(|| rng.pick(&kinds));
                executor.tenants.push(tenant);
            }
        }
        let rates = setups.iter().map(|setup| setup.rate).collect();
        let now = Now { boot: BootMs(BOOT_MS), wall: WallMs(WALL_MS + BOOT_MS) };
        let mut simulation = Self {
            engine: Engine::new(now, seed, total),
            executor,
            fault_plan: FaultPlan::default(),
            setups,
            rng,
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
        simulation.executor.t = BOOT_MS;
        simulation.executor.crash();
        simulation
    }

    pub(crate) fn now(&self) -> Now {
        let t = self.executor.t;
        Now { boot: BootMs(t - self.booted), wall: WallMs((WALL_MS + t).saturating_add_signed(self.wall_off)) }
    }

    /// Starts the daemon on its config, with what the database holds.
    pub(crate) fn start(&mut self) {
        let now = self.now();
        self.engine = Engine::new(now, self.seed, self.total);
        self.events.clear();
        self.steps.clear();
        self.events.push(Event::Recalled(self.executor.memories.all()));
        for (number, outlets) in self.executor.sets.iter().enumerate() {
            self.steps.push_back(Change::SinkSet { id: SinkSetId(number as u32), outlets: outlets.clone() });
        }
        for app in 0..self.setups.len() {
            let change = self.app(app, Freshness::Current);
            self.steps.push_back(change);
        }
        for number in 0..self.executor.tenants.len() as u32 {
            self.restore(number);
        }
        self.turn();
    }

    /// An app as it is in the config at the moment.
    pub(crate) fn app(&self, app: usize, freshness: Freshness) -> Change {
        let policy = AppPolicy { enabled: !self.executor.disabled[app], ..policy(self.rates[app]) };
        Change::App { name: self.executor.names[app].clone(), policy, path: way(self.setups[app].endpoint), freshness }
    }

    /// What a start makes of a tenant: places that are not its own any more are emptied, and who left is forgotten.
    fn restore(&mut self, number: u32) {
        let tenant = &mut self.executor.tenants[number as usize];
        let (set, shown) = (tenant.present.then_some(tenant.set), tenant.shown);
        match set {
            None => {
                tenant.kept = None;
                self.executor.memories.forget(self.executor.id(number));
            }
            Some(set) => {
                let (id, record) =
                    (self.executor.id(number), self.executor.tenants[number as usize].kept.map(|kept| kept.record));
                self.steps.push_back(Change::Added { id, sinks: SinkSetId(set.into()), record });
            }
        }
        if shown != [0; ROOTS] {
            let own = set.map_or(Vec::new(), |set| self.executor.places(number, set));
            let all = (0..self.executor.sets.len() as u8).flat_map(|set| self.executor.places(number, set));
            let foreign = |place: &(LaneId, RootId, Place)| shown[place.1.0 as usize] != 0 && !own.contains(place);
            let left: Vec<_> = all.filter(foreign).collect();
            self.events.push(Event::Vacated(left));
        }
    }

    /// Adds a tenant to the config.
    pub(crate) fn join(&mut self, number: u32) {
        let (id, set) = (self.executor.id(number), self.executor.tenants[number as usize].set);
        let (sinks, owned) = (SinkSetId(set.into()), self.executor.places(number, set));
        self.events.push(Event::Reclaimed(owned.into_iter().map(|(_, _, place)| place).collect()));
        self.steps.push_back(Change::Added { id, sinks, record: None });
    }

    pub(crate) fn set_total(&mut self, rate: Rate) {
        self.total = rate;
        self.executor.total.set_rate(self.executor.t, rate);
        self.events.push(Event::Limit(rate));
    }

    /// Lives on until this moment.
    pub(crate) fn run_until(&mut self, end: u64) {
        loop {
            let steps = (!self.steps.is_empty()).then_some(self.executor.t + 1);
            let due = [self.executor.queue.next_at(), self.wake, self.fault_plan.next_at(), steps];
            let Some(next) = due.into_iter().flatten().min().filter(|at| *at <= end) else { break };
            self.executor.t = next.max(self.executor.t).max(std::mem::take(&mut self.asleep_until));
            while let Some(completion) = self.executor.queue.take(self.executor.t) {
                self.executor.happen(completion, &mut self.events);
            }
            while self.steps.is_empty()
                && let Some(fault) = self.fault_plan.take(self.executor.t)
            {
                if std::env::var_os("SIMULATION_TRACE").is_some() {
                    println!("  at {}: {fault:?}", self.executor.t);
                }
                self.inject(fault);
            }
            self.turn();
            let strikes = self.doom.is_some_and(|doom| doom == Doom::Now || self.executor.has_uncommitted());
            if strikes && self.steps.is_empty() && self.may_restart() {
                self.doom = None;
                self.restart();
            }
        }
        self.executor.t = end.max(self.executor.t);
    }

    /// Peace: nothing fails, and nothing is changed any more. What is under way comes to its end, and all must be well.
    pub(crate) fn come_to_an_end(&mut self) {
        self.executor.room.calls = 0;
        let quiet = 3_000;
        self.run_until(self.executor.t + quiet);
        self.executor.judge_end(quiet);
    }

    fn turn(&mut self) {
        let now = self.now();
        let most = self.steps.len().min(STEPS_A_TURN);
        self.steps.iter().take(most).for_each(|change| self.executor.enact(change));
        self.executor.statistics.turns += 1;
        let events = self.events.drain(..).chain(self.steps.drain(..most).map(Event::Change));
        let wake = turn(&mut self.engine, now, events, &mut self.executor);
        self.executor.check_verdicts();
        assert!(wake.is_none_or(|at| at > now.boot), "spins: would wake at {wake:?}, and it is {now:?}");
        self.wake = wake.map(|at| at.0 + self.booted);
    }
}
