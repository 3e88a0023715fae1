//! What became of a config on disk, in words: for those who asked, and for `status`.

use super::candidate::LoadedConfig;
use crate::control::protocol::{HeldBack, ReloadVerdict};
use crate::domain::WallMs;

/// How the last reload went, for `status`.
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
}

/// What those hear who asked for a reload.
pub(crate) fn verdict(prepared: &LoadedConfig) -> ReloadVerdict {
    let counts = prepared.candidate.as_ref().map(|candidate| candidate.difference.counts).unwrap_or_default();
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let held_back = prepared.candidate.as_ref().map_or(0, |candidate| candidate.held_back);
    // Those of apps whose secret, at the same place, became another.
    let renewed = prepared.candidate.as_ref().map_or(0, |candidate| candidate.refetched_for_secrets());
    ReloadVerdict {
        applied: prepared.candidate.is_some(),
        added: count(counts.added),
        removed: count(counts.removed),
        changed: count(counts.sinks_changed + counts.refetched),
        fetched: count(counts.added + counts.refetched + renewed),
        held_back: (held_back > 0).then(|| HeldBack { removed: count(held_back) }),
        report: prepared.rendered.clone(),
        problems: prepared.report.to_json().as_array().cloned().unwrap_or_default(),
    }
}
