//! The inotify instances of a lane: one for each sink root, so that an overflowing queue concerns one root.
//!
//! A user may have 128 instances (`fs.inotify.max_user_instances`) in all processes together, so this one takes a few;
//! further roots share them.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init, remove_watch};

use crate::sink::file::dir::DirNumber;

/// The most instances of all lanes of this process together, beyond the two that each lane may have.
const MAX_EXTRA: usize = 32;

/// How many of those are in use.
static EXTRA: AtomicUsize = AtomicUsize::new(0);

/// The index of an instance in its lane.
pub(crate) type InstanceId = u16;

/// A watch: its instance, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WatchId {
    pub(crate) instance: InstanceId,
    number: i32,
}

/// One inotify instance, with the directories that it watches.
#[derive(Debug)]
pub(crate) struct Instance {
    fd: OwnedFd,
    directories: HashMap<i32, DirNumber>,
    /// It is counted in [`EXTRA`].
    is_extra: bool,
}

/// All instances of a lane.
#[derive(Debug, Default)]
pub(crate) struct Instances {
    all: Vec<Instance>,
    by_root: HashMap<PathBuf, InstanceId>,
    /// For directories that had too many events: if they do so again, no other queue overflows.
    for_noisy: Option<InstanceId>,
}

impl Instance {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// `None` if it is no longer watched.
    pub(crate) fn directory(&self, number: i32) -> Option<DirNumber> {
        self.directories.get(&number).copied()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.is_extra {
            EXTRA.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Instances {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (InstanceId, &Instance)> {
        (0..).zip(&self.all)
    }

    /// Watches a directory below `root`. `None` if the kernel has no watch or no instance left.
    pub(crate) fn watch(&mut self, root: &Path, path: &Path, changes: WatchFlags) -> Option<WatchId> {
        let instance = self.of_root(root)?;
        self.add(instance, path, changes)
    }

    /// Watches a directory that had too many events, in an instance for such.
    pub(crate) fn watch_noisy(&mut self, path: &Path, changes: WatchFlags) -> Option<WatchId> {
        if self.for_noisy.is_none() {
            self.for_noisy = self.make(false).ok();
        }
        self.add(self.for_noisy?, path, changes)
    }

    /// The directory of this watch: the kernel gives a directory one watch in an instance.
    pub(crate) fn directory(&self, watch: WatchId) -> Option<DirNumber> {
        self.all.get(usize::from(watch.instance))?.directory(watch.number)
    }

    pub(crate) fn assign(&mut self, watch: WatchId, directory: DirNumber) {
        if let Some(instance) = self.all.get_mut(usize::from(watch.instance)) {
            instance.directories.insert(watch.number, directory);
        }
    }

    pub(crate) fn unwatch(&mut self, watch: WatchId) {
        let Some(instance) = self.all.get_mut(usize::from(watch.instance)) else { return };
        if instance.directories.remove(&watch.number).is_some() {
            // A removed directory has lost its watch already; a moved one would cause events for ever.
            let _ = remove_watch(&instance.fd, watch.number);
        }
    }

    fn add(&self, instance: InstanceId, path: &Path, changes: WatchFlags) -> Option<WatchId> {
        let number = add_watch(&self.all.get(usize::from(instance))?.fd, path, changes).ok()?;
        Some(WatchId { instance, number })
    }

    /// The instance of a root; where there is none left, another root's.
    fn of_root(&mut self, root: &Path) -> Option<InstanceId> {
        if let Some(&instance) = self.by_root.get(root) {
            return Some(instance);
        }
        let unused =
            |(id, instance): &(InstanceId, &Instance)| instance.directories.is_empty() && self.for_noisy != Some(*id);
        let unused = self.iter().find(unused).map(|(id, _)| id);
        let instance = unused.or_else(|| self.make(!self.by_root.is_empty()).ok()).or_else(|| {
            let shared: Vec<InstanceId> = self.by_root.values().copied().collect();
            shared.get(self.by_root.len() % shared.len().max(1)).copied()
        })?;
        self.by_root.insert(root.to_owned(), instance);
        Some(instance)
    }

    fn make(&mut self, is_extra: bool) -> io::Result<InstanceId> {
        let id = InstanceId::try_from(self.all.len()).map_err(io::Error::other)?;
        let one_more = |extra: usize| (extra < MAX_EXTRA).then_some(extra + 1);
        if is_extra && EXTRA.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            return Err(io::Error::other("this process has its share of inotify instances"));
        }
        match init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) {
            Ok(fd) => self.all.push(Instance { fd, directories: HashMap::new(), is_extra }),
            Err(errno) => {
                EXTRA.fetch_sub(usize::from(is_extra), Ordering::Relaxed);
                return Err(errno.into());
            }
        }
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_beyond_the_share_of_instances_share_them_and_are_watched_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let mut instances = Instances::default();
        for number in 0..100 {
            let root = directory.path().join(number.to_string());
            std::fs::create_dir(&root).unwrap();
            let watch = instances.watch(&root, &root, WatchFlags::DELETE).expect("a watch");
            instances.assign(watch, number);
            assert_eq!(instances.directory(watch), Some(number));
        }
        let count = instances.iter().count();
        assert!((1..=1 + MAX_EXTRA).contains(&count), "{count} instances");
    }
}
