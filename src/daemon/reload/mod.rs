//! How another config comes to run: read and compared on a thread of its own, then applied in steps, or rejected as a whole.
//!
//! In come [`Message`]s and requests; out go steps for the engine ([`Reload::next_steps`]), verdicts for those who asked, and what is to
//! be persisted. The driver uses it, and so does a start, which applies a first config in the same way. `schedule` says when the
//! config is read, `candidate` reads it, `plan` makes the steps, `persist` says when the state takes it over, `status` what became
//! of it. `late_state` compares the running config with a state that could be read late.

pub(crate) mod candidate;
mod dry_run;
mod late_state;
mod persist;
pub(crate) mod plan;
mod schedule;
mod status;
pub(crate) mod watch;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::executor::Executor;
use crate::config::{Diagnostic, Process, Report, Severity};
use crate::control::protocol::{ReloadRequest, ReloadVerdict};
use crate::domain::{BootMs, Change, Now};
use crate::engine::{Engine, Event};
use crate::store::Applied;
use candidate::{Baseline, Candidate, LoadedConfig, MassRemoval, RestartOnly};
use dry_run::DryRuns;
use late_state::{LateFindings, LateState};
use persist::AppliedConfig;
use plan::Plan;
use schedule::{PendingReload, ReloadSchedule, wait_for_writers};
use status::{LastReload, verdict};
use watch::{ConfigWatcher, OnChange};

/// What happened that concerns the config.
pub(crate) enum Message {
    /// A file near the config may have changed.
    FilesChanged,
    /// The config was read.
    Read(Box<LoadedConfig>),
    /// The config was read for a dry run; `None` where there was no thread for it.
    DryRun(Option<Box<LoadedConfig>>),
    /// A state that could be read late was compared with what runs.
    Compared(Box<LateFindings>),
}

/// Takes messages on their way to [`Reload::handle`], on any thread.
pub(crate) type SendTo = Arc<dyn Fn(Message) + Send + Sync>;

/// How far a reload is, for systemd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReloadPhase {
    /// It begins.
    Begins,
    /// It is over, applied or rejected.
    Over,
}

/// The config that runs, and the next one on its way.
pub(crate) struct Reload {
    path: PathBuf,
    process: Process,
    send: SendTo,
    running: Baseline,
    schedule: ReloadSchedule,
    stage: Stage,
    dry_runs: DryRuns,
    watcher: ConfigWatcher,
    pub(crate) last: LastReload,
    applied: AppliedConfig,
    late_state: LateState,
    /// Whether systemd is notified of reloads: not before the first `READY=1`, which is the driver's.
    pub(crate) notifies_systemd: bool,
    /// What systemd is still to be notified of.
    phases: Vec<ReloadPhase>,
}

/// How far the reload in progress is.
enum Stage {
    Idle,
    Reading {
        /// Somebody asked for it; otherwise, files changed.
        requested: bool,
        waiting: Vec<oneshot::Sender<ReloadVerdict>>,
    },
    /// These steps are still to be taken.
    Applying {
        plan: Box<Plan>,
        /// `None` at a start, which nobody waits for.
        verdict: Option<ReloadVerdict>,
        waiting: Vec<oneshot::Sender<ReloadVerdict>>,
    },
}

impl Reload {
    pub(crate) fn new(path: PathBuf, process: Process, send: SendTo) -> Self {
        Self {
            path,
            process,
            send,
            running: Baseline::default(),
            schedule: ReloadSchedule::default(),
            stage: Stage::Idle,
            dry_runs: DryRuns::default(),
            watcher: ConfigWatcher::default(),
            last: LastReload::default(),
            applied: AppliedConfig::default(),
            late_state: LateState::default(),
            notifies_systemd: false,
            phases: Vec::new(),
        }
    }

    /// Has the config's files watched from here on.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub(crate) fn watch_files(&mut self) -> io::Result<()> {
        let send = Arc::clone(&self.send);
        let on_change: OnChange = Arc::new(move || send(Message::FilesChanged));
        self.watcher.start(on_change)
    }

    /// Takes a message in.
    pub(crate) fn handle(
        &mut self,
        now: Now,
        message: Message,
        engine: &Engine,
        executor: &mut Executor,
        events: &mut Vec<Event>,
    ) {
        match message {
            Message::FilesChanged => self.schedule.files_changed(now.boot),
            Message::Read(loaded) => self.loaded(engine, executor, now, *loaded, events),
            Message::DryRun(loaded) => self.dry_runs.ended(loaded.as_deref()),
            Message::Compared(findings) => self.compared(*findings, executor, events),
        }
    }

    /// Somebody asks for a reload or for a dry run, and may wait for the verdict.
    pub(crate) fn request(&mut self, now: Now, request: ReloadRequest, reply: Option<oneshot::Sender<ReloadVerdict>>) {
        let removal = if request.allow_mass_removal { MassRemoval::Allowed } else { MassRemoval::HeldBack };
        if request.dry_run {
            reply.into_iter().for_each(|reply| self.dry_runs.ask(removal, reply));
        } else {
            self.schedule.request(now.boot, removal, reply);
        }
    }

    /// When a reload is due to begin; `None` while one is in progress, or a dry run, whose end is a message.
    pub(crate) fn due_at(&self) -> Option<BootMs> {
        self.schedule.due_at().filter(|_| self.is_idle() && !self.dry_runs.is_under_way())
    }

    /// Whether steps are left that the next turn should take.
    pub(crate) fn has_steps(&self) -> bool {
        matches!(self.stage, Stage::Applying { .. })
    }

    /// Whether no reload is in progress.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }

    /// Begins to read the config if that is due, or else for a dry run.
    pub(crate) fn begin_if_due(&mut self, now: Now) {
        if self.due_at().is_none_or(|at| at > now.boot) {
            return self.begin_dry_run();
        }
        let PendingReload { requested, removal, waiting } = self.schedule.take();
        self.stage = Stage::Reading { requested, waiting };
        if requested {
            self.begin_phase(ReloadPhase::Begins);
        }
        if let Err(error) = self.load("reload", !requested, removal, Message::Read) {
            let why = format!("there is no thread to read the config with: {error}");
            let loaded = candidate::rejected(&self.path, Report::from(Diagnostic::new(Severity::Error, why)));
            (self.send)(Message::Read(Box::new(loaded)));
        }
    }

    /// Begins a dry run if somebody waits for one and nothing else is being read: a reload waits for one dry run at most.
    fn begin_dry_run(&mut self) {
        if matches!(self.stage, Stage::Reading { .. }) {
            return;
        }
        let Some(removal) = self.dry_runs.begin() else { return };
        if let Err(error) = self.load("dry-run", false, removal, |loaded| Message::DryRun(Some(loaded))) {
            tracing::warn!(event = "rehearsal_failed", "cannot tell what a reload would do: {error}");
            (self.send)(Message::DryRun(None));
        }
    }

    /// Reads the config on a thread of its own.
    fn load(
        &self,
        thread: &str,
        wait: bool,
        removal: MassRemoval,
        message: fn(Box<LoadedConfig>) -> Message,
    ) -> io::Result<()> {
        let (path, process, running) = (self.path.clone(), self.process.clone(), self.running.clone());
        let send = Arc::clone(&self.send);
        let reading = move || {
            if wait {
                wait_for_writers(&path);
            }
            send(message(Box::new(candidate::load(&path, &process, &running, removal))));
        };
        std::thread::Builder::new().name(thread.into()).spawn(reading).map(drop)
    }

    /// The config was read: it is rejected here, or its steps begin.
    fn loaded(
        &mut self,
        engine: &Engine,
        executor: &mut Executor,
        now: Now,
        loaded: LoadedConfig,
        events: &mut Vec<Event>,
    ) {
        let Stage::Reading { requested, waiting } = std::mem::replace(&mut self.stage, Stage::Idle) else { return };
        if self.last.digest == Some(loaded.digest) {
            self.schedule.retry_if(now.boot, loaded.hangs);
            self.persist_if_lost(now, loaded.candidate.as_deref());
            if !requested {
                return self.watcher.set(loaded.watch);
            }
        }
        if !requested {
            self.begin_phase(ReloadPhase::Begins);
        }
        let mut verdict = verdict(&loaded);
        let held_back = loaded.candidate.as_ref().map_or(self.last.held_back, |candidate| candidate.held_back);
        self.record_outcome(now, &loaded, held_back);
        let plan = loaded.candidate.map(|candidate| self.apply(engine, executor, now, *candidate, events));
        match plan {
            Some(Ok(plan)) => {
                self.stage = Stage::Applying { plan: Box::new(plan), verdict: Some(verdict), waiting };
                return;
            }
            Some(Err(error)) => {
                let why = format!("the config cannot be applied: {error}");
                (verdict.applied, verdict.report) = (false, format!("{why}\n"));
                self.last.not_applied(why);
            }
            None => {}
        }
        let why = self.last.headline.as_deref().unwrap_or(&verdict.report);
        tracing::error!(event = "reload_rejected", "the config on disk is rejected, and nothing changes: {why}");
        self.finish(&verdict, waiting);
    }

    /// Makes a config the one that runs, and plans the steps towards it.
    ///
    /// # Errors
    /// When no thread is to be had for a new lane.
    pub(crate) fn apply(
        &mut self,
        engine: &Engine,
        executor: &mut Executor,
        now: Now,
        mut candidate: Candidate,
        events: &mut Vec<Event>,
    ) -> io::Result<Plan> {
        let withdrawing: HashSet<_> = engine.withdrawing().cloned().collect();
        let reclaimed = plan::reclaimed(&candidate, &withdrawing);
        let plan = Plan::new(&mut candidate, self.running.config.as_ref(), &mut executor.sinks);
        // A plan that failed half-way may have begun lanes, too, and moved sinks there.
        executor.count_lanes();
        let plan = plan?;
        if !reclaimed.is_empty() {
            events.push(Event::Reclaimed(reclaimed));
        }
        events.push(Event::TotalRate(candidate.config.limits.total));
        self.switch_to(executor, now, candidate);
        Ok(plan)
    }

    /// The candidate's settings are in force from here on.
    fn switch_to(&mut self, executor: &mut Executor, now: Now, candidate: Candidate) {
        // Tenants of apps that go are still called for until their step is taken.
        let old = self.running.config.take();
        executor.calls.access.retain(|app, _| old.as_ref().is_some_and(|old| old.apps.contains_key(app)));
        executor.calls.access.extend(candidate.access);
        executor.use_config(Arc::clone(&candidate.config));
        executor.sinks.claims.reserve(candidate.reserved);
        let mut secrets: BTreeMap<_, _> = std::mem::take(&mut self.running.secrets);
        secrets.retain(|app, _| candidate.config.apps.contains_key(app));
        secrets.extend(candidate.secrets);
        if candidate.held_back == 0 {
            let secrets = secrets.clone().into_iter().collect();
            self.applied.applied(now.boot, Applied { texts: candidate.texts, secrets });
        }
        let fixed = self.running.fixed.take().unwrap_or_else(|| RestartOnly::of(&candidate.config));
        let (config, clients) = (Some(candidate.config), candidate.clients);
        self.running = Baseline { config, clients, secrets, fixed: Some(fixed) };
    }

    /// The daemon starts with these steps.
    pub(crate) fn begin_start(&mut self, plan: Plan) {
        self.stage = Stage::Applying { plan: Box::new(plan), verdict: None, waiting: Vec::new() };
    }

    /// The next steps of the reload that is being applied. After the last one, those who wait get the verdict.
    pub(crate) fn next_steps(&mut self) -> Vec<Change> {
        let Stage::Applying { plan, .. } = &mut self.stage else { return Vec::new() };
        let next: Vec<Change> = plan.by_ref().take(plan::STEPS_A_TURN).collect();
        if next.len() < plan::STEPS_A_TURN
            && let Stage::Applying { verdict: Some(verdict), waiting, .. } =
                std::mem::replace(&mut self.stage, Stage::Idle)
        {
            let ReloadVerdict { added, removed, changed, .. } = verdict;
            tracing::info!(
                event = "reloaded",
                added,
                removed,
                changed,
                "config applied; tenants: {added} added, {removed} removed, {changed} changed"
            );
            self.finish(&verdict, waiting);
        }
        next
    }

    /// Records what became of the config on disk.
    pub(crate) fn record_outcome(&mut self, now: Now, loaded: &LoadedConfig, held_back: usize) {
        self.last.record(now.wall, loaded, held_back);
        self.watcher.set(loaded.watch.clone());
        self.schedule.retry_if(now.boot, loaded.hangs);
    }

    /// The reload is over, applied or rejected: systemd is notified, and those who asked get the verdict.
    fn finish(&mut self, verdict: &ReloadVerdict, waiting: Vec<oneshot::Sender<ReloadVerdict>>) {
        self.begin_phase(ReloadPhase::Over);
        // A receiver may be gone.
        waiting.into_iter().for_each(|reply| drop(reply.send(verdict.clone())));
    }

    fn begin_phase(&mut self, phase: ReloadPhase) {
        if self.notifies_systemd {
            self.phases.push(phase);
        }
    }

    /// What systemd is to be notified of.
    pub(crate) fn take_phases(&mut self) -> Vec<ReloadPhase> {
        std::mem::take(&mut self.phases)
    }

    /// The config's main file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
