//! Which memories of the last run still hold at a start.

use crate::api;
use crate::config::Config;
use crate::domain::{AppName, Blame, SavedKey, SavedState};

/// A subject, and what is remembered of it.
pub(crate) type Remembered = (SavedKey, SavedState);

/// Who asks for the start: a daemon goes on where the last one was, `once` wants to know whether it works now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Impatience {
    Daemon,
    Once,
}

/// Parts what holds (of everybody, and of the apps and tenants that are still there) from what does not. Other credentials
/// than those of then, which the apps `stale` have, are tried at once.
pub(crate) fn part(
    memories: Vec<Remembered>,
    config: &Config,
    stale: &[AppName],
    impatience: Impatience,
) -> (Vec<Remembered>, Vec<SavedKey>) {
    let holds = |subject: &SavedKey| match subject {
        SavedKey::Ban(_) | SavedKey::Pace(_) => is_called_from(subject, config),
        SavedKey::Breaker(_) if impatience == Impatience::Once => false,
        SavedKey::Tenant(id) => config.contains(id) && !stale.contains(&id.app),
        _ => subject.app().is_none_or(|app| config.apps.contains_key(app) && !stale.contains(app)),
    };
    let (mut held, void): (Vec<_>, Vec<_>) = memories.into_iter().partition(|(subject, _)| holds(subject));
    held.iter_mut().for_each(|(_, memory)| withhold(memory));
    if impatience == Impatience::Once {
        held.iter_mut().for_each(|(_, memory)| try_again(memory));
    }
    (held, void.into_iter().map(|(subject, _)| subject).collect())
}

/// An older version was less careful with what it wrote down of an answer.
fn withhold(memory: &mut SavedState) {
    if let SavedState::Failing(failing) = memory {
        api::redact_failure(&mut failing.failure, None);
    }
}

/// Whether an app's calls go from the origin that a memory is about.
fn is_called_from(subject: &SavedKey, config: &Config) -> bool {
    let origins = || config.apps.values().map(|app| config.connection(app).path().origin);
    matches!(subject, SavedKey::Ban(id) | SavedKey::Pace(id) if origins().any(|origin| origin == *id))
}

/// A failure that may be over is not waited for. The endpoint's word on a tenant is.
fn try_again(memory: &mut SavedState) {
    let SavedState::Failing(failing) = memory else { return };
    let is_refused = failing.refused && failing.failure.kind.blame() != Blame::App;
    if !is_refused {
        failing.next = failing.next.cut_short();
    }
}
