//! From a config path to a running daemon.

mod saved_state;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::driver::{Daemon, Input};
use super::executor::Executor;
use super::executor::state_monitor::StateMonitor;
use super::reload::candidate::{self, Baseline, Candidate, LoadedConfig, MassRemoval};
use super::reload::plan::{self, Plan};
use super::reload::watch::ConfigWatcher;
use super::reload::{self, Reload};
use super::sinks::stall_detector::StallDetector;
use super::status::readiness::Readiness;
use super::status::systemd::Service;
use crate::config::{self, Checked, Config, Outline, Process, Report, Sources};
use crate::control::{self, AccessPolicy, ServerThread};
use crate::domain::{AppName, Fingerprint, Now};
use crate::engine::{Engine, Event};
use crate::environment;
use crate::store::{self, Applied, OpenError, Opened};
use crate::system::blocking::Blocking;
use crate::system::clock;
use crate::system::clock::trust::ClockTrust;
use crate::system::log::{self, LogHandle};
use saved_state::Impatience;

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
    /// The state belongs to another daemon, or there is no thread for it.
    #[error(transparent)]
    State(#[from] OpenError),
    /// The system refused something that the daemon cannot do without.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Starts the daemon: reads the config, opens the state, and makes ready the first turn. Must be called within a Tokio
/// runtime. Logging is started as the config says.
///
/// # Errors
/// See [`StartError`].
pub async fn start(startup: Startup) -> Result<Daemon, StartError> {
    let began = clock::now();
    let process = environment::process();
    let on_disk = read(&startup.config, &process);
    let fallback = if startup.strict { Fallback::None } else { Fallback::LastApplied };
    let state = on_disk.checked.outline.state.clone();
    if on_disk.config().is_none() && (fallback == Fallback::None || !exists(&state)) {
        return Err(config_error(on_disk.checked.report, &on_disk.sources));
    }
    // A config in error says nothing of the log; the one that runs instead does, once it is known.
    let log = on_disk.config().map(|config| log::init(config.log.format, config.log.level));
    let (sender, inputs) = mpsc::unbounded_channel();
    let replies = sender.clone();
    let opened = store::open(&state, move |replies_now| drop(replies.send(Input::Stored(replies_now))), clock::proven)?;
    let chosen = choose(on_disk, &opened, &process, fallback)?;
    let log = log.unwrap_or_else(|| {
        let settings = &chosen.candidate.config.log;
        log::init(settings.format, settings.level)
    });
    tell_of_state(&opened, &state);
    let clock_trust = ClockTrust::new(opened.last_commit);
    Builder { startup, process, log, clock_trust, sender, inputs, began, now: clock::now() }.build(opened, chosen)
}

/// What runs when the config on disk cannot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fallback {
    LastApplied,
    None,
}

/// The config on disk, as far as it could be read.
struct OnDisk {
    sources: Sources,
    checked: Checked,
}

impl OnDisk {
    fn config(&self) -> Option<&Config> {
        self.checked.config.as_ref()
    }
}

/// Whether there is a state. One that does not answer might as well not be there.
fn exists(state: &Path) -> bool {
    let path = state.to_owned();
    let patience = Duration::from_millis(store::HANGS_AFTER_MS);
    Blocking::new("state", 1).run_and_block(state, patience, move || path.exists()).unwrap_or(false)
}

fn config_error(report: Report, sources: &Sources) -> StartError {
    let rendered = report.render(sources, log::wants_colour());
    StartError::Config { report, rendered }
}

fn read(path: &Path, process: &Process) -> OnDisk {
    match environment::read(path) {
        Ok(sources) => OnDisk { checked: environment::check(&sources, process), sources },
        Err(report) => {
            let checked =
                Checked { config: None, report, outline: Outline::default_of(process), secrets: BTreeMap::new() };
            let names = environment::where_to_watch(&[path]);
            let sources = Sources { names, ..Sources::remembered(Vec::new()) };
            OnDisk { sources, checked }
        }
    }
}

fn tell_of_state(opened: &Opened, path: &Path) {
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

/// The apps whose credentials are others than when the daemon ran last.
fn stale_apps(candidate: &Candidate, last: &Applied) -> Vec<AppName> {
    let changed = candidate.difference.apps.iter().filter(|app| app.credentials_changed).map(|app| app.name.clone());
    let other = |(app, secret): &&(AppName, Fingerprint)| candidate.secrets.get(app).is_some_and(|now| now != secret);
    let mut stale: Vec<AppName> =
        changed.chain(last.secrets.iter().filter(other).map(|(app, _)| app.clone())).collect();
    stale.sort_unstable();
    stale.dedup();
    stale
}

/// The config that will run, and what became of the one on disk.
struct Chosen {
    candidate: Box<Candidate>,
    /// What there is to say of it.
    prepared: LoadedConfig,
    /// The config that ran last, where the state knows it.
    last: Option<Arc<Config>>,
    /// The report on the config on disk, when another one runs.
    rejected: Option<LoadedConfig>,
}

/// The config on disk, or, if that is in error, the one that was applied last.
fn choose(on_disk: OnDisk, opened: &Opened, process: &Process, fallback: Fallback) -> Result<Chosen, StartError> {
    let remembered = environment::remembered(&opened.contents.applied.texts);
    let OnDisk { sources, checked: on_disk } = on_disk;
    // Mostly nothing changed while the daemon was down, and what was read once need not be read again.
    let unchanged = on_disk.config.is_some() && remembered.files == sources.files;
    let checked = match remembered.files[..] {
        [] => None,
        _ if unchanged => Some(on_disk.clone()),
        _ => Some(environment::check(&remembered, process)),
    };
    let last = checked.as_ref().and_then(|checked| checked.config.clone()).map(Arc::new);
    let running = Baseline { config: last.clone(), ..Baseline::default() };
    let prepare = |sources: &Sources, checked: Checked| {
        candidate::compare(sources, checked, process, &running, MassRemoval::HeldBack)
    };
    let mut prepared = prepare(&sources, on_disk);
    if let Some(candidate) = prepared.candidate.take() {
        return Ok(Chosen { candidate, prepared, last, rejected: None });
    }
    let remembered = checked.filter(|_| fallback == Fallback::LastApplied).map(|checked| prepare(&remembered, checked));
    let chosen = remembered.and_then(|mut prepared| Some((prepared.candidate.take()?, prepared)));
    match chosen {
        Some((candidate, from_memory)) => {
            Ok(Chosen { candidate, prepared: from_memory, last, rejected: Some(prepared) })
        }
        None => Err(config_error(prepared.report, &sources)),
    }
}

struct Builder {
    startup: Startup,
    process: Process,
    log: LogHandle,
    clock_trust: ClockTrust,
    sender: mpsc::UnboundedSender<Input>,
    inputs: mpsc::UnboundedReceiver<Input>,
    /// When the start began: from then on counts for how long READY may wait.
    began: Now,
    now: Now,
}

impl Builder {
    fn build(mut self, opened: Opened, chosen: Chosen) -> Result<Daemon, StartError> {
        let Chosen { candidate, prepared, last, rejected } = chosen;
        let config = Arc::clone(&candidate.config);
        self.log.set_level(config.log.level);
        let mut engine = Engine::new(self.now, opened.seed, config.limits.total);
        let credentials = self.process.credentials_directory.clone();
        let state = StateMonitor::new(config.state.path.clone(), opened.unusable);
        let to = self.sender.clone();
        // The daemon that no longer listens is one that is ending.
        let report = Arc::new(move |lane, reports| drop(to.send(Input::Reported(lane, reports))));
        let mut executor = Executor::new(report, opened.store, state, Arc::clone(&config), credentials);
        let to = self.sender.clone();
        let send = move |message| drop(to.send(Input::Reload(message)));
        self.clock_trust.use_hosts(&executor.config.hosts());
        let mut reload = Reload::new(self.startup.config.clone(), self.process.clone(), Arc::new(send));
        let vacated = plan::vacated(&candidate.difference, &candidate.devices, last.as_ref(), &mut executor.sinks)?;
        let stale = stale_apps(&candidate, &opened.contents.applied);
        let mut whole = Candidate { difference: config::diff(None, &config), ..*candidate };
        let mut plan = Plan::new(&mut whole, None, &mut executor.sinks)?;
        stale.iter().for_each(|name| plan.make_stale(&config, name));
        let impatience = if self.startup.attended { Impatience::Daemon } else { Impatience::Once };
        let (recalled, void) = saved_state::part(opened.contents.saved, &config, &stale, impatience);
        void.into_iter().for_each(|subject| executor.persist(subject, None));
        let mut events = vec![Event::Restored(recalled)];
        reload.record_outcome(self.now, &prepared, whole.held_back);
        reload.switch_to(&mut executor, self.now, whole, &mut events);
        reload.is_persisted(&opened.contents.applied);
        events.push(Event::Vacated(vacated));
        let configured =
            config.apps.iter().flat_map(|(app, settings)| settings.tenants.iter().map(move |id| (app, id)));
        opened.contents.snapshot.others(configured).into_iter().for_each(|id| executor.forget(id));
        if let Some(rejected) = rejected {
            tracing::error!(
                event = "config_rejected",
                "the config on disk is in error; the one that was applied last runs:\n{}",
                rejected.rendered
            );
            reload.record_outcome(self.now, &rejected, 0);
        }
        for event in events {
            engine.handle(self.now, event);
        }
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
            let changed = self.sender.clone();
            let on_change = move || drop(changed.send(Input::Reload(reload::Message::FilesChanged)));
            reload.watch_with(ConfigWatcher::start(Arc::new(on_change))?);
        }
        // The state and the socket have been made by now, and so have their directories.
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
