//! Self-repair: each directory to which the lane publishes is watched, and what somebody else does there is reported.
//!
//! The lane's own writes cause events as well. Under a file's temporary name they are dropped by that name; the rename
//! that follows is recognised by comparing what is there with what was left there. What the kernel cannot watch (a limit,
//! an overflow) is swept: read, and compared file by file.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init, remove_watch};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, open, statat};

use super::Report;
use super::directory::Directory;
use super::events::{CHANGES, Seen};
use super::file::Outcome;
use super::known::{DirectoryId, Key, Known, NOWHERE, Touched};
use super::lane::Shared;
use super::pace::{Pace, Ticker};

/// The numbers of directories that the kernel did not give one begin here.
const MADE_UP: DirectoryId = 1 << 27;

/// Events are read at most so often, and gathered meanwhile: somebody who writes without end must not keep the lane busy.
const REST: Duration = Duration::from_millis(20);

/// In how many seconds every unwatched directory is swept once.
const SWEEP_S: usize = 60;

/// The watch of one lane.
#[derive(Debug)]
pub(super) struct Watch {
    inotify: Option<OwnedFd>,
    known: Known,
    pace: Pace,
    /// Runs after events were read.
    rest: Ticker,
    unwatched: Vec<DirectoryId>,
    /// Which of them is swept next.
    next: usize,
    made_up: DirectoryId,
    sweep: Ticker,
    shared: Arc<Shared>,
}

impl Watch {
    pub(super) fn new(shared: Arc<Shared>) -> io::Result<Self> {
        Ok(Self {
            // Where there is none to be had, everything is swept.
            inotify: init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok(),
            known: Known::default(),
            pace: Pace::new()?,
            rest: Ticker::new(REST)?,
            unwatched: Vec::new(),
            next: 0,
            made_up: MADE_UP,
            sweep: Ticker::new(Duration::from_secs(1))?,
            shared,
        })
    }

    /// Looks after what was just published, or found to be right.
    pub(super) fn track(&mut self, outcome: &Outcome, publication: Touched) {
        let directory = self.watch(&outcome.directory);
        let identity = self.known.identity(&outcome.left);
        self.known.put(directory, &outcome.name, publication, identity);
    }

    /// Looks no more after what is withdrawn.
    pub(super) fn untrack(&mut self, directory: &Directory, name: &OsStr) {
        if let Some(id) = self.find(directory) {
            let key = self.known.key(id, name.as_bytes());
            self.known.remove(key);
        }
    }

    /// Reads the events that are there. Cheap when there are none. What is in the directory `near` is looked at through its
    /// descriptor, which spares the walk to it.
    pub(super) fn look(&mut self, near: Option<&Directory>) -> Vec<Report> {
        let seen = self.inotify.as_ref().map(|inotify| Seen::read(inotify, &self.known)).unwrap_or_default();
        self.rest.elapsed();
        self.rest.run(seen.any);
        let mut touched: Vec<Touched> = seen.altered.into_iter().filter_map(|key| self.known.remove(key)).collect();
        touched.extend(self.judge(seen.suspects, near));
        touched.extend(self.lose(seen.gone));
        if seen.overflow {
            let all = self.known.directories().collect();
            touched.extend(self.sweep(&all));
        }
        self.report(touched)
    }

    /// Does what is due by time: sweeps, and reports that were held back.
    pub(super) fn look_at_clock(&mut self) -> Vec<Report> {
        let mut touched = Vec::new();
        if self.sweep.elapsed() > 0 && !self.unwatched.is_empty() {
            touched.extend(self.sweep_some());
        }
        let mut reports = self.report(touched);
        reports.extend(self.pace.due().into_iter().map(|(ticket, sink)| Report::Touched { ticket, sink }));
        reports
    }

    pub(super) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let events = if self.rest.runs() { Some(self.rest.fd()) } else { self.inotify.as_ref().map(AsFd::as_fd) };
        [self.pace.fd(), self.sweep.fd()].into_iter().chain(events).collect()
    }

    fn report(&mut self, touched: Vec<Touched>) -> Vec<Report> {
        let now = touched.into_iter().filter(|(ticket, sink)| self.pace.admits(*ticket, *sink));
        now.map(|(ticket, sink)| Report::Touched { ticket, sink }).collect()
    }

    fn watch(&mut self, directory: &Directory) -> DirectoryId {
        if let Some(id) = directory.watched_as().filter(|id| self.known.knows_directory(*id)) {
            return id;
        }
        let here = format!("/proc/self/fd/{}", directory.fd().as_raw_fd());
        let (parent, name) = match directory.parent() {
            Some(parent) => (self.watch(parent), directory.name().to_owned()),
            None => (NOWHERE, directory.path().as_os_str().to_owned()),
        };
        let id = match self.add_watch(Path::new(&here), CHANGES) {
            Some(id) => id,
            None => self.made_up_for(self.known.key(parent, name.as_bytes())),
        };
        self.known.add_directory(id, parent, &name);
        directory.set_watched_as(id);
        id
    }

    /// The number under which a directory is known already: it may have been closed and opened again meanwhile.
    fn find(&self, directory: &Directory) -> Option<DirectoryId> {
        if let Some(id) = directory.watched_as() {
            return Some(id);
        }
        let key = match directory.parent() {
            Some(parent) => self.known.key(self.find(parent)?, directory.name().as_bytes()),
            None => self.known.key(NOWHERE, directory.path().as_os_str().as_bytes()),
        };
        self.known.child(key)
    }

    fn add_watch(&self, path: &Path, changes: WatchFlags) -> Option<DirectoryId> {
        let number = add_watch(self.inotify.as_ref()?, path, changes).ok()?;
        u32::try_from(number).ok().filter(|number| (1..MADE_UP).contains(number))
    }

    /// The number of a directory that the kernel does not watch.
    fn made_up_for(&mut self, key: Key) -> DirectoryId {
        if let Some(id) = self.known.child(key).filter(|id| *id >= MADE_UP && self.known.knows_directory(*id)) {
            return id;
        }
        self.made_up = if self.made_up + 1 == MADE_UP << 1 { MADE_UP } else { self.made_up + 1 };
        self.unwatched.push(self.made_up);
        self.count_unwatched();
        self.made_up
    }

    fn count_unwatched(&mut self) {
        self.shared.unwatched.store(self.unwatched.len(), Ordering::Relaxed);
        self.sweep.run(!self.unwatched.is_empty());
    }

    /// Compares what stands at these names with what was left there.
    fn judge(&mut self, suspects: Vec<(DirectoryId, Key, OsString)>, near: Option<&Directory>) -> Vec<Touched> {
        let mut touched = Vec::new();
        let mut last = None;
        for (directory, key, name) in suspects {
            let found = match near.filter(|near| near.watched_as() == Some(directory)) {
                Some(near) => statat(near.fd(), &name, AtFlags::SYMLINK_NOFOLLOW).ok(),
                None => {
                    if last.as_ref().is_none_or(|(of, _)| *of != directory) {
                        last = self.known.path_of(directory).map(|path| (directory, path));
                    }
                    let Some((_, path)) = &last else { continue };
                    statat(rustix::fs::CWD, path.join(&name), AtFlags::SYMLINK_NOFOLLOW).ok()
                }
            };
            if self.known.is_untouched(key, found.as_ref()) == Some(false) {
                touched.extend(self.known.remove(key));
            }
        }
        touched
    }

    /// Forgets directories that are gone, and answers with what was published there.
    fn lose(&mut self, gone: HashSet<DirectoryId>) -> Vec<Touched> {
        if gone.is_empty() {
            return Vec::new();
        }
        let (gone, touched) = self.known.remove_directories(gone);
        for id in &gone {
            if let (Some(inotify), Ok(number)) = (&self.inotify, i32::try_from(*id))
                && *id < MADE_UP
            {
                // Moved rather than removed, it would be heard of for ever.
                let _ = remove_watch(inotify, number);
            }
        }
        if !self.unwatched.is_empty() {
            self.unwatched.retain(|id| !gone.contains(id));
            self.count_unwatched();
        }
        touched
    }

    /// Sweeps a minute's share of the unwatched directories, those first for which there is a watch by now.
    fn sweep_some(&mut self) -> Vec<Touched> {
        let share = self.unwatched.len().div_ceil(SWEEP_S);
        let from = if self.next < self.unwatched.len() { self.next } else { 0 };
        let chosen: HashSet<DirectoryId> = self.unwatched.iter().skip(from).take(share).copied().collect();
        self.next = from + share;
        let watchable = |id: &DirectoryId| {
            let path = self.known.path_of(*id);
            path.is_some_and(|path| self.add_watch(&path, CHANGES | WatchFlags::DONT_FOLLOW).is_some())
        };
        // Publishing there again, which changes nothing, looks after them under their new number.
        let (watched, still): (HashSet<DirectoryId>, HashSet<DirectoryId>) = chosen.into_iter().partition(watchable);
        let mut touched = self.lose(watched);
        touched.extend(self.sweep(&still));
        touched
    }

    /// Compares every file of these directories with what was left there.
    fn sweep(&mut self, directories: &HashSet<DirectoryId>) -> Vec<Touched> {
        let (mut intact, mut gone) = (HashSet::new(), HashSet::new());
        for id in directories {
            let Some(path) = self.known.path_of(*id) else { continue };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = open(&path, flags, Mode::empty()).and_then(|fd| Ok((Dir::read_from(&fd)?, fd)));
            let Ok((entries, fd)) = opened else {
                gone.insert(*id);
                continue;
            };
            for entry in entries.flatten() {
                let name = entry.file_name();
                let key = self.known.key(*id, name.to_bytes());
                if !self.known.knows_file(key) {
                    continue;
                }
                let found = statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW).ok();
                if self.known.is_untouched(key, found.as_ref()) == Some(true) {
                    intact.insert(key);
                }
            }
        }
        let mut touched = self.known.remove_unseen(directories, &intact);
        touched.extend(self.lose(gone));
        touched
    }
}
