//! The directories that a lane has open, found by path, and synced once a batch.

use std::ffi::OsStr;
use std::path::{Component, Path};
use std::rc::Rc;
use std::sync::Arc;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::create::{DIRECTORY, IfMissing, make};
use super::handle::DirHandle;
use super::open::open_fixed;
use super::pending_sync::Unsynced;
use super::trust::DaemonUser;
use crate::domain::SinkFailure;
use crate::sink::claims::{ClaimError, Claims};
use crate::sink::error;
use crate::sink::file::syscall::{openat, statat};

/// The most directories that stay open between batches.
const KEPT_OPEN: usize = 64;

/// Open directories, least recently used last.
#[derive(Debug)]
pub(crate) struct DirectoryCache {
    entries: Vec<Cached>,
    /// Directories with entries that changed since the last sync.
    dirty: Vec<Rc<DirHandle>>,
    unsynced: Unsynced,
    batch: u64,
    me: DaemonUser,
    claims: Arc<Claims>,
}

#[derive(Debug)]
struct Cached {
    /// Length of the fixed part: sinks with different fixed parts may share a path.
    fixed: usize,
    directory: Rc<DirHandle>,
}

impl DirectoryCache {
    pub(crate) fn new(me: DaemonUser, claims: Arc<Claims>) -> Self {
        Self {
            entries: Vec::with_capacity(KEPT_OPEN + 1),
            dirty: Vec::new(),
            unsynced: Unsynced::default(),
            batch: 0,
            me,
            claims,
        }
    }

    /// Begins a batch: each directory is revalidated before its first use in it, since its path may lead elsewhere by now.
    pub(crate) fn begin_batch(&mut self) {
        self.batch += 1;
    }

    /// Opens `path`, which is `fixed` or lies below it. `None` if it is missing and was not to be made.
    pub(crate) fn open(
        &mut self,
        fixed: &Path,
        path: &Path,
        missing: IfMissing,
    ) -> Result<Option<Rc<DirHandle>>, SinkFailure> {
        if let Some(known) = self.cached(fixed, path, missing)? {
            self.mark_dirty_if_unsynced(&known);
            return Ok(Some(known));
        }
        let (fd, parent, above) = if path == fixed {
            let Some(fixed) = open_fixed(fixed, missing, self.me, &self.claims)? else { return Ok(None) };
            (fixed.fd, None, fixed.above)
        } else {
            let (above, name) = split_below(fixed, path)?;
            let Some(parent) = self.open(fixed, above, missing)? else { return Ok(None) };
            let Some(fd) = self.open_child(&parent, name, path, missing)? else { return Ok(None) };
            (fd, Some(parent), Vec::new())
        };
        let directory = Rc::new(DirHandle::new(fd, path, parent, above, self.batch)?);
        self.entries.insert(0, Cached { fixed: fixed.as_os_str().len(), directory: Rc::clone(&directory) });
        self.entries.truncate(KEPT_OPEN);
        self.mark_dirty_if_unsynced(&directory);
        Ok(Some(directory))
    }

    /// Claims `name` in `directory` for this path.
    pub(crate) fn claim(&self, directory: &DirHandle, name: &OsStr) -> Result<(), SinkFailure> {
        let claimed = self.claims.claim(directory.identity(), name, directory.path());
        claimed.map_err(|refused| match refused {
            ClaimError::Reserved(what) => error::reserved(&directory.path().join(name), what),
            ClaimError::Taken => error::taken(&directory.path().join(name)),
        })
    }

    /// Releases the claim on `name` in `directory`. `false` if another path holds it.
    pub(crate) fn release(&self, directory: &DirHandle, name: &OsStr) -> bool {
        self.claims.release(directory.identity(), name, directory.path())
    }

    /// Closes `path` and everything below it, so that the next use opens it anew.
    pub(crate) fn forget(&mut self, path: &Path) {
        self.entries.retain(|known| !known.directory.path().starts_with(path));
    }

    /// Forgets a directory that was removed.
    pub(crate) fn removed(&mut self, directory: &Rc<DirHandle>) {
        self.forget(directory.path());
        self.dirty.retain(|dirty| !Rc::ptr_eq(dirty, directory));
        self.unsynced.remove(directory.path());
    }

    /// An entry of `directory` changed: it is synced at the end of the batch.
    pub(crate) fn mark_dirty(&mut self, directory: &Rc<DirHandle>) {
        if !directory.set_dirty(true) {
            self.dirty.push(Rc::clone(directory));
        }
    }

    /// Syncs each dirty directory once. Returns those that failed: they are synced again with their next use, even if no entry
    /// changes then.
    pub(crate) fn sync(&mut self) -> Vec<(Rc<DirHandle>, SinkFailure)> {
        self.sync_with(DirHandle::sync)
    }

    fn sync_with(
        &mut self,
        mut sync: impl FnMut(&DirHandle) -> Result<(), SinkFailure>,
    ) -> Vec<(Rc<DirHandle>, SinkFailure)> {
        let mut failed = Vec::new();
        for directory in std::mem::take(&mut self.dirty) {
            directory.set_dirty(false);
            match sync(&directory) {
                Ok(()) => self.unsynced.remove(directory.path()),
                Err(failure) => {
                    self.unsynced.insert(directory.path());
                    self.forget(directory.path());
                    failed.push((directory, failure));
                }
            }
        }
        failed
    }

    fn mark_dirty_if_unsynced(&mut self, directory: &Rc<DirHandle>) {
        if self.unsynced.needs_sync(directory.path()) {
            self.mark_dirty(directory);
        }
    }

    fn open_child(
        &mut self,
        parent: &Rc<DirHandle>,
        name: &OsStr,
        path: &Path,
        missing: IfMissing,
    ) -> Result<Option<OwnedFd>, SinkFailure> {
        match (openat(parent.fd(), name, DIRECTORY, Mode::empty()), missing) {
            (Ok(fd), _) => Ok(Some(fd)),
            (Err(Errno::NOENT), IfMissing::Leave) => Ok(None),
            (Err(Errno::NOENT), IfMissing::Make(policy)) => {
                parent.verify_passage(&policy, self.me)?;
                let fd = make(parent.fd(), parent.identity(), name, path, &policy, &self.claims)?;
                self.mark_dirty(parent);
                Ok(Some(fd))
            }
            (Err(errno @ (Errno::LOOP | Errno::NOTDIR)), _) => Err(not_a_directory(parent, name, path, errno)),
            (Err(errno), _) => Err(error::of("open the directory", path, errno)),
        }
    }

    fn cached(&mut self, fixed: &Path, path: &Path, missing: IfMissing) -> Result<Option<Rc<DirHandle>>, SinkFailure> {
        let length = fixed.as_os_str().len();
        // Bytes, not components: a path comes in the same spelling each time.
        let same = |known: &Cached| known.fixed == length && known.directory.path().as_os_str() == path.as_os_str();
        let Some(at) = self.entries.iter().position(same) else { return Ok(None) };
        let directory = Rc::clone(&self.entries[at].directory);
        if !directory.is_validated_in(self.batch) && !self.is_still_there(fixed, &directory, missing)? {
            self.forget(path);
            return Ok(None);
        }
        // Revalidating the parents may have moved the entries.
        if let Some(at) = self.entries.iter().position(same) {
            self.entries[..=at].rotate_right(1);
        }
        Ok(Some(directory))
    }

    /// Whether the path still leads to this open directory.
    fn is_still_there(&mut self, fixed: &Path, directory: &DirHandle, missing: IfMissing) -> Result<bool, SinkFailure> {
        let found = match directory.parent() {
            None => statat(rustix::fs::CWD, directory.path(), AtFlags::empty()),
            Some(held) => {
                let (above, name) = split_below(fixed, directory.path())?;
                match self.open(fixed, above, missing)? {
                    Some(parent) if Rc::ptr_eq(&parent, held) => statat(parent.fd(), name, AtFlags::SYMLINK_NOFOLLOW),
                    _ => return Ok(false),
                }
            }
        };
        Ok(found.is_ok_and(|stat| directory.revalidate(&stat, self.batch)))
    }
}

fn not_a_directory(parent: &DirHandle, name: &OsStr, path: &Path, errno: Errno) -> SinkFailure {
    match statat(parent.fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => error::unsafe_path(
            path,
            "is a symbolic link, and below the fixed part of a sink's path none are followed: remove it, or write the \
             link's target into the config",
        ),
        Ok(_) => error::unsafe_path(path, "is not a directory: remove it, or choose another path for the sink"),
        Err(_) => error::of("open the directory", path, errno),
    }
}

/// Splits a path below the fixed part into its parent and its last component.
fn split_below<'a>(fixed: &Path, path: &'a Path) -> Result<(&'a Path, &'a OsStr), SinkFailure> {
    match (path.parent(), path.components().next_back()) {
        (Some(above), Some(Component::Normal(name))) if above.starts_with(fixed) => Ok((above, name)),
        _ => Err(error::unsafe_path(
            path,
            format_args!("does not lie below {}: take `..` out of the sink's path", fixed.display()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// Uses each directory in a batch of its own. Returns those that were synced.
    fn synced_when_used(directories: &mut DirectoryCache, fixed: &Path, paths: &[PathBuf]) -> Vec<PathBuf> {
        let mut synced = Vec::new();
        for path in paths {
            directories.begin_batch();
            directories.open(fixed, path, IfMissing::Leave).unwrap().unwrap();
            directories.sync_with(|directory| {
                synced.push(directory.path().to_owned());
                Ok(())
            });
        }
        synced
    }

    #[test]
    fn every_directory_whose_sync_failed_is_synced_when_it_is_used_again_however_many_there_are() {
        let scratch = tempfile::tempdir().unwrap();
        let fixed = scratch.path();
        let paths: Vec<PathBuf> = (0..200).map(|number| fixed.join(number.to_string())).collect();
        paths.iter().for_each(|path| std::fs::create_dir(path).unwrap());
        let mut directories = DirectoryCache::new(DaemonUser::current(), Arc::default());
        directories.begin_batch();
        for path in &paths {
            let directory = directories.open(fixed, path, IfMissing::Leave).unwrap().unwrap();
            directories.mark_dirty(&directory);
        }
        let failure = |directory: &DirHandle| Err(error::of("sync", directory.path(), Errno::IO));
        assert_eq!(directories.sync_with(failure).len(), 200);
        assert_eq!(synced_when_used(&mut directories, fixed, &paths), paths);
        assert!(synced_when_used(&mut directories, fixed, &paths).is_empty(), "once is enough");
    }
}
