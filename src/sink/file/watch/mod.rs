//! Finds drift: what others do to published files.
//!
//! In: the directories and files of each publication. Out: [`LaneReport::Drifted`] for what no longer is as published, at
//! once, but for each place at most once a second (`throttle`); and the begin and end of floods.
//!
//! `inotify` reads events of the watched directories (`instances`), and `index` knows what was published in them. The lane's
//! own writes cause events too: those on temporary names are dropped; the rename that follows is recognised by comparing
//! the file with the index. What cannot be watched (the kernel's limit, lost events, a `flood`) is read and compared
//! instead (`sweep`).

mod flood;
mod index;
mod inotify;
mod instances;
mod sweep;
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
use rustix::fs::{AtFlags, statat};

use crate::sink::file::dir::{DirHandle, DirectoryId};
use crate::sink::file::publish::PublishedFile;
use crate::sink::job::{LaneReport, PublicationId};
use crate::sink::lane::Shared;
use crate::sink::ticker::Ticker;
use flood::FloodGuard;
use index::{FileKey, NO_PARENT, PublicationIndex};
use inotify::{EventBatch, WATCHED_EVENTS};
use instances::{Instances, WatchId};
use sweep::{Extent, GlanceTurns, UnwatchedDirectories, sweep};
use throttle::Throttle;

/// The shortest time between two reads of events: somebody who writes without end must not keep the lane busy.
const READ_INTERVAL: Duration = Duration::from_millis(20);

/// Watches the directories of one lane.
#[derive(Debug)]
pub(crate) struct FileWatcher {
    instances: Instances,
    index: PublicationIndex,
    throttle: Throttle,
    flood: FloodGuard,
    /// Runs from one read of events until the next is allowed.
    read_pause: Ticker,
    unwatched: UnwatchedDirectories,
    glances: GlanceTurns,
    /// Runs while something depends on the time.
    second: Ticker,
    /// The directory that was first watched for the publication in progress.
    newly_watched: Option<DirectoryId>,
    /// Begins and ends of floods, not reported yet.
    flood_reports: Vec<LaneReport>,
    shared: Arc<Shared>,
}

/// Which inotify instance watches a directory.
#[derive(Debug, Clone, Copy)]
enum InstanceFor {
    Root,
    Noisy,
}

impl FileWatcher {
    pub(crate) fn new(shared: Arc<Shared>) -> io::Result<Self> {
        Ok(Self {
            instances: Instances::default(),
            index: PublicationIndex::default(),
            throttle: Throttle::new()?,
            flood: FloodGuard::default(),
            read_pause: Ticker::new(READ_INTERVAL)?,
            unwatched: UnwatchedDirectories::default(),
            glances: GlanceTurns::default(),
            second: Ticker::new(Duration::from_secs(1))?,
            newly_watched: None,
            flood_reports: Vec::new(),
            shared,
        })
    }

    /// Watches a directory before the first publication to it, so that a change right after that is seen.
    pub(crate) fn before_publication(&mut self, directory: &DirHandle) {
        self.newly_watched = None;
        self.watch(directory);
    }

    /// Tracks a file that was published, or found unchanged. Returns its drift if its directory is newly watched and had
    /// another name before the watch was there.
    pub(crate) fn track(&mut self, published: &PublishedFile, id: PublicationId) -> Option<LaneReport> {
        let directory = self.watch(&published.directory);
        self.expect_own_events(directory);
        let state = self.index.state_of(&published.left);
        self.index.insert(directory, &published.name, id, state);
        self.newly_watched.take().filter(|new| *new == directory)?;
        let path = self.index.path_of(directory)?.join(&published.name);
        let found = statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW).ok();
        let key = self.index.key(directory, published.name.as_bytes());
        let has_drifted = self.index.is_unchanged(key, found.as_ref()) == Some(false);
        let drifted = has_drifted.then(|| self.index.remove(key)).flatten();
        self.report(drifted).pop()
    }

    /// Stops tracking a file that is withdrawn.
    pub(crate) fn untrack(&mut self, directory: &DirHandle, name: &OsStr) {
        if let Some(id) = self.find(directory) {
            self.expect_own_events(id);
            let key = self.index.key(id, name.as_bytes());
            self.index.remove(key);
        }
    }

    /// Reads pending events; cheap when there are none. Files in the directory `near` are inspected through its descriptor,
    /// which is faster than by path.
    pub(crate) fn read_events(&mut self, near: Option<&DirHandle>) -> Vec<LaneReport> {
        let events = EventBatch::read(&self.instances, &self.index, &mut self.flood);
        self.read_pause.elapsed();
        self.read_pause.run(events.any);
        let mut drifted: Vec<PublicationId> =
            events.modified.into_iter().filter_map(|key| self.index.remove(key)).collect();
        drifted.extend(self.compare(events.suspects, near));
        drifted.extend(self.forget_directories(events.removed));
        self.pause(events.flooded);
        if !events.overflowed.is_empty() {
            let watched = events.overflowed.iter().flat_map(|instance| self.index.watched_by(*instance)).collect();
            drifted.extend(self.sweep(&watched, Extent::Sweep));
        }
        let reports = self.report(drifted);
        self.update_timer();
        reports
    }

    /// Does what is due by time: sweeps, glances, ends of floods, and throttled reports.
    pub(crate) fn handle_timers(&mut self) -> Vec<LaneReport> {
        let seconds = self.second.elapsed();
        let due = self.flood.pass(seconds);
        self.pause(due.too_many);
        let mut drifted = self.resume(&due.resume);
        drifted.extend(self.end_probation(&due.calm));
        if seconds > 0 {
            drifted.extend(self.sweep_unwatched());
            let glanced_at = self.glances.next(self.flood.paused().collect(), &self.index);
            drifted.extend(self.sweep(&glanced_at, Extent::Glance));
        }
        let mut reports = self.report(drifted);
        reports.extend(self.throttle.due().into_iter().map(LaneReport::drifted));
        self.update_timer();
        reports
    }

    /// The descriptors that wake the lane.
    pub(crate) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let mut fds = vec![self.throttle.fd(), self.second.fd()];
        if self.read_pause.runs() {
            fds.push(self.read_pause.fd());
        } else {
            fds.extend(self.instances.iter().map(|(_, instance)| instance.fd()));
        }
        fds
    }

    fn update_timer(&mut self) {
        self.shared.unwatched.store(self.unwatched.len(), Ordering::Relaxed);
        self.second.run(!self.unwatched.is_empty() || !self.flood.is_idle());
    }

    fn report(&mut self, drifted: impl IntoIterator<Item = PublicationId>) -> Vec<LaneReport> {
        let admitted = drifted.into_iter().filter(|id| self.throttle.admits(*id)).map(LaneReport::drifted);
        self.flood_reports.drain(..).chain(admitted).collect()
    }

    /// The lane's own changes in a directory cause events there and, when it is made or removed, in its parent.
    fn expect_own_events(&mut self, directory: DirectoryId) {
        self.flood.expect(directory);
        if let Some(parent) = self.index.parent_of(directory) {
            self.flood.expect(parent);
        }
    }

    fn watch(&mut self, directory: &DirHandle) -> DirectoryId {
        if let Some(id) = directory.watched_as().filter(|id| self.index.has_directory(*id)) {
            return id;
        }
        let (parent, name) = match directory.parent() {
            Some(parent) => (self.watch(parent), directory.name().to_owned()),
            None => (NO_PARENT, directory.path().as_os_str().to_owned()),
        };
        let known = self.index.child(self.index.key(parent, name.as_bytes()));
        let known = known.filter(|id| self.index.has_directory(*id));
        let stays_as_it_is = |id: &DirectoryId| self.flood.is_noisy(*id) || self.index.watch_of(*id).is_none();
        let id = known.filter(stays_as_it_is).unwrap_or_else(|| self.watch_by_descriptor(directory, parent, &name));
        self.index.add_directory(id, parent, &name);
        directory.set_watched_as(id);
        id
    }

    /// Watches an open directory. Returns its number: a new one, or the one it has under another name.
    fn watch_by_descriptor(&mut self, directory: &DirHandle, parent: DirectoryId, name: &OsStr) -> DirectoryId {
        let path = format!("/proc/self/fd/{}", directory.fd().as_raw_fd());
        let watch = self.instances.watch(root_of(directory), Path::new(&path), WATCHED_EVENTS);
        if let Some(known) = watch.and_then(|watch| self.instances.directory(watch)) {
            return known;
        }
        let id = self.index.next_number();
        self.index.add_directory(id, parent, name);
        self.newly_watched = Some(id);
        self.expect_own_events(id);
        self.use_watch(id, watch);
        id
    }

    /// Uses this watch for the directory; without one, it is swept.
    fn use_watch(&mut self, id: DirectoryId, watch: Option<WatchId>) {
        self.index.set_watch(id, watch);
        match watch {
            Some(watch) => self.instances.assign(watch, id),
            None => self.unwatched.push(id),
        }
    }

    /// Watches a directory by its path. `None` if the kernel refuses, or the path leads to another watched directory.
    fn watch_by_path(&mut self, id: DirectoryId, instance: InstanceFor) -> Option<WatchId> {
        let path = self.index.path_of(id)?;
        let root = self.index.root_of(id)?;
        // Links are followed only in the fixed part.
        let link = if path == root { WatchFlags::empty() } else { WatchFlags::DONT_FOLLOW };
        let watch = match instance {
            InstanceFor::Root => self.instances.watch(root, &path, WATCHED_EVENTS | link),
            InstanceFor::Noisy => self.instances.watch_noisy(&path, WATCHED_EVENTS | link),
        }?;
        self.instances.directory(watch).is_none().then_some(watch)
    }

    fn unwatch(&mut self, id: DirectoryId) {
        if let Some(watch) = self.index.set_watch(id, None) {
            self.instances.unwatch(watch);
        }
    }

    /// The number of a directory, which may have been closed and opened again.
    fn find(&self, directory: &DirHandle) -> Option<DirectoryId> {
        if let Some(id) = directory.watched_as() {
            return Some(id);
        }
        let key = match directory.parent() {
            Some(parent) => self.index.key(self.find(parent)?, directory.name().as_bytes()),
            None => self.index.key(NO_PARENT, directory.path().as_os_str().as_bytes()),
        };
        self.index.child(key)
    }

    /// Stops watching flooded directories for a while.
    fn pause(&mut self, flooded: impl IntoIterator<Item = DirectoryId>) {
        for id in flooded {
            let (Some(path), Some(root)) = (self.index.path_of(id), self.index.root_of(id)) else { continue };
            let root: Arc<Path> = root.into();
            self.unwatch(id);
            if self.flood.pause(id, &root) {
                self.flood_reports.push(LaneReport::FloodBegins { root, directory: path });
            }
        }
    }

    /// Watches paused directories again, on probation, and sweeps them.
    fn resume(&mut self, paused: &[DirectoryId]) -> Vec<PublicationId> {
        for id in paused {
            // Without a watch, the directory is swept again at the end of its probation.
            let watch = self.watch_by_path(*id, InstanceFor::Noisy);
            self.index.set_watch(*id, watch);
            if let Some(watch) = watch {
                self.instances.assign(watch, *id);
            }
        }
        self.sweep(&paused.iter().copied().collect(), Extent::Sweep)
    }

    /// Watches directories that stayed calm like any other again, and sweeps them.
    fn end_probation(&mut self, calm: &[DirectoryId]) -> Vec<PublicationId> {
        for id in calm {
            self.end_flood(*id);
            self.unwatch(*id);
            let watch = self.watch_by_path(*id, InstanceFor::Root);
            if self.index.has_directory(*id) {
                self.use_watch(*id, watch);
            }
        }
        self.sweep(&calm.iter().copied().collect(), Extent::Sweep)
    }

    fn end_flood(&mut self, id: DirectoryId) {
        self.flood_reports.extend(self.flood.forget(id).map(|root| LaneReport::FloodEnds { root }));
    }

    /// Compares the files at these names with what was published there.
    fn compare(
        &mut self,
        suspects: HashMap<FileKey, (DirectoryId, OsString)>,
        near: Option<&DirHandle>,
    ) -> Vec<PublicationId> {
        let mut drifted = Vec::new();
        let mut last = None;
        for (key, (directory, name)) in suspects {
            let found = match near.filter(|near| near.watched_as() == Some(directory)) {
                Some(near) => statat(near.fd(), &name, AtFlags::SYMLINK_NOFOLLOW).ok(),
                None => {
                    if last.as_ref().is_none_or(|(of, _)| *of != directory) {
                        last = self.index.path_of(directory).map(|path| (directory, path));
                    }
                    let Some((_, path)) = &last else { continue };
                    statat(rustix::fs::CWD, path.join(&name), AtFlags::SYMLINK_NOFOLLOW).ok()
                }
            };
            if self.index.is_unchanged(key, found.as_ref()) == Some(false) {
                drifted.extend(self.index.remove(key));
            }
        }
        drifted
    }

    /// Forgets removed directories, and returns what was published in and below them.
    fn forget_directories(&mut self, removed: HashSet<DirectoryId>) -> Vec<PublicationId> {
        if removed.is_empty() {
            return Vec::new();
        }
        let (forgotten, drifted) = self.index.remove_directories(removed);
        for (id, watch) in &forgotten {
            watch.iter().for_each(|watch| self.instances.unwatch(*watch));
            self.end_flood(*id);
        }
        self.unwatched.remove(&forgotten.into_iter().map(|(id, _)| id).collect());
        drifted
    }

    /// Sweeps a second's share of the unwatched directories, and watches those for which the kernel has a watch by now.
    fn sweep_unwatched(&mut self) -> Vec<PublicationId> {
        let share = self.unwatched.next_share();
        let mut watched = HashSet::new();
        for id in &share {
            if let Some(watch) = self.watch_by_path(*id, InstanceFor::Root) {
                self.use_watch(*id, Some(watch));
                watched.insert(*id);
            }
        }
        self.unwatched.remove(&watched);
        self.sweep(&share, Extent::Sweep)
    }

    fn sweep(&mut self, directories: &HashSet<DirectoryId>, extent: Extent) -> Vec<PublicationId> {
        if directories.is_empty() {
            return Vec::new();
        }
        let (mut drifted, removed) = sweep(&mut self.index, directories, extent);
        drifted.extend(self.forget_directories(removed));
        drifted
    }
}

/// The directory at which a sink's path starts: its fixed part.
fn root_of(directory: &DirHandle) -> &Path {
    directory.parent().map_or(directory.path(), |parent| root_of(parent))
}
