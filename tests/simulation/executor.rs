//! The daemon's hands, in the model: calls go to the modelled endpoint, tokens to a modelled database and modelled sinks, and
//! each is held against what was promised.

use std::collections::{BTreeMap, BTreeSet};

use corptokend::daemon::turn::Hands;
use corptokend::domain::*;
use corptokend::engine::{Action, Engine, Event, Notice, Room, WithdrawId};

use crate::availability::Excuses;
use crate::endpoint::{Endpoint, Habit, Reply};
use crate::event_queue::EventQueue;
use crate::fault_plan::StateTrouble;
use crate::rate_window::Window;
use crate::saved_state::{Memories, Silence};
use crate::statistics::Statistics;
use crate::tenant::{Kept, ROOTS, Tenant};

/// A commit that hangs is not waited for after so long, in milliseconds.
pub(crate) const HANGS_AFTER_MS: u64 = 4_000;

/// What comes back to the daemon later.
pub(crate) enum Completion {
    Answer {
        ticket: Ticket,
        tenant: u32,
        life: u16,
        reply: Reply,
        until: u64,
    },
    Committed,
    Published {
        ticket: Ticket,
        sink: SinkId,
        root: RootId,
        tenant: u32,
        token: u32,
    },
    /// The token that was to be published could not be read.
    Unread {
        ticket: Ticket,
        sink: SinkId,
        root: RootId,
    },
    Withdrawn {
        id: WithdrawId,
        root: RootId,
        tenant: u32,
    },
}

/// An answer that the engine has yet to judge.
#[derive(Clone, Copy)]
struct Parked {
    ticket: Ticket,
    tenant: u32,
    /// It was heard in the life of its tenant in which the call was made.
    is_current: bool,
    token: u32,
    from: u64,
    until: u64,
}

pub(crate) enum Write {
    /// `told`: it could not be committed for now, and is published from memory.
    Keep {
        ticket: Ticket,
        tenant: u32,
        kept: Kept,
        told: bool,
    },
    Forget {
        tenant: u32,
    },
    Amend(Vec<(TenantId, Record)>),
    Remember(Subject, Option<Box<Memory>>),
}

pub(crate) struct Executor {
    /// Milliseconds of the simulation; they go on through reboots and suspends.
    pub(crate) t: u64,
    pub(crate) room: Room,
    pub(crate) queue: EventQueue<Completion>,
    pub(crate) endpoint: Endpoint,
    pub(crate) tenants: Vec<Tenant>,
    parked: Vec<Parked>,
    pub(crate) writes: Vec<Write>,
    /// A commit is under way.
    commits: bool,
    /// What is wrong with the state, and since when.
    pub(crate) state: Option<(StateTrouble, u64)>,
    /// When the state failed that has not committed everything since.
    pub(crate) state_failed_at: Option<u64>,
    /// Tokens that are published although they are not committed.
    pub(crate) unwritten: BTreeMap<u32, Kept>,
    /// Answers whose tokens the daemon still has in memory.
    held: BTreeSet<Ticket>,
    pub(crate) memories: Memories,
    /// Answers and publications end on multiples of this, in milliseconds.
    pub(crate) grain: u64,
    pub(crate) commit_ms: u64,
    pub(crate) sets: Vec<Box<[Outlet]>>,
    /// Which sink roots fail.
    pub(crate) failing_roots: [bool; ROOTS],
    pub(crate) total: Window,
    pub(crate) apps: Vec<Window>,
    pub(crate) names: Vec<AppName>,
    /// Which endpoint each app calls, and which of them have banned us.
    pub(crate) endpoints: Vec<u64>,
    pub(crate) banned: BTreeMap<u64, Silence>,
    /// Which apps the config disables.
    pub(crate) disabled: Vec<bool>,
    /// By how much the calls for each app's tenants came later than their latest refresh points at worst, in milliseconds.
    pub(crate) latest: Vec<u64>,
    pub(crate) excuses: Excuses,
    pub(crate) statistics: Statistics,
    /// A tenant whose calls and answers are shown.
    pub(crate) watched: Option<u32>,
}

impl Executor {
    pub(crate) fn new(endpoint: Endpoint, total: Rate, apps: Vec<(AppName, Rate)>, sets: Vec<Box<[Outlet]>>) -> Self {
        let names = apps.len();
        Self {
            t: 0,
            room: Room { calls: 64, calls_most: 64, lanes: vec![64; 2] },
            queue: EventQueue::new(0),
            endpoint,
            tenants: Vec::new(),
            parked: Vec::new(),
            writes: Vec::new(),
            commits: false,
            state: None,
            state_failed_at: None,
            unwritten: BTreeMap::new(),
            held: BTreeSet::new(),
            memories: Memories::default(),
            grain: 1,
            commit_ms: 50,
            sets,
            failing_roots: [false; ROOTS],
            total: Window::new(total),
            apps: apps.iter().map(|(_, rate)| Window::new(*rate)).collect(),
            names: apps.into_iter().map(|(name, _)| name).collect(),
            latest: vec![0; names],
            disabled: vec![false; names],
            endpoints: Vec::new(),
            banned: BTreeMap::new(),
            excuses: Excuses::default(),
            statistics: Statistics::default(),
            watched: None,
        }
    }

    pub(crate) fn id(&self, tenant: u32) -> TenantId {
        let app = self.names[self.tenants[tenant as usize].app as usize].clone();
        TenantId { app, corp_id: CorpId::new(&format!("c{tenant}")).expect("a corp_id") }
    }

    /// The places of a tenant in a set of sinks. The last part of the path says which tenant.
    pub(crate) fn places(&self, tenant: u32, set: u8) -> Vec<(LaneId, RootId, Place)> {
        let place =
            |outlet: &Outlet| (outlet.lane, outlet.root, Place::File(format!("/{}/{tenant}", outlet.root.0).into()));
        self.sets[usize::from(set)].iter().map(place).collect()
    }

    /// The process ended: what was under way is lost, and so is what was not committed.
    pub(crate) fn crash(&mut self) {
        self.queue = EventQueue::new(self.t);
        self.parked.clear();
        self.statistics.lost_writes += self.writes.len() as u64;
        self.writes.clear();
        self.commits = false;
        self.unwritten.clear();
        self.state_failed_at = self.state.map(|_| self.t);
        self.held.clear();
        self.room = Room { calls: 64, calls_most: 64, lanes: vec![64; self.room.lanes.len()] };
        self.banned.values_mut().for_each(Silence::crash);
        self.tenants.iter_mut().for_each(Tenant::crash);
    }

    /// A step of a plan takes effect.
    pub(crate) fn enact(&mut self, change: &Change) {
        self.statistics.changes += 1;
        match change {
            Change::Added { id, .. } => {
                let tenant = &mut self.tenants[number_of(id) as usize];
                tenant.present = true;
                tenant.added = self.t;
            }
            Change::Removed { id, .. } => {
                let tenant = &mut self.tenants[number_of(id) as usize];
                tenant.present = false;
                tenant.lives += 1;
                tenant.forget_calls();
            }
            Change::Resinked { id, sinks, .. } => self.tenants[number_of(id) as usize].set = sinks.0 as u8,
            Change::App { .. } | Change::SinkSet { .. } | Change::AppGone { .. } => {}
        }
    }

    fn later(&mut self, after: u64, completion: Completion) {
        let at = (self.t + after.max(1)).next_multiple_of(self.grain);
        self.queue.add(at, completion);
    }

    /// What a completion is to the engine.
    pub(crate) fn happen(&mut self, completion: Completion, events: &mut Vec<Event>) {
        match completion {
            Completion::Answer { ticket, tenant, life, reply, until } => {
                self.room.calls += 1;
                events.push(Event::Called(ticket, self.answered(ticket, tenant, life, reply, until)));
            }
            Completion::Committed => self.committed(events),
            Completion::Published { ticket, sink, root, tenant, token } => {
                let outcome = self.put(root, tenant, token).map(|()| Wrote::Replaced);
                events.push(Event::Published(ticket, sink, outcome));
            }
            Completion::Unread { ticket, sink, root } => {
                self.room.lanes[lane_of(root)] += 1;
                self.statistics.sink_failures += 1;
                let failure = SinkFailure { kind: SinkFailureKind::State, detail: "the state cannot be read".into() };
                events.push(Event::Published(ticket, sink, Err(failure)));
            }
            Completion::Withdrawn { id, root, tenant } => {
                events.push(Event::Withdrawn(id, self.put(root, tenant, 0)));
            }
        }
    }

    fn answered(&mut self, ticket: Ticket, number: u32, life: u16, reply: Reply, until: u64) -> Result<Grant, Failure> {
        let now = self.t;
        if self.watched == Some(number) {
            println!("  at {now}: answered {ticket:?} {reply:?}, valid until {until}");
        }
        let tenant = &mut self.tenants[number as usize];
        let ours = tenant.lives == life;
        if ours {
            tenant.in_flight = false;
        }
        match reply {
            Reply::Granted { lifetime_s, token } => {
                let from = until.saturating_sub(u64::from(lifetime_s) * 1000);
                self.parked.push(Parked { ticket, tenant: number, is_current: ours, token, from, until });
                if ours {
                    tenant.failures = 0;
                }
                Ok(Grant { lifetime_s, fingerprint: Fingerprint(token.into()) })
            }
            Reply::Refused(kind) => {
                self.statistics.failures += 1;
                if ours {
                    // The call itself, and the longest backoff that may follow it.
                    let backoff = (1_000_u64 << tenant.failures.min(9)).min(300_000);
                    let called = if tenant.called == 0 { now } else { tenant.called };
                    tenant.hindered += now - called + backoff;
                    tenant.failures += 1;
                }
                self.promise_silence(
                    kind,
                    usize::from(self.tenants[number as usize].app),
                    Some(number).filter(|_| ours),
                );
                Err(Failure::new(kind, "as the seed would have it"))
            }
        }
    }

    fn committed(&mut self, events: &mut Vec<Event>) {
        self.commits = false;
        if self.state.is_some() {
            return self.let_go(events);
        }
        let mut writes = std::mem::take(&mut self.writes);
        for write in writes.drain(..) {
            match write {
                Write::Forget { tenant } => {
                    self.tenants[tenant as usize].kept = None;
                    self.memories.forget(self.id(tenant));
                }
                Write::Amend(records) => self.amended(records),
                Write::Remember(subject, memory) => self.remembered(subject, memory.map(|memory| *memory)),
                Write::Keep { ticket, tenant, kept, told } => {
                    if !told {
                        self.judge_gap(tenant, &kept);
                        events.push(Event::Kept(ticket));
                    }
                    if self.unwritten.get(&tenant).is_some_and(|newest| newest.seq == kept.seq) {
                        self.unwritten.remove(&tenant);
                    }
                    self.tenants[tenant as usize].kept = Some(kept);
                    self.tenants[tenant as usize].repeats.commit();
                }
            }
        }
        self.writes = writes;
        self.state_failed_at = None;
    }

    /// Nothing can be committed: tokens are published from memory, and the engine hears of each once.
    fn let_go(&mut self, events: &mut Vec<Event>) {
        let mut writes = std::mem::take(&mut self.writes);
        for write in &mut writes {
            if let Write::Keep { ticket, tenant, kept, told } = write
                && !std::mem::replace(told, true)
            {
                self.judge_gap(*tenant, kept);
                self.unwritten.insert(*tenant, *kept);
                self.statistics.unwritten += 1;
                events.push(Event::Kept(*ticket));
            }
        }
        self.writes = writes;
    }

    /// The state is as it should be again.
    pub(crate) fn state_is_well(&mut self) {
        self.state = None;
        self.commit_soon();
    }

    fn write(&mut self, write: Write) {
        self.writes.push(write);
        self.commit_soon();
    }

    fn commit_soon(&mut self) {
        if !self.commits && !self.writes.is_empty() {
            self.commits = true;
            let hangs = self.state.is_some_and(|(how, _)| how == StateTrouble::Hangs);
            self.later(if hangs { HANGS_AFTER_MS } else { self.commit_ms }, Completion::Committed);
        }
    }

    /// A lane comes to a place: it shows this token from here on (0: none), unless its root fails.
    fn put(&mut self, root: RootId, tenant: u32, token: u32) -> Result<(), SinkFailure> {
        self.room.lanes[lane_of(root)] += 1;
        if self.failing_roots[root.0 as usize] {
            self.statistics.sink_failures += 1;
            return Err(SinkFailure { kind: SinkFailureKind::Full, detail: "no space left".into() });
        }
        self.tenants[tenant as usize].shown[root.0 as usize] = token;
        Ok(())
    }

    fn call(&mut self, engine: &Engine, ticket: Ticket) {
        let (now, number) = (self.t, tenant_in(engine, ticket.slot));
        if self.watched == Some(number) {
            println!("  at {now}: {:?}", (ticket, self.tenants[number as usize].kept));
        }
        self.room.calls -= 1;
        self.statistics.calls += 1;
        let tenant = &mut self.tenants[number as usize];
        let app = usize::from(tenant.app);
        assert!(tenant.present, "tenant {number} is called although it left");
        assert!(!tenant.in_flight, "tenant {number} is called twice at once");
        assert!(tenant.called == 0 || now >= tenant.called + 1000, "tenant {number} is called in a hot loop");
        let banned = self.banned.get(&self.endpoints[app]).is_some_and(|banned| banned.holds(now));
        assert!(!self.disabled[app], "tenant {number} is called although its app is disabled");
        assert!(!banned, "tenant {number} is called during a ban");
        assert!(!tenant.refused.holds(now), "tenant {number} is called although it was refused: {:?}", tenant.refused);
        let crowd = self.apps[app].count(now).or_else(|| self.total.count(now));
        assert!(crowd.is_none(), "app {app}: {crowd:?} calls in a period that allows fewer, at {now}");
        if tenant.called > 0 && tenant.failures == 0 && tenant.kept.is_some() {
            let due = tenant.called + u64::from(self.endpoint.apps[app].lifetime_s) * 750;
            self.latest[app] = self.latest[app].max(now.saturating_sub(due));
        }
        (tenant.in_flight, tenant.called) = (true, now);
        let (after, reply) = self.endpoint.call(now, app, tenant.refuses, &mut tenant.issued);
        let (life, until) = (tenant.lives, tenant.issued.until);
        self.later(after, Completion::Answer { ticket, tenant: number, life, reply, until });
    }

    /// The engine's verdict on the answer of this ticket.
    fn verdict(&mut self, ticket: Ticket) -> Parked {
        let found = self.parked.iter().position(|parked| parked.ticket == ticket);
        let found = found.unwrap_or_else(|| panic!("{ticket:?} is judged and was not answered, or was judged before"));
        self.parked.swap_remove(found)
    }

    fn keep(&mut self, ticket: Ticket, id: &TenantId, record: Record) {
        let answer = self.verdict(ticket);
        assert_eq!(number_of(id), answer.tenant, "an answer is kept for another tenant");
        assert!(answer.is_current, "{id}: a late answer is kept, from before it left");
        self.count_repeat(&answer);
        self.statistics.refreshes += 1;
        let Parked { token, from, until, .. } = answer;
        let kept = Kept { token, seq: Some(ticket.seq), record, from, until };
        self.held.insert(ticket);
        self.write(Write::Keep { ticket, tenant: answer.tenant, kept, told: false });
    }

    fn discard(&mut self, ticket: Ticket) {
        let answer = self.verdict(ticket);
        let tenant = &self.tenants[answer.tenant as usize];
        if tenant.present && answer.is_current {
            self.count_repeat(&answer);
        }
        self.statistics.discarded += 1;
    }

    /// An endpoint that answers with the same token and its remaining life must not be asked ever faster.
    fn count_repeat(&mut self, answer: &Parked) {
        let tenant = &mut self.tenants[answer.tenant as usize];
        let calls = tenant.repeats.count(answer.token);
        tenant.restored = false;
        if self.endpoint.apps[usize::from(tenant.app)].habit == Habit::RemainingLife {
            assert!(calls <= 3, "tenant {}: {calls} calls in one life of a token that does not extend", answer.tenant);
            self.statistics.most_calls_a_life = self.statistics.most_calls_a_life.max(calls);
        }
    }

    /// Every answer has been judged by the end of the turn that heard of it.
    pub(crate) fn check_verdicts(&self) {
        assert!(self.parked.is_empty(), "an answer was neither kept nor discarded: {:?}", self.parked[0].ticket);
    }

    /// Whether a token would be lost if the process ended now.
    pub(crate) fn has_uncommitted(&self) -> bool {
        self.writes.iter().any(|write| matches!(write, Write::Keep { .. }))
    }

    fn publish(&mut self, engine: &Engine, ticket: Ticket, sink: SinkId, valid: bool) {
        let number = tenant_in(engine, ticket.slot);
        let tenant = &mut self.tenants[number as usize];
        let kept = self.unwritten.get_mut(&number).or(tenant.kept.as_mut());
        let kept = kept.unwrap_or_else(|| panic!("tenant {number}: published, and not committed"));
        let seq = *kept.seq.get_or_insert(ticket.seq);
        assert_eq!(seq, ticket.seq, "tenant {number}: another token is published than was committed");
        let token = if valid { kept.token } else { 0 };
        let root = self.sets[usize::from(tenant.set)][usize::from(sink.0)].root;
        self.take_room(root);
        let is_unreadable = self.state.is_some_and(|(how, _)| how == StateTrouble::Unreadable);
        let in_memory = self.unwritten.contains_key(&number) || self.held.contains(&ticket);
        if is_unreadable && valid && !in_memory {
            self.later(2, Completion::Unread { ticket, sink, root });
            return;
        }
        self.statistics.publications += 1;
        self.later(2, Completion::Published { ticket, sink, root, tenant: number, token });
    }

    fn withdraw(&mut self, id: WithdrawId, root: RootId, place: &Place) {
        let text = place.to_string();
        let tenant = text.rsplit('/').next().and_then(|part| part.parse().ok()).expect("a place of the simulation");
        self.take_room(root);
        self.later(2, Completion::Withdrawn { id, root, tenant });
    }

    fn take_room(&mut self, root: RootId) {
        let free = &mut self.room.lanes[lane_of(root)];
        *free = free.checked_sub(1).expect("a lane gets what it has room for");
    }
}

impl Hands for Executor {
    fn room(&self) -> &Room {
        &self.room
    }

    fn perform(&mut self, engine: &Engine, _: Now, action: Action) {
        match action {
            Action::Call(ticket) => self.call(engine, ticket),
            Action::Keep { ticket, id, record } => self.keep(ticket, &id, record),
            Action::Discard(ticket) => self.discard(ticket),
            Action::Publish(ticket, sink) => self.publish(engine, ticket, sink, true),
            Action::Expire(ticket, sink) => self.publish(engine, ticket, sink, false),
            Action::Withdraw { id, root, place, .. } => self.withdraw(id, root, &place),
            Action::Forget(id) => {
                self.unwritten.remove(&number_of(&id));
                self.write(Write::Forget { tenant: number_of(&id) });
            }
            Action::Amend(records) => self.write(Write::Amend(records)),
            Action::Remember(subject, memory) => self.write(Write::Remember(subject, memory)),
            Action::Say(Notice::Expired { .. }) => self.statistics.expiries_said += 1,
            Action::Release(ticket) => _ = self.held.remove(&ticket),
            Action::Say(_) => {}
        }
    }
}

fn tenant_in(engine: &Engine, slot: Slot) -> u32 {
    number_of(&engine.id(slot).expect("an action is about a tenant"))
}

pub(crate) fn number_of(id: &TenantId) -> u32 {
    id.corp_id.as_str()[1..].parse().expect("a corp_id of the simulation")
}

/// Even roots lie on lane 0, odd ones on lane 1.
fn lane_of(root: RootId) -> usize {
    root.0 as usize % 2
}
