//! Carries out what the engine decides: gathers a turn's work for each thread, and hands it over in one piece.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::outlets::Outlets;
use super::turn::Hands;
use super::{Input, notices};
use crate::api::{Answer, Client};
use crate::config::{Config, secret};
use crate::domain::{
    AppName, ClientId, Failure, FailureKind, Grant, LaneId, Names, Now, Outlet, Place, Record, RootId, SecretSource,
    SinkFailure, SinkFailureKind, SinkId, TenantId, Ticket, Token, WallMs, Wrote,
};
use crate::engine::{Action, Engine, Event, Room, WithdrawId};
use crate::sink::{Job, Publication, Report};
use crate::store::{Kept, Reply, Request, Store};

/// How many jobs a lane is sent ahead. Enough for it to share a directory's sync, few enough to change one's mind.
const LANE_ROOM: usize = 256;

/// What is needed to call for the tenants of one app.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) client: Client,
    pub(super) client_id: ClientId,
    pub(super) secret: SecretSource,
}

/// What emptying a place answers.
#[derive(Debug, Clone, Copy)]
enum Emptied {
    Left(WithdrawId),
    Expired(Ticket, SinkId),
}

/// The daemon's hands.
pub(super) struct DaemonHands {
    inputs: UnboundedSender<Input>,
    pub(super) outlets: Outlets,
    pub(super) access: HashMap<AppName, Access>,
    /// The running config: names come from it.
    pub(super) config: Arc<Config>,
    credentials_directory: Option<PathBuf>,
    store: Store,
    /// Tokens that are not committed yet, or not yet published for the first time.
    parked: HashMap<Ticket, Token>,
    /// Publications that wait for their token to be read.
    loading: HashMap<Ticket, Vec<(SinkId, LaneId)>>,
    /// Why places are being emptied. A tenant that comes back and leaves again at once has its place emptied twice; a
    /// lane keeps their order.
    emptying: HashMap<Place, VecDeque<Emptied>>,
    requests: Vec<Request>,
    jobs: Vec<Vec<Job>>,
    room: Room,
    calls_under_way: usize,
    /// No more calls: the daemon is stopping.
    closed: bool,
    /// Commits under way.
    keeping: usize,
}

impl DaemonHands {
    pub(super) fn new(
        inputs: UnboundedSender<Input>,
        store: Store,
        config: Arc<Config>,
        credentials_directory: Option<PathBuf>,
    ) -> Self {
        let calls = usize::from(config.api.max_in_flight);
        Self {
            outlets: Outlets::new(inputs.clone()),
            inputs,
            access: HashMap::new(),
            config,
            credentials_directory,
            store,
            parked: HashMap::new(),
            loading: HashMap::new(),
            emptying: HashMap::new(),
            requests: Vec::new(),
            jobs: Vec::new(),
            room: Room { calls, lanes: Vec::new() },
            calls_under_way: 0,
            closed: false,
            keeping: 0,
        }
    }

    /// Another config runs from here on.
    pub(super) fn use_config(&mut self, config: Arc<Config>) {
        self.config = config;
        self.count_room_for_calls();
    }

    fn count_room_for_calls(&mut self) {
        let most = if self.closed { 0 } else { usize::from(self.config.api.max_in_flight) };
        self.room.calls = most.saturating_sub(self.calls_under_way);
    }

    /// Lanes may have been added: each has room from the start.
    pub(super) fn make_room_for_lanes(&mut self) {
        self.room.lanes.resize(self.outlets.lane_count(), LANE_ROOM);
        self.jobs.resize_with(self.outlets.lane_count(), Vec::new);
    }

    /// Takes on no calls from here on.
    pub(super) fn no_more_calls(&mut self) {
        self.closed = true;
        self.count_room_for_calls();
    }

    /// How many calls have not come back yet.
    pub(super) fn calls_under_way(&self) -> usize {
        self.calls_under_way
    }

    /// Whether a publication is under way.
    pub(super) fn publishes(&self) -> bool {
        self.room.lanes.iter().any(|&room| room < LANE_ROOM)
    }

    /// Whether no commit is under way.
    pub(super) fn all_kept(&self) -> bool {
        self.keeping == 0
    }

    /// Remembers the texts of the config that was applied.
    pub(super) fn remember(&mut self, applied: Vec<(PathBuf, String)>) {
        self.requests.push(Request::Applied(applied));
    }

    /// Drops what is kept of a tenant.
    pub(super) fn forget(&mut self, id: TenantId) {
        match self.requests.last_mut() {
            Some(Request::Forget(ids)) => ids.push(id),
            _ => self.requests.push(Request::Forget(vec![id])),
        }
    }

    /// Whether the store and the lanes run; one that ended by itself is a defect.
    pub(super) fn threads_are_alive(&self) -> bool {
        self.store.is_running() && !self.outlets.any_lane_died()
    }

    /// Hands this turn's work over.
    pub(super) fn flush(&mut self) {
        for request in mem::take(&mut self.requests) {
            self.store.send(request);
        }
        for (number, jobs) in self.jobs.iter_mut().enumerate().filter(|(_, jobs)| !jobs.is_empty()) {
            self.outlets.send(LaneId(u16::try_from(number).unwrap_or(u16::MAX)), mem::take(jobs));
        }
    }

    /// Ends the threads: first the lanes, so that what they publish was committed, then the store.
    pub(super) fn stop(mut self, lanes: Duration, store: Duration) {
        self.flush();
        self.outlets.stop(lanes);
        self.store.stop(store);
    }

    /// A call's answer: the token stays here, the engine hears of it.
    pub(super) fn answered(&mut self, ticket: Ticket, answer: Answer) -> Event {
        self.calls_under_way -= 1;
        self.count_room_for_calls();
        Event::Called(
            ticket,
            answer.outcome.map(|(token, lifetime_s)| {
                let fingerprint = token.fingerprint();
                self.parked.insert(ticket, token);
                Grant { lifetime_s, fingerprint }
            }),
        )
    }

    /// The store's answers, as events.
    pub(super) fn stored(&mut self, engine: &Engine, reply: Reply, events: &mut Vec<Event>) -> Option<Option<String>> {
        match reply {
            Reply::Kept(tickets) | Reply::NotKept(tickets) => {
                self.keeping = self.keeping.saturating_sub(tickets.len());
                events.extend(tickets.into_iter().map(Event::Kept));
                None
            }
            Reply::Loaded(loaded) => {
                for (ticket, found) in loaded {
                    self.loaded(engine, ticket, found, events);
                }
                None
            }
            Reply::Health(health) => Some(health),
        }
    }

    fn loaded(&mut self, engine: &Engine, ticket: Ticket, found: Option<(Record, Token)>, events: &mut Vec<Event>) {
        for (sink, lane) in self.loading.remove(&ticket).unwrap_or_default() {
            self.give_room(lane);
            match &found {
                Some((record, token)) => self.publish(engine, ticket, sink, token.clone(), record.expires),
                None => {
                    let detail = "the state holds no whole token for this tenant; a new one is fetched".into();
                    let failure = SinkFailure { kind: SinkFailureKind::Other, detail };
                    events.push(Event::Published(ticket, sink, Err(failure)));
                }
            }
        }
        if found.is_none() {
            events.push(Event::Lost(ticket));
        }
    }

    /// A lane's reports, as events.
    pub(super) fn reported(&mut self, lane: LaneId, reports: Vec<Report>, events: &mut Vec<Event>) {
        for report in reports {
            match report {
                Report::Published { ticket, sink, outcome } => {
                    self.give_room(lane);
                    events.push(Event::Published(ticket, sink, outcome));
                }
                Report::Withdrawn { place, outcome, .. } => {
                    self.give_room(lane);
                    events.extend(match self.emptied(&place) {
                        Some(Emptied::Left(id)) => Some(Event::Withdrawn(id, outcome)),
                        Some(Emptied::Expired(ticket, sink)) => {
                            Some(Event::Published(ticket, sink, outcome.map(|()| Wrote::Replaced)))
                        }
                        None => None,
                    });
                }
                Report::Touched { ticket, sink } => events.push(Event::Touched(ticket, sink)),
            }
        }
    }

    /// What emptying this place was for.
    fn emptied(&mut self, place: &Place) -> Option<Emptied> {
        let waiting = self.emptying.get_mut(place)?;
        let first = waiting.pop_front();
        if waiting.is_empty() {
            self.emptying.remove(place);
        }
        first
    }

    fn names(&self, id: &TenantId) -> Option<Names> {
        let app = self.config.apps.get(&id.app)?;
        Some(app.names_of(&id.app, &id.corp_id))
    }

    fn call(&mut self, engine: &Engine, ticket: Ticket) {
        self.calls_under_way += 1;
        self.count_room_for_calls();
        let inputs = self.inputs.clone();
        let known = engine.id(ticket.slot).and_then(|id| Some((self.access.get(&id.app)?.clone(), id)));
        let credentials_directory = self.credentials_directory.clone();
        tokio::spawn(async move {
            let answer = match known {
                Some((access, id)) => ask(&access, &id, credentials_directory.as_deref()).await,
                None => failed(FailureKind::SecretUnreadable, "the app has no credentials in the running config"),
            };
            let _ = inputs.send(Input::Answered(ticket, answer));
        });
    }

    fn keep(&mut self, engine: &Engine, ticket: Ticket, record: Record) {
        let (Some(id), Some(token)) = (engine.id(ticket.slot), self.parked.get(&ticket)) else { return };
        self.keeping += 1;
        let kept = Kept { ticket, id, record, token: token.clone() };
        match self.requests.last_mut() {
            Some(Request::Keep(batch)) => batch.push(kept),
            _ => self.requests.push(Request::Keep(vec![kept])),
        }
    }

    fn begin_publication(&mut self, engine: &Engine, ticket: Ticket, sink: SinkId) {
        match (self.parked.get(&ticket).cloned(), engine.expires(ticket.slot)) {
            (Some(token), Some(expires)) => self.publish(engine, ticket, sink, token, expires),
            _ => self.load(engine, ticket, sink),
        }
    }

    /// Reads the token first. The lane's room is taken already, or all tokens would be read at once.
    fn load(&mut self, engine: &Engine, ticket: Ticket, sink: SinkId) {
        let Some((id, outlet)) = self.whereabouts(engine, ticket, sink) else { return self.abandoned(ticket, sink) };
        self.take_room(outlet.lane);
        let waiting = self.loading.entry(ticket).or_default();
        waiting.push((sink, outlet.lane));
        if waiting.len() > 1 {
            return;
        }
        match self.requests.last_mut() {
            Some(Request::Load(batch)) => batch.push((ticket, id)),
            _ => self.requests.push(Request::Load(vec![(ticket, id)])),
        }
    }

    fn publish(&mut self, engine: &Engine, ticket: Ticket, sink: SinkId, token: Token, expires: WallMs) {
        let (Some((id, outlet)), Some(set)) = (self.whereabouts(engine, ticket, sink), engine.sinks(ticket.slot))
        else {
            return self.abandoned(ticket, sink);
        };
        let Some(names) = self.names(&id) else { return self.abandoned(ticket, sink) };
        self.take_room(outlet.lane);
        let specs = Arc::clone(self.outlets.specs(set));
        let publication = Publication { ticket, sink, specs, names, token, expires };
        self.jobs[usize::from(outlet.lane.0)].push(Job::Publish(publication));
    }

    fn expire(&mut self, engine: &Engine, ticket: Ticket, sink: SinkId) {
        let place = self.whereabouts(engine, ticket, sink).and_then(|(id, outlet)| {
            let spec = &self.outlets.specs(engine.sinks(ticket.slot)?)[usize::from(sink.0)];
            Some((outlet, spec.place(&self.names(&id)?)))
        });
        match place {
            Some((outlet, place)) => self.empty(outlet.lane, outlet.root, place, Emptied::Expired(ticket, sink)),
            None => self.abandoned(ticket, sink),
        }
    }

    /// Whose ticket it is, and where its sink lies.
    fn whereabouts(&self, engine: &Engine, ticket: Ticket, sink: SinkId) -> Option<(TenantId, Outlet)> {
        Some((engine.id(ticket.slot)?, self.outlets.outlet(engine.sinks(ticket.slot)?, sink)?))
    }

    /// The tenant left, or got other sinks, while its token was read: there is nothing to publish, and the engine hears so.
    fn abandoned(&mut self, ticket: Ticket, sink: SinkId) {
        let _ = self.inputs.send(Input::Unpublished(ticket, sink));
    }

    fn empty(&mut self, lane: LaneId, root: RootId, place: Place, why: Emptied) {
        self.take_room(lane);
        self.emptying.entry(place.clone()).or_default().push_back(why);
        let fixed = Arc::clone(&self.outlets.root(root).fixed);
        self.jobs[usize::from(lane.0)].push(Job::Withdraw { root, place, fixed });
    }

    fn give_room(&mut self, lane: LaneId) {
        self.room.lanes[usize::from(lane.0)] += 1;
    }

    fn take_room(&mut self, lane: LaneId) {
        let room = &mut self.room.lanes[usize::from(lane.0)];
        *room = room.saturating_sub(1);
    }
}

impl Hands for DaemonHands {
    fn room(&self) -> &Room {
        &self.room
    }

    fn perform(&mut self, engine: &Engine, _now: Now, action: Action) {
        match action {
            Action::Call(ticket) => self.call(engine, ticket),
            Action::Keep(ticket, record) => self.keep(engine, ticket, record),
            Action::Discard(ticket) | Action::Release(ticket) => drop(self.parked.remove(&ticket)),
            Action::Publish(ticket, sink) => self.begin_publication(engine, ticket, sink),
            Action::Expire(ticket, sink) => self.expire(engine, ticket, sink),
            Action::Withdraw { id, lane, root, place } => self.empty(lane, root, place, Emptied::Left(id)),
            Action::Forget(id) => self.forget(id),
            Action::Say(notice) => notices::say(notice, &self.outlets),
        }
    }
}

async fn ask(access: &Access, id: &TenantId, credentials_directory: Option<&Path>) -> Answer {
    match secret::read(&access.secret, credentials_directory) {
        Ok(secret) => access.client.ask(&access.client_id, &secret, &id.corp_id).await,
        Err(error) => failed(FailureKind::SecretUnreadable, error.to_string()),
    }
}

fn failed(kind: FailureKind, detail: impl Into<Box<str>>) -> Answer {
    Answer { outcome: Err(Failure::new(kind, detail)), server_date: None }
}
