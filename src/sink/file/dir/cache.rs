//! The directories that a lane has open, and how a path leads to one.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::path::{Component, Path};
use std::rc::Rc;
use std::sync::Arc;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::handle::{Directory, Origin};
use super::make::{DIRECTORY, Missing, make};
use super::open::open_fixed;
use super::trust::Me;
use crate::domain::SinkFailure;
use crate::sink::claims::{Claims, Refused};
use crate::sink::error;
use crate::sink::file::syscall::{openat, statat};

/// How many directories stay open between batches.
const KEPT_OPEN: usize = 64;

/// How many directories whose sync failed are told apart: half a megabyte of them.
const MOST_UNSYNCED: usize = 1 << 15;

/// The directories that are open, the last used first.
#[derive(Debug)]
pub(crate) struct Directories {
    known: Vec<Known>,
    /// Those with entries that changed since the last sync.
    dirty: Vec<Rc<Directory>>,
    unsynced: Unsynced,
    batch: u64,
    me: Me,
    claims: Arc<Claims>,
}

#[derive(Debug)]
struct Known {
    /// Length of the path's fixed part: the same path can be reached by sinks with different ones.
    fixed: usize,
    directory: Rc<Directory>,
}

/// Directories whose last sync failed, as hashes of their paths: a full disk may have any number of them.
#[derive(Debug, Default)]
struct Unsynced {
    hasher: RandomState,
    paths: HashSet<u64>,
    /// There were more than are remembered: from here on each directory is synced whenever it is used.
    too_many: bool,
}

impl Unsynced {
    fn insert(&mut self, path: &Path) {
        if self.paths.len() < MOST_UNSYNCED {
            self.paths.insert(self.hash(path));
        } else {
            self.too_many = true;
        }
    }

    fn remove(&mut self, path: &Path) {
        if !self.paths.is_empty() {
            self.paths.remove(&self.hash(path));
        }
    }

    fn includes(&self, path: &Path) -> bool {
        self.too_many || (!self.paths.is_empty() && self.paths.contains(&self.hash(path)))
    }

    fn hash(&self, path: &Path) -> u64 {
        self.hasher.hash_one(path.as_os_str())
    }
}

impl Directories {
    pub(crate) fn new(me: Me, claims: Arc<Claims>) -> Self {
        Self {
            known: Vec::with_capacity(KEPT_OPEN + 1),
            dirty: Vec::new(),
            unsynced: Unsynced::default(),
            batch: 0,
            me,
            claims,
        }
    }

    /// From here on, each directory is looked at again before it is used: its name may lead elsewhere by now.
    pub(crate) fn begin_batch(&mut self) {
        self.batch += 1;
    }

    /// Opens `path`, which is `fixed` or lies below it. `None`: it is missing, and was to be left so.
    pub(crate) fn open(
        &mut self,
        fixed: &Path,
        path: &Path,
        missing: Missing,
    ) -> Result<Option<Rc<Directory>>, SinkFailure> {
        if let Some(known) = self.recall(fixed, path, missing)? {
            self.soil_if_unsynced(&known);
            return Ok(Some(known));
        }
        let (fd, origin) = if path == fixed {
            let Some(fixed) = open_fixed(fixed, missing, self.me, &self.claims)? else { return Ok(None) };
            (fixed.fd, Origin::Fixed(fixed.above))
        } else {
            let (above, name) = split_below(fixed, path)?;
            let Some(parent) = self.open(fixed, above, missing)? else { return Ok(None) };
            let Some(fd) = self.open_child(&parent, name, path, missing)? else { return Ok(None) };
            (fd, Origin::Below(parent))
        };
        let directory = Rc::new(Directory::new(fd, path, origin, self.batch)?);
        self.known.insert(0, Known { fixed: fixed.as_os_str().len(), directory: Rc::clone(&directory) });
        self.known.truncate(KEPT_OPEN);
        self.soil_if_unsynced(&directory);
        Ok(Some(directory))
    }

    /// Makes `name` in `directory` this path's own, or finds that it is somebody else's.
    pub(crate) fn claim(&self, directory: &Directory, name: &OsStr) -> Result<(), SinkFailure> {
        let claimed = self.claims.claim(directory.identity(), name, directory.path());
        claimed.map_err(|refused| match refused {
            Refused::Reserved(what) => error::reserved(&directory.path().join(name), what),
            Refused::Taken => error::taken(&directory.path().join(name)),
        })
    }

    /// Gives `name` in `directory` up. `false`: it is somebody else's by now.
    pub(crate) fn release(&self, directory: &Directory, name: &OsStr) -> bool {
        self.claims.release(directory.identity(), name, directory.path())
    }

    /// Closes `path`, so that the next use opens it anew.
    pub(crate) fn forget(&mut self, path: &Path) {
        self.known.retain(|known| !known.directory.path().starts_with(path));
    }

    /// Forgets a directory that was removed.
    pub(crate) fn removed(&mut self, directory: &Rc<Directory>) {
        self.forget(directory.path());
        self.dirty.retain(|dirty| !Rc::ptr_eq(dirty, directory));
        self.unsynced.remove(directory.path());
    }

    /// Notes that an entry of `directory` changed.
    pub(crate) fn soil(&mut self, directory: &Rc<Directory>) {
        if !directory.set_dirty(true) {
            self.dirty.push(Rc::clone(directory));
        }
    }

    /// Syncs every directory in which an entry changed, once. Answers with those that could not be: they are synced when
    /// they are used again, even if no entry changes then.
    pub(crate) fn sync(&mut self) -> Vec<(Rc<Directory>, SinkFailure)> {
        self.sync_with(Directory::sync)
    }

    fn sync_with(
        &mut self,
        mut sync: impl FnMut(&Directory) -> Result<(), SinkFailure>,
    ) -> Vec<(Rc<Directory>, SinkFailure)> {
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

    fn soil_if_unsynced(&mut self, directory: &Rc<Directory>) {
        if self.unsynced.includes(directory.path()) {
            self.soil(directory);
        }
    }

    fn open_child(
        &mut self,
        parent: &Rc<Directory>,
        name: &OsStr,
        path: &Path,
        missing: Missing,
    ) -> Result<Option<OwnedFd>, SinkFailure> {
        match (openat(parent.fd(), name, DIRECTORY, Mode::empty()), missing) {
            (Ok(fd), _) => Ok(Some(fd)),
            (Err(Errno::NOENT), Missing::Leave) => Ok(None),
            (Err(Errno::NOENT), Missing::Make(rules)) => {
                parent.verify_passage(&rules, self.me)?;
                let fd = make(parent.fd(), parent.identity(), name, path, &rules, &self.claims)?;
                self.soil(parent);
                Ok(Some(fd))
            }
            (Err(errno @ (Errno::LOOP | Errno::NOTDIR)), _) => Err(not_a_directory(parent, name, path, errno)),
            (Err(errno), _) => Err(error::of("open the directory", path, errno)),
        }
    }

    fn recall(&mut self, fixed: &Path, path: &Path, missing: Missing) -> Result<Option<Rc<Directory>>, SinkFailure> {
        let length = fixed.as_os_str().len();
        // Bytes, not components: a path comes in the same spelling each time.
        let same = |known: &Known| known.fixed == length && known.directory.path().as_os_str() == path.as_os_str();
        let Some(at) = self.known.iter().position(same) else { return Ok(None) };
        let directory = Rc::clone(&self.known[at].directory);
        if !directory.was_seen_in(self.batch) && !self.still_there(fixed, &directory, missing)? {
            self.forget(path);
            return Ok(None);
        }
        // Looking at the parents may have moved the entries about.
        if let Some(at) = self.known.iter().position(same) {
            self.known[..=at].rotate_right(1);
        }
        Ok(Some(directory))
    }

    /// Whether the path still leads to the directory that is open.
    fn still_there(&mut self, fixed: &Path, directory: &Directory, missing: Missing) -> Result<bool, SinkFailure> {
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
        Ok(found.is_ok_and(|stat| directory.recognise(&stat, self.batch)))
    }
}

fn not_a_directory(parent: &Directory, name: &OsStr, path: &Path, errno: Errno) -> SinkFailure {
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

/// The directory above, and the last component, of a path below the fixed part.
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

    /// Uses each directory, in batches of its own; answers with those that are synced then.
    fn synced_when_used(directories: &mut Directories, fixed: &Path, paths: &[PathBuf]) -> Vec<PathBuf> {
        let mut synced = Vec::new();
        for path in paths {
            directories.begin_batch();
            directories.open(fixed, path, Missing::Leave).unwrap().unwrap();
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
        let mut directories = Directories::new(Me::current(), Arc::default());
        directories.begin_batch();
        for path in &paths {
            let directory = directories.open(fixed, path, Missing::Leave).unwrap().unwrap();
            directories.soil(&directory);
        }
        let failure = |directory: &Directory| Err(error::of("sync", directory.path(), Errno::IO));
        assert_eq!(directories.sync_with(failure).len(), 200);
        assert_eq!(synced_when_used(&mut directories, fixed, &paths), paths);
        assert!(synced_when_used(&mut directories, fixed, &paths).is_empty(), "once is enough");
    }

    #[test]
    fn of_more_unsynced_directories_than_can_be_told_apart_none_is_forgotten() {
        let mut unsynced = Unsynced::default();
        let path = |number: usize| PathBuf::from(format!("/srv/{number}"));
        (0..MOST_UNSYNCED + 10).for_each(|number| unsynced.insert(&path(number)));
        assert!((0..MOST_UNSYNCED + 10).all(|number| unsynced.includes(&path(number))));
        assert!(unsynced.paths.len() <= MOST_UNSYNCED);
    }
}
