//! Which directories need a sync because their last one failed.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

/// The most directories remembered whose sync failed: half a megabyte.
const MOST_UNSYNCED: usize = 1 << 15;

/// Directories whose last sync failed, as hashes of their paths: a full disk may have any number of them.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    hasher: RandomState,
    paths: HashSet<u64>,
    /// There were more than are remembered: from here on every directory needs a sync whenever it is used.
    too_many: bool,
}

impl Unsynced {
    pub(super) fn insert(&mut self, path: &Path) {
        if self.paths.len() < MOST_UNSYNCED {
            self.paths.insert(self.hash(path));
        } else {
            self.too_many = true;
        }
    }

    pub(super) fn remove(&mut self, path: &Path) {
        if !self.paths.is_empty() {
            self.paths.remove(&self.hash(path));
        }
    }

    pub(super) fn needs_sync(&self, path: &Path) -> bool {
        self.too_many || (!self.paths.is_empty() && self.paths.contains(&self.hash(path)))
    }

    fn hash(&self, path: &Path) -> u64 {
        self.hasher.hash_one(path.as_os_str())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn of_more_unsynced_directories_than_can_be_told_apart_none_is_forgotten() {
        let mut unsynced = Unsynced::default();
        let path = |number: usize| PathBuf::from(format!("/srv/{number}"));
        (0..MOST_UNSYNCED + 10).for_each(|number| unsynced.insert(&path(number)));
        assert!((0..MOST_UNSYNCED + 10).all(|number| unsynced.needs_sync(&path(number))));
        assert!(unsynced.paths.len() <= MOST_UNSYNCED);
    }
}
