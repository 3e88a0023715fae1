//! Sweeps: directories are read, and compared file by file. This finds drift where the kernel has no watch, lost events, or
//! would report too many.

use std::collections::HashSet;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, open, statat};

use super::index::PublicationIndex;
use crate::sink::file::dir::DirNumber;
use crate::sink::job::PublicationId;

/// Each unwatched directory is swept once in this many seconds.
const SWEEP_PERIOD_S: usize = 60;

/// A sweep reads this many entries of a directory, plus some for each published file. Files that it does not reach are
/// published again, which verifies them: somebody may have filled the directory with millions of files.
const SWEEP_ENTRIES: usize = 10_000;
const ENTRIES_PER_FILE: usize = 8;

/// A glance reads fewer, and files that it does not reach wait for the sweep at the end of the flood. While a flood lasts,
/// the directory is glanced at each second, so that its published files are repaired within that time.
const GLANCE_ENTRIES: usize = 1_000;
/// The most directories that are glanced at in a second, and the most published files that they may have together.
const GLANCE_DIRECTORIES: usize = 64;
const GLANCE_FILES: usize = 2_000;

/// How much of a directory is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Enough, usually. Files that are not reached count as drifted.
    Sweep,
    /// Little. Files that are not reached are left for later.
    Glance,
}

/// Compares the files of these directories with what was published there. Returns the publications that drifted, which are
/// no longer in the index, and the directories that cannot be opened.
pub(super) fn sweep(
    index: &mut PublicationIndex,
    directories: &HashSet<DirNumber>,
    extent: Extent,
) -> (Vec<PublicationId>, HashSet<DirNumber>) {
    let (mut unchanged, mut removed, mut read) = (HashSet::new(), HashSet::new(), HashSet::new());
    for id in directories {
        let Some(path) = index.path_of(*id) else { continue };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = open(&path, flags, Mode::empty()).and_then(|fd| Ok((Dir::read_from(&fd)?, fd)));
        let Ok((entries, fd)) = opened else {
            removed.insert(*id);
            continue;
        };
        let base = if extent == Extent::Sweep { SWEEP_ENTRIES } else { GLANCE_ENTRIES };
        let mut entries = entries.flatten();
        for entry in entries.by_ref().take(base + ENTRIES_PER_FILE * index.count_in(*id)) {
            let name = entry.file_name();
            let key = index.key(*id, name.to_bytes());
            if !index.has_file(key) {
                continue;
            }
            let found = statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW).ok();
            if index.is_unchanged(key, found.as_ref()) == Some(true) {
                unchanged.insert(key);
            }
        }
        if extent == Extent::Sweep || entries.next().is_none() {
            read.insert(*id);
        }
    }
    (index.remove_files_except(&read, &unchanged), removed)
}

/// The directories without a watch, swept in turns.
#[derive(Debug, Default)]
pub(super) struct UnwatchedDirectories {
    all: Vec<DirNumber>,
    next: usize,
}

impl UnwatchedDirectories {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn push(&mut self, id: DirNumber) {
        self.all.push(id);
    }

    pub(super) fn remove(&mut self, ids: &HashSet<DirNumber>) {
        if !ids.is_empty() {
            self.all.retain(|id| !ids.contains(id));
        }
    }

    /// The directories to sweep in this second.
    pub(super) fn next_share(&mut self) -> HashSet<DirNumber> {
        let share = self.all.len().div_ceil(SWEEP_PERIOD_S);
        let from = if self.next < self.all.len() { self.next } else { 0 };
        self.next = from + share;
        self.all.iter().skip(from).take(share).copied().collect()
    }
}

/// Chooses which paused directories to glance at, in turns.
#[derive(Debug, Default)]
pub(super) struct GlanceTurns {
    /// How many were glanced at so far.
    count: usize,
}

impl GlanceTurns {
    pub(super) fn next(&mut self, mut paused: Vec<DirNumber>, index: &PublicationIndex) -> HashSet<DirNumber> {
        paused.sort_unstable();
        let from = self.count % paused.len().max(1);
        paused.rotate_left(from);
        let (mut chosen, mut files) = (HashSet::new(), 0);
        for id in paused.into_iter().take(GLANCE_DIRECTORIES) {
            files += index.count_in(id);
            self.count = self.count.wrapping_add(1);
            if files > GLANCE_FILES {
                break;
            }
            chosen.insert(id);
        }
        chosen
    }
}
