//! Carries out what the engine decides: gathers a turn's work for each thread, and hands it over in one piece.

pub(crate) mod calls;
pub(crate) mod credentials;
mod notices;
mod publication_window;
pub(crate) mod running_config;
pub(crate) mod state_monitor;

use std::collections::VecDeque;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use super::sinks::place_conflicts::Contests;
use super::sinks::registry::{Outlets, ReportTo};
use super::turn::Hands;
use crate::api::{self, Answer};
use crate::config::Config;
use crate::domain::{
    BootMs, Grant, LaneId, Names, Now, Outlet, Place, Record, RootId, SavedKey, SavedState, SinkFailure,
    SinkFailureKind, SinkId, TenantId, Ticket, Token, WallMs, Wrote,
};
use crate::engine::{Action, Capacity, Engine, Event, WithdrawId};
use crate::sink::{Job, LaneReport, Publication};
use crate::store::{Applied, Kept, Lookup, Store, StoreReply, StoreRequest};
use crate::system::clock;
use calls::Calls;
use credentials::Credentials;
use publication_window::Flow;
use running_config::Ways;
use state_monitor::StateWatch;

/// What emptying a place answers.
#[derive(Debug, Clone, Copy)]
enum Emptied {
    VacatedPlaces(WithdrawId),
    Expired(Ticket, SinkId),
}

/// The daemon's hands.
pub(crate) struct DaemonHands {
    pub(crate) outlets: Outlets,
    contests: Contests,
    pub(crate) calls: Calls,
    /// The running config, from which names come, and which ways its calls go.
    pub(crate) ways: Arc<Ways>,
    store: Store,
    /// Tokens that are not committed yet, or not yet published for the first time.
    parked: HashMap<Ticket, Token>,
    /// Publications that wait for their token to be read.
    loading: HashMap<Ticket, Vec<(SinkId, LaneId)>>,
    /// What is being emptied, and why; a lane answers in the order in which it was asked.
    emptying: HashMap<Place, VecDeque<Emptied>>,
    /// Commits under way.
    keeping: HashSet<Ticket>,
    pub(crate) state: StateWatch,
    /// What there was nothing to publish for after all.
    unpublished: Vec<Event>,
    requests: Vec<StoreRequest>,
    jobs: Vec<Vec<Job>>,
    /// Publications under way, by lane.
    flows: Vec<Flow>,
    room: Capacity,
    /// No more calls: the daemon is stopping.
    closed: bool,
    /// Something was done in this turn.
    acted: bool,
}

impl DaemonHands {
    pub(crate) fn new(
        report: ReportTo,
        store: Store,
        state: StateWatch,
        config: Arc<Config>,
        credentials_directory: Option<PathBuf>,
    ) -> Self {
        let most = usize::from(config.api.max_in_flight);
        let outlets = Outlets::new(report);
        Self {
            contests: Contests::new(Arc::clone(&outlets.claims)),
            outlets,
            calls: Calls::new(most, Credentials::new(credentials_directory)),
            ways: Arc::new(Ways::of(config)),
            store,
            parked: HashMap::new(),
            loading: HashMap::new(),
            emptying: HashMap::new(),
            keeping: HashSet::new(),
            state,
            unpublished: Vec::new(),
            requests: Vec::new(),
            jobs: Vec::new(),
            flows: Vec::new(),
            room: Capacity { calls: most, max_calls: most, lanes: Vec::new() },
            closed: false,
            acted: false,
        }
    }

    /// Another config runs from here on.
    pub(crate) fn use_config(&mut self, config: Arc<Config>) {
        self.calls.set_most(usize::from(config.api.max_in_flight));
        self.calls.access_changed();
        self.contests.config_changed(&config);
        self.ways = Arc::new(Ways::of(config));
        self.count_calls();
    }

    /// Lanes may have been added: each has room from the start.
    pub(crate) fn make_room_for_lanes(&mut self) {
        let lanes = self.outlets.lane_count();
        self.room.lanes.resize(lanes, Flow::new().room());
        self.flows.resize(lanes, Flow::new());
        self.jobs.resize_with(lanes, Vec::new);
    }

    /// A turn begins.
    pub(crate) fn look_at_calls(&mut self, now: BootMs) {
        self.calls.look(now);
        self.count_calls();
    }

    /// Takes on no calls from here on.
    pub(crate) fn no_more_calls(&mut self) {
        self.closed = true;
        self.count_calls();
    }

    /// Whether a publication is under way.
    pub(crate) fn publishes(&self) -> bool {
        self.flows.iter().any(|flow| flow.under_way() > 0)
    }

    /// Whether no commit is under way.
    pub(crate) fn all_kept(&self) -> bool {
        self.keeping.is_empty()
    }

    /// Remembers the config that was applied.
    pub(crate) fn persist_config(&mut self, applied: Applied) {
        self.requests.push(StoreRequest::Applied(applied));
    }

    /// Drops what is kept of a tenant.
    pub(crate) fn forget(&mut self, id: TenantId) {
        match self.requests.last_mut() {
            Some(StoreRequest::Forget(ids)) => ids.push(id),
            _ => self.requests.push(StoreRequest::Forget(vec![id])),
        }
    }

    /// Remembers this over a restart; `None`: nothing any more.
    pub(crate) fn persist(&mut self, subject: SavedKey, memory: Option<SavedState>) {
        match self.requests.last_mut() {
            Some(StoreRequest::Remember(batch)) => batch.push((subject, memory)),
            _ => self.requests.push(StoreRequest::Remember(vec![(subject, memory)])),
        }
    }

    /// Whether the store and the lanes run; one that ended by itself is a defect.
    pub(crate) fn threads_are_alive(&self) -> bool {
        self.store.is_running() && !self.outlets.any_lane_died()
    }

    /// Hands this turn's work over. Returns whether anything was done in it.
    pub(crate) fn flush(&mut self) -> bool {
        for request in mem::take(&mut self.requests) {
            self.store.send(request);
        }
        for (number, jobs) in self.jobs.iter_mut().enumerate().filter(|(_, jobs)| !jobs.is_empty()) {
            self.outlets.send(LaneId(u16::try_from(number).unwrap_or(u16::MAX)), mem::take(jobs));
        }
        mem::take(&mut self.acted)
    }

    /// Ends the threads: first the lanes, so that what they publish was committed, then the store.
    pub(crate) fn stop(mut self, lanes: Duration, store: Duration) {
        self.flush();
        self.outlets.stop(lanes);
        self.store.stop(store);
    }

    /// A call's answer: the token stays here, the engine hears of it.
    pub(crate) fn answered(&mut self, engine: &Engine, ticket: Ticket, answer: Answer) -> Event {
        self.count_calls();
        let mut outcome = answer.outcome;
        if let Err(failure) = &mut outcome {
            api::redact_failure(failure, engine.record(ticket.slot).map(|held| held.fingerprint));
        }
        let outcome = outcome.map(|(token, lifetime_s)| {
            let fingerprint = token.fingerprint();
            self.parked.insert(ticket, token);
            Grant { lifetime_s, fingerprint }
        });
        Event::Called(ticket, outcome)
    }

    /// The store's answers about tokens, as events.
    pub(crate) fn stored(&mut self, engine: &Engine, reply: StoreReply, events: &mut Vec<Event>) {
        match reply {
            StoreReply::Kept(tickets) | StoreReply::NotKept(tickets) => {
                self.state.committed();
                // What was not kept comes a second time, once it is; the engine hears of each once.
                let first = tickets.into_iter().filter(|ticket| self.keeping.remove(ticket));
                events.extend(first.map(Event::CommitEnded));
            }
            StoreReply::Loaded(loaded) => {
                self.state.read();
                for (ticket, found) in loaded {
                    self.loaded(engine, ticket, found, events);
                }
            }
            StoreReply::Health(_) | StoreReply::Found(_) | StoreReply::Begun => {}
        }
    }

    /// Looks whether the store moves. Whoever waits for it in vain is answered without it. Returns when to look again.
    pub(crate) fn look_at_store(&mut self, engine: &Engine, now: Now, events: &mut Vec<Event>) -> Option<BootMs> {
        let waiting = (!self.keeping.is_empty(), !self.loading.is_empty());
        let (hanging, next) = self.state.look(now.boot, waiting, self.store.stalled());
        if hanging.commits {
            // Late answers find nobody who waits.
            self.store.expect_no_answer();
            events.extend(self.keeping.drain().map(Event::CommitEnded));
        }
        let put_off = self.state.put_off();
        if !put_off.is_empty() {
            self.requests.push(StoreRequest::Load(put_off));
        }
        if hanging.reads {
            let waiting: Vec<Ticket> = self.loading.keys().copied().collect();
            for ticket in waiting {
                let found = engine.id(ticket.slot).and_then(|id| self.store.recall(&id));
                let reason = || Lookup::Unavailable("it does not answer".into());
                let lookup = found.map_or_else(reason, |(record, token)| Lookup::Found(record, token));
                self.loaded(engine, ticket, lookup, events);
            }
        }
        events.append(&mut self.unpublished);
        next
    }

    /// The state was begun anew: what it is to hold besides is told by others, but tokens that are still here need not be
    /// lost to the next start.
    pub(crate) fn keep_again(&mut self, engine: &Engine) {
        let kept = self.parked.iter().filter_map(|(ticket, token)| {
            let (id, record) = (engine.id(ticket.slot)?, engine.record(ticket.slot)?);
            let is_current = engine.ticket(ticket.slot) == Some(*ticket) && !self.keeping.contains(ticket);
            is_current.then(|| Kept { ticket: *ticket, id, record, token: token.clone() })
        });
        let kept: Vec<Kept> = kept.collect();
        if !kept.is_empty() {
            self.requests.push(StoreRequest::Keep(kept));
        }
    }

    fn loaded(&mut self, engine: &Engine, ticket: Ticket, found: Lookup, events: &mut Vec<Event>) {
        if let Lookup::Missing = found {
            events.push(Event::TokenLost(ticket));
        }
        // Another token may have come while this one was read, which must not be published before it is kept.
        let is_current = engine.ticket(ticket.slot) == Some(ticket);
        for (sink, lane) in self.loading.remove(&ticket).unwrap_or_default() {
            self.job_ended(lane);
            match &found {
                Lookup::Found(record, token) if is_current => {
                    // The wall clock may have been set since the record was written.
                    let today = engine.record(ticket.slot).filter(|today| today.fingerprint == record.fingerprint);
                    let expires = today.unwrap_or(*record).expires_at;
                    self.publish(engine, ticket, sink, token.clone(), expires);
                }
                Lookup::Unavailable(reason) => {
                    events.push(Event::Published(ticket, sink, Err(cannot_be_read(reason))));
                }
                _ => events.push(Event::Published(ticket, sink, Ok(Wrote::Unchanged))),
            }
        }
    }

    /// A lane's reports, as events.
    pub(crate) fn reported(&mut self, lane: LaneId, reports: Vec<LaneReport>, events: &mut Vec<Event>) {
        let is_job =
            |report: &&LaneReport| matches!(report, LaneReport::Published { .. } | LaneReport::Withdrawn { .. });
        let jobs = reports.iter().filter(is_job).count();
        self.flows[usize::from(lane.0)].reported(clock::now().boot, jobs);
        for report in reports {
            match report {
                LaneReport::Published { ticket, sink, outcome } => {
                    self.job_ended(lane);
                    if matches!(&outcome, Err(failure) if failure.kind == SinkFailureKind::Taken) {
                        self.contests.heard(&self.ways.config);
                    }
                    events.push(Event::Published(ticket, sink, outcome));
                }
                LaneReport::Withdrawn { place, outcome, .. } => {
                    self.job_ended(lane);
                    events.extend(self.why_emptied(&place).map(|why| match why {
                        Emptied::VacatedPlaces(id) => Event::Withdrawn(id, outcome),
                        Emptied::Expired(ticket, sink) => {
                            Event::Published(ticket, sink, outcome.map(|()| Wrote::Replaced))
                        }
                    }));
                }
                LaneReport::Drifted { ticket, sink } => events.push(Event::Drifted(ticket, sink)),
                LaneReport::Mounted { at, device } => self.mounted(&at, device, events),
                LaneReport::FloodBegins { root, directory } => self.outlets.flood_begins(root, &directory),
                LaneReport::FloodEnds { root } => self.outlets.flood_ends(&root),
            }
        }
    }

    fn mounted(&mut self, at: &Path, device: u64, events: &mut Vec<Event>) {
        if let Err(error) = self.outlets.mounted(at, device) {
            // It stays in the lane that it has.
            tracing::warn!(event = "no_lane", at = %at.display(), "no thread for another file system: {error}");
        }
        events.extend(self.outlets.take_news().into_iter().map(Event::Change));
        self.make_room_for_lanes();
    }

    fn why_emptied(&mut self, place: &Place) -> Option<Emptied> {
        let waiting = self.emptying.get_mut(place)?;
        let why = waiting.pop_front();
        if waiting.is_empty() {
            self.emptying.remove(place);
        }
        why
    }

    fn names(&self, id: &TenantId) -> Option<Names> {
        let app = self.ways.config.apps.get(&id.app)?;
        Some(app.names_of(&id.app, &id.corp_id))
    }

    fn keep(&mut self, ticket: Ticket, id: TenantId, record: Record) {
        let Some(token) = self.parked.get(&ticket).cloned() else { return };
        self.keeping.insert(ticket);
        let kept = Kept { ticket, id, record, token };
        match self.requests.last_mut() {
            Some(StoreRequest::Keep(batch)) => batch.push(kept),
            _ => self.requests.push(StoreRequest::Keep(vec![kept])),
        }
    }

    fn begin_publication(&mut self, engine: &Engine, ticket: Ticket, sink: SinkId) {
        match (self.parked.get(&ticket).cloned(), engine.record(ticket.slot)) {
            (Some(token), Some(record)) => self.publish(engine, ticket, sink, token, record.expires_at),
            _ => self.load(engine, ticket, sink),
        }
    }

    /// Reads the token first. That counts as the lane's work already, or all tokens would be read at once.
    fn load(&mut self, engine: &Engine, ticket: Ticket, sink: SinkId) {
        let Some((id, outlet)) = whereabouts(engine, &self.outlets, ticket, sink) else {
            return self.abandoned(ticket, sink);
        };
        self.job_begins(outlet.lane);
        let waiting = self.loading.entry(ticket).or_default();
        waiting.push((sink, outlet.lane));
        if waiting.len() > 1 {
            return;
        }
        // Where the last ones still hang, it is told at once that these cannot be read.
        let Some((ticket, id)) = self.state.may_read(ticket, id) else { return };
        match self.requests.last_mut() {
            Some(StoreRequest::Load(batch)) => batch.push((ticket, id)),
            _ => self.requests.push(StoreRequest::Load(vec![(ticket, id)])),
        }
    }

    fn publish(&mut self, engine: &Engine, ticket: Ticket, sink: SinkId, token: Token, expires_at: WallMs) {
        let found = whereabouts(engine, &self.outlets, ticket, sink).and_then(|(id, outlet)| {
            let specs = Arc::clone(self.outlets.specs(engine.sinks(ticket.slot)?));
            Some((outlet, specs, self.names(&id)?))
        });
        let Some((outlet, specs, names)) = found else { return self.abandoned(ticket, sink) };
        self.job_begins(outlet.lane);
        let publication = Publication { ticket, sink, specs, names, token, expires: expires_at };
        self.jobs[usize::from(outlet.lane.0)].push(Job::Publish(publication));
    }

    fn expire(&mut self, engine: &Engine, ticket: Ticket, sink: SinkId) {
        let found = whereabouts(engine, &self.outlets, ticket, sink).and_then(|(id, outlet)| {
            let spec = &self.outlets.specs(engine.sinks(ticket.slot)?)[usize::from(sink.0)];
            Some((outlet, spec.place(&self.names(&id)?)))
        });
        match found {
            Some((outlet, place)) => self.empty(outlet.lane, outlet.root, place, Emptied::Expired(ticket, sink)),
            None => self.abandoned(ticket, sink),
        }
    }

    /// The tenant left, or got other sinks, while its token was read: there is nothing to publish, and the engine hears so.
    fn abandoned(&mut self, ticket: Ticket, sink: SinkId) {
        self.unpublished.push(Event::Published(ticket, sink, Ok(Wrote::Unchanged)));
    }

    fn empty(&mut self, lane: LaneId, root: RootId, place: Place, why: Emptied) {
        self.job_begins(lane);
        self.emptying.entry(place.clone()).or_default().push_back(why);
        let fixed = Arc::clone(&self.outlets.root(root).fixed);
        self.jobs[usize::from(lane.0)].push(Job::Withdraw { root, place, fixed });
    }

    fn job_begins(&mut self, lane: LaneId) {
        self.flows[usize::from(lane.0)].begins(clock::now().boot);
        self.count_jobs(lane);
    }

    fn job_ended(&mut self, lane: LaneId) {
        self.flows[usize::from(lane.0)].ended();
        self.count_jobs(lane);
    }

    fn count_jobs(&mut self, lane: LaneId) {
        let lane = usize::from(lane.0);
        self.room.lanes[lane] = self.flows[lane].room();
    }

    fn count_calls(&mut self) {
        self.room.calls = if self.closed { 0 } else { self.calls.room() };
        self.room.max_calls = self.calls.most();
    }
}

/// The token that is to be published cannot be read. It is not lost, and not asked for anew.
fn cannot_be_read(reason: &str) -> SinkFailure {
    let detail = format!("the token cannot be read from the state for now: {reason}").into();
    SinkFailure { kind: SinkFailureKind::State, detail }
}

/// Whose ticket it is, and where its sink lies; `None` when the tenant left, or has no such sink any more.
fn whereabouts(engine: &Engine, outlets: &Outlets, ticket: Ticket, sink: SinkId) -> Option<(TenantId, Outlet)> {
    let id = engine.configured(ticket.slot)?;
    Some((id, outlets.outlet(engine.sinks(ticket.slot)?, sink)?))
}

impl Hands for DaemonHands {
    fn room(&self) -> &Capacity {
        &self.room
    }

    fn perform(&mut self, engine: &Engine, now: Now, action: Action) {
        self.acted = true;
        match action {
            Action::Call(ticket) => {
                self.calls.begin(now.boot, ticket, engine.id(ticket.slot));
                self.count_calls();
            }
            Action::Commit { ticket, id, record } => self.keep(ticket, id, record),
            Action::Discard(ticket) | Action::Release(ticket) => drop(self.parked.remove(&ticket)),
            Action::Publish(ticket, sink) => self.begin_publication(engine, ticket, sink),
            Action::Expire(ticket, sink) => self.expire(engine, ticket, sink),
            Action::Withdraw { id, lane, root, place } => self.empty(lane, root, place, Emptied::VacatedPlaces(id)),
            Action::DeleteRecord(id) => self.forget(id),
            Action::UpdateRecords(records) => self.requests.push(StoreRequest::Amend(records)),
            Action::Save(subject, memory) => self.persist(subject, memory.map(|memory| *memory)),
            Action::Notify(notice) => notices::say(notice, &self.outlets, &self.ways),
        }
    }
}
