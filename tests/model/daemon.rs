//! The daemon: the engine, driven by events and by the moments that it names itself, through the turn that the daemon turns.
//! Work that the engine forgets is never done here either.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use corptokend::daemon::turn::turn;
use corptokend::domain::*;
use corptokend::engine::{Capacity, Engine, Event};

use super::clock::Clock;
use super::endpoint::Endpoint;
use super::event_queue::EventQueue;
use super::executor::{Completion, Executor, Seen};
use super::invariants::Invariants;
use super::rng::Rng;
use super::sinks::{self, Content, Sinks};
use super::store::{Store, StoreFault, Stored, Write};
use super::tenants::{Names, TenantNo};

/// How many steps of a plan are applied a turn.
const STEPS_A_TURN: usize = 1000;

pub struct Daemon {
    pub engine: Engine,
    seed: u64,
    pub total: Rate,
    pub clock: Clock,
    pub endpoint: Endpoint,
    pub store: Store,
    pub sinks: Sinks,
    pub names: Names,
    pub invariants: Invariants,
    /// How much can be taken on at this moment.
    pub capacity: Capacity,
    /// The same while nothing is under way.
    idle: Capacity,
    pub seen: Seen,
    pub grain: u64,
    queue: EventQueue<Completion>,
    /// What happened since the last turn.
    pub heard: Vec<Event>,
    /// The steps of a plan that are to be applied.
    pub plan: VecDeque<Change>,
    wake: Option<u64>,
    /// Places that were to be emptied, and belong to nobody.
    pub withdrawn: BTreeSet<Place>,
}

impl Daemon {
    /// A daemon without apps, `boot_ms` after the start of its machine. `seed` makes what its endpoint does.
    pub fn new(boot_ms: u64, seed: u64, total: Rate, capacity: Capacity) -> Self {
        let clock = Clock::new(boot_ms);
        Self {
            engine: Engine::new(clock.now(), seed, total),
            seed,
            total,
            clock,
            endpoint: Endpoint::new(Rng::new(seed)),
            store: Store::new(),
            sinks: Sinks::default(),
            names: Names::default(),
            invariants: Invariants::new(total),
            idle: capacity.clone(),
            capacity,
            seen: Seen { is_recorded: true, ..Seen::default() },
            grain: 1,
            queue: EventQueue::new(boot_ms),
            heard: Vec::new(),
            plan: VecDeque::new(),
            wake: None,
            withdrawn: BTreeSet::new(),
        }
    }

    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Hears of something, and does what follows from it.
    pub fn tell(&mut self, event: Event) {
        self.heard.push(event);
        self.turn();
    }

    /// Applies a step of a plan at once.
    pub fn change(&mut self, change: Change) {
        self.announce(&change);
        self.tell(Event::Change(change));
    }

    /// Applies a step of a plan in its turn.
    pub fn plan(&mut self, change: Change) {
        self.announce(&change);
        self.plan.push_back(change);
    }

    /// Withdrawals from places that belong to somebody again are off.
    fn announce(&mut self, change: &Change) {
        if let Change::SinkSet { id, sinks } = change {
            self.sinks.sets.insert(*id, sinks.to_vec());
        }
        if let Change::Removed { withdraw, .. } | Change::SinksChanged { withdraw, .. } = change {
            self.note_withdrawn(withdraw);
        }
        if let Change::Added { id, sinks, .. } | Change::SinksChanged { id, sinks, .. } = change
            && (self.seen.is_recorded || self.engine.withdrawing().next().is_some())
        {
            let owned: Vec<Place> = self.places_of(*sinks, id).into_iter().map(|(_, _, place)| place).collect();
            owned.iter().for_each(|place| _ = self.withdrawn.remove(place));
            self.heard.push(Event::Reclaimed(owned));
        }
    }

    fn note_withdrawn(&mut self, places: &[(LaneId, RootId, Place)]) {
        if self.seen.is_recorded {
            self.withdrawn.extend(places.iter().map(|(_, _, place)| place.clone()));
        }
    }

    /// The places of a tenant in a set of sinks, each with its lane and its root.
    pub fn places_of(&self, sinks: SinkSetId, id: &TenantId) -> Vec<(LaneId, RootId, Place)> {
        let place = |policy: &SinkPolicy| (policy.lane, policy.root, sinks::place(policy.root, id));
        self.sinks.sets[&sinks].iter().map(place).collect()
    }

    pub fn set_total(&mut self, total: Rate) {
        self.total = total;
        self.invariants.set_total(self.clock, total);
        self.tell(Event::TotalRate(total));
    }

    /// Does everything that there is to do at this moment.
    pub fn turn(&mut self) {
        let steps = self.plan.len().min(STEPS_A_TURN);
        let heard = std::mem::take(&mut self.heard).into_iter();
        let events: Vec<Event> = heard.chain(self.plan.drain(..steps).map(Event::Change)).collect();
        for event in &events {
            if let Event::Change(change) = event {
                self.invariants.changed(self.clock, &mut self.names, change);
            }
        }
        self.invariants.statistics.turns += 1;
        let now = self.now();
        let (engine, mut executor) = self.parts();
        let wake = turn(engine, now, events, &mut executor);
        self.invariants.check_order(self.clock, &self.engine, &mut self.names);
        self.invariants.check_verdicts();
        assert!(wake.is_none_or(|at| at > now.boot), "spins: would wake at {wake:?}, and it is {now:?}");
        self.wake = wake.map(|at| self.clock.at(at));
    }

    fn parts(&mut self) -> (&mut Engine, Executor<'_>) {
        let executor = Executor {
            clock: self.clock,
            endpoint: &mut self.endpoint,
            store: &mut self.store,
            sinks: &mut self.sinks,
            names: &mut self.names,
            invariants: &mut self.invariants,
            capacity: &mut self.capacity,
            queue: &mut self.queue,
            seen: &mut self.seen,
            grain: self.grain,
        };
        (&mut self.engine, executor)
    }

    /// Goes on to the next moment at which something happens, if that is not after `end`. Returns whether there was one.
    pub fn step(&mut self, end: u64) -> bool {
        let plan = (!self.plan.is_empty()).then_some(self.clock.t + 1);
        let next = [self.queue.next_at(), self.wake, plan].into_iter().flatten().min();
        let Some(next) = next.filter(|next| *next <= end) else { return false };
        self.clock.t = self.clock.t.max(next);
        self.seen.wakes += 1;
        let mut heard = std::mem::take(&mut self.heard);
        while let Some(completion) = self.queue.take(self.clock.t) {
            self.parts().1.complete(completion, &mut heard);
        }
        self.heard = heard;
        self.turn();
        true
    }

    /// Lives on until this moment of the run.
    pub fn run_until(&mut self, end: u64) {
        while self.step(end) {}
        self.clock.t = self.clock.t.max(end);
    }

    /// Lives on for so long.
    pub fn run_ms(&mut self, ms: u64) {
        self.turn();
        self.run_until(self.clock.t + ms);
        self.turn();
    }

    /// Time passes, and nothing is done in it: as in a suspend.
    pub fn pass(&mut self, ms: u64) {
        self.clock.t += ms;
        self.publications_were_hindered();
    }

    /// Publications that are late by now are so for a reason.
    pub fn publications_were_hindered(&mut self) {
        let lanes = (0..self.capacity.lanes.len()).map(|lane| LaneId(lane as u16));
        self.sinks.lane_well_since.extend(lanes.map(|lane| (lane, self.clock.t)));
    }

    /// The wall clock is set, forwards or backwards.
    pub fn step_clock(&mut self, ms: i64) {
        self.clock.step_wall(ms);
        self.invariants.clock_stepped(self.clock.t);
        self.tell(Event::ClockStepped);
    }

    /// Nothing below this root can be published, or everything can again.
    pub fn set_root_fails(&mut self, root: RootId, fails: bool) {
        self.sinks.root_well_since.insert(root, self.clock.t);
        match fails {
            true => self.sinks.failing.insert(root),
            false => self.sinks.failing.remove(&root),
        };
    }

    /// Nothing that a lane does comes back, or everything does again.
    pub fn set_lane_hangs(&mut self, lane: LaneId, hangs: bool) {
        if hangs {
            self.sinks.lane(lane).hangs = true;
            return;
        }
        let mut heard = std::mem::take(&mut self.heard);
        self.parts().1.move_lane(lane, &mut heard);
        self.heard = heard;
    }

    pub fn set_store_fault(&mut self, fault: Option<StoreFault>) {
        self.store.fault = fault;
        match fault {
            Some(_) => _ = self.store.failed_at.get_or_insert(self.clock.t),
            None => self.parts().1.begin_commit(),
        }
        // What could not be read is tried again, as a root is that fails.
        let roots: Vec<RootId> = self.sinks.sets.values().flatten().map(|outlet| outlet.root).collect();
        self.sinks.root_well_since.extend(roots.into_iter().map(|root| (root, self.clock.t)));
    }

    /// The process is killed, and another one starts: without a config so far. What was under way is lost, and so is what was
    /// not committed. What was remembered it knows, if it can read that, but for what is `void`.
    pub fn restart(&mut self, void: &[SavedKey]) {
        let is_readable = self.store.is_readable();
        self.invariants.statistics.lost_writes += self.store.crash(self.clock.t) as u64;
        self.invariants.statistics.restarts += 1;
        self.invariants.crash(is_readable);
        self.sinks.crash();
        self.queue = EventQueue::new(self.clock.t);
        self.capacity = self.idle.clone();
        (self.heard, self.plan, self.wake) = (Vec::new(), VecDeque::new(), None);
        (self.seen.calls, self.seen.attempts, self.seen.notices) = Default::default();
        self.engine = Engine::new(self.now(), self.seed, self.total);
        if is_readable {
            self.invariants.read_after_restart(self.clock, &self.store.saved);
            self.recall(void);
        }
        let sets = self.sinks.sets.iter().map(|(id, outlets)| (*id, outlets.clone().into()));
        self.plan.extend(sets.map(|(id, sinks)| Change::SinkSet { id, sinks }));
        self.publications_were_hindered();
    }

    /// Reads what is remembered, and drops what is `void` of it.
    pub fn recall(&mut self, void: &[SavedKey]) {
        let mut saved = self.store.saved.clone();
        for subject in void {
            saved.remove(subject);
            if let SavedKey::Ban(origin) = subject {
                self.invariants.forget_ban(*origin);
            }
            self.parts().1.write(Write::Remember(subject.clone(), None));
        }
        self.heard.push(Event::Restored(saved.into_iter().collect()));
    }

    /// The state turns out to hold tokens of these tenants.
    pub fn find(&mut self, tenants: &[TenantNo], freshness: Freshness) {
        let mut found = Vec::new();
        for &no in tenants {
            let Some(token) = &mut self.store.tokens[no] else { continue };
            token.published_since = self.clock.t;
            found.push((self.names.id(no), token.record));
            self.invariants.tenants[no].restored = true;
        }
        self.heard.push(Event::TokensFound(found, freshness));
    }

    /// Drops what the state holds of a tenant that is not in the config.
    pub fn forget(&mut self, no: TenantNo) {
        let id = self.names.id(no);
        self.parts().1.write(Write::Forget(no, id));
    }

    /// Whether something waits to be applied or committed.
    pub fn is_settled(&self) -> bool {
        self.plan.is_empty() && self.heard.is_empty() && self.store.is_idle()
    }

    /// Nothing of an app that left is known any more to anybody.
    pub fn check_app_is_gone(&mut self, name: &AppName) {
        let summary = self.engine.summary(self.now());
        assert!(summary.apps.iter().all(|app| app.name != *name), "{name} left, and the engine has it");
        let saved = self.store.saved.keys().find(|subject| subject.app() == Some(name));
        assert!(saved.is_none(), "{name} left, and {saved:?} is remembered");
        let app = self.names.app(name);
        let token = self.store.tokens.iter().find(|(no, token)| usize::from(no.app) == app && token.is_some());
        assert!(token.is_none(), "{name} left, and a token is in the state: {token:?}");
    }

    /// All places that hold something.
    pub fn places(&self) -> BTreeMap<Place, Content> {
        self.sinks.places(&self.names)
    }

    /// What a tenant's place below a root holds.
    pub fn shows(&mut self, root: RootId, id: &TenantId) -> Option<Content> {
        let no = self.names.number(id);
        self.sinks.content(root, no).copied()
    }

    /// The state holds this token, from another process.
    pub fn store_token(&mut self, id: &TenantId, record: Record) {
        let no = self.names.number(id);
        self.store.tokens[no] = Some(self.as_stored(no, record));
    }

    fn as_stored(&self, no: TenantNo, record: Record) -> Stored {
        let (from, until) = (record.requested_at.since(self.now().wall), record.expires_at.since(self.now().wall));
        let (from, until) = (self.clock.t + from, self.clock.t + until);
        Stored { seq: None, record, from, until, life: self.invariants.tenants[no].life, published_since: self.clock.t }
    }

    /// The token that the state holds of a tenant.
    pub fn stored(&mut self, id: &TenantId) -> Option<Record> {
        let no = self.names.number(id);
        self.store.tokens[no].map(|token| token.record)
    }

    /// Somebody deletes what was published here; the watcher knows by which ticket it was.
    pub fn tamper(&mut self, slot: Slot, sink: SinkId) {
        let (Some(id), Some(sinks)) = (self.engine.id(slot), self.engine.sinks(slot)) else { return };
        let Some(outlet) = self.sinks.sets[&sinks].get(usize::from(sink.0)).copied() else { return };
        let no = self.names.number(&id);
        if let Some(content) = self.sinks.set_content(outlet.root, no, None) {
            self.tell(Event::Drifted(Ticket { slot, ..content.ticket }, sink));
        }
    }
}
