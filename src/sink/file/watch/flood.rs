//! Which directories are not watched for a while because somebody writes there without end: reading these events would keep
//! the lane from all other files. Such a directory is swept and watched again after one second, then after two, four, up to
//! a minute, as long as the flood lasts (`docs/decisions/0044-floods-of-writes.md`).
//!
//! No clock is read here: [`FloodGuard::pass`] counts the seconds.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::sink::file::dir::DirNumber;

/// The most events of one directory in a second. Reading them costs the lane less than half a percent of a core.
const MOST_OF_ONE: u32 = 5_000;

/// The most events of all directories together in a second.
const MOST_OF_ALL: u32 = 40_000;

/// The most events that one of the lane's own publications causes.
const OWN_EVENTS: u32 = 8;

/// The longest pause, in seconds.
const LONGEST_PAUSE_S: u64 = 60;

/// After a pause, a directory must stay calm for this long, in seconds, to be like any other again.
const PROBATION_S: u64 = 60;

/// Counts the events of each directory, and pauses those with too many.
#[derive(Debug, Default)]
pub(crate) struct FloodGuard {
    /// Seconds that have passed.
    now: u64,
    /// Events in this second.
    counts: HashMap<DirNumber, Count>,
    noisy: HashMap<DirNumber, Noisy>,
}

#[derive(Debug, Default)]
struct Count {
    events: u32,
    /// How many of them the lane may have caused.
    own: u32,
}

impl Count {
    fn of_others(&self) -> u32 {
        self.events.saturating_sub(self.own)
    }
}

/// A directory that had too many events.
#[derive(Debug)]
struct Noisy {
    /// The fixed part of the paths that lead there, for messages.
    root: Arc<Path>,
    pause_s: u64,
    /// The end of the pause, or of the probation after it.
    until: u64,
    is_paused: bool,
}

/// What became due.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// Had the most of too many events together: to be paused.
    pub(crate) too_many: Vec<DirNumber>,
    /// To be watched again, for a probe.
    pub(crate) resume: Vec<DirNumber>,
    /// Stayed calm until the end of the probation.
    pub(crate) calm: Vec<DirNumber>,
}

impl FloodGuard {
    /// The lane is about to change something in this directory.
    pub(crate) fn expect(&mut self, directory: DirNumber) {
        let count = self.counts.entry(directory).or_default();
        count.own = count.own.saturating_add(OWN_EVENTS);
    }

    /// Counts an event. Returns whether it is one too many.
    pub(crate) fn count(&mut self, directory: DirNumber) -> bool {
        let count = self.counts.entry(directory).or_default();
        count.events = count.events.saturating_add(1);
        count.of_others() > MOST_OF_ONE
    }

    /// Pauses a directory. Returns whether it is the first noisy one below its root.
    pub(crate) fn pause(&mut self, directory: DirNumber, root: &Arc<Path>) -> bool {
        let is_first = !self.has_noise_below(root);
        let last_s = self.noisy.get(&directory).map_or(0, |noisy| noisy.pause_s);
        let pause_s = (last_s * 2).clamp(1, LONGEST_PAUSE_S);
        let noisy = Noisy { root: Arc::clone(root), pause_s, until: self.now + pause_s, is_paused: true };
        self.noisy.insert(directory, noisy);
        is_first
    }

    /// Whether this directory had too many events not long ago.
    pub(crate) fn is_noisy(&self, directory: DirNumber) -> bool {
        self.noisy.contains_key(&directory)
    }

    /// The directories that are paused now.
    pub(crate) fn paused(&self) -> impl Iterator<Item = DirNumber> + '_ {
        self.noisy.iter().filter(|(_, noisy)| noisy.is_paused).map(|(id, _)| *id)
    }

    /// Forgets a directory. Returns its root if nothing below that is noisy any more.
    pub(crate) fn forget(&mut self, directory: DirNumber) -> Option<Arc<Path>> {
        let noisy = self.noisy.remove(&directory)?;
        (!self.has_noise_below(&noisy.root)).then_some(noisy.root)
    }

    /// Seconds passed.
    pub(crate) fn pass(&mut self, seconds: u64) -> Due {
        if seconds == 0 {
            return Due::default();
        }
        self.now += seconds;
        let mut due = Due { too_many: self.loudest(), ..Due::default() };
        self.counts.clear();
        for (id, noisy) in self.noisy.iter_mut().filter(|(_, noisy)| noisy.until <= self.now) {
            if std::mem::take(&mut noisy.is_paused) {
                noisy.until = self.now + PROBATION_S;
                due.resume.push(*id);
            } else {
                due.calm.push(*id);
            }
        }
        due
    }

    /// Whether nothing depends on time passing.
    pub(crate) fn is_idle(&self) -> bool {
        self.counts.is_empty() && self.noisy.is_empty()
    }

    /// If all directories together had too many events: the loudest, without which the others have at most half as many.
    fn loudest(&self) -> Vec<DirNumber> {
        let mut counts: Vec<_> = self.counts.iter().map(|(id, count)| (count.of_others(), *id)).collect();
        let mut sum = counts.iter().fold(0_u32, |sum, (events, _)| sum.saturating_add(*events));
        if sum <= MOST_OF_ALL {
            return Vec::new();
        }
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let mut loudest = Vec::new();
        for (events, id) in counts {
            if sum <= MOST_OF_ALL / 2 {
                break;
            }
            sum -= events.min(sum);
            loudest.push(id);
        }
        loudest
    }

    fn has_noise_below(&self, root: &Path) -> bool {
        self.noisy.values().any(|noisy| *noisy.root == *root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Arc<Path> {
        Path::new("/srv").into()
    }

    fn count(flood: &mut FloodGuard, directory: DirNumber, events: u32) -> bool {
        (0..events).fold(false, |_, _| flood.count(directory))
    }

    #[test]
    fn many_events_of_ours_are_no_flood_and_many_of_others_are() {
        let mut flood = FloodGuard::default();
        (0..10_000).for_each(|_| flood.expect(1));
        assert!(!count(&mut flood, 1, 60_000));
        assert!(!count(&mut flood, 2, MOST_OF_ONE) && count(&mut flood, 2, 1));
        flood.pass(1);
        assert!(!count(&mut flood, 2, MOST_OF_ONE), "a new second");
    }

    #[test]
    fn pauses_grow_to_a_minute_while_it_goes_on_and_end_when_it_is_calm() {
        let mut flood = FloodGuard::default();
        flood.pause(1, &root());
        for pause_s in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(flood.pass(pause_s - 1), Due::default());
            assert_eq!(flood.pass(1).resume, [1]);
            flood.pause(1, &root());
        }
        flood.pass(LONGEST_PAUSE_S);
        assert_eq!(flood.pass(PROBATION_S).calm, [1]);
    }

    #[test]
    fn a_root_is_told_of_when_its_first_directory_is_paused_and_when_its_last_one_is_calm() {
        let mut flood = FloodGuard::default();
        assert!(flood.pause(1, &root()) && !flood.pause(2, &root()) && flood.pause(3, &Path::new("/run").into()));
        assert_eq!((flood.forget(1), flood.forget(2)), (None, Some(root())));
        assert!(flood.forget(3).is_some() && flood.is_idle());
    }

    #[test]
    fn of_many_directories_that_are_loud_together_the_loudest_are_paused() {
        let mut flood = FloodGuard::default();
        (1..=20).for_each(|directory| _ = count(&mut flood, directory, 4_000));
        (21..=30).for_each(|directory| _ = count(&mut flood, directory, 10));
        let paused = flood.pass(1).too_many;
        assert!((12..=16).contains(&paused.len()) && paused.iter().all(|directory| *directory <= 20), "{paused:?}");
    }
}
