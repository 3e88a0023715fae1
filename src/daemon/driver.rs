//! The daemon's loop: a turn, then a wait for whatever happens next.
//!
//! In come calls' answers, lanes' and the store's reports, messages of a reload, queries, signals and timers. Each turn hands them to the
//! engine and executes its actions.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinError;

use super::executor::Executor;
use super::executor::calls::CallEnded;
use super::reload::{self, Reload};
use super::sinks::stall_detector::StallDetector;
use super::status::DaemonView;
use super::status::readiness::Readiness;
use super::status::systemd::{Service, ServiceState};
use super::turn::turn;
use crate::control::protocol::ReloadRequest;
use crate::control::{Query, ServerThread};
use crate::domain::{BootMs, LaneId, Now};
use crate::engine::{Engine, Event, Summary};
use crate::sink::LaneReport;
use crate::store::StoreReply;
use crate::system::clock::trust::{ClockTrust, TimeChange};
use crate::system::{clock, log};

/// The most inputs that one turn takes in.
const INPUTS_A_TURN: usize = 4096;
/// The most queries of the control socket that one turn answers: a page of a listing takes about a millisecond.
const QUERIES_A_TURN: usize = 4;

/// When the daemon's work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When a signal says so.
    Stopped,
    /// When every tenant that was due had an outcome and every sink its attempt.
    CaughtUp,
}

/// Something happened outside the scheduler's thread.
pub(super) enum Input {
    /// The store answers.
    Stored(Vec<StoreReply>),
    /// A lane reports.
    Reported(LaneId, Vec<LaneReport>),
    /// A file of the config changed, or a thread that works for a reload is done.
    Reload(reload::Message),
}

/// A running daemon.
pub struct Daemon {
    pub(super) engine: Engine,
    pub(super) executor: Executor,
    pub(super) reload: Reload,
    pub(super) inputs: mpsc::UnboundedReceiver<Input>,
    pub(super) queries: mpsc::Receiver<Query>,
    /// What the next turn takes in.
    pub(super) events: Vec<Event>,
    pub(super) alarm: clock::BootAlarm,
    pub(super) steps: clock::Steps,
    pub(super) service: Service,
    pub(super) readiness: Readiness,
    pub(super) clock_trust: ClockTrust,
    pub(super) stalls: StallDetector,
    pub(super) log: log::LogHandle,
    pub(super) started: Now,
    /// Serves the control socket; `once` has none.
    pub(super) control: Option<ServerThread>,
    /// When the scheduler last woke up.
    pub(super) woke: BootMs,
    /// The longest turn so far: while one goes on, no answer is taken in and no deadline is met.
    pub(super) longest_turn_ms: u64,
    pub(super) on_turn: Option<Observer>,
}

/// Is given each turn's summary.
pub(super) type Observer = Box<dyn FnMut(&Summary)>;

/// The signals that a daemon obeys.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

impl Daemon {
    /// Calls `on_turn` with the summary after each turn.
    pub fn observe(&mut self, on_turn: impl FnMut(&Summary) + 'static) {
        self.on_turn = Some(Box::new(on_turn));
    }

    /// Takes turns until the work is done, or a signal says so. Returns which of the two it was.
    pub(super) async fn drive(&mut self, until: Until) -> io::Result<Until> {
        let mut signals = Signals::new()?;
        loop {
            let now = clock::now();
            let wake = self.turn(now)?;
            if until == Until::CaughtUp && self.events.is_empty() && self.view().is_caught_up(now) {
                return Ok(Until::CaughtUp);
            }
            self.alarm.set(if self.reload.has_steps() { Some(now.boot) } else { wake })?;
            self.longest_turn_ms = self.longest_turn_ms.max(clock::now().boot.since(self.woke));
            if !self.wait(&mut signals).await? {
                return Ok(Until::Stopped);
            }
        }
    }

    /// Takes in what happened, carries out what follows, and looks after everything else that is due.
    fn turn(&mut self, now: Now) -> io::Result<Option<BootMs>> {
        self.reload.begin_if_due(now);
        let restores = self.reload.restore_late_state(&mut self.executor, &mut self.events);
        let steps = self.reload.next_steps();
        let events: Vec<Event> =
            std::mem::take(&mut self.events).into_iter().chain(steps.into_iter().map(Event::Change)).collect();
        let something_came_in = !events.is_empty();
        self.executor.begin_turn(now.boot);
        let wake = turn(&mut self.engine, now, events, &mut self.executor);
        let state_at = self.executor.look_at_store(now, &mut self.events);
        if self.executor.flush() || something_came_in || self.executor.state.has_news() {
            self.service.something_happened();
        }
        let (stalls, stalls_at) = self.stalls.look(now.boot, &self.executor.sinks);
        self.events.extend(stalls);
        let goes_on = (restores || !self.events.is_empty()).then_some(now.boot);
        if !self.executor.threads_are_alive() {
            return Err(io::Error::other("a thread of the daemon ended by itself; this is a defect, see the log"));
        }
        self.reload.persist_when_done(&self.engine, &mut self.executor, now);
        for phase in self.reload.take_phases() {
            self.service.notify(now.boot, phase.into());
        }
        self.service.beat(now.boot);
        let status_at = self.report(now);
        let (reload_at, persist_deadline) = (self.reload.due_at(), self.reload.persist_deadline());
        let calls_at = self.executor.calls.batch_deadline();
        let service_at = [self.service.next_beat(), status_at];
        let others =
            [reload_at, persist_deadline, stalls_at, calls_at, state_at, goes_on].into_iter().chain(service_at);
        Ok(wake.into_iter().chain(others.flatten()).min())
    }

    /// Waits for whatever happens next. `false`: the daemon is to stop.
    async fn wait(&mut self, signals: &mut Signals) -> io::Result<bool> {
        tokio::select! {
            input = self.inputs.recv() => {
                let now = self.wakes();
                if let Some(input) = input {
                    self.take(now, input);
                }
            }
            Some(ended) = self.executor.calls.next() => {
                self.wakes();
                self.take_answer(ended)?;
            }
            Some(query) = self.queries.recv() => {
                let now = self.wakes();
                self.answer(now, query);
            }
            rung = self.alarm.rings() => {
                self.wakes();
                rung?;
            }
            stepped = self.steps.happens() => {
                self.wakes();
                stepped?;
                tracing::warn!(event = "clock_stepped", "the wall clock was set; every deadline is looked at again");
                self.clock_trust.stepped();
                self.events.push(Event::ClockStepped);
            }
            () = ended(&mut self.control) => {
                return Err(io::Error::other("the control socket is no longer served; this is a defect, see the log"));
            }
            _ = signals.hangup.recv() => {
                let now = self.wakes();
                self.reload.request(now, ReloadRequest::default(), None);
            }
            _ = signals.terminate.recv() => return Ok(false),
            _ = signals.interrupt.recv() => return Ok(false),
        }
        // Whatever woke it: after a freeze, a lane whose reports were not taken in would seem to hang.
        self.take_waiting_inputs(clock::now())?;
        Ok(true)
    }

    /// Something woke the scheduler, now.
    fn wakes(&mut self) -> Now {
        let now = clock::now();
        self.woke = now.boot;
        now
    }

    pub(super) fn take_answer(&mut self, ended: Result<CallEnded, JoinError>) -> io::Result<()> {
        // A call that panics ends as a failure of its own; this cannot happen but to a runtime that ends.
        let ended = ended.map_err(|defect| io::Error::other(format!("a call ended unexpectedly: {defect}")))?;
        if let (Some(date), Some(app)) = (ended.answer.server_date, self.executor.config.config.apps.get(&ended.app))
            && self.clock_trust.answered(clock::now(), app.endpoint.host(), date) == TimeChange::Changed
        {
            self.events.push(Event::ClockStepped);
        }
        self.events.push(self.executor.call_ended(ended));
        Ok(())
    }

    pub(super) fn take_waiting_inputs(&mut self, now: Now) -> io::Result<()> {
        while let Some(ended) = self.executor.calls.next_ended() {
            self.take_answer(ended)?;
        }
        for _ in 0..INPUTS_A_TURN {
            match self.inputs.try_recv() {
                Ok(input) => self.take(now, input),
                Err(_) => break,
            }
        }
        // A client that lists tenants asks for the next page as soon as it has one.
        for _ in 0..QUERIES_A_TURN {
            match self.queries.try_recv() {
                Ok(query) => self.answer(now, query),
                Err(_) => break,
            }
        }
        Ok(())
    }

    pub(super) fn take(&mut self, now: Now, input: Input) {
        match input {
            Input::Reported(lane, reports) => self.executor.lane_reported(lane, reports, &mut self.events),
            Input::Stored(replies) => replies.into_iter().for_each(|reply| self.take_reply(now, reply)),
            Input::Reload(message) => {
                let was_read = matches!(message, reload::Message::Read(_));
                self.reload.handle(now, message, &self.engine, &mut self.executor, &mut self.events);
                if was_read {
                    self.service.something_happened();
                    self.log.set_level(self.executor.config.config.log.level);
                    self.clock_trust.use_hosts(&self.executor.config.hosts());
                }
            }
        }
    }

    /// The store's reply. The store logs its health itself.
    fn take_reply(&mut self, now: Now, reply: StoreReply) {
        match reply {
            StoreReply::Health(unwritable) => {
                self.executor.state.health_reported(unwritable);
                self.service.something_happened();
            }
            StoreReply::Found(late) => self.reload.state_can_be_read(&self.executor.config.config, *late),
            StoreReply::Begun => {
                records_lost(&mut self.events);
                self.events.push(Event::SavedStateLost);
                self.reload.state_was_reset(now);
            }
            reply => self.executor.store_replied(reply, &mut self.events),
        }
    }

    /// Answers a query of the control socket. The receiver may be gone.
    fn answer(&mut self, now: Now, query: Query) {
        match query {
            Query::Status(reply) => drop(reply.send(self.view().status(now))),
            Query::Page { after, limit, filter, reply } => {
                drop(reply.send(self.view().page(now, after.as_ref(), limit, &filter)));
            }
            Query::Tenant(id, reply) => drop(reply.send(self.view().tenant(now, &id))),
            Query::Reload { request, reply } => self.reload.request(now, request, Some(reply)),
        }
    }

    /// Sends READY when it is time, and keeps systemd's status line up to date. Returns when to do so again.
    fn report(&mut self, now: Now) -> Option<BootMs> {
        if !self.readiness.is_ready() {
            let summary = self.engine.summary(now);
            if self.view().has_settled(&summary) || now.boot >= self.readiness.deadline() {
                // Whoever waits for READY looks at the status next.
                let line = self.view().status_line(now, &summary);
                self.service.status(now.boot, line);
                self.readiness.become_ready(&summary);
                self.reload.notifies_systemd = true;
                self.service.notify(now.boot, ServiceState::Ready);
            }
        }
        if let Some(on_turn) = &mut self.on_turn {
            on_turn(&self.engine.summary(now));
        }
        let status_at = self.service.status_due(now.boot);
        if status_at.is_some_and(|at| at <= now.boot) {
            let line = self.view().status_line(now, &self.engine.summary(now));
            self.service.status(now.boot, line);
        }
        let ready_at = (!self.readiness.is_ready()).then(|| self.readiness.deadline());
        [status_at.filter(|&at| at > now.boot), ready_at].into_iter().flatten().min()
    }

    /// What the status is made of.
    pub(super) fn view(&self) -> DaemonView<'_> {
        DaemonView {
            engine: &self.engine,
            executor: &self.executor,
            reload: &self.reload,
            clock_warning: self.clock_trust.warning(),
            backlog: self.log.backlog(),
            started: self.started.wall,
            ready: self.readiness.is_ready(),
            longest_turn_ms: self.longest_turn_ms,
        }
    }
}

/// Puts [`Event::RecordsLost`] before the ends of publications, which release tokens that would be lost then, and behind those
/// of commits, which the state lost as well.
fn records_lost(events: &mut Vec<Event>) {
    let is_commit = |event: &Event| matches!(event, Event::CommitEnded(_));
    let (commits, others): (Vec<Event>, Vec<Event>) = std::mem::take(events).into_iter().partition(is_commit);
    events.extend(commits.into_iter().chain([Event::RecordsLost]).chain(others));
}

/// Ends when the control socket is no longer served, which must not be.
async fn ended(control: &mut Option<ServerThread>) {
    match control {
        Some(control) => control.ended().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{SinkId, Slot, Ticket, Wrote};

    #[test]
    fn tokens_are_committed_again_before_a_publication_that_ended_releases_them() {
        let ticket = Ticket { slot: Slot(1), seq: 1 };
        let mut events = vec![
            Event::Published(ticket, SinkId(0), Ok(Wrote::Replaced)),
            Event::CommitEnded(Ticket { seq: 2, ..ticket }),
        ];
        records_lost(&mut events);
        assert!(matches!(&events[..], [Event::CommitEnded(_), Event::RecordsLost, Event::Published(..)]), "{events:?}");
    }
}
