//! When the config is looked at again, and what becomes of it.

pub(crate) mod candidate;
mod dry_run;
pub(crate) mod late_state;
pub(crate) mod plan;
mod status;
pub(crate) mod watch;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::oneshot;

use super::executor::Executor;
use crate::config::{Config, Diagnostic, Process, Report, Severity};
use crate::control::protocol::{ReloadRequest, ReloadVerdict};
use crate::domain::{BootMs, Change, Fingerprint, Now};
use crate::engine::{Engine, Event};
use crate::environment;
use crate::store::{Applied, Contents};
use crate::system::clock;
use candidate::{Baseline, Candidate, LoadedConfig, MassRemoval, RestartOnly};
use dry_run::DryRuns;
use late_state::{Current, LateFindings, LateState};
use plan::Plan;
use status::{LastReload, verdict};
use watch::{ConfigWatcher, Watchlist};

/// How long changes are gathered before the config is read, in milliseconds.
const SETTLE_MS: u64 = 250;
/// It is read after so long even if there is no end to the changes, in milliseconds.
const SETTLE_MOST_MS: u64 = 2_000;
/// What did not come to an end is tried again after so long, in milliseconds.
const RETRY_MS: u64 = 15_000;
/// A config that was applied is remembered after so long even if what it removed could not all be deleted, in milliseconds.
const REMEMBER_MOST_MS: u64 = 60_000;

/// What happened that concerns the config.
pub(crate) enum Message {
    /// A file near the config may have changed.
    FilesChanged,
    /// The config was read.
    Read(Box<LoadedConfig>),
    /// The config was read to tell what a reload would do; `None` where there was no thread for it.
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

/// The state of reloading.
pub(crate) struct Reload {
    path: PathBuf,
    process: Process,
    send: SendTo,
    pub(crate) running: Baseline,
    /// When the config is read next.
    due: Option<BootMs>,
    /// When the first of the changes that are being gathered came.
    gathering_since: Option<BootMs>,
    removal: MassRemoval,
    /// Who waits for the next verdict.
    waiting: Vec<oneshot::Sender<ReloadVerdict>>,
    /// Whether somebody asked for the next reload, be it only by a signal.
    requested: bool,
    stage: Stage,
    pub(crate) last: LastReload,
    /// Whether systemd is told: not before the first `READY=1`, which is not ours to give.
    pub(crate) notifies_systemd: bool,
    /// What systemd is to be told.
    phases: Vec<ReloadPhase>,
    digest: Option<Fingerprint>,
    /// Watches files; `once` does without.
    watch: Option<ConfigWatcher>,
    /// What is to be watched once something watches.
    watchlist: Watchlist,
    late_state: LateState,
    /// When the config is read again although nothing changed, because something did not come to an end.
    retry: Option<BootMs>,
    dry_runs: DryRuns,
    /// A config that was applied, but not carried out to the end yet.
    unpersisted: Option<Unpersisted>,
    /// The state lost the config that it remembered: the one on disk is read again, and remembered if it is what runs.
    was_lost: bool,
}

/// A config that was applied. It takes the place of the last one only once the places that it leaves are empty: a daemon
/// that is killed before that finds them by comparing with the last one.
struct Unpersisted {
    applied: Applied,
    since: BootMs,
}

/// How far the reload that is under way has come.
enum Stage {
    Idle,
    /// The config is being read, for these.
    Reading {
        requested: bool,
        waiting: Vec<oneshot::Sender<ReloadVerdict>>,
    },
    /// These steps are still to be taken.
    Applying {
        plan: Box<Plan>,
        verdict: ReloadVerdict,
        waiting: Vec<oneshot::Sender<ReloadVerdict>>,
        is_start: bool,
    },
}

impl Reload {
    pub(crate) fn new(path: PathBuf, process: Process, send: SendTo) -> Self {
        Self {
            path,
            process,
            send,
            running: Baseline::default(),
            due: None,
            gathering_since: None,
            removal: MassRemoval::HeldBack,
            waiting: Vec::new(),
            requested: false,
            stage: Stage::Idle,
            last: LastReload::default(),
            notifies_systemd: false,
            phases: Vec::new(),
            digest: None,
            watch: None,
            watchlist: Watchlist::default(),
            late_state: LateState::default(),
            retry: None,
            dry_runs: DryRuns::default(),
            unpersisted: None,
            was_lost: false,
        }
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
            Message::FilesChanged => self.files_changed(now),
            Message::Read(prepared) => self.prepared(engine, executor, now, *prepared, events),
            Message::DryRun(prepared) => self.dry_runs.ended(prepared.as_deref()),
            Message::Compared(findings) => self.compared(*findings, executor, events),
        }
    }

    /// Something may have changed: the config is read once it has settled.
    fn files_changed(&mut self, now: Now) {
        if self.requested {
            return; // somebody asked for it, and does not wait for anything to settle
        }
        let since = *self.gathering_since.get_or_insert(now.boot);
        self.due = Some((now.boot + SETTLE_MS).min(since + SETTLE_MOST_MS));
    }

    /// Somebody wants it read now, and perhaps to hear what becomes of it.
    pub(crate) fn request(&mut self, now: Now, request: ReloadRequest, reply: Option<oneshot::Sender<ReloadVerdict>>) {
        let ReloadRequest { allow_mass_removal, dry_run } = request;
        let removal = if allow_mass_removal { MassRemoval::Allowed } else { MassRemoval::HeldBack };
        if dry_run {
            reply.into_iter().for_each(|reply| self.dry_runs.ask(removal, reply));
            return;
        }
        self.due = Some(now.boot);
        self.requested = true;
        if allow_mass_removal {
            self.removal = removal;
        }
        // Who went away does not wait.
        self.waiting.retain(|waiting| !waiting.is_closed());
        self.waiting.extend(reply);
    }

    /// Begins to find out what a reload would do, if somebody waits for that and nothing else is being read: a reload waits for
    /// one dry run at the most.
    fn begin_dry_run(&mut self) {
        if matches!(self.stage, Stage::Reading { .. }) {
            return;
        }
        let Some(removal) = self.dry_runs.begin() else { return };
        let (path, process, running) = (self.path.clone(), self.process.clone(), self.running.clone());
        let send = Arc::clone(&self.send);
        let rehearsal = std::thread::Builder::new().name("rehearsal".into()).spawn(move || {
            let prepared = candidate::load(&path, &process, &running, removal);
            send(Message::DryRun(Some(Box::new(prepared))));
        });
        if let Err(error) = rehearsal {
            tracing::warn!(event = "rehearsal_failed", "cannot tell what a reload would do: {error}");
            (self.send)(Message::DryRun(None));
        }
    }

    fn retry_if_it_hangs(&mut self, now: Now, prepared: &LoadedConfig) {
        self.retry = prepared.hangs.then_some(now.boot + RETRY_MS);
    }

    /// When a reload is due to begin; `None` while one is under way, or a dry run, whose end is an event.
    pub(crate) fn due_at(&self) -> Option<BootMs> {
        let may_begin = matches!(self.stage, Stage::Idle) && !self.dry_runs.is_under_way();
        [self.due, self.retry].into_iter().flatten().min().filter(|_| may_begin)
    }

    /// Whether steps are left that the next turn should take.
    pub(crate) fn has_steps(&self) -> bool {
        matches!(self.stage, Stage::Applying { .. })
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }

    /// Begins to read the config, if that is due, on a thread of its own.
    pub(crate) fn begin_if_due(&mut self, now: Now) {
        if self.due_at().is_none_or(|at| at > now.boot) {
            self.begin_dry_run();
            return;
        }
        (self.due, self.gathering_since, self.retry) = (None, None, None);
        let removal = std::mem::replace(&mut self.removal, MassRemoval::HeldBack);
        let (requested, waiting) = (std::mem::take(&mut self.requested), std::mem::take(&mut self.waiting));
        self.stage = Stage::Reading { requested, waiting };
        if requested && self.notifies_systemd {
            self.phases.push(ReloadPhase::Begins);
        }
        let (path, process, running) = (self.path.clone(), self.process.clone(), self.running.clone());
        let send = Arc::clone(&self.send);
        let reading = std::thread::Builder::new().name("reload".into()).spawn(move || {
            if !requested {
                wait_for_writers(&path);
            }
            let prepared = candidate::load(&path, &process, &running, removal);
            send(Message::Read(Box::new(prepared)));
        });
        if let Err(error) = reading {
            let why = format!("there is no thread to read the config with: {error}");
            let prepared = candidate::rejected(&self.path, Report::from(Diagnostic::new(Severity::Error, why)));
            (self.send)(Message::Read(Box::new(prepared)));
        }
    }

    /// The config was read: it is rejected here, or its steps begin.
    fn prepared(
        &mut self,
        engine: &Engine,
        executor: &mut Executor,
        now: Now,
        prepared: LoadedConfig,
        events: &mut Vec<Event>,
    ) {
        let Stage::Reading { requested, waiting } = std::mem::replace(&mut self.stage, Stage::Idle) else { return };
        let nothing_new = self.digest == Some(prepared.digest);
        self.retry_if_it_hangs(now, &prepared);
        if nothing_new && std::mem::take(&mut self.was_lost) && self.last.held_back == 0 {
            self.persist_again(now, prepared.candidate.as_deref());
        }
        if nothing_new && !requested {
            self.set_watchlist(prepared.watch);
            return;
        }
        if !requested && self.notifies_systemd {
            self.phases.push(ReloadPhase::Begins);
        }
        let mut verdict = verdict(&prepared);
        let held_back = prepared.candidate.as_ref().map_or(self.last.held_back, |candidate| candidate.held_back);
        self.record_outcome(now, &prepared, held_back);
        let plan = match prepared.candidate {
            None => None,
            Some(candidate) => match self.adopt(engine, executor, now, *candidate, events) {
                Ok(plan) => Some(Box::new(plan)),
                Err(error) => {
                    let why = format!("the config cannot be applied: {error}");
                    verdict.applied = false;
                    verdict.report = format!("{why}\n");
                    (self.last.rejected, self.last.headline) = (true, Some(why.clone()));
                    self.last.problems.push(why);
                    None
                }
            },
        };
        match plan {
            Some(plan) => self.stage = Stage::Applying { plan, verdict, waiting, is_start: false },
            None => {
                let why = self.last.headline.as_deref().unwrap_or(&verdict.report);
                tracing::error!(
                    event = "reload_rejected",
                    "the config on disk is rejected, and nothing changes: {why}"
                );
                self.finish(verdict, waiting);
            }
        }
    }

    /// Takes a config for the one that runs, and plans the steps towards it.
    pub(crate) fn adopt(
        &mut self,
        engine: &Engine,
        executor: &mut Executor,
        now: Now,
        mut candidate: Candidate,
        events: &mut Vec<Event>,
    ) -> std::io::Result<Plan> {
        let withdrawing: HashSet<_> = engine.withdrawing().cloned().collect();
        let reclaimed = plan::reclaimed(&candidate, &withdrawing);
        let plan = Plan::new(&mut candidate, self.running.config.as_ref(), &mut executor.sinks)?;
        if !reclaimed.is_empty() {
            events.push(Event::Reclaimed(reclaimed));
        }
        self.switch_to(executor, now, candidate, events);
        Ok(plan)
    }

    /// Makes a candidate's settings the ones in force.
    pub(crate) fn switch_to(
        &mut self,
        executor: &mut Executor,
        now: Now,
        candidate: Candidate,
        events: &mut Vec<Event>,
    ) {
        events.push(Event::TotalRate(candidate.config.limits.total));
        executor.count_lanes();
        // Tenants of apps that go are still called for until their step is taken.
        let old = self.running.config.take();
        executor.calls.access.retain(|app, _| old.as_ref().is_some_and(|old| old.apps.contains_key(app)));
        executor.calls.access.extend(candidate.access);
        executor.use_config(candidate.config.clone());
        executor.sinks.claims.reserve(candidate.reserved);
        let mut secrets: BTreeMap<_, _> = std::mem::take(&mut self.running.secrets);
        secrets.retain(|app, _| candidate.config.apps.contains_key(app));
        secrets.extend(candidate.secrets);
        if candidate.held_back == 0 {
            let applied = Applied { texts: candidate.texts, secrets: secrets.clone().into_iter().collect() };
            self.unpersisted = Some(Unpersisted { applied, since: now.boot });
        }
        let fixed = self.running.fixed.take().unwrap_or_else(|| RestartOnly::of(&candidate.config));
        self.running =
            Baseline { config: Some(candidate.config), clients: candidate.clients, secrets, fixed: Some(fixed) };
    }

    /// Remembers the config that was applied last, over a restart, once it has been carried out.
    pub(crate) fn persist_when_done(&mut self, engine: &Engine, executor: &mut Executor, now: Now) {
        let done = || self.is_idle() && engine.withdrawing().next().is_none();
        let overdue = self.persist_deadline().is_some_and(|at| at <= now.boot);
        if (overdue || done())
            && let Some(Unpersisted { applied, .. }) = self.unpersisted.take()
        {
            executor.persist_config(applied);
        }
    }

    /// The state was begun anew, and does not know any more which config was applied. Its text is read again.
    pub(crate) fn state_was_reset(&mut self, now: Now) {
        if self.unpersisted.is_none() {
            self.was_lost = true;
            self.files_changed(now);
        }
    }

    /// The config on disk is the one that runs.
    fn persist_again(&mut self, now: Now, on_disk: Option<&Candidate>) {
        if let Some(Candidate { texts, .. }) = on_disk {
            let applied = Applied { texts: texts.clone(), secrets: self.running.secrets.clone().into_iter().collect() };
            self.unpersisted.get_or_insert(Unpersisted { applied, since: now.boot });
        }
    }

    /// The state can be read at last: what it held is compared with what runs, on a thread of its own.
    pub(crate) fn state_can_be_read(&self, config: &Arc<Config>, late: Contents) {
        let process = self.process.clone();
        self.compare(config, move |now| LateFindings::new(late, now, &process));
    }

    fn compare(&self, config: &Arc<Config>, compare: impl FnOnce(&Current) -> LateFindings + Send + 'static) {
        let now = Current { config: Arc::clone(config), secrets: self.running.secrets.clone() };
        let send = Arc::clone(&self.send);
        let comparing = std::thread::Builder::new().name("adoption".into()).spawn(move || {
            send(Message::Compared(Box::new(compare(&now))));
        });
        if let Err(error) = comparing {
            tracing::error!(event = "state_not_adopted", "what the state held cannot be taken over: {error}");
        }
    }

    /// What the state held was compared with what runs.
    fn compared(&mut self, mut findings: LateFindings, executor: &mut Executor, events: &mut Vec<Event>) {
        if Arc::ptr_eq(&findings.running, &executor.config.config) {
            return self.late_state.adopt(findings, executor, events);
        }
        // A reload came meanwhile: what has left by one config may be there by the other, and must not be emptied.
        self.compare(&executor.config.config, move |now| {
            findings.compare(now);
            findings
        });
    }

    /// Takes over the next tokens of a state that could be read late. Returns whether there is more.
    pub(crate) fn restore_late_state(&mut self, executor: &mut Executor, events: &mut Vec<Event>) -> bool {
        // A tenant that is yet to be added has no place for a token.
        if self.has_steps() { self.late_state.is_pending() } else { self.late_state.restore_next(executor, events) }
    }

    /// Has files watched from here on.
    pub(crate) fn watch_with(&mut self, watch: ConfigWatcher) {
        watch.set(self.watchlist.clone());
        self.watch = Some(watch);
    }

    fn set_watchlist(&mut self, list: Watchlist) {
        if let Some(watch) = &self.watch {
            watch.set(list.clone());
        }
        self.watchlist = list;
    }

    /// What systemd is to be told since this was asked last.
    pub(crate) fn take_phases(&mut self) -> Vec<ReloadPhase> {
        std::mem::take(&mut self.phases)
    }

    /// The state remembers `kept` already.
    pub(crate) fn is_persisted(&mut self, kept: &Applied) {
        self.unpersisted.take_if(|waits| waits.applied == *kept);
    }

    /// When the config that was applied last is remembered at the latest.
    pub(crate) fn persist_deadline(&self) -> Option<BootMs> {
        self.unpersisted.as_ref().map(|waits| waits.since + REMEMBER_MOST_MS)
    }

    /// The next steps of the reload that is being applied. After the last one, those who wait hear the verdict.
    pub(crate) fn next_steps(&mut self) -> Vec<Change> {
        let Stage::Applying { plan, .. } = &mut self.stage else { return Vec::new() };
        let next: Vec<Change> = plan.by_ref().take(plan::STEPS_A_TURN).collect();
        if next.len() < plan::STEPS_A_TURN
            && let Stage::Applying { verdict, waiting, is_start, .. } = std::mem::replace(&mut self.stage, Stage::Idle)
            && !is_start
        {
            self.applied(verdict, waiting);
        }
        next
    }

    fn applied(&mut self, verdict: ReloadVerdict, waiting: Vec<oneshot::Sender<ReloadVerdict>>) {
        let ReloadVerdict { added, removed, changed, .. } = verdict;
        tracing::info!(
            event = "reloaded",
            added,
            removed,
            changed,
            "config applied: {added} tenants added, {removed} removed, {changed} changed"
        );
        self.finish(verdict, waiting);
    }

    /// Remembers, for `status`, what became of the config on disk.
    pub(crate) fn record_outcome(&mut self, now: Now, prepared: &LoadedConfig, held_back: usize) {
        if held_back > 0 && held_back != self.last.held_back {
            tracing::error!(
                event = "mass_removal_held_back",
                removed = held_back,
                "the config on disk would remove {held_back} tenants; they are kept, and renewed, until `corptokend reload --allow-mass-removal`"
            );
        }
        let problems = prepared.report.diagnostics.iter();
        let (errors, warnings): (Vec<_>, Vec<_>) = problems.partition(|p| p.severity == crate::config::Severity::Error);
        let warnings: Vec<String> = warnings.iter().map(|problem| problem.one_line()).collect();
        for warning in warnings.iter().filter(|warning| !self.last.warnings.contains(warning)) {
            tracing::warn!(event = "config_warning", "{warning}");
        }
        self.digest = Some(prepared.digest);
        self.set_watchlist(prepared.watch.clone());
        self.retry_if_it_hangs(now, prepared);
        self.last = LastReload {
            rejected: prepared.report.has_errors(),
            at: Some(now.wall),
            problems: errors.iter().map(|problem| problem.one_line()).collect(),
            headline: prepared.report.headline(),
            held_back,
            warnings,
        };
    }

    /// Applied or rejected, systemd hears that the reload is over, and those who asked hear how it went.
    fn finish(&mut self, verdict: ReloadVerdict, waiting: Vec<oneshot::Sender<ReloadVerdict>>) {
        if self.notifies_systemd {
            self.phases.push(ReloadPhase::Over);
        }
        for reply in waiting {
            // Who went away in the meantime need not know.
            let _ = reply.send(verdict.clone());
        }
    }

    /// The config's main file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The daemon starts with these steps; nobody waits for a verdict.
    pub(crate) fn begin_start(&mut self, plan: Plan) {
        let (plan, verdict) = (Box::new(plan), ReloadVerdict::default());
        self.stage = Stage::Applying { plan, verdict, waiting: Vec::new(), is_start: true };
    }
}

/// Waits until the files have not been written to for a while. On a busy machine the news of a change come late, and a
/// writer may be in the middle of the next one.
fn wait_for_writers(path: &Path) {
    let deadline = clock::now().boot + SETTLE_MOST_MS;
    while clock::now().boot < deadline {
        let written = environment::last_written(path).and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let Some(age) = written.and_then(clock::machine_age_ms).filter(|age| *age < SETTLE_MS) else { return };
        std::thread::sleep(Duration::from_millis(SETTLE_MS - age));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_ask_for_a_reload_and_go_away_take_no_room() {
        let mut reload = Reload::new("/etc/corptokend/config.toml".into(), Process::default(), Arc::new(drop));
        let now = clock::now();
        let (reply, _waits) = oneshot::channel();
        reload.request(now, ReloadRequest::default(), Some(reply));
        for _ in 0..1000 {
            reload.request(now, ReloadRequest::default(), Some(oneshot::channel().0));
        }
        assert!(reload.waiting.len() <= 2, "{}", reload.waiting.len());
        assert!(!reload.waiting[0].is_closed(), "who still waits hears of it");
    }
}
