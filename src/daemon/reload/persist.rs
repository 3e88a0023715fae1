//! When the state takes over the config that was applied.
//!
//! It replaces the last one only once the places that it leaves are empty: a daemon that is killed before that finds them by
//! comparing with the last one.

use super::Reload;
use super::candidate::Candidate;
use crate::daemon::executor::Executor;
use crate::domain::{BootMs, Now};
use crate::engine::Engine;
use crate::store::Applied;

/// A config that was applied is persisted after so long even if what it removed could not all be deleted, in milliseconds.
const PERSIST_MOST_MS: u64 = 60_000;

/// The applied config, until it is persisted.
#[derive(Default)]
pub(super) struct AppliedConfig {
    /// What the state does not hold yet, and since when.
    pending: Option<(Applied, BootMs)>,
    /// The state lost the config that it held: the one on disk is read again, and persisted if it is what runs.
    is_lost: bool,
}

impl AppliedConfig {
    /// This config was applied.
    pub(super) fn applied(&mut self, now: BootMs, applied: Applied) {
        self.pending = Some((applied, now));
    }

    /// The state holds `persisted`, which need not be persisted again.
    pub(super) fn is_persisted(&mut self, persisted: &Applied) {
        self.pending.take_if(|(applied, _)| applied == persisted);
    }

    /// The state was reset. Returns whether the config on disk must be read, since its text is not at hand.
    pub(super) fn state_was_reset(&mut self) -> bool {
        self.is_lost = self.pending.is_none();
        self.is_lost
    }

    /// Whether a config that was read, and is the one that runs, is to be persisted because the state lost it. Asked once.
    pub(super) fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.is_lost)
    }

    /// When the config is persisted at the latest.
    pub(super) fn deadline(&self) -> Option<BootMs> {
        self.pending.as_ref().map(|(_, since)| *since + PERSIST_MOST_MS)
    }

    /// The config to persist, if it has been carried out or waited for long enough.
    pub(super) fn take_if_due(&mut self, now: BootMs, is_carried_out: impl FnOnce() -> bool) -> Option<Applied> {
        let is_due = self.deadline().is_some_and(|at| at <= now || is_carried_out());
        self.pending.take_if(|_| is_due).map(|(applied, _)| applied)
    }
}

impl Reload {
    /// The state holds `persisted` as the config that was applied last.
    pub(crate) fn is_persisted(&mut self, persisted: &Applied) {
        self.applied.is_persisted(persisted);
    }

    /// When the applied config is persisted at the latest.
    pub(crate) fn persist_deadline(&self) -> Option<BootMs> {
        self.applied.deadline()
    }

    /// Persists the applied config once it has been carried out.
    pub(crate) fn persist_when_done(&mut self, engine: &Engine, executor: &mut Executor, now: Now) {
        let is_idle = self.is_idle();
        let is_carried_out = || is_idle && engine.withdrawing().next().is_none();
        if let Some(applied) = self.applied.take_if_due(now.boot, is_carried_out) {
            executor.save_config(applied);
        }
    }

    /// The state was reset, and no longer holds the config that was applied.
    pub(crate) fn state_was_reset(&mut self, now: Now) {
        if self.applied.state_was_reset() {
            self.schedule.files_changed(now.boot);
        }
    }

    /// Persists the running config, which is the one on disk, if the state lost it.
    pub(super) fn persist_if_lost(&mut self, now: Now, on_disk: Option<&Candidate>) {
        if self.applied.take_lost()
            && self.last.held_back == 0
            && let Some(Candidate { texts, .. }) = on_disk
        {
            let secrets = self.running.secrets.clone().into_iter().collect();
            self.applied.applied(now.boot, Applied { texts: texts.clone(), secrets });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: BootMs = BootMs(50_000);

    fn applied(text: &str) -> Applied {
        Applied { texts: vec![("/c.toml".into(), text.to_owned())], secrets: Vec::new() }
    }

    #[test]
    fn a_config_is_persisted_when_it_is_carried_out_or_after_a_minute() {
        let mut config = AppliedConfig::default();
        assert_eq!(config.take_if_due(NOW, || true), None);
        config.applied(NOW, applied("a"));
        config.is_persisted(&applied("b"));
        assert_eq!(config.take_if_due(NOW, || false), None);
        assert_eq!(config.take_if_due(NOW + PERSIST_MOST_MS, || false), Some(applied("a")));
        config.applied(NOW, applied("b"));
        assert!(!config.state_was_reset(), "it is persisted anyway");
        assert_eq!(config.take_if_due(NOW, || true), Some(applied("b")));
        assert!(config.state_was_reset() && config.take_lost() && !config.take_lost());
        config.applied(NOW, applied("c"));
        config.is_persisted(&applied("c"));
        assert_eq!(config.deadline(), None);
    }
}
