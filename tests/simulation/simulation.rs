//! A daemon with its config, and what goes wrong around it, from the start to the end.

use std::collections::BTreeSet;
use std::time::Duration;

use corptokend::domain::*;
use corptokend::engine::{Capacity, Event};

use crate::fault_plan::FaultPlan;
use crate::model::{Daemon, Habit, Rng, TenantNo, Treatment, place};

/// How long after its machine a daemon starts, in milliseconds.
pub(crate) const BOOT_MS: u64 = 20_000;
/// The sets of sinks that tenants have.
const SETS: u64 = 3;
/// How many lanes there are: even roots lie on one, odd ones on the other.
pub(crate) const LANES: u64 = 2;

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

impl AppSetup {
    /// Whether its endpoint hands out the next token only when the last has expired.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.habit == Habit::RemainingLife
    }
}

/// When a process is to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kill {
    Now,
    /// When a token is not committed yet.
    WithALoss,
}

pub(crate) struct Simulation {
    pub(crate) daemon: Daemon,
    pub(crate) fault_plan: FaultPlan,
    pub(crate) setups: Vec<AppSetup>,
    pub(crate) rates: Vec<Rate>,
    pub(crate) rng: Rng,
    /// Which apps the config disables.
    pub(crate) disabled: Vec<bool>,
    /// Which apps have left the config, and whom of their tenants they will bring back.
    pub(crate) left: Vec<Option<Vec<TenantNo>>>,
    /// Apps whose credentials are others than the state knows.
    pub(crate) stale: BTreeSet<usize>,
    /// The process could not read the state when it started.
    pub(crate) awaits_state: bool,
    /// The wall clock was set since the process started.
    pub(crate) clock_was_set: bool,
    pub(crate) kill: Option<Kill>,
    /// Before this moment a process would believe times in the state that are told on another clock.
    pub(crate) no_restart_before: u64,
}

/// Any set of sinks.
pub(crate) fn any_sinks(rng: &mut Rng) -> SinkSetId {
    SinkSetId(rng.below(SETS) as u32)
}

pub(crate) fn policy(rate: Rate) -> AppPolicy {
    let retry = Retry { min: Duration::from_secs(1), max: Duration::from_secs(300) };
    AppPolicy { rate, refresh: Refresh { at: 0.7, jitter: 0.05 }, retry, enabled: true }
}

/// A plain file; a file that shows the expiry and a key that is deleted with it; the two elsewhere.
fn sink_sets() -> [Vec<SinkPolicy>; SETS as usize] {
    let file = |root, shows_expiry| SinkPolicy {
        root: RootId(root),
        lane: LaneId(0),
        shows_expiry,
        on_expiry: OnExpiry::Keep,
    };
    let key =
        |root| SinkPolicy { root: RootId(root), lane: LaneId(1), shows_expiry: true, on_expiry: OnExpiry::Delete };
    [vec![file(0, false)], vec![file(0, true), key(1)], vec![file(2, false), key(3)]]
}

impl Simulation {
    /// A machine on which a daemon has yet to be started for the first time.
    pub(crate) fn new(seed: u64, setups: Vec<AppSetup>) -> Self {
        let mut rng = Rng::new(seed);
        let room = Capacity { calls: 64, max_calls: 64, lanes: vec![64; LANES as usize] };
        let mut daemon = Daemon::new(BOOT_MS, rng.next(), Rate::per_second(400), room);
        (daemon.seen.is_recorded, daemon.invariants.checks_order) = (false, false);
        let availability = &mut daemon.invariants.availability;
        (availability.judges_gaps, availability.judges_publications) = (true, true);
        for (app, setup) in setups.iter().enumerate() {
            daemon.names.app(&AppName::new(&format!("app{app}")).expect("a name"));
            let mut treatment = Treatment::new(setup.lifetime_s, setup.habit);
            treatment.flaky = 1;
            daemon.endpoint.apps.push(treatment);
            daemon.invariants.availability.handed_over.push(setup.is_handed_over());
            for n in 0..setup.tenants {
                let kind = rng.pick(&[FailureKind::Unauthorized, FailureKind::SuspectCorp]);
                let refuses = rng.per_mille(setup.refused).then_some(kind);
                daemon.endpoint.refuses[TenantNo { app: app as u16, n }] = refuses;
            }
        }
        let rates = setups.iter().map(|setup| setup.rate).collect();
        let (disabled, left) = (vec![false; setups.len()], vec![None; setups.len()]);
        Self {
            daemon,
            fault_plan: FaultPlan::default(),
            setups,
            rates,
            rng,
            disabled,
            left,
            stale: BTreeSet::new(),
            awaits_state: false,
            clock_was_set: false,
            kill: None,
            no_restart_before: 0,
        }
    }

    /// Starts the daemon for the first time, with the tenants that have sinks.
    pub(crate) fn start(&mut self, sinks_of: impl Fn(TenantNo, &mut Rng) -> Option<SinkSetId>) {
        for (number, outlets) in sink_sets().into_iter().enumerate() {
            self.daemon.plan(Change::SinkSet { id: SinkSetId(number as u32), sinks: outlets.into() });
        }
        (0..self.setups.len()).for_each(|app| self.put_app(app, Freshness::Current));
        for no in self.all_tenants() {
            if let Some(sinks) = sinks_of(no, &mut self.rng) {
                self.join(no, sinks);
            }
        }
        self.daemon.turn();
    }

    pub(crate) fn all_tenants(&self) -> impl Iterator<Item = TenantNo> + use<> {
        let sizes: Vec<u32> = self.setups.iter().map(|setup| setup.tenants).collect();
        sizes.into_iter().enumerate().flat_map(|(app, n)| (0..n).map(move |n| TenantNo { app: app as u16, n }))
    }

    pub(crate) fn id(&self, no: TenantNo) -> TenantId {
        let corp_id = CorpId::new(&format!("c{}", no.n)).expect("a corp_id");
        TenantId { app: self.daemon.names.app_name(usize::from(no.app)).clone(), corp_id }
    }

    /// An app as it is in the config at the moment, if it is.
    pub(crate) fn put_app(&mut self, app: usize, freshness: Freshness) {
        if !self.has_app(app) {
            return;
        }
        let policy = AppPolicy { enabled: !self.disabled[app], ..policy(self.rates[app]) };
        let endpoint = self.setups[app].endpoint;
        let path = CallPath { route: RouteId(endpoint), origin: OriginId(endpoint) };
        let name = self.daemon.names.app_name(app).clone();
        self.daemon.plan(Change::App { name, policy, path, freshness });
    }

    /// A tenant joins the config.
    pub(crate) fn join(&mut self, no: TenantNo, sinks: SinkSetId) {
        self.daemon.plan(Change::Added { id: self.id(no), sinks, record: None });
    }

    /// Lives on until this moment of the run.
    pub(crate) fn run_until(&mut self, end: u64) {
        loop {
            let next_fault = self.fault_plan.next_at().unwrap_or(u64::MAX);
            // A plan that is under way is applied before anything else is changed.
            let limit =
                if self.daemon.plan.is_empty() { end.min(next_fault) } else { end.max(self.daemon.clock.t + 1) };
            if !self.daemon.step(limit) {
                let t = &mut self.daemon.clock.t;
                *t = limit.max(*t);
                if next_fault > end {
                    return;
                }
            }
            let mut is_news = false;
            while self.daemon.plan.is_empty()
                && let Some(fault) = self.fault_plan.take(self.daemon.clock.t)
            {
                if std::env::var_os("SIMULATION_TRACE").is_some() {
                    println!("  at {}: {fault:?}", self.daemon.clock.t);
                }
                self.inject(fault);
                is_news = true;
            }
            if is_news {
                self.daemon.turn();
            }
            let strikes = self.kill.is_some_and(|kill| kill == Kill::Now || self.daemon.store.would_lose_a_token());
            if strikes && self.daemon.plan.is_empty() && self.may_restart() {
                self.kill = None;
                self.restart();
            }
        }
    }

    /// The process is killed, and the next one starts on the config, with what it can read of the state.
    pub(crate) fn restart(&mut self) {
        if !self.may_restart() {
            return;
        }
        let t = self.daemon.clock.t;
        if let Some(since) = self.daemon.store.failed_at.filter(|_| self.daemon.store.would_lose_a_token()) {
            // Tokens were published, and are lost with the process.
            self.excuse(since, t - since, 0, None);
        }
        self.check_saved_state();
        self.clock_was_set = false;
        self.awaits_state = !self.daemon.store.is_readable();
        let void = self.void_subjects();
        self.daemon.restart(&void);
        for app in 0..self.setups.len() {
            let is_stale = self.stale.contains(&app) && !self.awaits_state;
            self.put_app(app, if is_stale { Freshness::Stale } else { Freshness::Current });
        }
        for no in self.all_tenants() {
            let tenant = &self.daemon.invariants.tenants[no];
            if let (true, Some(sinks)) = (tenant.present, tenant.sinks) {
                let token = self.daemon.store.tokens[no].as_mut().filter(|_| !self.awaits_state);
                let record = token.map(|token| {
                    token.life = tenant.life;
                    token.record
                });
                self.daemon.plan(Change::Added { id: self.id(no), sinks, record });
            }
        }
        if !self.awaits_state {
            self.drop_what_left();
        }
        self.daemon.turn();
    }

    /// What is remembered of apps and tenants that are not there any more, or of an origin that nobody calls from.
    pub(crate) fn void_subjects(&self) -> Vec<SavedKey> {
        let is_called = |origin: &OriginId| {
            (0..self.setups.len()).any(|app| self.has_app(app) && self.setups[app].endpoint == origin.0)
        };
        let subjects: Vec<SavedKey> = self.daemon.store.saved.keys().cloned().collect();
        let is_void = |subject: &SavedKey| match subject {
            SavedKey::Ban(origin) | SavedKey::Pace(origin) => !is_called(origin),
            _ => subject.app().is_some_and(|name| {
                let app = self.daemon.names.known_app(name);
                !self.has_app(app) || self.stale.contains(&app)
            }),
        };
        let is_absent = |subject: &SavedKey| matches!(subject, SavedKey::Tenant(id) if !self.is_present(id));
        subjects.into_iter().filter(|subject| is_void(subject) || is_absent(subject)).collect()
    }

    pub(crate) fn number(&self, id: &TenantId) -> TenantNo {
        let n = id.corp_id.as_str()[1..].parse().expect("a corp_id of the simulation");
        TenantNo { app: self.daemon.names.known_app(&id.app) as u16, n }
    }

    fn is_present(&self, id: &TenantId) -> bool {
        self.daemon.invariants.tenants[self.number(id)].present
    }

    fn has_app(&self, app: usize) -> bool {
        self.left[app].is_none()
    }

    /// What left the config is forgotten; places that are not their tenants' any more are emptied.
    pub(crate) fn drop_what_left(&mut self) {
        let mut vacated = Vec::new();
        for no in self.all_tenants() {
            let tenant = &self.daemon.invariants.tenants[no];
            let own = tenant.sinks.filter(|_| tenant.present).map_or(&[][..], |sinks| &self.daemon.sinks.sets[&sinks]);
            let is_foreign = |root: RootId| own.iter().all(|outlet| outlet.root != root);
            let left = self.daemon.sinks.shown(no).map(|(root, _)| root).filter(|root| is_foreign(*root));
            let lane = |root: RootId| LaneId((u64::from(root.0) % LANES) as u16);
            vacated.extend(left.map(|root| (lane(root), root, place(root, &self.id(no)))));
            if !tenant.present && self.daemon.store.tokens[no].is_some() {
                self.daemon.forget(no);
            }
        }
        self.daemon.heard.push(Event::Vacated(vacated));
    }

    /// The state can be read at last. Who has no token yet gets the state's.
    pub(crate) fn take_over_state(&mut self) {
        if !std::mem::take(&mut self.awaits_state) {
            return;
        }
        self.drop_what_left();
        let own = self.daemon.store.saved.keys().filter(|subject| subject.app().is_some()).cloned();
        let own: Vec<SavedKey> = own.collect();
        self.daemon.recall(&own);
        let present = |no: &TenantNo| self.daemon.invariants.tenants[*no].present;
        let all: Vec<TenantNo> = self.all_tenants().filter(present).collect();
        let (stale, current): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|no| self.stale.contains(&usize::from(no.app)));
        self.daemon.find(&current, Freshness::Current);
        self.daemon.find(&stale, Freshness::Stale);
        self.daemon.tell(Event::SavedStateLost);
    }

    /// Peace: nothing fails, and nothing is changed any more. What is under way comes to its end, and all must be well.
    pub(crate) fn come_to_an_end(&mut self) {
        self.daemon.capacity.calls = 0;
        let quiet = 3_000;
        self.run_until(self.daemon.clock.t + quiet);
        self.check_all_is_well(quiet);
    }

    /// How many tenants have a valid token.
    pub(crate) fn valid(&self) -> u32 {
        let is_valid = |no: &TenantNo| {
            let token = self.daemon.store.tokens[*no].filter(|token| token.until > self.daemon.clock.t);
            self.daemon.invariants.tenants[*no].present && token.is_some()
        };
        self.all_tenants().filter(is_valid).count() as u32
    }

    /// How many tenants are in the config.
    pub(crate) fn present(&self) -> u32 {
        self.all_tenants().filter(|no| self.daemon.invariants.tenants[*no].present).count() as u32
    }

    /// For how long tenants have been without a valid token up to now, all together, in milliseconds.
    pub(crate) fn without_ms(&self) -> u64 {
        let since = |no: TenantNo| {
            let tenant = &self.daemon.invariants.tenants[no];
            let since = self.daemon.store.tokens[no].map_or(tenant.added, |token| token.until);
            if tenant.present { self.daemon.clock.t.saturating_sub(since) } else { 0 }
        };
        self.daemon.invariants.statistics.without_ms + self.all_tenants().map(since).sum::<u64>()
    }
}
