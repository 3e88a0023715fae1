//! A model of the daemon around the engine: clock, endpoint, store, lanes. It is driven by events and by `wake_at` alone, as
//! the daemon is, so work that the engine forgets is never done here either.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use corptokend::domain::*;
use corptokend::engine::{Action, Engine, Event, Notice, Room, WithdrawId};

use crate::invariants::Invariants;

/// What a call brings, and how long it takes in milliseconds.
pub(crate) type Reply = (u64, Result<Grant, Failure>);
/// What an attempt at a place brings, and how long it takes in milliseconds.
pub(crate) type Attempt = (u64, Result<Wrote, SinkFailure>);

type Endpoint = Box<dyn FnMut(Now, &TenantId) -> Reply>;
type Disk = Box<dyn FnMut(Now, RootId, &Place) -> Attempt>;

/// What a place holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Content {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) expires: WallMs,
    ticket: Ticket,
}

#[derive(Debug)]
enum Job {
    Publish { ticket: Ticket, sink: SinkId, place: Place, content: Option<Content> },
    Withdraw(WithdrawId, Place),
}

#[derive(Debug)]
enum Completion {
    Answer(Ticket, Result<Grant, Failure>),
    Done(LaneId, Job, Result<Wrote, SinkFailure>),
    Stored,
}

#[derive(Debug)]
enum StoreOp {
    Keep(Ticket, TenantId, Record),
    Forget(TenantId),
    Amend(Vec<(TenantId, Record)>),
    Remember(Subject, Option<Memory>),
}

pub(crate) struct Daemon {
    pub(crate) engine: Engine,
    pub(crate) now: Now,
    pub(crate) invariants: Invariants,
    pub(crate) endpoint: Endpoint,
    pub(crate) disk: Disk,
    /// How long a commit takes, in milliseconds.
    pub(crate) commit_ms: u64,
    /// How much fits at once.
    pub(crate) room: Room,
    pub(crate) sets: BTreeMap<SinkSetId, Vec<Outlet>>,
    pub(crate) places: BTreeMap<Place, Content>,
    /// Places that were to be emptied, and belong to nobody.
    pub(crate) withdrawn: BTreeSet<Place>,
    /// Every call, every attempt at a place and every notice, with its moment.
    pub(crate) calls: Vec<(u64, TenantId)>,
    pub(crate) attempts: Vec<(u64, Place)>,
    pub(crate) notices: Vec<(u64, Notice)>,
    /// What the store holds, and by which call, where this process made it.
    pub(crate) stored: BTreeMap<TenantId, (Option<Ticket>, Record)>,
    /// What it remembers besides.
    pub(crate) remembered: BTreeMap<Subject, Memory>,
    store: VecDeque<StoreOp>,
    /// How many of them are being committed; what comes meanwhile waits for the next commit.
    committing: usize,
    /// Tokens that are held in memory.
    pub(crate) parked: BTreeSet<Ticket>,
    queue: BTreeMap<(BootMs, u64), Completion>,
    entries: u64,
    /// When each lane has done what it was given; a lane works in order.
    busy_until: BTreeMap<LaneId, BootMs>,
    pub(crate) wakes: u64,
    pub(crate) actions: u64,
}

pub(crate) fn sink_set(number: u32, outlets: &[Outlet]) -> Change {
    Change::SinkSet { id: SinkSetId(number), outlets: outlets.into() }
}

/// The place of a tenant's sink: its root's number stands for the path.
pub(crate) fn place(outlet: &Outlet, id: &TenantId) -> Place {
    Place::File(format!("/{}/{id}", outlet.root.0).into())
}

impl Daemon {
    pub(crate) fn new(boot_ms: u64, total: Rate) -> Self {
        let now = Now { boot: BootMs(boot_ms), wall: WallMs(1_700_000_000_000) };
        Self {
            engine: Engine::new(now, 7, total),
            now,
            invariants: Invariants::new(now.boot.0, total),
            endpoint: Box::new(|_, _| (20, Err(Failure::new(FailureKind::Timeout, "no endpoint")))),
            disk: Box::new(|_, _, _| (1, Ok(Wrote::Replaced))),
            commit_ms: 50,
            room: Room { calls: 64, calls_most: 64, lanes: vec![8; 4] },
            sets: BTreeMap::new(),
            places: BTreeMap::new(),
            withdrawn: BTreeSet::new(),
            calls: Vec::new(),
            attempts: Vec::new(),
            notices: Vec::new(),
            stored: BTreeMap::new(),
            remembered: BTreeMap::new(),
            store: VecDeque::new(),
            committing: 0,
            parked: BTreeSet::new(),
            queue: BTreeMap::new(),
            entries: 0,
            busy_until: BTreeMap::new(),
            wakes: 0,
            actions: 0,
        }
    }

    /// Lets the engine know, and does what it asks for.
    pub(crate) fn tell(&mut self, event: Event) {
        self.engine.handle(self.now, event);
        self.turn();
    }

    pub(crate) fn change(&mut self, change: Change) {
        self.invariants.changed(self.now, &change);
        if let Change::SinkSet { id, outlets } = &change {
            self.sets.insert(*id, outlets.to_vec());
        }
        let owned = match &change {
            Change::Added { id, sinks, .. } | Change::Resinked { id, sinks, .. } => self.places_of(*sinks, id),
            _ => Vec::new(),
        };
        if let Change::Removed { withdraw, .. } | Change::Resinked { withdraw, .. } = &change {
            self.withdrawn.extend(withdraw.iter().map(|(_, _, place)| place.clone()));
        }
        owned.iter().for_each(|place| _ = self.withdrawn.remove(place));
        self.engine.handle(self.now, Event::Reclaimed(owned));
        self.tell(Event::Change(change));
    }

    pub(crate) fn places_of(&self, sinks: SinkSetId, id: &TenantId) -> Vec<Place> {
        self.sets[&sinks].iter().map(|outlet| place(outlet, id)).collect()
    }

    /// Does everything that there is to do at this moment.
    pub(crate) fn turn(&mut self) {
        while let Some(action) = self.engine.poll(self.now, &self.room) {
            self.actions += 1;
            self.act(action);
        }
        let wake = self.engine.wake_at(self.now);
        assert!(wake.is_none_or(|at| at > self.now.boot), "spins: would wake at {wake:?} at {:?}", self.now.boot);
    }

    /// Lives on until `ms` from now.
    pub(crate) fn run_ms(&mut self, ms: u64) {
        let until = self.now.boot + ms;
        self.turn();
        loop {
            let event = self.queue.first_key_value().map(|((at, _), _)| *at);
            let wake = self.engine.wake_at(self.now);
            let Some(next) = [event, wake].into_iter().flatten().min().filter(|at| *at <= until) else { break };
            self.wakes += 1;
            self.pass(next.since(self.now.boot));
            while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now.boot) {
                let completion = entry.remove();
                self.happen(completion);
            }
            self.turn();
        }
        self.pass(until.since(self.now.boot));
        self.turn();
    }

    /// Time passes, and nothing is done in it: as in a suspend.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.now = Now { boot: self.now.boot + ms, wall: self.now.wall + ms };
    }

    /// The wall clock is set, forwards or backwards.
    pub(crate) fn step_clock(&mut self, ms: i64) {
        self.now.wall = WallMs(self.now.wall.0.saturating_add_signed(ms));
        self.invariants.clock_stepped();
        self.tell(Event::ClockStepped);
    }

    fn later(&mut self, at: BootMs, completion: Completion) {
        self.entries += 1;
        self.queue.insert((at, self.entries), completion);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Call(ticket) => {
                let id = self.engine.id(ticket.slot).expect("a call is for a tenant");
                self.room.calls -= 1;
                self.invariants.call(self.now, &self.engine, ticket, &id);
                self.calls.push((self.now.boot.0, id.clone()));
                let (after, outcome) = (self.endpoint)(self.now, &id);
                self.later(self.now.boot + after, Completion::Answer(ticket, outcome));
            }
            Action::Keep { ticket, id, record } => {
                assert!(self.parked.contains(&ticket), "kept without an answer");
                self.invariants.keep(self.now, ticket, &id, record);
                self.write(StoreOp::Keep(ticket, id, record));
            }
            Action::Forget(id) => self.write(StoreOp::Forget(id)),
            Action::Amend(records) => self.write(StoreOp::Amend(records)),
            Action::Remember(subject, memory) => self.write(StoreOp::Remember(subject, memory.map(|memory| *memory))),
            Action::Discard(ticket) => assert!(self.parked.remove(&ticket), "discarded what nobody has"),
            Action::Release(ticket) => _ = self.parked.remove(&ticket),
            Action::Publish(ticket, sink) => self.publish(ticket, sink, true),
            Action::Expire(ticket, sink) => self.publish(ticket, sink, false),
            Action::Withdraw { id, lane, root, place } => self.employ(root, lane, Job::Withdraw(id, place)),
            Action::Say(notice) => self.notices.push((self.now.boot.0, notice)),
        }
    }

    fn publish(&mut self, ticket: Ticket, sink: SinkId, token: bool) {
        let id = self.engine.id(ticket.slot).expect("a publication is a tenant's");
        let row = self.engine.row(self.now, ticket.slot);
        let outlet = self.sets[&self.engine.sinks(ticket.slot).expect("it has sinks")][usize::from(sink.0)];
        let (by, record) = self.stored.get(&id).unwrap_or_else(|| panic!("{id}: published what is not committed"));
        assert!(by.is_none_or(|by| by == ticket), "{id}: published {ticket:?}, committed {by:?}");
        assert_eq!(Some(record.fingerprint), row.fingerprint, "{id}: published what is not committed");
        let expires = self.engine.record(ticket.slot).expect("a token expires").expires;
        let content = token.then_some(Content { fingerprint: record.fingerprint, expires, ticket });
        self.employ(outlet.root, outlet.lane, Job::Publish { ticket, sink, place: place(&outlet, &id), content });
    }

    fn employ(&mut self, root: RootId, lane: LaneId, job: Job) {
        let free = &mut self.room.lanes[usize::from(lane.0)];
        *free = free.checked_sub(1).expect("a lane is given what it has room for");
        let (Job::Publish { place, .. } | Job::Withdraw(_, place)) = &job;
        self.attempts.push((self.now.boot.0, place.clone()));
        let (takes, outcome) = (self.disk)(self.now, root, place);
        let done = self.busy_until.get(&lane).copied().unwrap_or_default().max(self.now.boot) + takes;
        self.busy_until.insert(lane, done);
        self.later(done, Completion::Done(lane, job, outcome));
    }

    fn write(&mut self, op: StoreOp) {
        self.store.push_back(op);
        if self.committing == 0 {
            self.commit();
        }
    }

    fn commit(&mut self) {
        self.committing = self.store.len();
        if self.committing > 0 {
            self.later(self.now.boot + self.commit_ms, Completion::Stored);
        }
    }

    fn happen(&mut self, completion: Completion) {
        match completion {
            Completion::Answer(ticket, outcome) => {
                self.room.calls += 1;
                if outcome.is_ok() {
                    self.parked.insert(ticket);
                }
                self.invariants.answered(ticket);
                self.tell(Event::Called(ticket, outcome));
            }
            Completion::Stored => {
                let batch: Vec<StoreOp> = self.store.drain(..self.committing).collect();
                for op in batch {
                    self.stored(op);
                }
                self.commit();
            }
            Completion::Done(lane, job, outcome) => {
                self.room.lanes[usize::from(lane.0)] += 1;
                self.done(job, outcome);
            }
        }
    }

    fn stored(&mut self, op: StoreOp) {
        match op {
            StoreOp::Forget(id) => {
                self.stored.remove(&id);
                self.remembered.remove(&Subject::Tenant(id));
            }
            StoreOp::Keep(ticket, id, record) => {
                self.stored.insert(id, (Some(ticket), record));
                self.engine.handle(self.now, Event::Kept(ticket));
            }
            StoreOp::Amend(records) => {
                for (id, record) in records {
                    if let Some((_, old)) =
                        self.stored.get_mut(&id).filter(|(_, old)| old.fingerprint == record.fingerprint)
                    {
                        *old = record;
                    }
                }
            }
            StoreOp::Remember(subject, Some(memory)) => _ = self.remembered.insert(subject, memory),
            StoreOp::Remember(subject, None) => _ = self.remembered.remove(&subject),
        }
    }

    /// The process is killed, and another one starts on what was committed. The endpoint and the disk stay as they are.
    pub(crate) fn restart(self, total: Rate) -> Self {
        let Self { now, endpoint, disk, stored, remembered, sets, places, .. } = self;
        let stored = stored.into_iter().map(|(id, (_, record))| (id, (None, record))).collect();
        let mut next = Self { now, endpoint, disk, stored, remembered, places, ..Self::new(now.boot.0, total) };
        next.engine = Engine::new(now, 7, total);
        next.tell(Event::Recalled(next.remembered.clone().into_iter().collect()));
        sets.into_iter().for_each(|(id, outlets)| next.change(Change::SinkSet { id, outlets: outlets.into() }));
        next
    }

    fn done(&mut self, job: Job, outcome: Result<Wrote, SinkFailure>) {
        let (Job::Publish { place, .. } | Job::Withdraw(_, place)) = &job;
        let content = if let Job::Publish { content, .. } = &job { *content } else { None };
        match content {
            _ if outcome.is_err() => {}
            Some(content) => _ = self.places.insert(place.clone(), content),
            None => _ = self.places.remove(place),
        }
        self.tell(match job {
            Job::Publish { ticket, sink, .. } => Event::Published(ticket, sink, outcome),
            Job::Withdraw(id, _) => Event::Withdrawn(id, outcome.map(|_| ())),
        });
    }

    /// Somebody deletes what was published here; the watcher knows by which ticket it was.
    pub(crate) fn tamper(&mut self, slot: Slot, sink: SinkId) {
        let (Some(id), Some(sinks)) = (self.engine.id(slot), self.engine.sinks(slot)) else { return };
        let Some(place) = self.places_of(sinks, &id).get(usize::from(sink.0)).cloned() else { return };
        if let Some(content) = self.places.remove(&place) {
            self.tell(Event::Touched(Ticket { slot, ..content.ticket }, sink));
        }
    }
}

/// Roots are spread over four lanes.
pub(crate) fn lane_of(root: RootId) -> LaneId {
    LaneId((root.0 % 4) as u16)
}
