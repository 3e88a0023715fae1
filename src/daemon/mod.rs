//! The shell around the engine: it reads the clock, turns what happens into events, carries actions out, and talks to
//! systemd and to the operators.
//!
//! | file | what it is |
//! |---|---|
//! | `start` | from a config path to a running daemon |
//! | `turn` | one turn of the engine; a simulation uses it as well |
//! | `hands` | carries actions out: calls, commits, publications |
//! | `outlets` | sinks by number: sets, roots, lanes |
//! | `reload`, `prepare`, `plan` | when the config is read again, what is made of it, and the steps towards it |
//! | `watch` | notices that files changed |
//! | `clock` | the only file that reads a clock |
//! | `answers` | what the control socket is told |
//! | `notices`, `log` | what the operator is told |
//! | `systemd` | what systemd is told |
//! | `harden` | what this process gives up |

mod answers;
pub mod clock;
mod hands;
pub mod harden;
pub mod log;
mod notices;
mod outlets;
mod plan;
mod prepare;
mod reload;
mod start;
mod systemd;
pub mod turn;
mod watch;

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::api::Answer;
use crate::control::protocol::{self, ConfigStatus, HeldBack, ReloadRequest, StateHealth, Status};
use crate::control::{self, Query};
use crate::domain::{BootMs, LaneId, Now, SinkId, Slot, Ticket, WallMs, Wrote};
use crate::engine::{Engine, Event, State, Summary};
use crate::sink::Report;
use crate::store::Reply;
use hands::DaemonHands;
use prepare::Prepared;
use reload::Reload;
use systemd::Service;
use watch::{Watch, Watched};

pub use start::{StartError, Startup, start};

/// `READY=1` comes after so long even if some tenant had no outcome yet, in milliseconds.
const READY_AFTER_MS: u64 = 30_000;
/// The most inputs that one turn takes in.
const INPUTS_A_TURN: usize = 4096;
/// What calls under way may still take when the daemon stops.
const STOP_CALLS_MS: u64 = 5_000;
/// What publications may still take then.
const STOP_LANES: Duration = Duration::from_secs(2);
/// What the last commit may still take then.
const STOP_STORE: Duration = Duration::from_secs(2);

/// Something happened outside the scheduler.
enum Input {
    /// The store answers.
    Stored(Vec<Reply>),
    /// A lane reports.
    Reported(LaneId, Vec<Report>),
    /// A call ended.
    Answered(Ticket, Answer),
    /// There was nothing to publish after all.
    Unpublished(Ticket, SinkId),
    /// A file near the config may have changed.
    FilesChanged,
    /// The config was read.
    Prepared(Box<Prepared>),
}

/// When the daemon's work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When it is told to stop.
    Stopped,
    /// When every tenant that was due had an outcome and every sink its attempt.
    CaughtUp,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// The tenants that are not fresh, worst first.
    pub not_fresh: Vec<protocol::TenantRow>,
    /// How many there are in all.
    pub tenants: u32,
}

/// A running daemon.
pub struct Daemon {
    engine: Engine,
    hands: DaemonHands,
    reload: Reload,
    watch: Option<Watch>,
    inputs: mpsc::UnboundedReceiver<Input>,
    queries: mpsc::Receiver<Query>,
    /// What the next turn will take in.
    events: Vec<Event>,
    alarm: clock::Alarm,
    steps: clock::Steps,
    service: Service,
    started: Now,
    ready: bool,
    /// Why tokens cannot be kept at the moment.
    state_trouble: Option<String>,
    /// Completes the control socket's task.
    control: Option<(oneshot::Sender<()>, tokio::task::JoinHandle<()>, std::path::PathBuf)>,
    /// Told of each turn's summary: a progress bar, or `dev`.
    on_turn: Option<Box<dyn FnMut(&Summary)>>,
}

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

    /// Runs until the work is done, or a signal says so.
    ///
    /// # Errors
    /// When a part of the daemon ended that must not, or the system gives us no timer.
    pub async fn run(mut self, until: Until) -> io::Result<Ended> {
        let mut signals = Signals::new()?;
        loop {
            let now = clock::now();
            let wake = self.turn(now)?;
            if until == Until::CaughtUp && self.is_caught_up(now) {
                break;
            }
            if self.reload.has_steps() {
                tokio::task::yield_now().await;
                self.take_waiting_inputs(now);
                continue;
            }
            self.alarm.set(wake)?;
            if !self.wait(&mut signals).await? {
                break;
            }
        }
        self.stop().await
    }

    /// Takes in what happened, carries out what follows, and looks after everything else that is due.
    fn turn(&mut self, now: Now) -> io::Result<Option<BootMs>> {
        self.reload.begin_if_due(now)?;
        let steps = self.reload.next_steps();
        let events = std::mem::take(&mut self.events).into_iter().chain(steps.into_iter().map(Event::Change));
        let wake = turn::turn(&mut self.engine, now, events, &mut self.hands);
        self.hands.flush();
        if !self.hands.threads_are_alive() {
            return Err(io::Error::other("a thread of the daemon ended by itself; this is a defect, see the log"));
        }
        if let (Some(watch), Some(directories)) = (&mut self.watch, self.reload.watch.take())
            && watch.set(directories) == Watched::FromNowOn
        {
            self.reload.files_changed(now);
        }
        self.reload.remember_if_done(&self.engine, &mut self.hands, now);
        self.service.beat(now.boot);
        let status_at = self.tell(now);
        let others = [self.reload.wake_at(), self.reload.remembers_at(), self.service.next_beat(), status_at];
        Ok(wake.into_iter().chain(others.into_iter().flatten()).min())
    }

    /// Waits for whatever happens next. `false`: the daemon is to stop.
    async fn wait(&mut self, signals: &mut Signals) -> io::Result<bool> {
        tokio::select! {
            input = self.inputs.recv() => {
                let now = clock::now();
                if let Some(input) = input {
                    self.take(now, input);
                }
                self.take_waiting_inputs(now);
            }
            Some(query) = self.queries.recv() => self.answer(clock::now(), query),
            rung = self.alarm.rings() => rung?,
            stepped = self.steps.happens() => {
                stepped?;
                tracing::warn!(event = "clock_stepped", "the wall clock was set; every deadline is looked at again");
                self.events.push(Event::ClockStepped);
            }
            _ = signals.hangup.recv() => self.reload.asked(clock::now(), ReloadRequest::default(), None),
            _ = signals.terminate.recv() => return Ok(false),
            _ = signals.interrupt.recv() => return Ok(false),
        }
        Ok(true)
    }

    fn take_waiting_inputs(&mut self, now: Now) {
        for _ in 0..INPUTS_A_TURN {
            match self.inputs.try_recv() {
                Ok(input) => self.take(now, input),
                Err(_) => break,
            }
        }
        while let Ok(query) = self.queries.try_recv() {
            self.answer(now, query);
        }
    }

    fn take(&mut self, now: Now, input: Input) {
        match input {
            Input::Answered(ticket, answer) => {
                let event = self.hands.answered(ticket, answer);
                self.events.push(event);
            }
            Input::Reported(lane, reports) => self.hands.reported(lane, reports, &mut self.events),
            Input::Stored(replies) => {
                for reply in replies {
                    if let Some(health) = self.hands.stored(&self.engine, reply, &mut self.events) {
                        self.note_state(health);
                    }
                }
            }
            Input::Unpublished(ticket, sink) => self.events.push(Event::Published(ticket, sink, Ok(Wrote::Unchanged))),
            Input::FilesChanged => self.reload.files_changed(now),
            Input::Prepared(prepared) => {
                self.reload.prepared(&self.engine, &mut self.hands, now, *prepared, &mut self.events);
            }
        }
    }

    fn note_state(&mut self, trouble: Option<String>) {
        match &trouble {
            Some(reason) => tracing::error!(
                event = "state_unwritable",
                "tokens are published, but cannot be kept over a restart: {reason}; it is tried again"
            ),
            None => tracing::info!(event = "state_mended", "the state can be written again"),
        }
        self.state_trouble = trouble;
    }

    /// Says READY when it is time, and keeps systemd's status line up to date. Returns when to come by again for it.
    fn tell(&mut self, now: Now) -> Option<BootMs> {
        let deadline = self.started.boot + READY_AFTER_MS;
        if !self.ready {
            let summary = self.engine.summary(now);
            if self.has_settled(&summary) || now.boot >= deadline {
                self.become_ready(&summary);
            }
        }
        if self.service.may_tell_status(now.boot) || self.on_turn.is_some() {
            let summary = self.engine.summary(now);
            if let Some(on_turn) = &mut self.on_turn {
                on_turn(&summary);
            }
            let line = self.status_line(now, &summary);
            self.service.status(now.boot, line);
            return (!self.ready).then_some(deadline);
        }
        // Nothing else may happen before what cannot be told now can be.
        Some(self.service.may_tell_status_at())
    }

    /// Whether every tenant had an outcome and every sink an attempt.
    fn has_settled(&self, summary: &Summary) -> bool {
        self.reload.is_idle()
            && summary.every_tenant_had_an_outcome
            && summary.every_sink_had_an_attempt
            && self.hands.all_kept()
    }

    fn is_caught_up(&self, now: Now) -> bool {
        let summary = self.engine.summary(now);
        self.has_settled(&summary) && !summary.calls_are_wanted && self.events.is_empty()
    }

    fn become_ready(&mut self, summary: &Summary) {
        self.ready = true;
        self.reload.announces = true;
        let missing = summary.counts.of(State::Pending);
        let total = summary.counts.total();
        match missing {
            0 if total == 0 => tracing::info!(
                event = "ready",
                "ready: no tenants are configured yet; waiting for the config to change"
            ),
            0 => tracing::info!(event = "ready", tenants = total, "ready: {total} tenants"),
            _ => tracing::warn!(
                event = "ready",
                tenants = total,
                missing,
                "ready: {total} tenants, {missing} of them without an outcome yet"
            ),
        }
        systemd::ready();
    }

    fn status_line(&self, now: Now, summary: &Summary) -> String {
        let worst = self.worst(now, summary).map(|row| format!("{} is {}", row.tenant, row.state));
        let rejected = self.reload.last.headline.as_ref().map(|line| format!("config rejected: {line}"));
        let held_back = (self.reload.last.held_back > 0)
            .then(|| format!("removal of {} tenants held back", self.reload.last.held_back));
        let complaint = rejected.or(held_back).or_else(|| self.state_trouble.clone());
        systemd::status_line(summary, worst.as_deref(), complaint.as_deref())
    }

    /// The tenant that is worst off. Looked for only when not all are well.
    fn worst(&self, now: Now, summary: &Summary) -> Option<protocol::TenantRow> {
        let bad = [State::Expired, State::Refused, State::Failing];
        let state = bad.into_iter().find(|&state| summary.counts.of(state) > 0)?;
        let row = self.engine.first_in(now, state)?;
        Some(answers::tenant_row(row, self.hands.config.as_ref(), now))
    }

    fn answer(&mut self, now: Now, query: Query) {
        let config = std::sync::Arc::clone(&self.hands.config);
        // Who went away in the meantime need not know.
        match query {
            Query::Status(reply) => drop(reply.send(self.status(now))),
            Query::Page { after, limit, reply } => {
                drop(reply.send(answers::page(&self.engine, &config, now, after.as_ref(), limit)));
            }
            Query::Tenant(id, reply) => {
                let row = self.engine.slot(&id).map(|slot| self.engine.row(now, slot));
                drop(reply.send(row.map(|row| answers::tenant_row(row, &config, now))));
            }
            Query::Reload { request, reply } => self.reload.asked(now, request, Some(reply)),
        }
    }

    fn status(&self, now: Now) -> Status {
        let summary = self.engine.summary(now);
        let last = &self.reload.last;
        let mut warnings = last.warnings.clone();
        match self.hands.outlets.unwatched() {
            0 => {}
            n => warnings.push(format!(
                "{n} directories of token files are swept each minute, not watched: raise fs.inotify.max_user_watches"
            )),
        }
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: self.started.wall.rfc3339(),
            ready: self.ready,
            tenants: answers::counts(&summary.counts),
            apps: summary.apps.iter().map(|app| (app.name.to_string(), answers::counts(&app.counts))).collect(),
            config: ConfigStatus {
                path: self.reload.path().display().to_string(),
                last_reload_successful: !last.rejected,
                last_reload_at: last.at.map(WallMs::rfc3339),
                problems: last.problems.clone(),
                held_back: (last.held_back > 0).then(|| HeldBack { removed: last.held_back as u64 }),
            },
            state: StateHealth { healthy: self.state_trouble.is_none(), reason: self.state_trouble.clone() },
            api_paused_until: summary.paused_until.map(|at| (now.wall + at.since(now.boot)).rfc3339()),
            warnings,
            worst: self.worst(now, &summary),
        }
    }

    /// Ends: calls under way get their time, publications that began end, the state is committed.
    async fn stop(mut self) -> io::Result<Ended> {
        systemd::stopping();
        self.finish_calls().await?;
        let now = clock::now();
        self.reload.remember_if_done(&self.engine, &mut self.hands, now);
        let ended = self.ended(now);
        if let Some((stop, task, socket)) = self.control.take() {
            let _ = stop.send(());
            let _ = task.await;
            control::unbind(&socket);
        }
        self.hands.stop(STOP_LANES, STOP_STORE);
        Ok(ended)
    }

    /// Turns on, without new calls, until what is under way has come back and is published.
    async fn finish_calls(&mut self) -> io::Result<()> {
        let deadline = clock::now().boot + STOP_CALLS_MS;
        self.hands.no_more_calls();
        loop {
            let now = clock::now();
            self.service.beat(now.boot);
            let events: Vec<Event> = std::mem::take(&mut self.events);
            turn::turn(&mut self.engine, now, events, &mut self.hands);
            self.hands.flush();
            let done = self.hands.calls_under_way() == 0 && self.hands.all_kept() && !self.hands.publishes();
            if done || now.boot >= deadline {
                return Ok(());
            }
            self.alarm.set(Some(deadline.min(now.boot + 1000)))?;
            tokio::select! {
                input = self.inputs.recv() => if let Some(input) = input { self.take(clock::now(), input) },
                rung = self.alarm.rings() => rung?,
            }
            self.take_waiting_inputs(clock::now());
        }
    }

    fn ended(&self, now: Now) -> Ended {
        let summary = self.engine.summary(now);
        let fine = summary.counts.of(State::Fresh) + summary.counts.of(State::Disabled);
        let rows = if fine == summary.counts.total() { Vec::new() } else { self.engine.page(now, Slot(0), usize::MAX) };
        let mut bad: Vec<_> =
            rows.into_iter().filter(|row| !matches!(row.state, State::Fresh | State::Disabled)).collect();
        bad.sort_by(|a, b| (a.state, &a.id).cmp(&(b.state, &b.id)));
        let not_fresh = bad.into_iter().map(|row| answers::tenant_row(row, &self.hands.config, now)).collect();
        Ended { not_fresh, tenants: summary.counts.total() }
    }
}
