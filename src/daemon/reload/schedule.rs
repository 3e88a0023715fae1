//! When the config is read next, and who waits for the outcome.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::oneshot;

use super::candidate::MassRemoval;
use crate::control::protocol::ReloadVerdict;
use crate::domain::BootMs;
use crate::environment;
use crate::system::clock;

/// How long changes are gathered before the config is read, in milliseconds.
const SETTLE_MS: u64 = 250;
/// The config is read after so long even if changes go on, in milliseconds.
const SETTLE_MOST_MS: u64 = 2_000;
/// What hung is tried again after so long, in milliseconds.
const RETRY_MS: u64 = 15_000;

/// The next time that the config is read.
#[derive(Default)]
pub(super) struct ReloadSchedule {
    due: Option<BootMs>,
    /// When the first of the changes that are being gathered came.
    gathering_since: Option<BootMs>,
    /// When the config is read although nothing changed, because something hung.
    retry: Option<BootMs>,
    next: PendingReload,
}

/// What is known of a reload before the config is read.
#[derive(Default)]
pub(super) struct PendingReload {
    /// Somebody asked for it, if only by a signal; otherwise, files changed.
    pub(super) requested: bool,
    pub(super) removal: MassRemoval,
    /// Who waits for the verdict.
    pub(super) waiting: Vec<oneshot::Sender<ReloadVerdict>>,
}

impl ReloadSchedule {
    /// Files may have changed: the config is read once they have settled.
    pub(super) fn files_changed(&mut self, now: BootMs) {
        // A reload that somebody asked for does not wait for anything to settle.
        if !self.next.requested {
            let since = *self.gathering_since.get_or_insert(now);
            self.due = Some((now + SETTLE_MS).min(since + SETTLE_MOST_MS));
        }
    }

    /// Somebody wants the config read now, and may wait for the verdict.
    pub(super) fn request(&mut self, now: BootMs, removal: MassRemoval, reply: Option<oneshot::Sender<ReloadVerdict>>) {
        self.due = Some(now);
        self.next.requested = true;
        if removal == MassRemoval::Allowed {
            self.next.removal = removal;
        }
        self.next.waiting.retain(|waiting| !waiting.is_closed());
        self.next.waiting.extend(reply);
    }

    /// The config was read, and something hung or not.
    pub(super) fn retry_if(&mut self, now: BootMs, hangs: bool) {
        self.retry = hangs.then_some(now + RETRY_MS);
    }

    pub(super) fn due_at(&self) -> Option<BootMs> {
        [self.due, self.retry].into_iter().flatten().min()
    }

    /// The reload that is due begins: nothing is scheduled from here on.
    pub(super) fn take(&mut self) -> PendingReload {
        std::mem::take(self).next
    }
}

/// Waits until the files have not been written to for a while. On a busy machine the news of a change come late, and a
/// writer may be in the middle of the next one.
pub(super) fn wait_for_writers(path: &Path) {
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

    const NOW: BootMs = BootMs(50_000);

    #[test]
    fn those_who_ask_for_a_reload_and_go_away_take_no_room() {
        let mut schedule = ReloadSchedule::default();
        let (reply, _waits) = oneshot::channel();
        schedule.request(NOW, MassRemoval::HeldBack, Some(reply));
        for _ in 0..1000 {
            schedule.request(NOW, MassRemoval::HeldBack, Some(oneshot::channel().0));
        }
        let waiting = schedule.take().waiting;
        assert!(waiting.len() <= 2, "{}", waiting.len());
        assert!(!waiting[0].is_closed(), "who still waits hears of it");
    }

    #[test]
    fn changes_are_gathered_for_a_while_but_not_for_ever_and_a_request_does_not_wait_for_them() {
        let mut schedule = ReloadSchedule::default();
        schedule.files_changed(NOW);
        assert_eq!(schedule.due_at(), Some(NOW + SETTLE_MS));
        schedule.files_changed(NOW + SETTLE_MOST_MS - 1);
        assert_eq!(schedule.due_at(), Some(NOW + SETTLE_MOST_MS), "there is no end to the changes");
        schedule.request(NOW + 10, MassRemoval::Allowed, None);
        schedule.files_changed(NOW + 20);
        assert_eq!(schedule.due_at(), Some(NOW + 10));
        let PendingReload { requested, removal, .. } = schedule.take();
        assert_eq!((requested, removal, schedule.due_at()), (true, MassRemoval::Allowed, None));
        schedule.retry_if(NOW, true);
        assert_eq!(schedule.due_at(), Some(NOW + RETRY_MS));
    }
}
