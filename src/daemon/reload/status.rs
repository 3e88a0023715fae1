//! What became of a config on disk: for those who asked, and for `status`.

use super::candidate::LoadedConfig;
use crate::config::Severity;
use crate::control::protocol::{HeldBack, ReloadVerdict};
use crate::domain::{Fingerprint, WallMs};

/// How the last reload went.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastReload {
    pub(crate) rejected: bool,
    pub(crate) at: Option<WallMs>,
    /// What is wrong with the config on disk, one line each.
    pub(crate) problems: Vec<String>,
    /// Its first error.
    pub(crate) headline: Option<String>,
    pub(crate) held_back: usize,
    /// What is worth knowing although nothing is wrong.
    pub(crate) warnings: Vec<String>,
    /// Tells whether what is on disk is other than what was read.
    pub(super) digest: Option<Fingerprint>,
}

impl LastReload {
    /// Records what was read, and logs what is new about it. `held_back`: the tenants that are kept although the config on disk does
    /// not name them.
    pub(super) fn record(&mut self, at: WallMs, loaded: &LoadedConfig, held_back: usize) {
        if held_back > 0 && held_back != self.held_back {
            tracing::error!(
                event = "mass_removal_held_back",
                removed = held_back,
                "the config on disk would remove {held_back} tenants; they are kept, and renewed, until `corptokend reload --allow-mass-removal`"
            );
        }
        let lines = |severity| {
            let of_it = loaded.report.diagnostics.iter().filter(move |diagnostic| diagnostic.severity == severity);
            of_it.map(|diagnostic| diagnostic.one_line()).collect::<Vec<String>>()
        };
        let warnings = lines(Severity::Warning);
        for warning in warnings.iter().filter(|warning| !self.warnings.contains(warning)) {
            tracing::warn!(event = "config_warning", "{warning}");
        }
        *self = Self {
            rejected: loaded.report.has_errors(),
            at: Some(at),
            problems: lines(Severity::Error),
            headline: loaded.report.headline(),
            held_back,
            warnings,
            digest: Some(loaded.digest),
        };
    }

    /// The config that was recorded is valid, but could not be applied.
    pub(super) fn not_applied(&mut self, why: String) {
        self.rejected = true;
        self.headline = Some(why.clone());
        self.problems.push(why);
    }
}

/// What those get who asked for a reload.
pub(super) fn verdict(loaded: &LoadedConfig) -> ReloadVerdict {
    let candidate = loaded.candidate.as_deref();
    let counts = candidate.map(|candidate| candidate.difference.counts).unwrap_or_default();
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let held_back = candidate.map_or(0, |candidate| candidate.held_back);
    let renewed = candidate.map_or(0, |candidate| candidate.refetched_for_secrets());
    ReloadVerdict {
        applied: candidate.is_some(),
        added: count(counts.added),
        removed: count(counts.removed),
        changed: count(counts.sinks_changed + counts.refetched),
        fetched: count(counts.added + counts.refetched + renewed),
        held_back: (held_back > 0).then(|| HeldBack { removed: count(held_back) }),
        report: loaded.rendered.clone(),
        problems: loaded.report.to_json().as_array().cloned().unwrap_or_default(),
    }
}
