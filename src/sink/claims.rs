//! Which sink owns a place. The config admits no two sinks with one path; but links, bind mounts and `/proc/self/root` give a
//! directory several paths. So each file is claimed by identity (device and inode of its directory, name), for the path that
//! leads to it: a second path to the same file is another sink, and is refused. The first keeps the place.
//!
//! A claim is 12 bytes, in a table that is half to nearly full: 15 to 30 bytes a file. All lanes share them.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;

use crate::system::permissions::{DirEntry, Identity, Reserved};

/// The claimed places, and those that no sink may claim.
#[derive(Debug, Default)]
pub struct Claims {
    /// Never held over a system call.
    table: Mutex<ClaimTable>,
}

/// Why a claim was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClaimError {
    /// The place is the daemon's own: this.
    Reserved(&'static str),
    /// Another path claimed it first.
    Taken,
}

/// A place that was claimed by two paths, and refused to the second.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PlaceConflict {
    /// The place.
    pub entry: DirEntry,
    /// The first: [`Claims::holder`] of its directory's path.
    pub holder: Holder,
}

/// A hash of a directory's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Holder(u32);

#[derive(Debug, Default)]
struct ClaimTable {
    hasher: RandomState,
    claims: HashTable<Claim>,
    reserved: Reserved,
    conflicts: HashSet<PlaceConflict>,
}

#[derive(Debug, Clone, Copy)]
struct Claim {
    /// A hash of the entry, in halves: eight bytes that need not be aligned to eight.
    hash: [u32; 2],
    holder: Holder,
}

impl Claim {
    fn hash(&self) -> u64 {
        u64::from(self.hash[0]) << 32 | u64::from(self.hash[1])
    }
}

impl Claims {
    /// Replaces the places that no sink may claim.
    pub fn reserve(&self, reserved: Reserved) {
        self.table().reserved = reserved;
    }

    /// The holder of what is claimed by this directory's path.
    pub fn holder(&self, directory: &Path) -> Holder {
        self.table().holder(directory)
    }

    /// Takes the refusals since the last call. Whether the first path still leads to the place is for the caller to find out.
    pub fn conflicts(&self) -> Vec<PlaceConflict> {
        self.table().conflicts.drain().collect()
    }

    /// The first holder has left the place: releases its claim.
    pub fn settle(&self, conflict: &PlaceConflict) {
        let (directory, name) = &conflict.entry;
        self.table().release(*directory, name, conflict.holder);
    }

    /// Claims `name` in `directory`, reached by `path`.
    pub(super) fn claim(&self, directory: Identity, name: &OsStr, path: &Path) -> Result<(), ClaimError> {
        self.table().claim(directory, name, path)
    }

    /// What the place is, if it is the daemon's own.
    pub(super) fn is_reserved(&self, directory: Identity, name: &OsStr) -> Option<&'static str> {
        self.table().reserved.what(directory, name)
    }

    /// Releases a claim, if there is one. `false` if the place is another's by now, or the daemon's own.
    pub(super) fn release(&self, directory: Identity, name: &OsStr, path: &Path) -> bool {
        let mut table = self.table();
        let holder = table.holder(path);
        table.reserved.what(directory, name).is_none() && table.release(directory, name, holder)
    }

    fn table(&self) -> MutexGuard<'_, ClaimTable> {
        // No panic leaves a claim half made.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClaimTable {
    fn holder(&self, directory: &Path) -> Holder {
        #[expect(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
        Holder(self.hasher.hash_one(directory.as_os_str()) as u32)
    }

    fn hash(&self, directory: Identity, name: &OsStr) -> u64 {
        self.hasher.hash_one((directory, name))
    }

    fn claim(&mut self, directory: Identity, name: &OsStr, path: &Path) -> Result<(), ClaimError> {
        if let Some(what) = self.reserved.what(directory, name) {
            return Err(ClaimError::Reserved(what));
        }
        let (hash, holder) = (self.hash(directory, name), self.holder(path));
        match self.claims.find(hash, |claim| claim.hash() == hash).map(|claim| claim.holder) {
            Some(first) if first == holder => Ok(()),
            Some(first) => {
                self.conflicts.insert(PlaceConflict { entry: (directory, name.to_owned()), holder: first });
                Err(ClaimError::Taken)
            }
            None => {
                #[expect(clippy::cast_possible_truncation, reason = "it is cut in halves")]
                let hash_in_halves = [(hash >> 32) as u32, hash as u32];
                self.claims.insert_unique(hash, Claim { hash: hash_in_halves, holder }, Claim::hash);
                Ok(())
            }
        }
    }

    fn release(&mut self, directory: Identity, name: &OsStr, holder: Holder) -> bool {
        let hash = self.hash(directory, name);
        match self.claims.find_entry(hash, |claim| claim.hash() == hash) {
            Ok(entry) if entry.get().holder == holder => {
                entry.remove();
                true
            }
            Ok(_) => false,
            Err(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Identity {
        Identity::at(Path::new("/")).unwrap()
    }

    #[test]
    fn a_claim_costs_twelve_bytes() {
        assert_eq!(size_of::<Claim>(), 12);
    }

    #[test]
    fn the_second_path_to_a_place_is_refused_until_the_first_gives_it_up() {
        let (claims, name, other) = (Claims::default(), OsStr::new("ding1"), OsStr::new("ding2"));
        let [first, second] = [Path::new("/a"), Path::new("/b")];
        assert_eq!(claims.claim(directory(), name, first), Ok(()));
        assert_eq!(claims.claim(directory(), name, first), Ok(()), "again");
        assert_eq!(claims.claim(directory(), name, second), Err(ClaimError::Taken));
        assert_eq!(claims.claim(directory(), other, second), Ok(()), "another name in the same directory");
        assert!(!claims.release(directory(), name, second), "it is not the second's to give up");
        assert_eq!(claims.claim(directory(), name, second), Err(ClaimError::Taken));
        assert!(claims.release(directory(), name, first));
        assert_eq!(claims.claim(directory(), name, second), Ok(()));
    }

    #[test]
    fn a_contest_is_told_and_settled() {
        let (claims, name) = (Claims::default(), OsStr::new("ding1"));
        claims.claim(directory(), name, Path::new("/a")).unwrap();
        assert_eq!(claims.conflicts(), []);
        claims.claim(directory(), name, Path::new("/b")).unwrap_err();
        let conflicts = claims.conflicts();
        assert_eq!(
            conflicts,
            [PlaceConflict { entry: (directory(), name.into()), holder: claims.holder(Path::new("/a")) }]
        );
        claims.settle(&conflicts[0]);
        assert_eq!(claims.claim(directory(), name, Path::new("/b")), Ok(()));
        claims.settle(&conflicts[0]);
        assert_eq!(
            claims.claim(directory(), name, Path::new("/a")),
            Err(ClaimError::Taken),
            "settled for the first alone"
        );
    }

    #[test]
    fn what_is_reserved_is_never_claimed_nor_given_up() {
        let (claims, name) = (Claims::default(), OsStr::new("state.redb"));
        let mut reserved = Reserved::default();
        reserved.entries.insert((directory(), name.into()), "the state");
        claims.reserve(reserved.clone());
        assert_eq!(claims.claim(directory(), name, Path::new("/a")), Err(ClaimError::Reserved("the state")));
        assert!(!claims.release(directory(), name, Path::new("/a")));
        assert_eq!(claims.claim(directory(), OsStr::new("x"), Path::new("/a")), Ok(()));
        reserved.directories.insert(directory(), "the drop-ins");
        claims.reserve(reserved);
        assert_eq!(
            claims.claim(directory(), OsStr::new("y"), Path::new("/a")),
            Err(ClaimError::Reserved("the drop-ins"))
        );
    }
}
