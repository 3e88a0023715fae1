//! What was published where, in as few bytes as it takes to notice drift: 24 a file. File names are hashed, not kept; where
//! they are needed, the directory is read.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hashbrown::HashMap;
use rustix::fs::Stat;

use super::instances::{InstanceId, WatchId};
use crate::domain::{SinkId, Slot, Ticket};
use crate::sink::file::dir::DirNumber;
use crate::sink::job::PublicationId;

/// The parent of a fixed part.
pub(crate) const NO_PARENT: DirNumber = 0;

/// The bits of [`FileEntry::at`] with the directory's number. The sink's number fits the rest.
const DIRECTORY_BITS: u32 = 28;
const DIRECTORY_MASK: u32 = (1 << DIRECTORY_BITS) - 1;

/// A hash of a directory's number and a name in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileKey(u64);

/// A hash that differs once somebody changes or replaces the file. A change of content, mode or owner sets the change time
/// (inode(7)), but before Linux 6.13 that is no finer than a timer tick, so mode and owner are hashed too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileState(u32);

#[derive(Debug, Clone, Copy)]
struct FileEntry {
    slot: u32,
    seq: u32,
    state: FileState,
    /// The directory's number and, in the upper bits, the sink's.
    at: u32,
}

#[derive(Debug)]
struct DirectoryEntry {
    parent: DirNumber,
    /// Below the fixed part the last component, else the whole path.
    name: Box<OsStr>,
    /// How many files and directories of the index are in it.
    count: u32,
    /// `None`: it is swept.
    watch: Option<WatchId>,
}

/// The files that a lane published, and their directories.
#[derive(Debug, Default)]
pub(crate) struct PublicationIndex {
    hasher: RandomState,
    files: HashMap<FileKey, FileEntry>,
    directories: HashMap<DirNumber, DirectoryEntry>,
    /// Directories by the key of their name.
    children: HashMap<FileKey, DirNumber>,
    /// The last directory number given out.
    last: DirNumber,
}

impl FileEntry {
    fn directory(&self) -> DirNumber {
        self.at & DIRECTORY_MASK
    }

    fn publication(&self) -> PublicationId {
        let sink = u8::try_from(self.at >> DIRECTORY_BITS).expect("four bits are left of 32 by a shift of 28");
        (Ticket { slot: Slot(self.slot), seq: self.seq }, SinkId(sink))
    }
}

impl PublicationIndex {
    pub(crate) fn key(&self, directory: DirNumber, name: &[u8]) -> FileKey {
        FileKey(self.hasher.hash_one((directory, name)))
    }

    pub(crate) fn state_of(&self, stat: &Stat) -> FileState {
        let facts = (stat.st_ino, stat.st_ctime, stat.st_ctime_nsec, stat.st_mode, stat.st_uid, stat.st_gid);
        #[expect(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
        FileState(self.hasher.hash_one(facts) as u32)
    }

    /// A number for a new directory.
    pub(crate) fn next_number(&mut self) -> DirNumber {
        loop {
            self.last = (self.last + 1) & DIRECTORY_MASK;
            if self.last != NO_PARENT && !self.directories.contains_key(&self.last) {
                return self.last;
            }
        }
    }

    /// Adds a directory: `name` in `parent`; for a fixed part, [`NO_PARENT`] and the whole path.
    pub(crate) fn add_directory(&mut self, id: DirNumber, parent: DirNumber, name: &OsStr) {
        self.children.insert(self.key(parent, name.as_bytes()), id);
        // A directory with two paths keeps the first.
        if self.directories.contains_key(&id) {
            return;
        }
        self.directories.insert(id, DirectoryEntry { parent, name: name.into(), count: 0, watch: None });
        if let Some(above) = self.directories.get_mut(&parent) {
            above.count += 1;
        }
    }

    pub(crate) fn has_directory(&self, id: DirNumber) -> bool {
        self.directories.contains_key(&id)
    }

    pub(crate) fn watch_of(&self, id: DirNumber) -> Option<WatchId> {
        self.directories.get(&id)?.watch
    }

    /// Returns the previous watch.
    pub(crate) fn set_watch(&mut self, id: DirNumber, watch: Option<WatchId>) -> Option<WatchId> {
        std::mem::replace(&mut self.directories.get_mut(&id)?.watch, watch)
    }

    /// `None` for a fixed part.
    pub(crate) fn parent_of(&self, id: DirNumber) -> Option<DirNumber> {
        self.directories.get(&id).map(|directory| directory.parent).filter(|parent| *parent != NO_PARENT)
    }

    /// The fixed part of the path to this directory.
    pub(crate) fn root_of(&self, id: DirNumber) -> Option<&Path> {
        let directory = self.directories.get(&id)?;
        if directory.parent == NO_PARENT { Some(Path::new(&*directory.name)) } else { self.root_of(directory.parent) }
    }

    /// How many files and directories of the index are in this directory.
    pub(crate) fn count_in(&self, id: DirNumber) -> usize {
        self.directories.get(&id).map_or(0, |directory| directory.count as usize)
    }

    /// The directories watched by one instance.
    pub(crate) fn watched_by(&self, instance: InstanceId) -> impl Iterator<Item = DirNumber> + '_ {
        let is_its = move |directory: &DirectoryEntry| directory.watch.is_some_and(|watch| watch.instance == instance);
        self.directories.iter().filter(move |(_, directory)| is_its(directory)).map(|(id, _)| *id)
    }

    /// The directory that last had this key.
    pub(crate) fn child(&self, key: FileKey) -> Option<DirNumber> {
        self.children.get(&key).copied()
    }

    pub(crate) fn insert(
        &mut self,
        directory: DirNumber,
        name: &OsStr,
        (ticket, sink): PublicationId,
        state: FileState,
    ) {
        let key = self.key(directory, name.as_bytes());
        let at = directory & DIRECTORY_MASK | u32::from(sink.0) << DIRECTORY_BITS;
        let file = FileEntry { slot: ticket.slot.0, seq: ticket.seq, state, at };
        if self.files.insert(key, file).is_none()
            && let Some(directory) = self.directories.get_mut(&directory)
        {
            directory.count += 1;
        }
    }

    pub(crate) fn has_file(&self, key: FileKey) -> bool {
        self.files.contains_key(&key)
    }

    /// Whether the file is still as published. `None` if it is not in the index.
    pub(crate) fn is_unchanged(&self, key: FileKey, found: Option<&Stat>) -> Option<bool> {
        let file = self.files.get(&key)?;
        Some(found.is_some_and(|stat| self.state_of(stat) == file.state))
    }

    /// Removes a file: it was withdrawn, or it drifted and will be published again.
    pub(crate) fn remove(&mut self, key: FileKey) -> Option<PublicationId> {
        let file = self.files.remove(&key)?;
        if let Some(directory) = self.directories.get_mut(&file.directory()) {
            directory.count = directory.count.saturating_sub(1);
        }
        Some(file.publication())
    }

    pub(crate) fn path_of(&self, id: DirNumber) -> Option<PathBuf> {
        let directory = self.directories.get(&id)?;
        if directory.parent == NO_PARENT {
            return Some(Path::new(&*directory.name).to_owned());
        }
        Some(self.path_of(directory.parent)?.join(&*directory.name))
    }

    /// Removes directories with everything in and below them. Returns the directories, their watches, and the publications.
    pub(crate) fn remove_directories(
        &mut self,
        mut gone: HashSet<DirNumber>,
    ) -> (Vec<(DirNumber, Option<WatchId>)>, Vec<PublicationId>) {
        gone.retain(|id| self.directories.contains_key(id));
        let is_any_used = gone.iter().any(|id| self.directories[id].count > 0);
        let mut drifted = Vec::new();
        if is_any_used {
            let below: Vec<DirNumber> =
                self.directories.keys().copied().filter(|id| self.is_below(*id, &gone)).collect();
            gone.extend(below);
            let lost = self.files.extract_if(|_, file| gone.contains(&file.directory()));
            drifted.extend(lost.map(|(_, file)| file.publication()));
        }
        let mut removed = Vec::with_capacity(gone.len());
        for id in &gone {
            if let Some(directory) = self.directories.remove(id) {
                removed.push((*id, directory.watch));
                let key = self.key(directory.parent, directory.name.as_bytes());
                if self.children.get(&key) == Some(id) {
                    self.children.remove(&key);
                }
                if let Some(above) = self.directories.get_mut(&directory.parent) {
                    above.count = above.count.saturating_sub(1);
                }
            }
        }
        (removed, drifted)
    }

    fn is_below(&self, id: DirNumber, gone: &HashSet<DirNumber>) -> bool {
        let mut at = id;
        while let Some(directory) = self.directories.get(&at) {
            if gone.contains(&at) {
                return true;
            }
            at = directory.parent;
        }
        false
    }

    /// Removes the files of these directories, except those in `keep`.
    pub(crate) fn remove_files_except(
        &mut self,
        of: &HashSet<DirNumber>,
        keep: &HashSet<FileKey>,
    ) -> Vec<PublicationId> {
        let lost = self.files.extract_if(|key, file| of.contains(&file.directory()) && !keep.contains(key));
        let lost: Vec<FileEntry> = lost.map(|(_, file)| file).collect();
        for file in &lost {
            if let Some(directory) = self.directories.get_mut(&file.directory()) {
                directory.count = directory.count.saturating_sub(1);
            }
        }
        lost.iter().map(FileEntry::publication).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_file_costs_24_bytes() {
        assert_eq!(size_of::<(FileKey, FileEntry)>(), 24);
    }

    #[test]
    fn other_permissions_are_another_identity_even_within_one_tick() {
        let index = PublicationIndex::default();
        let stat = rustix::fs::stat("/").unwrap();
        let mut other = stat;
        other.st_mode ^= 0o004;
        assert!(index.state_of(&stat) == index.state_of(&stat) && index.state_of(&stat) != index.state_of(&other));
    }

    #[test]
    fn what_was_put_comes_back_whole() {
        let mut index = PublicationIndex::default();
        let publication = (Ticket { slot: Slot(u32::MAX), seq: 7 }, SinkId(15));
        let identity = FileState(3);
        index.add_directory(5, NO_PARENT, OsStr::new("/a"));
        index.add_directory(6, 5, OsStr::new("b"));
        index.insert(6, OsStr::new("f"), publication, identity);
        assert_eq!(index.path_of(6), Some("/a/b".into()));
        let (gone, drifted) = index.remove_directories(HashSet::from([5]));
        assert_eq!((gone.len(), drifted), (2, vec![publication]));
        assert!(index.files.is_empty() && index.directories.is_empty() && index.children.is_empty());
    }
}
