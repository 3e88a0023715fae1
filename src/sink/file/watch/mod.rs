//! Self-repair: each directory to which the lane publishes is watched, and what somebody else does there is reported.
//!
//! The lane's own writes cause events as well. Under a file's temporary name they are dropped by that name; the rename
//! that follows is recognised by comparing what is there with what was left there. What the kernel cannot watch (a limit,
//! an overflow, a flood) is swept: read, and compared file by file.

mod flood;
mod index;
mod inotify;
mod instances;
mod throttle;

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::fs::inotify::WatchFlags;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, open, statat};

use crate::sink::file::dir::{Directory, DirectoryId};
use crate::sink::file::publish::Outcome;
use crate::sink::job::LaneReport;
use crate::sink::lane::Shared;
use crate::sink::ticker::Ticker;
use flood::Flood;
use index::{Key, Known, NOWHERE, Touched};
use inotify::{CHANGES, Seen};
use instances::{Instances, WatchId};
use throttle::Pace;

/// Events are read at most so often, and gathered meanwhile: somebody who writes without end must not keep the lane busy.
const REST: Duration = Duration::from_millis(20);

/// In how many seconds every unwatched directory is swept once.
const SWEEP_S: usize = 60;

/// A sweep reads so many entries of a directory, and as many times its own files. What it does not reach is published
/// again, which verifies it: somebody may have filled the directory with files by the million.
const MOST_ENTRIES: usize = 10_000;
const ENTRIES_A_FILE: usize = 8;

/// While a flood lasts, the directory is glanced at each second, so that its other files are put right within that time. A
/// glance reads so many entries of a directory, and as many times its own files as a sweep does. What it does not reach
/// waits for the sweep at the end of the pause.
const GLANCE_ENTRIES: usize = 1_000;
/// How many directories are glanced at in a second, and how many files of ours they may have together.
const GLANCE_DIRECTORIES: usize = 64;
const GLANCE_FILES: usize = 2_000;

/// The watch of one lane.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Where there is none to be had, everything is swept.
    instances: Instances,
    known: Known,
    pace: Pace,
    flood: Flood,
    /// Runs after events were read.
    rest: Ticker,
    unwatched: Vec<DirectoryId>,
    /// Which of them is swept next.
    next: usize,
    /// At how many paused directories was glanced so far: each has its turn.
    glanced: usize,
    /// Runs while something depends on the time.
    second: Ticker,
    /// Watched since the publication that is under way began.
    new: Option<DirectoryId>,
    /// Floods that began or ended, and are not reported yet.
    floods: Vec<LaneReport>,
    shared: Arc<Shared>,
}

/// How much of a directory is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// As much as is sensible; what is not reached is published again.
    Sweep,
    /// Little; what is not reached is left for later.
    Glance,
}

/// Whether a directory is heard of by an instance for noisy ones.
#[derive(Debug, Clone, Copy)]
enum Apart {
    Yes,
    No,
}

impl Watch {
    pub(crate) fn new(shared: Arc<Shared>) -> io::Result<Self> {
        Ok(Self {
            instances: Instances::default(),
            known: Known::default(),
            pace: Pace::new()?,
            flood: Flood::default(),
            rest: Ticker::new(REST)?,
            unwatched: Vec::new(),
            next: 0,
            glanced: 0,
            second: Ticker::new(Duration::from_secs(1))?,
            new: None,
            floods: Vec::new(),
            shared,
        })
    }

    /// Something is about to be published in this directory.
    pub(crate) fn begin(&mut self, directory: &Directory) {
        self.new = None;
        self.watch(directory);
    }

    /// Looks after what was just published, or found to be right. Answers with it if the directory, which was not watched
    /// before, had another name by then: somebody was faster.
    pub(crate) fn track(&mut self, outcome: &Outcome, publication: Touched) -> Option<LaneReport> {
        let directory = self.watch(&outcome.directory);
        self.expect(directory);
        let identity = self.known.identity(&outcome.left);
        self.known.put(directory, &outcome.name, publication, identity);
        self.new.take().filter(|new| *new == directory)?;
        let path = self.known.path_of(directory)?.join(&outcome.name);
        let found = statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW).ok();
        let key = self.known.key(directory, outcome.name.as_bytes());
        let is_touched = self.known.is_untouched(key, found.as_ref()) == Some(false);
        let touched = is_touched.then(|| self.known.remove(key)).flatten();
        self.report(touched).pop()
    }

    /// Looks no more after what is withdrawn.
    pub(crate) fn untrack(&mut self, directory: &Directory, name: &OsStr) {
        if let Some(id) = self.find(directory) {
            self.expect(id);
            let key = self.known.key(id, name.as_bytes());
            self.known.remove(key);
        }
    }

    /// Reads the events that are there. Cheap when there are none. What is in the directory `near` is looked at through its
    /// descriptor, which spares the walk to it.
    pub(crate) fn look(&mut self, near: Option<&Directory>) -> Vec<LaneReport> {
        let seen = Seen::read(&self.instances, &self.known, &mut self.flood);
        self.rest.elapsed();
        self.rest.run(seen.any);
        let mut touched: Vec<Touched> = seen.altered.into_iter().filter_map(|key| self.known.remove(key)).collect();
        touched.extend(self.judge(seen.suspects, near));
        touched.extend(self.lose(seen.gone));
        self.pause(seen.flooded);
        if !seen.overflowed.is_empty() {
            let watched = seen.overflowed.iter().flat_map(|instance| self.known.watched_by(*instance)).collect();
            touched.extend(self.sweep(&watched, Extent::Sweep));
        }
        let reports = self.report(touched);
        self.keep_time();
        reports
    }

    /// Does what is due by time: sweeps, and reports that were held back.
    pub(crate) fn look_at_clock(&mut self) -> Vec<LaneReport> {
        let seconds = self.second.elapsed();
        let due = self.flood.pass(seconds);
        self.pause(due.too_many);
        let mut touched = self.resume(due.resume);
        touched.extend(self.calm(due.calm));
        if seconds > 0 && !self.unwatched.is_empty() {
            touched.extend(self.sweep_some());
        }
        if seconds > 0 {
            touched.extend(self.glance());
        }
        let mut reports = self.report(touched);
        reports.extend(self.pace.due().into_iter().map(|(ticket, sink)| LaneReport::Drifted { ticket, sink }));
        self.keep_time();
        reports
    }

    pub(crate) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let mut fds = vec![self.pace.fd(), self.second.fd()];
        if self.rest.runs() {
            fds.push(self.rest.fd());
        } else {
            fds.extend(self.instances.iter().map(|(_, instance)| instance.fd()));
        }
        fds
    }

    fn keep_time(&mut self) {
        self.shared.unwatched.store(self.unwatched.len(), Ordering::Relaxed);
        self.second.run(!self.unwatched.is_empty() || !self.flood.is_idle());
    }

    fn report(&mut self, touched: impl IntoIterator<Item = Touched>) -> Vec<LaneReport> {
        let now = touched.into_iter().filter(|(ticket, sink)| self.pace.admits(*ticket, *sink));
        let now = now.map(|(ticket, sink)| LaneReport::Drifted { ticket, sink });
        self.floods.drain(..).chain(now).collect()
    }

    /// What we do in a directory is heard of there and, where that is made or removed, in the one above.
    fn expect(&mut self, directory: DirectoryId) {
        self.flood.expect(directory);
        if let Some(above) = self.known.parent_of(directory) {
            self.flood.expect(above);
        }
    }

    fn watch(&mut self, directory: &Directory) -> DirectoryId {
        if let Some(id) = directory.watched_as().filter(|id| self.known.knows_directory(*id)) {
            return id;
        }
        let (parent, name) = match directory.parent() {
            Some(parent) => (self.watch(parent), directory.name().to_owned()),
            None => (NOWHERE, directory.path().as_os_str().to_owned()),
        };
        let known = self.known.child(self.known.key(parent, name.as_bytes()));
        let known = known.filter(|id| self.known.knows_directory(*id));
        let is_left_alone = |id: &DirectoryId| self.flood.is_noisy(*id) || self.known.watch_of(*id).is_none();
        let id = known.filter(is_left_alone).unwrap_or_else(|| self.watch_by_descriptor(directory, parent, &name));
        self.known.add_directory(id, parent, &name);
        directory.set_watched_as(id);
        id
    }

    /// Watches a directory that is open. Answers with its number: a new one, or the one that it has under another name.
    fn watch_by_descriptor(&mut self, directory: &Directory, parent: DirectoryId, name: &OsStr) -> DirectoryId {
        let here = format!("/proc/self/fd/{}", directory.fd().as_raw_fd());
        let watch = self.instances.watch(root_of(directory), Path::new(&here), CHANGES);
        if let Some(known) = watch.and_then(|watch| self.instances.directory(watch)) {
            return known;
        }
        let id = self.known.next_number();
        self.known.add_directory(id, parent, name);
        self.new = Some(id);
        self.expect(id);
        self.use_watch(id, watch);
        id
    }

    /// Notes by which watch a directory is heard of from here on; `None`: by none, so it is swept.
    fn use_watch(&mut self, id: DirectoryId, watch: Option<WatchId>) {
        self.known.set_watch(id, watch);
        match watch {
            Some(watch) => self.instances.name(watch, id),
            None => self.unwatched.push(id),
        }
    }

    /// Watches a directory by its path, apart from others or with those of its root. `None`: that cannot be, or the path
    /// leads to another one that is watched.
    fn watch_by_path(&mut self, id: DirectoryId, apart: Apart) -> Option<WatchId> {
        let path = self.known.path_of(id)?;
        let root = self.known.root_of(id)?;
        // Only in the fixed part are links followed.
        let link = if path == root { WatchFlags::empty() } else { WatchFlags::DONT_FOLLOW };
        let watch = match apart {
            Apart::Yes => self.instances.watch_noisy(&path, CHANGES | link),
            Apart::No => self.instances.watch(root, &path, CHANGES | link),
        }?;
        self.instances.directory(watch).is_none().then_some(watch)
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

    /// Hears no more of these directories for a while.
    fn pause(&mut self, flooded: impl IntoIterator<Item = DirectoryId>) {
        for id in flooded {
            let (Some(path), Some(root)) = (self.known.path_of(id), self.known.root_of(id)) else { continue };
            let root: Arc<Path> = root.into();
            if let Some(watch) = self.known.set_watch(id, None) {
                self.instances.unwatch(watch);
            }
            if self.flood.pause(id, &root) {
                self.floods.push(LaneReport::FloodBegins { root, directory: path });
            }
        }
    }

    /// Hears of these directories again, and looks at what was done meanwhile.
    fn resume(&mut self, paused: Vec<DirectoryId>) -> Vec<Touched> {
        for id in &paused {
            // Should there be no watch, it is looked at again after the time of a probation.
            let watch = self.watch_by_path(*id, Apart::Yes);
            self.known.set_watch(*id, watch);
            if let Some(watch) = watch {
                self.instances.name(watch, *id);
            }
        }
        self.sweep(&paused.into_iter().collect(), Extent::Sweep)
    }

    /// Hears of these directories as of any other from here on.
    fn calm(&mut self, calm: Vec<DirectoryId>) -> Vec<Touched> {
        for id in &calm {
            self.floods.extend(self.flood.forget(*id).map(|root| LaneReport::FloodEnds { root }));
            if let Some(watch) = self.known.set_watch(*id, None) {
                self.instances.unwatch(watch);
            }
            let watch = self.watch_by_path(*id, Apart::No);
            if self.known.knows_directory(*id) {
                self.use_watch(*id, watch);
            }
        }
        self.sweep(&calm.into_iter().collect(), Extent::Sweep)
    }

    /// Compares what stands at these names with what was left there.
    fn judge(&mut self, suspects: HashMap<Key, (DirectoryId, OsString)>, near: Option<&Directory>) -> Vec<Touched> {
        let mut touched = Vec::new();
        let mut last = None;
        for (key, (directory, name)) in suspects {
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
        for (id, watch) in &gone {
            if let Some(watch) = watch {
                self.instances.unwatch(*watch);
            }
            self.floods.extend(self.flood.forget(*id).map(|root| LaneReport::FloodEnds { root }));
        }
        if !self.unwatched.is_empty() {
            let gone: HashSet<DirectoryId> = gone.into_iter().map(|(id, _)| id).collect();
            self.unwatched.retain(|id| !gone.contains(id));
        }
        touched
    }

    /// Sweeps a minute's share of the unwatched directories, and watches those for which there is a watch by now.
    fn sweep_some(&mut self) -> Vec<Touched> {
        let share = self.unwatched.len().div_ceil(SWEEP_S);
        let from = if self.next < self.unwatched.len() { self.next } else { 0 };
        let chosen: HashSet<DirectoryId> = self.unwatched.iter().skip(from).take(share).copied().collect();
        self.next = from + share;
        let mut watched = HashSet::new();
        for id in &chosen {
            if let Some(watch) = self.watch_by_path(*id, Apart::No) {
                self.use_watch(*id, Some(watch));
                watched.insert(*id);
            }
        }
        self.unwatched.retain(|id| !watched.contains(id));
        self.sweep(&chosen, Extent::Sweep)
    }

    /// Glances at directories of which is not heard because of a flood.
    fn glance(&mut self) -> Vec<Touched> {
        let mut paused: Vec<DirectoryId> = self.flood.paused().collect();
        if paused.is_empty() {
            return Vec::new();
        }
        paused.sort_unstable();
        let from = self.glanced % paused.len();
        paused.rotate_left(from);
        let (mut chosen, mut files) = (HashSet::new(), 0);
        for id in paused.into_iter().take(GLANCE_DIRECTORIES) {
            files += self.known.holds(id);
            self.glanced = self.glanced.wrapping_add(1);
            if files > GLANCE_FILES {
                break;
            }
            chosen.insert(id);
        }
        self.sweep(&chosen, Extent::Glance)
    }

    /// Compares the files of these directories with what was left there.
    fn sweep(&mut self, directories: &HashSet<DirectoryId>, extent: Extent) -> Vec<Touched> {
        let (mut intact, mut gone, mut read) = (HashSet::new(), HashSet::new(), HashSet::new());
        for id in directories {
            let Some(path) = self.known.path_of(*id) else { continue };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = open(&path, flags, Mode::empty()).and_then(|fd| Ok((Dir::read_from(&fd)?, fd)));
            let Ok((entries, fd)) = opened else {
                gone.insert(*id);
                continue;
            };
            let beyond = if extent == Extent::Sweep { MOST_ENTRIES } else { GLANCE_ENTRIES };
            let most = beyond + ENTRIES_A_FILE * self.known.holds(*id);
            let mut entries = entries.flatten();
            for entry in entries.by_ref().take(most) {
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
            if extent == Extent::Sweep || entries.next().is_none() {
                read.insert(*id);
            }
        }
        let mut touched = self.known.remove_unseen(&read, &intact);
        touched.extend(self.lose(gone));
        touched
    }
}

/// The directory at which the path to this one starts: the fixed part.
fn root_of(directory: &Directory) -> &Path {
    directory.parent().map_or(directory.path(), |parent| root_of(parent))
}
