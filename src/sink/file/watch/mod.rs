//! Finds drift: what others do to published files.
//!
//! In: the directories and files of each publication. Out: [`LaneReport::Drifted`] for what no longer is as published, at
//! once, but for each place at most once a second (`throttle`); and the begin and end of floods.
//!
//! `registry` watches directories (`instances`), `inotify` reads their events, and `index` knows what was published in them. The lane's
//! own writes cause events too: those on temporary names are dropped; the rename that follows is recognised by comparing
//! the file with the index. What cannot be watched (the kernel's limit, lost events, a `flood`) is read and compared
//! instead (`sweep`).

mod flood;
mod index;
mod inotify;
mod instances;
mod registry;
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

use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, statat};

use crate::sink::file::dir::{DirHandle, DirNumber};
use crate::sink::file::publish::PublishedFile;
use crate::sink::job::{LaneReport, PublicationId};
use crate::sink::lane::Shared;
use crate::sink::ticker::Ticker;
use flood::FloodGuard;
use index::FileKey;
use inotify::EventBatch;
use registry::{InstanceFor, WatchRegistry};
use sweep::{Extent, GlanceTurns, sweep};
use throttle::Throttle;

/// The shortest time between two reads of events: somebody who writes without end must not keep the lane busy.
const READ_INTERVAL: Duration = Duration::from_millis(20);

/// Watches the directories of one lane.
#[derive(Debug)]
pub(crate) struct FileWatcher {
    watches: WatchRegistry,
    throttle: Throttle,
    flood: FloodGuard,
    /// Runs from one read of events until the next is allowed.
    read_pause: Ticker,
    glances: GlanceTurns,
    /// Runs while something depends on the time.
    second: Ticker,
    /// The directory that was first watched for the publication in progress.
    newly_watched: Option<DirNumber>,
    /// Begins and ends of floods, not reported yet.
    flood_reports: Vec<LaneReport>,
    shared: Arc<Shared>,
}

impl FileWatcher {
    pub(crate) fn new(shared: Arc<Shared>) -> io::Result<Self> {
        Ok(Self {
            watches: WatchRegistry::default(),
            throttle: Throttle::new()?,
            flood: FloodGuard::default(),
            read_pause: Ticker::new(READ_INTERVAL)?,
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
        let state = self.watches.index.state_of(&published.left);
        self.watches.index.insert(directory, &published.name, id, state);
        self.newly_watched.take().filter(|new| *new == directory)?;
        let path = self.watches.index.path_of(directory)?.join(&published.name);
        let found = statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW).ok();
        let key = self.watches.index.key(directory, published.name.as_bytes());
        let has_drifted = self.watches.index.is_unchanged(key, found.as_ref()) == Some(false);
        let drifted = has_drifted.then(|| self.watches.index.remove(key)).flatten();
        self.report(drifted).pop()
    }

    /// Stops tracking a file that is withdrawn.
    pub(crate) fn untrack(&mut self, directory: &DirHandle, name: &OsStr) {
        if let Some(id) = self.watches.find(directory) {
            self.expect_own_events(id);
            let key = self.watches.index.key(id, name.as_bytes());
            self.watches.index.remove(key);
        }
    }

    /// Reads pending events; cheap when there are none. Files in the directory `near` are inspected through its descriptor,
    /// which is faster than by path.
    pub(crate) fn read_events(&mut self, near: Option<&DirHandle>) -> Vec<LaneReport> {
        let events = EventBatch::read(&self.watches.instances, &self.watches.index, &mut self.flood);
        self.read_pause.elapsed();
        self.read_pause.run(events.any);
        let mut drifted: Vec<PublicationId> =
            events.modified.into_iter().filter_map(|key| self.watches.index.remove(key)).collect();
        drifted.extend(self.compare(events.suspects, near));
        drifted.extend(self.forget_directories(events.removed));
        self.pause(events.flooded);
        if !events.overflowed.is_empty() {
            let watched =
                events.overflowed.iter().flat_map(|instance| self.watches.index.watched_by(*instance)).collect();
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
            let glanced_at = self.glances.next(self.flood.paused().collect(), &self.watches.index);
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
            fds.extend(self.watches.instances.iter().map(|(_, instance)| instance.fd()));
        }
        fds
    }

    fn update_timer(&mut self) {
        self.shared.unwatched.store(self.watches.unwatched.len(), Ordering::Relaxed);
        self.second.run(!self.watches.unwatched.is_empty() || !self.flood.is_idle());
    }

    fn report(&mut self, drifted: impl IntoIterator<Item = PublicationId>) -> Vec<LaneReport> {
        let admitted = drifted.into_iter().filter(|id| self.throttle.admits(*id)).map(LaneReport::drifted);
        self.flood_reports.drain(..).chain(admitted).collect()
    }

    fn watch(&mut self, directory: &DirHandle) -> DirNumber {
        let id = self.watches.watch(directory, &|id| self.flood.is_noisy(id));
        for new in self.watches.take_new() {
            self.expect_own_events(new);
            self.newly_watched = Some(new);
        }
        id
    }

    /// The lane's own changes in a directory cause events there and, when it is made or removed, in its parent.
    fn expect_own_events(&mut self, directory: DirNumber) {
        self.flood.expect(directory);
        if let Some(parent) = self.watches.index.parent_of(directory) {
            self.flood.expect(parent);
        }
    }

    /// Stops watching flooded directories for a while.
    fn pause(&mut self, flooded: impl IntoIterator<Item = DirNumber>) {
        for id in flooded {
            let (Some(path), Some(root)) = (self.watches.index.path_of(id), self.watches.index.root_of(id)) else {
                continue;
            };
            let root: Arc<Path> = root.into();
            self.watches.unwatch(id);
            if self.flood.pause(id, &root) {
                self.flood_reports.push(LaneReport::FloodBegins { root, directory: path });
            }
        }
    }

    /// Watches paused directories again, on probation, and sweeps them.
    fn resume(&mut self, paused: &[DirNumber]) -> Vec<PublicationId> {
        paused.iter().for_each(|id| self.watches.watch_again(*id, InstanceFor::Noisy));
        self.sweep(&paused.iter().copied().collect(), Extent::Sweep)
    }

    /// Watches directories that stayed calm like any other again, and sweeps them.
    fn end_probation(&mut self, calm: &[DirNumber]) -> Vec<PublicationId> {
        for id in calm {
            self.end_flood(*id);
            self.watches.unwatch(*id);
            self.watches.watch_again(*id, InstanceFor::Root);
        }
        self.sweep(&calm.iter().copied().collect(), Extent::Sweep)
    }

    fn end_flood(&mut self, id: DirNumber) {
        self.flood_reports.extend(self.flood.forget(id).map(|root| LaneReport::FloodEnds { root }));
    }

    /// Compares the files at these names with what was published there.
    fn compare(
        &mut self,
        suspects: HashMap<FileKey, (DirNumber, OsString)>,
        near: Option<&DirHandle>,
    ) -> Vec<PublicationId> {
        let mut drifted = Vec::new();
        let mut last = None;
        for (key, (directory, name)) in suspects {
            let found = match near.filter(|near| near.watched_as() == Some(directory)) {
                Some(near) => statat(near.fd(), &name, AtFlags::SYMLINK_NOFOLLOW).ok(),
                None => {
                    if last.as_ref().is_none_or(|(of, _)| *of != directory) {
                        last = self.watches.index.path_of(directory).map(|path| (directory, path));
                    }
                    let Some((_, path)) = &last else { continue };
                    statat(rustix::fs::CWD, path.join(&name), AtFlags::SYMLINK_NOFOLLOW).ok()
                }
            };
            if self.watches.index.is_unchanged(key, found.as_ref()) == Some(false) {
                drifted.extend(self.watches.index.remove(key));
            }
        }
        drifted
    }

    /// Forgets removed directories, and returns what was published in and below them.
    fn forget_directories(&mut self, removed: HashSet<DirNumber>) -> Vec<PublicationId> {
        if removed.is_empty() {
            return Vec::new();
        }
        let (forgotten, drifted) = self.watches.index.remove_directories(removed);
        for (id, watch) in &forgotten {
            watch.iter().for_each(|watch| self.watches.instances.unwatch(*watch));
            self.end_flood(*id);
        }
        self.watches.unwatched.remove(&forgotten.into_iter().map(|(id, _)| id).collect());
        drifted
    }

    /// Sweeps a second's share of the unwatched directories, and watches those for which the kernel has a watch by now.
    fn sweep_unwatched(&mut self) -> Vec<PublicationId> {
        let share = self.watches.unwatched.next_share();
        self.watches.watch_unwatched(&share);
        self.sweep(&share, Extent::Sweep)
    }

    fn sweep(&mut self, directories: &HashSet<DirNumber>, extent: Extent) -> Vec<PublicationId> {
        if directories.is_empty() {
            return Vec::new();
        }
        let (mut drifted, removed) = sweep(&mut self.watches.index, directories, extent);
        drifted.extend(self.forget_directories(removed));
        drifted
    }
}
