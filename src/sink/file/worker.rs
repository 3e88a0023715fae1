//! The worker of a lane for files: publishes, removes, syncs, and reports drift.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use rustix::fd::BorrowedFd;

use super::dir::{DaemonUser, DirHandle, DirectoryCache};
use super::format::render;
use super::publish;
use super::watch::FileWatcher;
use crate::domain::{FileSink, SinkFailure, Wrote};
use crate::sink::claims::Claims;
use crate::sink::job::{FileJob, LaneReport, Publication};
use crate::sink::lane::{Lane, Shared, Work};

/// The state of a lane for files.
pub(crate) struct Files {
    me: DaemonUser,
    directories: DirectoryCache,
    watch: FileWatcher,
    /// What was found while publishing.
    found: Vec<LaneReport>,
    /// The file system that the lane is for.
    device: Option<u64>,
    /// The directories on other file systems that were reported.
    mounted: HashSet<(PathBuf, u64)>,
}

/// The most directories on other file systems that are reported: a lane may be shared by many.
const MAX_MOUNTED: usize = 1000;

/// A report that must not be given out before a directory is synced.
struct Pending {
    report: LaneReport,
    synced: Synced,
}

/// What has to be synced before a report is true.
enum Synced {
    Nothing,
    /// Of a publication: its directory.
    Directory(Rc<DirHandle>),
    /// Of a removal: the directory in which the file was an entry, and those above it that went with it.
    Path(PathBuf),
}

impl Lane<FileJob> {
    /// Starts a lane for files; one for each file system. All lanes have their `claims` in common. `report` is called from
    /// the lane's thread.
    ///
    /// # Errors
    /// When no thread or descriptor is to be had.
    pub fn files(
        name: &str,
        claims: Arc<Claims>,
        report: impl Fn(Vec<LaneReport>) + Send + 'static,
    ) -> io::Result<Self> {
        Self::files_on(None, name, claims, report)
    }

    /// As [`Lane::files`], for the file system of this number (`st_dev`): what turns out to lie on another is reported.
    ///
    /// # Errors
    /// When no thread or descriptor is to be had.
    pub fn file_system(
        device: u64,
        claims: Arc<Claims>,
        report: impl Fn(Vec<LaneReport>) + Send + 'static,
    ) -> io::Result<Self> {
        Self::files_on(Some(device), &format!("files-{device:x}"), claims, report)
    }

    fn files_on(
        device: Option<u64>,
        name: &str,
        claims: Arc<Claims>,
        report: impl Fn(Vec<LaneReport>) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Shared::new()?;
        let watch = FileWatcher::new(Arc::clone(&shared))?;
        Self::start(name, shared, move || Files::new(device, watch, claims), report)
    }
}

impl Files {
    fn new(device: Option<u64>, watch: FileWatcher, claims: Arc<Claims>) -> Self {
        let me = DaemonUser::current();
        let (directories, found, mounted) = (DirectoryCache::new(me, claims), Vec::new(), HashSet::new());
        Self { me, directories, watch, found, device, mounted }
    }

    /// Reports, once, where another file system begins on the way to a directory.
    fn report_mount(&mut self, directory: &DirHandle) {
        let device = directory.identity().device();
        if self.device.is_none_or(|own| own == device) || self.mounted.len() >= MAX_MOUNTED {
            return;
        }
        let mut begins = directory;
        while let Some(parent) = begins.parent().filter(|parent| parent.identity().device() == device) {
            begins = parent;
        }
        let at = begins.path().to_owned();
        if self.mounted.insert((at.clone(), device)) {
            self.found.push(LaneReport::Mounted { at, device });
        }
    }

    fn publish(&mut self, job: Publication<FileSink>) -> Pending {
        let (outcome, synced) = match self.try_publish(&job) {
            Ok((wrote, directory)) => (Ok(wrote), Synced::Directory(directory)),
            Err(failure) => (Err(failure), Synced::Nothing),
        };
        Pending { report: LaneReport::Published { ticket: job.ticket, sink: job.sink, outcome }, synced }
    }

    fn try_publish(&mut self, job: &Publication<FileSink>) -> Result<(Wrote, Rc<DirHandle>), SinkFailure> {
        let (path, sink) = (job.spec.place(&job.names), &job.spec);
        let bytes = render(&sink.format, &job.names, &job.token, job.expires_at);
        let watch = &mut self.watch;
        // Watched before the first publication to it, so that a change right after that is seen.
        let before = |directory: &DirHandle| watch.before_publication(directory);
        let outcome = publish::publish(&mut self.directories, self.me, sink, &path, &bytes, before)?;
        self.found.extend(self.watch.track(&outcome, (job.ticket, job.sink)));
        self.report_mount(&outcome.directory);
        Ok((outcome.wrote, outcome.directory))
    }

    fn remove(&mut self, fixed: &Path, path: &Path) -> Result<(), SinkFailure> {
        if let Some((directory, name)) = publish::withdraw(&mut self.directories, self.me, fixed, path)? {
            self.watch.untrack(&directory, name);
        }
        Ok(())
    }
}

impl Work for Files {
    type Job = FileJob;

    fn work(&mut self, jobs: &mut dyn Iterator<Item = FileJob>) -> Vec<LaneReport> {
        self.directories.begin_batch();
        let pending: Vec<Pending> = jobs
            .map(|job| match job {
                FileJob::Publish(publication) => self.publish(publication),
                FileJob::Remove { cause, path, fixed } => {
                    let outcome = self.remove(&fixed, &path);
                    Pending { report: LaneReport::Removed { cause, outcome }, synced: Synced::Path(path) }
                }
            })
            .collect();
        let unsynced = self.directories.sync();
        let near = pending.iter().rev().find_map(|pending| match &pending.synced {
            Synced::Directory(directory) => Some(Rc::clone(directory)),
            Synced::Nothing | Synced::Path(_) => None,
        });
        let mut reports: Vec<LaneReport> = pending.into_iter().map(|pending| pending.settle(&unsynced)).collect();
        reports.append(&mut self.found);
        // Before the lane's own events fill the queue.
        reports.extend(self.watch.read_events(near.as_deref()));
        reports
    }

    fn wake_on(&self) -> Vec<BorrowedFd<'_>> {
        self.watch.fds()
    }

    fn look_around(&mut self) -> Vec<LaneReport> {
        let mut reports = self.watch.read_events(None);
        reports.extend(self.watch.handle_timers());
        reports
    }
}

impl Pending {
    /// What could not be synced has not been published, nor removed.
    fn settle(mut self, unsynced: &[(Rc<DirHandle>, SinkFailure)]) -> LaneReport {
        let failed = unsynced.iter().find(|(failed, _)| match &self.synced {
            Synced::Nothing => false,
            Synced::Directory(directory) => directory.is_at_or_below(failed),
            Synced::Path(path) => path.starts_with(failed.path()),
        });
        if let Some((_, failure)) = failed {
            match &mut self.report {
                LaneReport::Published { outcome, .. } => *outcome = Err(failure.clone()),
                LaneReport::Removed { outcome, .. } => *outcome = Err(failure.clone()),
                _ => {}
            }
        }
        self.report
    }
}
