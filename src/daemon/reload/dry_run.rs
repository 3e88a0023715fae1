//! Dry runs: what a reload would do. Each reads and checks the whole config, so there is one at a time, and those who wait for the
//! same share the next.

use tokio::sync::oneshot;

use super::candidate::{LoadedConfig, MassRemoval};
use super::status::verdict;
use crate::control::protocol::ReloadVerdict;

/// So many wait at most.
const MOST_WAITING: usize = 64;

type Reply = oneshot::Sender<ReloadVerdict>;

/// The dry runs that are asked for.
#[derive(Default)]
pub(crate) struct DryRuns {
    /// Those who wait for the one under way.
    under_way: Option<Vec<Reply>>,
    /// Those who wait for the next one: what is under way may have read what was there before they asked.
    held_back: Vec<Reply>,
    allowed: Vec<Reply>,
}

impl DryRuns {
    /// Somebody asks for a dry run. Where too many wait already, the reply is dropped at once.
    pub(crate) fn ask(&mut self, removal: MassRemoval, reply: Reply) {
        self.held_back.retain(|waiting| !waiting.is_closed());
        self.allowed.retain(|waiting| !waiting.is_closed());
        if self.held_back.len() + self.allowed.len() < MOST_WAITING {
            self.queue(removal).push(reply);
        }
    }

    /// Whether one is under way.
    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Begins the next one, if anybody waits for one: with or without a mass removal.
    pub(crate) fn begin(&mut self) -> Option<MassRemoval> {
        if self.is_under_way() {
            return None;
        }
        let next =
            [MassRemoval::HeldBack, MassRemoval::Allowed].into_iter().find(|next| !self.queue(*next).is_empty())?;
        self.under_way = Some(std::mem::take(self.queue(next)));
        Some(next)
    }

    /// The one under way ended, or could not begin (`None`).
    pub(crate) fn ended(&mut self, loaded: Option<&LoadedConfig>) {
        let waiting = self.under_way.take().unwrap_or_default();
        let Some(verdict) = loaded.map(verdict) else { return };
        // A receiver may be gone.
        waiting.into_iter().for_each(|reply| drop(reply.send(verdict.clone())));
    }

    fn queue(&mut self, removal: MassRemoval) -> &mut Vec<Reply> {
        match removal {
            MassRemoval::HeldBack => &mut self.held_back,
            MassRemoval::Allowed => &mut self.allowed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_at_a_time_and_those_who_wait_share_the_next() {
        let mut dry_runs = DryRuns::default();
        let (first, first_receiver) = oneshot::channel();
        dry_runs.ask(MassRemoval::HeldBack, first);
        assert_eq!(dry_runs.begin(), Some(MassRemoval::HeldBack));
        let mut waiting: Vec<_> = (0..MOST_WAITING + 5)
            .map(|nth| {
                let (reply, receiver) = oneshot::channel();
                dry_runs.ask(if nth < 10 { MassRemoval::Allowed } else { MassRemoval::HeldBack }, reply);
                receiver
            })
            .collect();
        assert_eq!(dry_runs.begin(), None, "one at a time");
        let closed = |receiver: &mut oneshot::Receiver<ReloadVerdict>| {
            matches!(receiver.try_recv(), Err(oneshot::error::TryRecvError::Closed))
        };
        assert_eq!(waiting.iter_mut().map(closed).filter(|closed| *closed).count(), 5, "five are turned away");
        drop(first_receiver);
        dry_runs.ended(None);
        assert_eq!(dry_runs.begin(), Some(MassRemoval::HeldBack), "54 share one");
        dry_runs.ended(None);
        assert_eq!(dry_runs.begin(), Some(MassRemoval::Allowed), "and ten another");
        dry_runs.ended(None);
        assert_eq!(dry_runs.begin(), None);
    }
}
