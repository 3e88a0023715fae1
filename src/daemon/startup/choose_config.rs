//! Which config runs: the one on disk, or, if that is in error, the one that was applied last.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::super::reload::candidate::{self, Baseline, Candidate, LoadedConfig, MassRemoval, OnDisk};
use super::StartError;
use crate::config::{Checked, Config, Process, Report, Sources};
use crate::domain::{AppName, Fingerprint};
use crate::environment;
use crate::store::{self, Applied};
use crate::system::blocking::Blocking;
use crate::system::terminal::wants_colour;

/// What runs when the config on disk cannot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fallback {
    LastApplied,
    None,
}

/// The config that will run, and what became of the one on disk.
pub(super) struct Chosen {
    pub(super) candidate: Box<Candidate>,
    /// What else was read of it.
    pub(super) loaded: LoadedConfig,
    /// The config that ran last, if the state knows it.
    pub(super) last: Option<Arc<Config>>,
    /// The config on disk, if another one runs.
    pub(super) rejected: Option<LoadedConfig>,
}

/// Chooses between the config on disk and `applied`, the one that was applied last.
///
/// # Errors
/// When neither can run.
pub(super) fn choose(
    on_disk: OnDisk,
    applied: &Applied,
    process: &Process,
    fallback: Fallback,
) -> Result<Chosen, StartError> {
    let OnDisk { sources, checked: on_disk } = on_disk;
    let saved = environment::remembered(&applied.texts);
    // Mostly nothing changed while the daemon was down, and what was checked once need not be checked again.
    let unchanged = on_disk.config.is_some() && saved.files == sources.files;
    let checked = match saved.files[..] {
        [] => None,
        _ if unchanged => Some(on_disk.clone()),
        _ => Some(environment::check(&saved, process)),
    };
    let last = checked.as_ref().and_then(|checked| checked.config.clone()).map(Arc::new);
    let running = Baseline { config: last.clone(), ..Baseline::default() };
    let compare = |sources: &Sources, checked: Checked| {
        candidate::compare(sources, checked, process, &running, MassRemoval::HeldBack)
    };
    let mut loaded = compare(&sources, on_disk);
    if let Some(candidate) = loaded.candidate.take() {
        return Ok(Chosen { candidate, loaded, last, rejected: None });
    }
    let saved = checked.filter(|_| fallback == Fallback::LastApplied).map(|checked| compare(&saved, checked));
    let Some(mut saved) = saved else { return Err(config_error(loaded.report, &sources)) };
    match saved.candidate.take() {
        Some(candidate) => Ok(Chosen { candidate, loaded: saved, last, rejected: Some(loaded) }),
        None if saved.report.may_end_by_itself() => Err(StartError::Unanswered { rendered: saved.rendered }),
        None => Err(config_error(loaded.report, &sources)),
    }
}

/// The start ends for good where the operator must act, and can be repeated where something did not answer in time.
pub(super) fn config_error(report: Report, sources: &Sources) -> StartError {
    let rendered = report.render(sources, wants_colour(&std::io::stderr()));
    if report.may_end_by_itself() {
        return StartError::Unanswered { rendered };
    }
    StartError::Config { report, rendered }
}

/// Whether there is a state. One that does not answer might as well not be there.
pub(super) fn state_exists(state: &Path) -> bool {
    let path = state.to_owned();
    let patience = Duration::from_millis(store::HANGS_AFTER_MS);
    Blocking::new("state", 1).run_and_block(state, patience, move || path.exists()).unwrap_or(false)
}

/// The apps whose credentials are others than when the daemon ran last.
pub(super) fn stale_apps(candidate: &Candidate, last: &Applied) -> Vec<AppName> {
    let changed = candidate.difference.apps.iter().filter(|app| app.credentials_changed).map(|app| app.name.clone());
    let other = |(app, secret): &&(AppName, Fingerprint)| candidate.secrets.get(app).is_some_and(|now| now != secret);
    let mut stale: Vec<AppName> =
        changed.chain(last.secrets.iter().filter(other).map(|(app, _)| app.clone())).collect();
    stale.sort_unstable();
    stale.dedup();
    stale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Diagnostic, Severity};

    /// systemd does not restart after the exit code of [`StartError::Config`].
    #[test]
    fn only_what_the_operator_must_mend_ends_the_start_for_good() {
        let error = |diagnostics| config_error(Report { diagnostics }, &Sources::remembered(Vec::new()));
        let wrong = || Diagnostic::new(Severity::Error, "no such group");
        let unanswered = || Diagnostic::new(Severity::Error, "the group cannot be looked up").that_hangs();
        assert!(matches!(error(vec![wrong()]), StartError::Config { .. }));
        assert!(matches!(error(vec![unanswered(), wrong()]), StartError::Config { .. }));
        let warning = Diagnostic::new(Severity::Warning, "old");
        assert!(matches!(error(vec![unanswered(), warning]), StartError::Unanswered { .. }));
    }
}
