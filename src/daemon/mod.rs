//! The shell around the engine: it reads the clock, turns what happens into events, carries actions out, and talks to
//! systemd and to the operators.
//!
//! | file | what it is |
//! |---|---|
//! | `start`, `recall` | from a config path to a running daemon |
//! | `turn` | one turn of the engine; a simulation uses it as well |
//! | `hands`, `calls`, `credentials` | carry actions out: calls with their secrets, commits, publications |
//! | `state`, `adopt` | whether the state hangs, and what one held that could be read late |
//! | `outlets`, `stalls`, `flow` | sinks by number: sets, roots, lanes; which lane does not move, and how much each is given |
//! | `reload`, `prepare`, `plan` | when the config is read again, what is made of it, and the steps towards it |
//! | `watch` | notices that files changed |
//! | `clock`, `skew`, `witnesses` | the only file that reads a clock, and whether that can be believed; what endpoints say |
//! | `pauses` | for how long the scheduler was busy at a stretch |
//! | `attending` | the control socket's thread |
//! | `telling`, `answers`, `verdict` | READY, the status line, and what the control socket is told |
//! | `ending` | how it stops |
//! | `notices`, `log` | what the operator is told |
//! | `systemd` | what systemd is told |
//! | `harden`, `memory` | what this process gives up, and gives back |

mod adopt;
mod answers;
mod attending;
mod calls;
pub mod clock;
mod contests;
mod credentials;
mod ending;
mod flow;
mod hands;
pub mod harden;
mod holds;
pub mod log;
pub mod memory;
mod notices;
mod outlets;
mod pauses;
mod plan;
mod prepare;
mod recall;
mod rehearsals;
mod reload;
mod skew;
mod stalls;
mod start;
mod state;
mod systemd;
mod telling;
pub mod turn;
mod verdict;
mod watch;
mod witnesses;

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::api::Answer;
use crate::control::Query;
use crate::control::protocol::{self, ReloadRequest};
use crate::domain::{BootMs, LaneId, Now, SinkId, Ticket, Wrote};
use crate::engine::{Engine, Event, Summary};
use crate::sink::LaneReport;
use crate::store::StoreReply;
use adopt::{Adoption, Findings};
use attending::Attendant;
use hands::DaemonHands;
use pauses::Pauses;
use prepare::Prepared;
use reload::Reload;
use skew::{Skew, Told};
use stalls::Stalls;
use systemd::Service;
use watch::Watch;

pub use start::{StartError, Startup, start};

/// `READY=1` comes after so long even if some tenant had no outcome yet, in milliseconds.
const READY_AFTER_MS: u64 = 30_000;
/// The most inputs that one turn takes in.
const INPUTS_A_TURN: usize = 4096;
/// The most questions of the control socket: a page of a listing takes about a millisecond.
const QUERIES_A_TURN: usize = 4;

/// Something happened outside the scheduler.
enum Input {
    /// The store answers.
    Stored(Vec<StoreReply>),
    /// A lane reports.
    Reported(LaneId, Vec<LaneReport>),
    /// There was nothing to publish after all.
    Unpublished(Ticket, SinkId),
    /// A file near the config may have changed.
    FilesChanged,
    /// A state that could be read late was compared with what runs.
    Compared(Box<Findings>),
    /// The config was read.
    Prepared(Box<Prepared>),
    /// The config was read to tell what a reload would do; `None` where there was no thread for it.
    Rehearsed(Option<Box<Prepared>>),
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
    /// Of a daemon that caught up: the tenants that are not fresh, or not published everywhere, worst first. One that was
    /// told to stop has others to do than to look at a million tenants.
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
    skew: Skew,
    stalls: Stalls,
    log: log::Log,
    started: Now,
    ready: bool,
    /// What of a state that could be read late is still to be taken over.
    adoption: Option<Adoption>,
    /// Serves the control socket; `once` has none.
    control: Option<Attendant>,
    pauses: Pauses,
    on_turn: Option<Observer>,
}

/// Ends when the control socket is no longer served, which must not be.
async fn ended(control: &mut Option<Attendant>) {
    match control {
        Some(control) => control.ended().await,
        None => std::future::pending().await,
    }
}

/// Hears of each turn's summary.
type Observer = Box<dyn FnMut(&Summary)>;

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
            self.alarm.set(if self.reload.has_steps() { Some(now.boot) } else { wake })?;
            self.pauses.sleeps();
            if !self.wait(&mut signals).await? {
                break;
            }
        }
        self.stop(until).await
    }

    /// Takes in what happened, carries out what follows, and looks after everything else that is due.
    fn turn(&mut self, now: Now) -> io::Result<Option<BootMs>> {
        self.reload.begin_if_due(now);
        let adopts = self.adopt();
        let steps = self.reload.next_steps();
        let events: Vec<Event> =
            std::mem::take(&mut self.events).into_iter().chain(steps.into_iter().map(Event::Change)).collect();
        let something_came_in = !events.is_empty();
        self.hands.look_at_calls(now.boot);
        let wake = turn::turn(&mut self.engine, now, events, &mut self.hands);
        let state_at = self.hands.look_at_store(&self.engine, now, &mut self.events);
        if self.hands.flush() || something_came_in || self.hands.state.has_news() {
            self.service.something_happened();
        }
        let (stalls, stalls_at) = self.stalls.look(now.boot, &self.hands.outlets);
        self.events.extend(stalls);
        let goes_on = (adopts || !self.events.is_empty()).then_some(now.boot);
        if !self.hands.threads_are_alive() {
            return Err(io::Error::other("a thread of the daemon ended by itself; this is a defect, see the log"));
        }
        if let (Some(watch), Some(wanted)) = (&self.watch, self.reload.watch.take()) {
            watch.set(wanted);
        }
        self.reload.remember_if_done(&self.engine, &mut self.hands, now);
        for phase in std::mem::take(&mut self.reload.phases) {
            self.service.tell(now.boot, phase);
        }
        self.service.beat(now.boot);
        let status_at = self.tell(now);
        let (reload_at, remembers_at) = (self.reload.wake_at(), self.reload.remembers_at());
        let calls_at = self.hands.calls.company_at();
        let told_at = [self.service.next_beat(), status_at];
        let others = [reload_at, remembers_at, stalls_at, calls_at, state_at, goes_on].into_iter().chain(told_at);
        Ok(wake.into_iter().chain(others.flatten()).min())
    }

    /// Waits for whatever happens next. `false`: the daemon is to stop.
    async fn wait(&mut self, signals: &mut Signals) -> io::Result<bool> {
        tokio::select! {
            input = self.inputs.recv() => {
                let now = self.pauses.wakes();
                if let Some(input) = input {
                    self.take(now, input);
                }
                self.take_waiting_inputs(now)?;
            }
            Some(ended) = self.hands.calls.next() => {
                self.pauses.wakes();
                self.take_answer(ended)?;
                self.take_waiting_inputs(clock::now())?;
            }
            Some(query) = self.queries.recv() => {
                let now = self.pauses.wakes();
                self.answer(now, query);
            }
            rung = self.alarm.rings() => {
                self.pauses.wakes();
                rung?;
            }
            stepped = self.steps.happens() => {
                self.pauses.wakes();
                stepped?;
                tracing::warn!(event = "clock_stepped", "the wall clock was set; every deadline is looked at again");
                self.skew.stepped();
                self.events.push(Event::ClockStepped);
            }
            () = ended(&mut self.control) => {
                return Err(io::Error::other("the control socket is no longer served; this is a defect, see the log"));
            }
            _ = signals.hangup.recv() => {
                let now = self.pauses.wakes();
                self.reload.asked(now, ReloadRequest::default(), None);
            }
            _ = signals.terminate.recv() => return Ok(false),
            _ = signals.interrupt.recv() => return Ok(false),
        }
        Ok(true)
    }

    fn take_answer(&mut self, ended: Result<(Ticket, Answer), tokio::task::JoinError>) -> io::Result<()> {
        // A call that panics ends as a failure of its own; this cannot happen but to a runtime that ends.
        let (ticket, answer) =
            ended.map_err(|defect| io::Error::other(format!("a call ended unexpectedly: {defect}")))?;
        let date = answer.server_date;
        let app = self.engine.id(ticket.slot).map(|id| id.app);
        let event = self.hands.answered(&self.engine, ticket, answer);
        self.events.push(event);
        if let (Some(date), Some(app)) = (date, app)
            && self.skew.answered(clock::now(), &self.hands.ways.config, &app, date) == Told::Otherwise
        {
            self.events.push(Event::ClockStepped);
        }
        Ok(())
    }

    fn take_waiting_inputs(&mut self, now: Now) -> io::Result<()> {
        while let Some(ended) = self.hands.calls.ended() {
            self.take_answer(ended)?;
        }
        for _ in 0..INPUTS_A_TURN {
            match self.inputs.try_recv() {
                Ok(input) => self.take(now, input),
                Err(_) => break,
            }
        }
        // Who lists tenants asks again as soon as it is answered.
        for _ in 0..QUERIES_A_TURN {
            match self.queries.try_recv() {
                Ok(query) => self.answer(now, query),
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn take(&mut self, now: Now, input: Input) {
        match input {
            Input::Reported(lane, reports) => self.hands.reported(lane, reports, &mut self.events),
            Input::Stored(replies) => replies.into_iter().for_each(|reply| self.take_reply(now, reply)),
            Input::Compared(findings) => self.compared(*findings),
            Input::Unpublished(ticket, sink) => self.events.push(Event::Published(ticket, sink, Ok(Wrote::Unchanged))),
            Input::FilesChanged => self.reload.files_changed(now),
            Input::Rehearsed(prepared) => self.reload.rehearsed(prepared.as_deref()),
            Input::Prepared(prepared) => {
                self.reload.prepared(&self.engine, &mut self.hands, now, *prepared, &mut self.events);
                self.service.something_happened();
                self.log.set_level(self.hands.ways.config.log.level);
            }
        }
    }

    /// The store's answer. It has told the log of its health already.
    fn take_reply(&mut self, now: Now, reply: StoreReply) {
        match reply {
            StoreReply::Health(unwritable) => {
                self.hands.state.told(unwritable);
                self.service.something_happened();
            }
            StoreReply::Found(late) => self.found(*late),
            StoreReply::Begun => {
                self.hands.keep_again(&self.engine);
                self.events.push(Event::Forgotten);
                self.reload.forgotten(now);
            }
            reply => self.hands.stored(&self.engine, reply, &mut self.events),
        }
    }
}
