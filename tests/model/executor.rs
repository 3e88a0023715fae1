//! Carries out what the engine decides, as the daemon's executor does: calls go to the modelled endpoint, tokens to the
//! modelled state and sinks. What is under way ends later, and is heard as an event.

use std::fmt::Debug;

use corptokend::daemon::turn::Execute;
use corptokend::domain::*;
use corptokend::engine::{Action, Capacity, Event, Expire, Notice, Publish};

use super::clock::Clock;
use super::endpoint::Endpoint;
use super::event_queue::EventQueue;
use super::invariants::Invariants;
use super::sinks::{self, Content, Job, JobKind, Sinks};
use super::store::{Committed, Store, Stored, Uncommitted, Write};
use super::tenants::{Names, TenantNo};

/// A lane that has got nothing done for so long hangs, in milliseconds.
const LANE_HANGS_AFTER_MS: u64 = 10_000;

/// What comes back to the daemon later.
#[derive(Debug)]
pub enum Completion {
    Answer {
        ticket: Ticket,
        no: TenantNo,
        life: u16,
        sent: u64,
        outcome: Result<Grant, Failure>,
    },
    Committed,
    Done(Job),
    /// It is looked whether a lane moves.
    LaneLook(LaneId),
}

impl Completion {
    fn tenant(&self) -> Option<TenantNo> {
        match self {
            Self::Answer { no, .. } | Self::Done(Job { no, .. }) => Some(*no),
            Self::Committed | Self::LaneLook(_) => None,
        }
    }
}

/// What a test may want to see of a run.
#[derive(Default)]
pub struct Seen {
    /// A long run records nothing.
    pub is_recorded: bool,
    /// Every call, every attempt at a place and every notice, with its moment on the boot clock.
    pub calls: Vec<(u64, TenantId)>,
    pub attempts: Vec<(u64, Place)>,
    pub notices: Vec<(u64, Notice)>,
    pub actions: u64,
    /// All that is decided and done for this tenant is printed.
    pub traced: Option<TenantId>,
    /// How often the daemon woke up.
    pub wakes: u64,
}

impl Seen {
    fn trace(&self, clock: Clock, id: Option<&TenantId>, what: &impl Debug) {
        if self.traced.is_some() && self.traced.as_ref() == id {
            println!("    at {}: {what:?}", clock.t);
        }
    }
}

/// The tenant that an action is about.
fn tenant_of(action: &Action) -> Option<&TenantId> {
    match action {
        Action::Call { id, .. } | Action::Commit { id, .. } | Action::DeleteRecord(id) => Some(id),
        Action::Publish(Publish { id, .. }) | Action::Expire(Expire { id, .. }) => Some(id),
        Action::Save(SavedKey::Tenant(id), _) => Some(id),
        _ => None,
    }
}

/// The daemon without its engine.
pub struct Executor<'a> {
    pub clock: Clock,
    pub endpoint: &'a mut Endpoint,
    pub store: &'a mut Store,
    pub sinks: &'a mut Sinks,
    pub names: &'a mut Names,
    pub invariants: &'a mut Invariants,
    pub capacity: &'a mut Capacity,
    pub queue: &'a mut EventQueue<Completion>,
    pub seen: &'a mut Seen,
    /// What is under way ends on multiples of this, in milliseconds.
    pub grain: u64,
}

impl Executor<'_> {
    fn later(&mut self, at: u64, completion: Completion) {
        let at = at.max(self.clock.t + 1).next_multiple_of(self.grain);
        self.queue.add(at, completion);
    }

    fn call(&mut self, ticket: Ticket, id: TenantId) {
        let no = self.names.number(&id);
        self.capacity.calls -= 1;
        self.invariants.note_call(&id);
        let life = self.store.tokens[no].map(|token| token.record.expires_at.since(token.record.requested_at));
        self.invariants.call(self.clock, no, ticket, life);
        let (takes, outcome) = self.endpoint.call(self.clock, no, &id);
        if self.seen.is_recorded {
            self.seen.calls.push((self.clock.now().boot.0, id));
        }
        let (life, sent) = (self.invariants.tenants[no].life, self.clock.t);
        self.later(sent + takes, Completion::Answer { ticket, no, life, sent, outcome });
    }

    fn keep(&mut self, ticket: Ticket, id: &TenantId, record: Record) -> Option<Event> {
        let no = self.names.number(id);
        if !self.invariants.awaits_verdict(ticket) {
            return self.keep_again(ticket, no, record);
        }
        let heard = self.invariants.kept(self.clock, ticket, no, record);
        let life = self.invariants.tenants[no].life;
        let (seq, published_since) = (Some(ticket.seq), u64::MAX);
        let token = Stored { seq, record, from: heard.from, until: heard.until, life, published_since };
        self.write(Write::Keep { ticket, no, token, is_told: false });
        None
    }

    /// The state was begun anew, and takes again what is still in memory.
    fn keep_again(&mut self, ticket: Ticket, no: TenantNo, record: Record) -> Option<Event> {
        let Some(before) = self.store.begun_anew.get(&no).copied() else {
            panic!("{no:?}: {ticket:?} is kept and was not answered, or was kept before");
        };
        if !self.store.in_memory.contains(&ticket) {
            return Some(Event::CommitEnded(ticket));
        }
        self.write(Write::Keep { ticket, no, token: Stored { record, ..before }, is_told: false });
        None
    }

    pub fn write(&mut self, write: Write) {
        self.store.write(write);
        self.begin_commit();
    }

    pub fn begin_commit(&mut self) {
        if let Some(takes) = self.store.begin_commit() {
            self.later(self.clock.t + takes, Completion::Committed);
        }
    }

    fn publish(
        &mut self,
        (ticket, sinks, sink, lane): (Ticket, SinkSetId, SinkId, LaneId),
        id: TenantId,
        content: Option<Content>,
    ) {
        let no = self.names.number(&id);
        let todays = &self.invariants.tenants[no];
        assert_eq!(
            (todays.present, todays.sinks),
            (true, Some(sinks)),
            "{id}: published to sinks that are not its own"
        );
        let policy = self.sinks.policy(sinks, sink);
        assert_eq!(policy.lane, lane, "{id}: sent to a lane that does not serve the sink");
        let is_readable = self.store.is_readable() || self.store.in_memory.contains(&ticket);
        let is_uncommitted = self.store.uncommitted.contains_key(&no);
        let stored = self.store.current(no).unwrap_or_else(|| panic!("{id}: published, and not committed"));
        let seq = *stored.seq.get_or_insert(ticket.seq);
        assert_eq!(seq, ticket.seq, "{id}: another token is published than was committed");
        let fingerprint = content.map_or(stored.record.fingerprint, |content| content.fingerprint);
        assert_eq!(fingerprint, stored.record.fingerprint, "{id}: another token is published than was committed");
        let is_valid = content.is_some();
        let (what, root, outcome) = (JobKind::Publish(ticket, sink), policy.root, Ok(Wrote::Replaced));
        let job = Job { what, lane, root, no, content, outcome };
        if is_valid && !is_readable && !is_uncommitted {
            self.take_capacity(lane);
            let detail = "the state cannot be read".into();
            let outcome = Err(SinkFailure { kind: SinkFailureKind::State, detail });
            return self.later(self.clock.t + 2, Completion::Done(Job { outcome, ..job }));
        }
        self.begin_job(&id, job);
    }

    fn withdraw(&mut self, what: WithdrawalId, lane: LaneId, place: &Place) {
        let (root, id) = sinks::owner(place);
        let no = self.names.number(&id);
        let what = JobKind::Withdraw(what);
        self.begin_job(&id, Job { what, lane, root, no, content: None, outcome: Ok(Wrote::Replaced) });
    }

    fn begin_job(&mut self, id: &TenantId, mut job: Job) {
        self.take_capacity(job.lane);
        if self.seen.is_recorded {
            self.seen.attempts.push((self.clock.now().boot.0, sinks::place(job.root, id)));
        }
        let (ends, outcome) = self.sinks.begin(self.clock, job.lane, job.root, id);
        job.outcome = outcome;
        self.invariants.statistics.publications += 1;
        self.later(ends, Completion::Done(job));
    }

    fn take_capacity(&mut self, lane: LaneId) {
        let free = &mut self.capacity.lanes[usize::from(lane.0)];
        *free = free.checked_sub(1).expect("a lane is given what it has room for");
    }

    /// What was under way ended. Says what the engine hears of it.
    pub fn complete(&mut self, completion: Completion, heard: &mut Vec<Event>) {
        self.seen.trace(self.clock, completion.tenant().map(|no| self.names.id(no)).as_ref(), &completion);
        match completion {
            Completion::Answer { ticket, no, life, sent, outcome } => {
                self.capacity.calls += 1;
                if outcome.is_ok() {
                    self.store.in_memory.insert(ticket);
                }
                self.invariants.answered(self.clock, (ticket, no, life), (sent, &outcome));
                heard.push(Event::Called(ticket, outcome));
            }
            Completion::Committed => self.committed(heard),
            Completion::Done(job) if self.sinks.lane(job.lane).hangs => self.hang(job),
            Completion::Done(job) => self.done(job, heard),
            Completion::LaneLook(lane) => {
                let state = self.sinks.lane(lane);
                if state.hangs && !std::mem::replace(&mut state.is_told, true) {
                    let failure = SinkFailure { kind: SinkFailureKind::Hangs, detail: "it does not come back".into() };
                    heard.push(Event::LaneStalled(lane, failure));
                }
            }
        }
    }

    fn committed(&mut self, heard: &mut Vec<Event>) {
        match self.store.end_commit(self.clock.t) {
            Committed::Written(writes) => writes.into_iter().for_each(|write| self.written(write, heard)),
            Committed::Failed(published) => {
                for Uncommitted { ticket, no, token, before } in published {
                    self.invariants.statistics.unwritten += 1;
                    self.may_publish((ticket, no), token, before, heard);
                }
                return;
            }
        }
        self.begin_commit();
    }

    fn written(&mut self, write: Write, heard: &mut Vec<Event>) {
        match write {
            Write::Forget(no, id) => {
                self.store.tokens[no] = None;
                self.store.saved.remove(&SavedKey::Tenant(id));
            }
            Write::Amend(records) => {
                for (no, record) in records {
                    let token = self.store.tokens[no].as_mut();
                    if let Some(token) = token.filter(|token| token.record.fingerprint == record.fingerprint) {
                        token.record = record;
                    }
                }
            }
            Write::Remember(subject, memory) => {
                self.invariants.committed_memory(self.names, &subject);
                match memory {
                    Some(memory) => _ = self.store.saved.insert(subject, memory),
                    None => _ = self.store.saved.remove(&subject),
                }
            }
            Write::Keep { ticket, no, token, is_told } => {
                let uncommitted = self.store.uncommitted.get(&no).copied();
                let is_newest = uncommitted.is_some_and(|newest| newest.seq == token.seq);
                let before = self.store.tokens[no].replace(token);
                if is_newest {
                    self.store.tokens[no] = self.store.uncommitted.remove(&no);
                }
                self.invariants.committed_token(no);
                if !is_told {
                    self.may_publish((ticket, no), token, uncommitted.or(before), heard);
                }
            }
        }
    }

    /// A token may be published from here on: it is committed, or cannot be for now.
    fn may_publish(
        &mut self,
        (ticket, no): (Ticket, TenantNo),
        token: Stored,
        before: Option<Stored>,
        heard: &mut Vec<Event>,
    ) {
        let (is_excused, state_fails) = (self.endpoint.refuses[no].is_some(), self.store.fault.is_some());
        self.invariants.judge_gap(self.clock, no, (before, &token), is_excused, state_fails);
        if let Some(current) = self.store.current(no).filter(|current| current.seq == token.seq) {
            current.published_since = self.clock.t;
        }
        heard.push(Event::CommitEnded(ticket));
    }

    /// The lane does not move: what it has done is not heard of before it does.
    fn hang(&mut self, job: Job) {
        let id = job.lane;
        let lane = self.sinks.lane(id);
        lane.stuck.push(job);
        if lane.stuck.len() == 1 {
            self.later(self.clock.t + LANE_HANGS_AFTER_MS, Completion::LaneLook(id));
        }
    }

    /// A lane that hung moves again.
    pub fn move_lane(&mut self, id: LaneId, heard: &mut Vec<Event>) {
        let t = self.clock.t;
        self.sinks.lane_well_since.insert(id, t);
        let lane = self.sinks.lane(id);
        lane.hangs = false;
        if std::mem::take(&mut lane.is_told) {
            heard.push(Event::LaneResumed(id));
        }
        for job in std::mem::take(&mut lane.stuck) {
            self.later(t, Completion::Done(job));
        }
    }

    fn done(&mut self, job: Job, heard: &mut Vec<Event>) {
        self.capacity.lanes[usize::from(job.lane.0)] += 1;
        match job.outcome {
            Ok(_) => {
                let before = self.sinks.set_content(job.root, job.no, job.content);
                let current = self.store.current(job.no).copied();
                if let (Some(content), Some(stored)) = (job.content, current)
                    && stored.record.fingerprint == content.fingerprint
                {
                    let place = (job.lane, job.root);
                    self.invariants.judge_publication(self.clock.t, job.no, place, (before, &stored), self.sinks);
                }
            }
            Err(_) => {
                self.invariants.statistics.sink_failures += 1;
                self.sinks.root_well_since.insert(job.root, self.clock.t);
            }
        }
        heard.push(match job.what {
            JobKind::Publish(ticket, sink) => Event::Published(ticket, sink, job.outcome),
            JobKind::Withdraw(id) => Event::Withdrawn(id, job.outcome.map(|_| ())),
        });
    }
}

impl Execute for Executor<'_> {
    fn capacity(&self) -> &Capacity {
        self.capacity
    }

    fn execute(&mut self, now: Now, action: Action) -> Option<Event> {
        self.seen.actions += 1;
        self.seen.trace(self.clock, tenant_of(&action), &action);
        match action {
            Action::Call { ticket, id, .. } => self.call(ticket, id),
            Action::Commit { ticket, id, record } => return self.keep(ticket, &id, record),
            Action::Discard(ticket) => {
                self.invariants.discarded(ticket);
                assert!(self.store.in_memory.remove(&ticket), "{ticket:?} is discarded, and nobody has it");
            }
            Action::Release(ticket) => _ = self.store.in_memory.remove(&ticket),
            Action::Publish(Publish { ticket, id, sinks, sink, lane, fingerprint, expires_at }) => {
                self.publish((ticket, sinks, sink, lane), id, Some(Content { fingerprint, expires_at, ticket }));
            }
            Action::Expire(Expire { ticket, id, sinks, sink, lane }) => {
                self.publish((ticket, sinks, sink, lane), id, None);
            }
            Action::Withdraw { id, lane, place, .. } => self.withdraw(id, lane, &place),
            Action::DeleteRecord(id) => {
                let no = self.names.number(&id);
                self.store.uncommitted.remove(&no);
                self.write(Write::Forget(no, id));
            }
            Action::UpdateRecords(records) => {
                let numbered = records.into_iter().map(|(id, record)| (self.names.number(&id), record)).collect();
                self.write(Write::Amend(numbered));
            }
            Action::Save(subject, memory) => self.write(Write::Remember(subject, memory.map(|memory| *memory))),
            Action::Notify(notice) => {
                self.invariants.statistics.expiries_said += u64::from(matches!(notice, Notice::Expired { .. }));
                if self.seen.is_recorded {
                    self.seen.notices.push((now.boot.0, notice));
                }
            }
        }
        None
    }
}
