//! Which of the failures that the last run saved still hold at a start.

use crate::api;
use crate::config::Config;
use crate::domain::{AppName, Blame, SavedKey, SavedState};

/// A daemon goes on where the last one was; `once` finds out whether it works now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StartMode {
    Daemon,
    Once,
}

/// Returns what still holds, and the keys of what does not: failures of apps and tenants that left, and those of the apps `stale`,
/// whose credentials are others and are tried at once.
pub(super) fn partition(
    saved: Vec<(SavedKey, SavedState)>,
    config: &Config,
    stale: &[AppName],
    mode: StartMode,
) -> (Vec<(SavedKey, SavedState)>, Vec<SavedKey>) {
    let holds = |key: &SavedKey| match key {
        SavedKey::Ban(_) | SavedKey::Pace(_) => is_called_from(key, config),
        SavedKey::Breaker(_) if mode == StartMode::Once => false,
        SavedKey::Tenant(id) => config.contains(id) && !stale.contains(&id.app),
        _ => key.app().is_none_or(|app| config.apps.contains_key(app) && !stale.contains(app)),
    };
    let (mut held, void): (Vec<_>, Vec<_>) = saved.into_iter().partition(|(key, _)| holds(key));
    held.iter_mut().for_each(|(_, state)| withhold(state));
    if mode == StartMode::Once {
        held.iter_mut().for_each(|(_, state)| try_again(state));
    }
    (held, void.into_iter().map(|(key, _)| key).collect())
}

/// An older version saved more of an answer than may be shown.
fn withhold(state: &mut SavedState) {
    if let SavedState::Failing(failing) = state {
        api::redact_failure(&mut failing.failure, None);
    }
}

/// Whether an app's calls go from the origin that a state is about.
fn is_called_from(key: &SavedKey, config: &Config) -> bool {
    let origins = || config.apps.values().map(|app| config.connection(app).path().origin);
    matches!(key, SavedKey::Ban(id) | SavedKey::Pace(id) if origins().any(|origin| origin == *id))
}

/// A failure that may be over is not waited for. The endpoint's word on a tenant is.
fn try_again(state: &mut SavedState) {
    let SavedState::Failing(failing) = state else { return };
    let is_refused = failing.refused && failing.failure.kind.blame() != Blame::App;
    if !is_refused {
        failing.next = failing.next.cut_short();
    }
}
