//! Executes the engine's actions: it makes calls, and gathers a turn's jobs for each thread and hands them over in one piece.
//!
//! An action carries all that its execution takes, and names come from the running config: the engine is never asked. What a
//! thread reports goes to the engine as events. Only the driver uses it, and `reload`, which gives it the config that runs.

pub(crate) mod calls;
pub(crate) mod credentials;
mod notices;
pub(crate) mod running_config;
pub(crate) mod state_monitor;
mod store_batch;
mod tokens;

use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::sinks::place_conflicts::PlaceConflicts;
use super::sinks::{ReportTo, SinkRegistry};
use super::turn::Execute;
use crate::config::Config;
use crate::domain::{
    BootMs, Grant, LaneId, Names, Now, Place, Record, RootId, SavedKey, SavedState, SinkFailure, SinkFailureKind,
    SinkId, SinkKind, TenantId, Ticket, Token, Wrote,
};
use crate::engine::{Action, Capacity, Event, Expire, Publish};
use crate::sink::{FileJob, KeyJob, LaneReport, Publication, RemovalCause};
use crate::store::{Applied, Kept, Lookup, Store, StoreReply};
use crate::system::clock;
use calls::{CallEnded, Calls};
use credentials::Credentials;
use running_config::RunningConfig;
use state_monitor::StateMonitor;
use store_batch::StoreBatch;
use tokens::Tokens;

/// What actions are executed with: calls, sinks, the store, and the tokens in memory.
pub(crate) struct Executor {
    pub(crate) sinks: SinkRegistry,
    conflicts: PlaceConflicts,
    pub(crate) calls: Calls,
    /// From which names come, and which ways its calls go.
    pub(crate) config: Arc<RunningConfig>,
    store: Store,
    tokens: Tokens,
    pub(crate) state: StateMonitor,
    /// This turn's jobs for the store.
    store_batch: StoreBatch,
    capacity: Capacity,
    /// The daemon is stopping: no more calls.
    closed: bool,
    /// Something was done in this turn.
    acted: bool,
}

impl Execute for Executor {
    fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    fn execute(&mut self, now: Now, action: Action) -> Option<Event> {
        self.acted = true;
        match action {
            Action::Call { ticket, id, held } => {
                self.calls.begin(now.boot, ticket, id, held);
                self.count_calls();
            }
            Action::Commit { ticket, id, record } => return self.commit(ticket, id, record),
            Action::Discard(ticket) | Action::Release(ticket) => self.tokens.release(ticket),
            Action::Publish(publish) => return self.publish(publish),
            Action::Expire(expire) => return self.expire(expire),
            Action::Withdraw { id, lane, root, place } => {
                self.remove(lane, root, place, RemovalCause::Withdrawn(id));
            }
            Action::DeleteRecord(id) => self.store_batch.delete_record(id),
            Action::UpdateRecords(records) => self.store_batch.update_records(records),
            Action::Save(key, state) => self.store_batch.save(key, state.map(|state| *state)),
            Action::Notify(notice) => notices::say(notice, &self.sinks, &self.config),
        }
        None
    }
}

impl Executor {
    pub(crate) fn new(
        report: ReportTo,
        store: Store,
        state: StateMonitor,
        config: Arc<Config>,
        credentials_directory: Option<PathBuf>,
    ) -> Self {
        let most = usize::from(config.api.max_in_flight);
        let sinks = SinkRegistry::new(report);
        let mut executor = Self {
            conflicts: PlaceConflicts::new(Arc::clone(&sinks.claims)),
            sinks,
            calls: Calls::new(most, Credentials::new(credentials_directory)),
            config: Arc::new(RunningConfig::of(config)),
            store,
            tokens: Tokens::default(),
            state,
            store_batch: StoreBatch::default(),
            capacity: Capacity { calls: most, max_calls: most, lanes: Vec::new() },
            closed: false,
            acted: false,
        };
        executor.count_lanes();
        executor
    }

    /// Another config runs from here on.
    pub(crate) fn use_config(&mut self, config: Arc<Config>) {
        self.calls.set_max(usize::from(config.api.max_in_flight));
        self.calls.access_changed();
        self.conflicts.config_changed(&config);
        self.config = Arc::new(RunningConfig::of(config));
        self.count_calls();
    }

    /// Lanes may have been added.
    pub(crate) fn count_lanes(&mut self) {
        self.capacity.lanes.clear();
        self.capacity.lanes.extend(self.sinks.lanes.capacities());
    }

    /// A turn begins.
    pub(crate) fn begin_turn(&mut self, now: BootMs) {
        self.calls.begin_turn(now);
        self.count_calls();
    }

    /// Takes on no calls from here on.
    pub(crate) fn no_more_calls(&mut self) {
        self.closed = true;
        self.count_calls();
    }

    /// Keeps the config that was applied, for the next start.
    pub(crate) fn save_config(&mut self, applied: Applied) {
        self.store_batch.save_config(applied);
    }

    /// Deletes the record of a tenant that is not configured.
    pub(crate) fn delete_record(&mut self, id: TenantId) {
        self.store_batch.delete_record(id);
    }

    /// Keeps this over a restart; `None`: nothing any more.
    pub(crate) fn save(&mut self, key: SavedKey, state: Option<SavedState>) {
        self.store_batch.save(key, state);
    }

    /// Whether the store and the lanes run; one that ended by itself is a defect.
    pub(crate) fn threads_are_alive(&self) -> bool {
        self.store.is_running() && !self.sinks.lanes.any_died()
    }

    /// Hands this turn's jobs over. Returns whether anything was done in it.
    pub(crate) fn flush(&mut self) -> bool {
        for request in self.store_batch.take() {
            self.store.send(request);
        }
        self.sinks.lanes.flush();
        mem::take(&mut self.acted)
    }

    /// Ends the threads: first the lanes, so that what they publish was committed, then the store.
    pub(crate) fn stop(mut self, lanes: Duration, store: Duration) {
        self.flush();
        self.sinks.lanes.stop(lanes);
        self.store.stop(store);
    }

    /// A call ended: its token is held here, and the engine gets an event.
    pub(crate) fn call_ended(&mut self, CallEnded { ticket, answer, .. }: CallEnded) -> Event {
        self.count_calls();
        let outcome = answer.outcome.map(|(token, lifetime_s)| {
            let fingerprint = token.fingerprint();
            self.tokens.hold(ticket, token);
            Grant { lifetime_s, fingerprint }
        });
        Event::Called(ticket, outcome)
    }

    /// What the store reports of tokens, as events.
    pub(crate) fn store_replied(&mut self, reply: StoreReply, events: &mut Vec<Event>) {
        match reply {
            StoreReply::Kept(tickets) | StoreReply::NotKept(tickets) => {
                self.state.committed();
                let first = tickets.into_iter().filter(|ticket| self.tokens.end_commit(*ticket));
                events.extend(first.map(Event::CommitEnded));
            }
            StoreReply::Loaded(loaded) => {
                self.state.read();
                loaded.into_iter().for_each(|(ticket, found)| self.loaded(ticket, found, events));
            }
            StoreReply::Health(_) | StoreReply::Found(_) | StoreReply::Begun => {}
        }
    }

    /// Looks whether the store hangs. What waits for it then goes on without it. Returns when to look again.
    pub(crate) fn look_at_store(&mut self, now: Now, events: &mut Vec<Event>) -> Option<BootMs> {
        let waiting = (self.tokens.awaits_commits(), self.tokens.awaits_loads());
        let (hanging, next) = self.state.look(now.boot, waiting, self.store.stalled());
        if hanging.commits {
            // Nothing waits for late replies.
            self.store.drop_unreplied();
            events.extend(self.tokens.give_up_commits().map(Event::CommitEnded));
        }
        self.store_batch.load(self.state.put_off());
        if hanging.reads {
            for (ticket, id) in self.tokens.loading() {
                let unavailable = || Lookup::Unavailable("it does not answer".into());
                let found = self.store.in_memory(&id);
                let found = found.map_or_else(unavailable, |(record, token)| Lookup::Found(record, token));
                self.loaded(ticket, found, events);
            }
        }
        next
    }

    /// What a lane reports, as events.
    pub(crate) fn lane_reported(&mut self, lane: LaneId, reports: Vec<LaneReport>, events: &mut Vec<Event>) {
        let jobs = reports.iter().filter(|report| report.ends_job()).count();
        self.sinks.lanes.reported(clock::now().boot, lane, jobs);
        self.count_lane(lane);
        for report in reports {
            match report {
                LaneReport::Published { ticket, sink, outcome } => {
                    if matches!(&outcome, Err(failure) if failure.kind == SinkFailureKind::Taken) {
                        self.conflicts.refused(&self.config.config);
                    }
                    events.push(Event::Published(ticket, sink, outcome));
                }
                LaneReport::Removed { cause, outcome } => events.push(match cause {
                    RemovalCause::Withdrawn(id) => Event::Withdrawn(id, outcome),
                    RemovalCause::Expired(ticket, sink) => {
                        Event::Published(ticket, sink, outcome.map(|()| Wrote::Replaced))
                    }
                }),
                LaneReport::Drifted { ticket, sink } => events.push(Event::Drifted(ticket, sink)),
                LaneReport::Mounted { at, device } => self.mounted(&at, device, events),
                LaneReport::FloodBegins { root, directory } => self.sinks.flood_begins(root, &directory),
                LaneReport::FloodEnds { root } => self.sinks.flood_ends(&root),
            }
        }
    }

    fn mounted(&mut self, at: &Path, device: u64, events: &mut Vec<Event>) {
        if let Err(error) = self.sinks.mounted(at, device) {
            // It stays in the lane that it has.
            tracing::warn!(event = "no_lane", at = %at.display(), "no thread for another file system: {error}");
        }
        events.extend(self.sinks.take_changes().into_iter().map(Event::Change));
        self.count_lanes();
    }

    fn commit(&mut self, ticket: Ticket, id: TenantId, record: Record) -> Option<Event> {
        let ended = || Some(Event::CommitEnded(ticket));
        // The store reports a ticket once, so a second commit of it is not waited for.
        let is_second = self.tokens.is_committing(ticket);
        let Some(token) = self.tokens.begin_commit(ticket) else {
            // It was released: it is in its sinks alone.
            return ended();
        };
        self.store_batch.commit(Kept { ticket, id, record, token });
        if is_second { ended() } else { None }
    }

    fn publish(&mut self, publish: Publish) -> Option<Event> {
        match self.tokens.get(publish.ticket).cloned() {
            Some(token) => self.send(publish, token),
            None => {
                self.load(publish);
                None
            }
        }
    }

    /// Reads the token first.
    fn load(&mut self, publish: Publish) {
        let (ticket, lane) = (publish.ticket, publish.lane);
        self.sinks.lanes.reserve(lane);
        self.count_lane(lane);
        let Some(id) = self.tokens.begin_load(publish) else { return };
        // Where the last reads still hang, this one waits for the next look at the store.
        self.store_batch.load(self.state.may_read(ticket, id));
    }

    /// A token was read. It is published only if it is the one that the action named (the store has a newer one, perhaps, which
    /// is not committed yet), and if its tenant still has these sinks.
    fn loaded(&mut self, ticket: Ticket, found: Lookup, events: &mut Vec<Event>) {
        for publish in self.tokens.end_load(ticket) {
            let (sink, reserved) = (publish.sink, publish.lane);
            self.sinks.lanes.release(reserved);
            self.count_lane(reserved);
            // The sink may have moved to another file system in the meantime.
            let publish = Publish { lane: self.sinks.policy(publish.sinks, sink).lane, ..publish };
            let is_current = self.config.publishes(&publish.id, self.sinks.specs(publish.sinks));
            let ended = |outcome| Some(Event::Published(ticket, sink, outcome));
            let event = match &found {
                _ if !is_current => ended(Ok(Wrote::Unchanged)),
                Lookup::Found(record, token) if record.fingerprint == publish.fingerprint => {
                    self.send(publish, token.clone())
                }
                Lookup::Unavailable(reason) => ended(Err(cannot_be_read(reason))),
                Lookup::Found(..) | Lookup::Missing => {
                    // The engine knows whether a newer one is on its way.
                    events.push(Event::TokenLost(ticket));
                    ended(Ok(Wrote::Unchanged))
                }
            };
            events.extend(event);
        }
    }

    fn send(&mut self, publish: Publish, token: Token) -> Option<Event> {
        let Publish { ticket, id, sinks, sink, lane, expires_at, .. } = publish;
        let Some(names) = self.names(&id) else { return unchanged(ticket, sink) };
        let spec = &self.sinks.specs(sinks)[usize::from(sink.0)];
        match &spec.kind {
            SinkKind::File(file) => {
                let spec = Arc::clone(file);
                let publication = Publication { ticket, sink, spec, names, token, expires_at };
                self.sinks.lanes.send_file(lane, FileJob::Publish(publication));
            }
            SinkKind::Keyring(keyring) => {
                let (spec, on_expiry) = (Arc::clone(keyring), spec.on_expiry);
                let publication = Publication { ticket, sink, spec, names, token, expires_at };
                self.sinks.lanes.send_key(KeyJob::Publish { publication, on_expiry });
            }
        }
        self.count_lane(lane);
        None
    }

    fn expire(&mut self, expire: Expire) -> Option<Event> {
        let Expire { ticket, id, sinks, sink, lane } = expire;
        let Some(names) = self.names(&id) else { return unchanged(ticket, sink) };
        let place = self.sinks.specs(sinks)[usize::from(sink.0)].place(&names);
        let root = self.sinks.policy(sinks, sink).root;
        self.remove(lane, root, place, RemovalCause::Expired(ticket, sink));
        None
    }

    fn remove(&mut self, lane: LaneId, root: RootId, place: Place, cause: RemovalCause) {
        match place {
            Place::File(path) => {
                let fixed = Arc::clone(self.sinks.root(root));
                self.sinks.lanes.send_file(lane, FileJob::Remove { cause, path, fixed });
            }
            Place::Key(key) => self.sinks.lanes.send_key(KeyJob::Remove { cause, key }),
        }
        self.count_lane(lane);
    }

    /// `None`: its app left the config a moment ago, and the plan's next steps remove the tenant.
    fn names(&self, id: &TenantId) -> Option<Names> {
        let app = self.config.config.apps.get(&id.app)?;
        Some(app.names_of(&id.app, &id.corp_id))
    }

    fn count_lane(&mut self, lane: LaneId) {
        self.capacity.lanes[usize::from(lane.0)] = self.sinks.lanes.capacity(lane);
    }

    fn count_calls(&mut self) {
        self.capacity.calls = if self.closed { 0 } else { self.calls.capacity() };
        self.capacity.max_calls = self.calls.max();
    }
}

/// There is nothing to publish for a tenant that left.
fn unchanged(ticket: Ticket, sink: SinkId) -> Option<Event> {
    Some(Event::Published(ticket, sink, Ok(Wrote::Unchanged)))
}

/// The token that is to be published cannot be read. It is not lost, and not asked for anew.
fn cannot_be_read(reason: &str) -> SinkFailure {
    let detail = format!("the token cannot be read from the state for now: {reason}").into();
    SinkFailure { kind: SinkFailureKind::State, detail }
}
