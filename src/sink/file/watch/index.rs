//! What was published where, remembered in as few bytes as tell that somebody else touched it: 24 a file. Names are not
//! kept but hashed; where they are needed, the directory is read.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hashbrown::HashMap;
use rustix::fs::Stat;

use super::instances::{InstanceId, WatchId};
use crate::domain::{SinkId, Slot, Ticket};
use crate::sink::file::dir::DirectoryId;

/// No directory.
pub(crate) const NOWHERE: DirectoryId = 0;

/// The bits of [`File::at`] that number the directory; a sink's number fits the rest.
const DIRECTORY_BITS: u32 = 28;
const DIRECTORY_MASK: u32 = (1 << DIRECTORY_BITS) - 1;

/// A file in a directory, as a hash of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key(u64);

/// Tells a file from any that somebody else put in its place, or changed. A change of content, mode or owner moves the
/// change time (inode(7)), but that is no finer than a timer tick before Linux 6.13, so the mode and owner count too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity(u32);

#[derive(Debug, Clone, Copy)]
struct File {
    slot: u32,
    seq: u32,
    identity: Identity,
    /// The directory's number and, in the upper bits, the sink's.
    at: u32,
}

#[derive(Debug)]
struct Place {
    parent: DirectoryId,
    /// Below the fixed part the last component, else the whole path.
    name: Box<OsStr>,
    /// How many files and directories are known in it.
    holds: u32,
    /// `None`: it is swept.
    watch: Option<WatchId>,
}

/// All that is known of what a lane published.
#[derive(Debug, Default)]
pub(crate) struct Known {
    hasher: RandomState,
    files: HashMap<Key, File>,
    places: HashMap<DirectoryId, Place>,
    /// Directories by their own key.
    children: HashMap<Key, DirectoryId>,
    /// The number that was given last.
    last: DirectoryId,
}

/// Whose publication was touched.
pub(crate) type Touched = (Ticket, SinkId);

impl File {
    fn directory(&self) -> DirectoryId {
        self.at & DIRECTORY_MASK
    }

    fn publication(&self) -> Touched {
        let sink = u8::try_from(self.at >> DIRECTORY_BITS).expect("four bits are left of 32 by a shift of 28");
        (Ticket { slot: Slot(self.slot), seq: self.seq }, SinkId(sink))
    }
}

impl Known {
    pub(crate) fn key(&self, directory: DirectoryId, name: &[u8]) -> Key {
        Key(self.hasher.hash_one((directory, name)))
    }

    pub(crate) fn identity(&self, stat: &Stat) -> Identity {
        let facts = (stat.st_ino, stat.st_ctime, stat.st_ctime_nsec, stat.st_mode, stat.st_uid, stat.st_gid);
        #[expect(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
        Identity(self.hasher.hash_one(facts) as u32)
    }

    /// A number for another directory.
    pub(crate) fn next_number(&mut self) -> DirectoryId {
        loop {
            self.last = (self.last + 1) & DIRECTORY_MASK;
            if self.last != NOWHERE && !self.places.contains_key(&self.last) {
                return self.last;
            }
        }
    }

    /// Remembers a directory: `name` in `parent`, or, where its path starts, [`NOWHERE`] and the whole path.
    pub(crate) fn add_directory(&mut self, id: DirectoryId, parent: DirectoryId, name: &OsStr) {
        self.children.insert(self.key(parent, name.as_bytes()), id);
        // Reached by two paths, it keeps the first.
        if self.places.contains_key(&id) {
            return;
        }
        self.places.insert(id, Place { parent, name: name.into(), holds: 0, watch: None });
        if let Some(above) = self.places.get_mut(&parent) {
            above.holds += 1;
        }
    }

    pub(crate) fn knows_directory(&self, id: DirectoryId) -> bool {
        self.places.contains_key(&id)
    }

    pub(crate) fn watch_of(&self, id: DirectoryId) -> Option<WatchId> {
        self.places.get(&id)?.watch
    }

    /// Notes whether a directory is watched. Answers what was noted before.
    pub(crate) fn set_watch(&mut self, id: DirectoryId, watch: Option<WatchId>) -> Option<WatchId> {
        std::mem::replace(&mut self.places.get_mut(&id)?.watch, watch)
    }

    /// The directory above, up to the one at which the path starts.
    pub(crate) fn parent_of(&self, id: DirectoryId) -> Option<DirectoryId> {
        self.places.get(&id).map(|place| place.parent).filter(|parent| *parent != NOWHERE)
    }

    /// The directory at which the path to this one starts.
    pub(crate) fn root_of(&self, id: DirectoryId) -> Option<&Path> {
        let place = self.places.get(&id)?;
        if place.parent == NOWHERE { Some(Path::new(&*place.name)) } else { self.root_of(place.parent) }
    }

    /// How many files and directories are known in this one.
    pub(crate) fn holds(&self, id: DirectoryId) -> usize {
        self.places.get(&id).map_or(0, |place| place.holds as usize)
    }

    /// The directories that one instance watches.
    pub(crate) fn watched_by(&self, instance: InstanceId) -> impl Iterator<Item = DirectoryId> + '_ {
        let is_its = move |place: &Place| place.watch.is_some_and(|watch| watch.instance == instance);
        self.places.iter().filter(move |(_, place)| is_its(place)).map(|(id, _)| *id)
    }

    /// The directory that was last known under this key.
    pub(crate) fn child(&self, key: Key) -> Option<DirectoryId> {
        self.children.get(&key).copied()
    }

    pub(crate) fn put(&mut self, directory: DirectoryId, name: &OsStr, (ticket, sink): Touched, identity: Identity) {
        let key = self.key(directory, name.as_bytes());
        let at = directory & DIRECTORY_MASK | u32::from(sink.0) << DIRECTORY_BITS;
        let file = File { slot: ticket.slot.0, seq: ticket.seq, identity, at };
        if self.files.insert(key, file).is_none()
            && let Some(place) = self.places.get_mut(&directory)
        {
            place.holds += 1;
        }
    }

    pub(crate) fn knows_file(&self, key: Key) -> bool {
        self.files.contains_key(&key)
    }

    /// Whether the file is still what was published. `None`: nothing is known of it.
    pub(crate) fn is_untouched(&self, key: Key, found: Option<&Stat>) -> Option<bool> {
        let file = self.files.get(&key)?;
        Some(found.is_some_and(|stat| self.identity(stat) == file.identity))
    }

    /// Forgets a file: it was withdrawn, or it is reported as touched and will be published again.
    pub(crate) fn remove(&mut self, key: Key) -> Option<Touched> {
        let file = self.files.remove(&key)?;
        if let Some(place) = self.places.get_mut(&file.directory()) {
            place.holds = place.holds.saturating_sub(1);
        }
        Some(file.publication())
    }

    pub(crate) fn path_of(&self, id: DirectoryId) -> Option<PathBuf> {
        let place = self.places.get(&id)?;
        if place.parent == NOWHERE {
            return Some(Path::new(&*place.name).to_owned());
        }
        Some(self.path_of(place.parent)?.join(&*place.name))
    }

    /// Forgets directories that are gone, with all that lies in and below them. Answers with the directories, the watch of
    /// each, and the publications that were there.
    pub(crate) fn remove_directories(
        &mut self,
        mut gone: HashSet<DirectoryId>,
    ) -> (Vec<(DirectoryId, Option<WatchId>)>, Vec<Touched>) {
        gone.retain(|id| self.places.contains_key(id));
        let holds_any = gone.iter().any(|id| self.places[id].holds > 0);
        let mut touched = Vec::new();
        if holds_any {
            let below: Vec<DirectoryId> = self.places.keys().copied().filter(|id| self.is_below(*id, &gone)).collect();
            gone.extend(below);
            let lost = self.files.extract_if(|_, file| gone.contains(&file.directory()));
            touched.extend(lost.map(|(_, file)| file.publication()));
        }
        let mut removed = Vec::with_capacity(gone.len());
        for id in &gone {
            if let Some(place) = self.places.remove(id) {
                removed.push((*id, place.watch));
                let key = self.key(place.parent, place.name.as_bytes());
                if self.children.get(&key) == Some(id) {
                    self.children.remove(&key);
                }
                if let Some(above) = self.places.get_mut(&place.parent) {
                    above.holds = above.holds.saturating_sub(1);
                }
            }
        }
        (removed, touched)
    }

    fn is_below(&self, id: DirectoryId, gone: &HashSet<DirectoryId>) -> bool {
        let mut at = id;
        while let Some(place) = self.places.get(&at) {
            if gone.contains(&at) {
                return true;
            }
            at = place.parent;
        }
        false
    }

    /// Forgets, and answers with, the files of these directories that are not among `seen`.
    pub(crate) fn remove_unseen(&mut self, of: &HashSet<DirectoryId>, seen: &HashSet<Key>) -> Vec<Touched> {
        let lost = self.files.extract_if(|key, file| of.contains(&file.directory()) && !seen.contains(key));
        let lost: Vec<File> = lost.map(|(_, file)| file).collect();
        for file in &lost {
            if let Some(place) = self.places.get_mut(&file.directory()) {
                place.holds = place.holds.saturating_sub(1);
            }
        }
        lost.iter().map(File::publication).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_file_costs_24_bytes() {
        assert_eq!(size_of::<(Key, File)>(), 24);
    }

    #[test]
    fn other_permissions_are_another_identity_even_within_one_tick() {
        let known = Known::default();
        let stat = rustix::fs::stat("/").unwrap();
        let mut other = stat;
        other.st_mode ^= 0o004;
        assert!(known.identity(&stat) == known.identity(&stat) && known.identity(&stat) != known.identity(&other));
    }

    #[test]
    fn what_was_put_comes_back_whole() {
        let mut known = Known::default();
        let publication = (Ticket { slot: Slot(u32::MAX), seq: 7 }, SinkId(15));
        let identity = Identity(3);
        known.add_directory(5, NOWHERE, OsStr::new("/a"));
        known.add_directory(6, 5, OsStr::new("b"));
        known.put(6, OsStr::new("f"), publication, identity);
        assert_eq!(known.path_of(6), Some("/a/b".into()));
        let (gone, touched) = known.remove_directories(HashSet::from([5]));
        assert_eq!((gone.len(), touched), (2, vec![publication]));
        assert!(known.files.is_empty() && known.places.is_empty() && known.children.is_empty());
    }
}
