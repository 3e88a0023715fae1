//! From a config path to a running daemon.
//!
//! [`start`] reads the config, opens the state, chooses the config that runs (`choose_config`), gives the engine what was saved
//! (`saved_state`), and applies the config as a reload does. The driver takes the first turn.

mod choose_config;
mod saved_state;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::driver::{Daemon, Input};
use super::executor::Executor;
use super::executor::state_monitor::StateMonitor;
use super::reload::candidate::{self, Candidate};
use super::reload::{Reload, plan};
use super::sinks::stall_detector::StallDetector;
use super::status::readiness::Readiness;
use super::status::systemd::Service;
use crate::config::{self, Config, Process, Report};
use crate::control::{self, AccessPolicy, ServerThread};
use crate::domain::Now;
use crate::engine::{Engine, Event};
use crate::environment;
use crate::store::{self, OpenError, Opened};
use crate::system::clock;
use crate::system::clock::trust::ClockTrust;
use crate::system::log::{self, LogHandle};
use choose_config::{Chosen, Fallback, choose, config_error, stale_apps, state_exists};
use saved_state::StartMode;

/// How the daemon is to start.
pub struct Startup {
    /// The config's main file.
    pub config: PathBuf,
    /// A config in error ends the start, even if the last applied one could run.
    pub strict: bool,
    /// Whether the control socket is served and files are watched: a daemon does, `once` does not.
    pub attended: bool,
}

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The config cannot be used.
    #[error("{rendered}")]
    Config {
        /// What is wrong, for programs.
        report: Report,
        /// The same, for people.
        rendered: String,
    },
    /// The config can be used, or the one that was applied last, as soon as what both depend on answers again: a later
    /// start may succeed.
    #[error("{rendered}")]
    Unanswered {
        /// What did not answer, for people.
        rendered: String,
    },
    /// The state belongs to another daemon, or there is no thread for it.
    #[error(transparent)]
    State(#[from] OpenError),
    /// The system refused something that the daemon cannot do without.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Starts the daemon: reads the config, opens the state, and makes ready the first turn. Must be called within a Tokio
/// runtime. Starts the log, too.
///
/// # Errors
/// See [`StartError`].
pub async fn start(startup: Startup) -> Result<Daemon, StartError> {
    let began = clock::now();
    let process = environment::process();
    let on_disk = candidate::read(&startup.config, &process);
    let fallback = if startup.strict { Fallback::None } else { Fallback::LastApplied };
    let state = on_disk.checked.outline.state.clone();
    let can_run = on_disk.checked.config.is_some();
    if !can_run && (fallback == Fallback::None || !state_exists(&state)) {
        return Err(config_error(on_disk.checked.report, &on_disk.sources));
    }
    // If the config is in error, the one that runs instead says how to log.
    let log = on_disk.checked.config.as_ref().map(|config| log::init(config.log.format, config.log.level));
    let (sender, inputs) = mpsc::unbounded_channel();
    let replies = sender.clone();
    let opened = store::open(&state, move |replies_now| drop(replies.send(Input::Stored(replies_now))), clock::proven)?;
    let chosen = choose(on_disk, &opened.contents.applied, &process, fallback)?;
    let log = log.unwrap_or_else(|| {
        let settings = &chosen.candidate.config.log;
        log::init(settings.format, settings.level)
    });
    log_state(&opened, &state);
    let clock_trust = ClockTrust::new(opened.last_commit);
    Builder { startup, process, log, clock_trust, sender, inputs, began, now: clock::now() }.build(opened, chosen)
}

fn log_state(opened: &Opened, path: &Path) {
    let path = path.display();
    if let Some(aside) = &opened.set_aside {
        let to = aside.to.display();
        tracing::error!(
            event = "state_set_aside",
            "the state {path} could not be used ({}); it now lies at {to}, and a new one is begun",
            aside.reason
        );
    }
    if opened.rotten > 0 {
        tracing::error!(
            event = "state_rotten",
            records = opened.rotten,
            "{} records of the state {path} are damaged; those tenants are fetched anew",
            opened.rotten
        );
    }
    if let Some(reason) = &opened.unusable {
        tracing::error!(
            event = "state_unwritable",
            "the state {path} cannot be used: {reason}; tokens are published, but not kept over a restart until it can"
        );
    }
}

struct Builder {
    startup: Startup,
    process: Process,
    log: LogHandle,
    clock_trust: ClockTrust,
    sender: mpsc::UnboundedSender<Input>,
    inputs: mpsc::UnboundedReceiver<Input>,
    /// When the start began: READY waits 30 s from then on at most.
    began: Now,
    now: Now,
}

impl Builder {
    fn build(mut self, opened: Opened, chosen: Chosen) -> Result<Daemon, StartError> {
        let Chosen { candidate, loaded, last, rejected } = chosen;
        let config = Arc::clone(&candidate.config);
        self.log.set_level(config.log.level);
        let mut engine = Engine::new(self.now, opened.seed, config.limits.total);
        let credentials = self.process.credentials_directory.clone();
        let state = StateMonitor::new(config.state.path.clone(), opened.unusable);
        // A daemon that no longer listens is one that is ending.
        let to = self.sender.clone();
        let report = Arc::new(move |lane, reports| drop(to.send(Input::Reported(lane, reports))));
        let mut executor = Executor::new(report, opened.store, state, Arc::clone(&config), credentials);
        self.clock_trust.use_hosts(&executor.config.hosts());
        let to = self.sender.clone();
        let send = Arc::new(move |message| drop(to.send(Input::Reload(message))));
        let mut reload = Reload::new(self.startup.config.clone(), self.process.clone(), send);

        let stale = stale_apps(&candidate, &opened.contents.applied);
        let mode = if self.startup.attended { StartMode::Daemon } else { StartMode::Once };
        let (holds, void) = saved_state::partition(opened.contents.saved, &config, &stale, mode);
        void.into_iter().for_each(|key| executor.save(key, None));
        let vacated = plan::vacated(&candidate.difference, &candidate.devices, last.as_ref(), &mut executor.sinks)?;
        let mut events = vec![Event::Restored(holds), Event::Vacated(vacated)];
        // The engine knows no tenant yet, so all of them are added.
        let candidate = Candidate { difference: config::diff(None, &config), ..*candidate };
        reload.record_outcome(self.now, &loaded, candidate.held_back);
        let mut plan = reload.apply(&engine, &mut executor, self.now, candidate, &mut events)?;
        stale.iter().for_each(|name| plan.make_stale(&config, name));
        reload.is_persisted(&opened.contents.applied);
        if let Some(rejected) = rejected {
            tracing::error!(
                event = "config_rejected",
                "the config on disk is in error; the one that was applied last runs:\n{}",
                rejected.rendered
            );
            reload.record_outcome(self.now, &rejected, 0);
        }
        let tenants = config.apps.iter().flat_map(|(app, settings)| settings.tenants.iter().map(move |id| (app, id)));
        opened.contents.snapshot.others(tenants).into_iter().for_each(|id| executor.delete_record(id));
        events.into_iter().for_each(|event| engine.handle(self.now, event));
        reload.begin_start(plan.restoring(opened.contents.snapshot));
        self.assemble(engine, executor, reload, &config)
    }

    fn assemble(
        self,
        engine: Engine,
        executor: Executor,
        mut reload: Reload,
        config: &Config,
    ) -> Result<Daemon, StartError> {
        let (ask, queries) = mpsc::channel(64);
        let mut control = None;
        if self.startup.attended {
            let listener = control::bind(&config.control.socket, config.control.mode, config.control.group)?;
            let access = AccessPolicy::of_socket(&config.control.socket)?;
            control = Some(ServerThread::start(listener, config.control.socket.clone(), ask, access)?);
            reload.watch_files()?;
        }
        // The directories of the state and of the socket exist by now.
        executor.sinks.claims.reserve(environment::reserved(&config.own_files));
        Ok(Daemon {
            engine,
            executor,
            reload,
            inputs: self.inputs,
            queries,
            events: Vec::new(),
            alarm: clock::BootAlarm::new()?,
            steps: clock::Steps::new()?,
            service: Service::from_env(self.now.boot),
            clock_trust: self.clock_trust,
            stalls: StallDetector::default(),
            log: self.log,
            started: self.began,
            readiness: Readiness::new(self.began.boot),
            control,
            woke: self.now.boot,
            longest_turn_ms: 0,
            on_turn: None,
        })
    }
}
