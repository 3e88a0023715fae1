//! Whether the state answers: what the store reports of itself, and whether it hangs.
//!
//! A store whose disk hangs answers nothing. What waits for it then goes on without it: tokens are published from memory, as with a
//! state that cannot be written, and what must be read is tried again like a sink that fails.

use std::path::PathBuf;

use crate::domain::{BootMs, TenantId, Ticket};
use crate::store::{HANGS_AFTER_MS, Stalled, hangs};

/// How long an answer may take when none of its system calls hangs, in milliseconds: what is to be committed gathers for a
/// while, and a slow disk takes its time for each of many.
const ANSWERS_WITHIN_MS: u64 = HANGS_AFTER_MS + 1_000;
/// How often one looks whether it still hangs, in milliseconds.
const LOOK_EVERY_MS: u64 = 1_000;

/// What is known of the state.
#[derive(Debug)]
pub(crate) struct StateMonitor {
    path: PathBuf,
    /// Why nothing can be written, by the store's own account.
    unwritable: Option<String>,
    commits: Replies,
    reads: Replies,
    /// What was to be read while reads hung.
    put_off: Vec<(Ticket, TenantId)>,
    has_news: bool,
}

/// The replies of one thread of the store.
#[derive(Debug, Default)]
struct Replies {
    /// Since when something has waited, or when the last reply came.
    since: Option<BootMs>,
    hangs: bool,
}

/// Which threads of the store hang.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hanging {
    pub(crate) commits: bool,
    pub(crate) reads: bool,
}

impl Replies {
    /// Looks whether it hangs. Returns when to look again, if something waits or it hangs.
    fn look(&mut self, now: BootMs, is_waited_for: bool, busy: Option<BootMs>) -> Option<BootMs> {
        let since = is_waited_for.then(|| *self.since.get_or_insert(now));
        self.since = since;
        let ends = [busy.map(|since| since + HANGS_AFTER_MS), since.map(|since| since + ANSWERS_WITHIN_MS)];
        let end = ends.into_iter().flatten().min();
        self.hangs = end.is_some_and(|end| end <= now);
        if self.hangs { Some(now + LOOK_EVERY_MS) } else { end }
    }
}

impl StateMonitor {
    pub(crate) fn new(path: PathBuf, unwritable: Option<String>) -> Self {
        let (commits, reads) = Default::default();
        Self { path, unwritable, commits, reads, put_off: Vec::new(), has_news: false }
    }

    /// The store reports that it can be written, or why not. It has logged that.
    pub(crate) fn health_reported(&mut self, unwritable: Option<String>) {
        self.unwritable = unwritable;
    }

    /// Something was committed, or could not be.
    pub(crate) fn committed(&mut self) {
        self.commits.since = None;
    }

    /// Something was read, or could not be.
    pub(crate) fn read(&mut self) {
        self.reads.since = None;
    }

    /// Looks whether the store hangs, while commits or reads are waited for. Returns which threads hang, and when to look again.
    pub(crate) fn look(
        &mut self,
        now: BootMs,
        (awaits_commits, awaits_reads): (bool, bool),
        stuck: Stalled,
    ) -> (Hanging, Option<BootMs>) {
        let hung = self.hangs();
        let next =
            [self.commits.look(now, awaits_commits, stuck.writing), self.reads.look(now, awaits_reads, stuck.reading)];
        if self.hangs() != hung {
            self.has_news = true;
            self.log_change();
        }
        let hanging = Hanging { commits: self.commits.hangs, reads: self.reads.hangs };
        (hanging, next.into_iter().flatten().min())
    }

    fn hangs(&self) -> bool {
        self.commits.hangs || self.reads.hangs
    }

    /// Whether it hangs, or moves, since this was asked last.
    pub(crate) fn has_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    fn log_change(&self) {
        let path = self.path.display();
        if self.hangs() {
            tracing::error!(
                event = "state_hangs",
                "{}. Tokens are published all the same and kept in memory",
                hangs(&self.path)
            );
        } else {
            tracing::info!(event = "state_moves", "the state {path} answers again");
        }
    }

    /// What is to be read and may be requested. Where reads hung at the last look, it is put off to the next.
    pub(crate) fn may_read(&mut self, ticket: Ticket, id: TenantId) -> Option<(Ticket, TenantId)> {
        if self.reads.hangs {
            self.put_off.push((ticket, id));
            return None;
        }
        Some((ticket, id))
    }

    /// What was put off and is to be requested after this look. Where reads still hang that is nothing: what waits for them fails.
    pub(crate) fn put_off(&mut self) -> Vec<(Ticket, TenantId)> {
        let put_off = std::mem::take(&mut self.put_off);
        if self.reads.hangs { Vec::new() } else { put_off }
    }

    /// What is wrong with the state, if anything is.
    pub(crate) fn trouble(&self) -> Option<String> {
        if self.hangs() { Some(hangs(&self.path)) } else { self.unwritable.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Slot;

    const TICKET: Ticket = Ticket { slot: Slot(1), seq: 1 };

    fn tenant() -> TenantId {
        "crm/ding1".parse().unwrap()
    }

    #[test]
    fn what_is_to_be_read_at_the_very_moment_when_reads_move_again_is_asked_for_all_the_same() {
        let mut watch = StateMonitor::new("/state".into(), None);
        let begun = BootMs(50_000);
        watch.look(begun + HANGS_AFTER_MS, (false, true), Stalled { writing: None, reading: Some(begun) });
        // It moves from here on, but nobody has looked yet.
        assert_eq!(watch.may_read(TICKET, tenant()), None);
        let (hanging, _) = watch.look(begun + HANGS_AFTER_MS + 1, (false, true), Stalled::default());
        assert!(!hanging.reads, "so nobody is told that it cannot be read");
        assert_eq!(watch.put_off(), [(TICKET, tenant())]);
        assert!(watch.put_off().is_empty(), "once");
        assert!(watch.may_read(TICKET, tenant()).is_some());
    }

    #[test]
    fn nothing_hangs_as_long_as_answers_come() {
        let mut watch = StateMonitor::new("/state".into(), None);
        let calm = Hanging { commits: false, reads: false };
        let (mut now, idle) = (BootMs(50_000), Stalled::default());
        for _ in 0..100 {
            let (hanging, next) = watch.look(now, (true, true), idle);
            assert_eq!(hanging, calm);
            assert_eq!(next, Some(now + ANSWERS_WITHIN_MS));
            now = now + ANSWERS_WITHIN_MS - 1;
            watch.committed();
            watch.read();
        }
        assert_eq!(watch.look(now, (false, false), idle), (calm, None), "nobody waits, so nobody wakes up for it");
    }

    #[test]
    fn a_system_call_that_does_not_come_back_hangs_though_nobody_waits_and_moves_when_it_does() {
        let mut watch = StateMonitor::new("/state".into(), Some("full".into()));
        let begun = BootMs(50_000);
        let stuck = Stalled { writing: Some(begun), reading: None };
        let (hanging, next) = watch.look(begun + 1_000, (false, false), stuck);
        assert_eq!((hanging.commits, next), (false, Some(begun + HANGS_AFTER_MS)));
        let (hanging, next) = watch.look(begun + HANGS_AFTER_MS, (false, false), stuck);
        assert_eq!(hanging, Hanging { commits: true, reads: false });
        assert!(next.is_some(), "it is looked whether it moves");
        assert!(watch.trouble().unwrap().contains("does not answer"));
        let (hanging, _) = watch.look(begun + 20_000, (false, false), Stalled::default());
        assert!(!hanging.commits);
        assert_eq!(watch.trouble().as_deref(), Some("full"));
    }

    #[test]
    fn an_answer_that_is_overdue_is_not_waited_for_even_if_every_system_call_comes_back() {
        let mut watch = StateMonitor::new("/state".into(), None);
        let begun = BootMs(50_000);
        watch.look(begun, (false, true), Stalled::default());
        let stuck = Stalled { writing: None, reading: Some(begun + 3_999) };
        let (hanging, _) = watch.look(begun + ANSWERS_WITHIN_MS, (false, true), stuck);
        assert!(hanging.reads && watch.may_read(TICKET, tenant()).is_none());
        assert!(watch.put_off().is_empty(), "who waits for it is told that it cannot be read");
        let (hanging, _) = watch.look(begun + 5_000, (false, false), Stalled::default());
        assert!(!hanging.reads);
    }
}
