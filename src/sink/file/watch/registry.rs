//! The directories of a lane: their numbers, and by which watch each is heard of, if by any.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fd::AsRawFd;
use rustix::fs::inotify::WatchFlags;

use super::index::{NO_PARENT, PublicationIndex};
use super::inotify::WATCHED_EVENTS;
use super::instances::{Instances, WatchId};
use super::sweep::UnwatchedDirectories;
use crate::sink::file::dir::{DirHandle, DirNumber};

/// The directories of a lane, watched or not, and the files published in them.
#[derive(Debug, Default)]
pub(super) struct WatchRegistry {
    pub(super) instances: Instances,
    pub(super) index: PublicationIndex,
    pub(super) unwatched: UnwatchedDirectories,
    /// Directories added since [`take_new`](Self::take_new).
    new: Vec<DirNumber>,
}

/// Which inotify instance watches a directory.
#[derive(Debug, Clone, Copy)]
pub(super) enum InstanceFor {
    Root,
    Noisy,
}

impl WatchRegistry {
    /// Watches an open directory and those above it, unless they are watched, unwatched or noisy already.
    pub(super) fn watch(&mut self, directory: &DirHandle, is_noisy: &impl Fn(DirNumber) -> bool) -> DirNumber {
        if let Some(id) = directory.watched_as().filter(|id| self.index.has_directory(*id)) {
            return id;
        }
        let (parent, name) = match directory.parent() {
            Some(parent) => (self.watch(parent, is_noisy), directory.name()),
            None => (NO_PARENT, directory.path().as_os_str()),
        };
        let known = self.index.child(self.index.key(parent, name.as_bytes()));
        let known = known.filter(|id| self.index.has_directory(*id));
        let stays_as_it_is = |id: &DirNumber| is_noisy(*id) || self.index.watch_of(*id).is_none();
        let id = known.filter(stays_as_it_is).unwrap_or_else(|| self.watch_by_descriptor(directory, parent, name));
        self.index.add_directory(id, parent, name);
        directory.set_watched_as(id);
        id
    }

    /// The directories added since the last call, parents first.
    pub(super) fn take_new(&mut self) -> Vec<DirNumber> {
        std::mem::take(&mut self.new)
    }

    /// The number of a directory, which may have been closed and opened again.
    pub(super) fn find(&self, directory: &DirHandle) -> Option<DirNumber> {
        if let Some(id) = directory.watched_as() {
            return Some(id);
        }
        let key = match directory.parent() {
            Some(parent) => self.index.key(self.find(parent)?, directory.name().as_bytes()),
            None => self.index.key(NO_PARENT, directory.path().as_os_str().as_bytes()),
        };
        self.index.child(key)
    }

    /// Watches a directory by its path, and notes its watch. Without one, it counts as unwatched, unless it is noisy: then it
    /// is swept at the end of its probation.
    pub(super) fn watch_again(&mut self, id: DirNumber, instance: InstanceFor) {
        let watch = self.watch_by_path(id, instance);
        match (watch, instance) {
            (None, InstanceFor::Noisy) => _ = self.index.set_watch(id, None),
            (watch, _) if self.index.has_directory(id) => self.use_watch(id, watch),
            _ => {}
        }
    }

    /// Watches those of these unwatched directories for which the kernel has a watch by now.
    pub(super) fn watch_unwatched(&mut self, ids: &HashSet<DirNumber>) {
        let mut watched = HashSet::new();
        for id in ids {
            if let Some(watch) = self.watch_by_path(*id, InstanceFor::Root) {
                self.use_watch(*id, Some(watch));
                watched.insert(*id);
            }
        }
        self.unwatched.remove(&watched);
    }

    pub(super) fn unwatch(&mut self, id: DirNumber) {
        if let Some(watch) = self.index.set_watch(id, None) {
            self.instances.unwatch(watch);
        }
    }

    /// Watches an open directory. Returns its number: a new one, or the one it has under another name.
    fn watch_by_descriptor(&mut self, directory: &DirHandle, parent: DirNumber, name: &OsStr) -> DirNumber {
        let path = format!("/proc/self/fd/{}", directory.fd().as_raw_fd());
        let watch = self.instances.watch(root_of(directory), Path::new(&path), WATCHED_EVENTS);
        if let Some(known) = watch.and_then(|watch| self.instances.directory(watch)) {
            return known;
        }
        let id = self.index.next_number();
        self.index.add_directory(id, parent, name);
        self.new.push(id);
        self.use_watch(id, watch);
        id
    }

    /// `None` if the kernel refuses, or the path leads to another watched directory.
    fn watch_by_path(&mut self, id: DirNumber, instance: InstanceFor) -> Option<WatchId> {
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

    fn use_watch(&mut self, id: DirNumber, watch: Option<WatchId>) {
        self.index.set_watch(id, watch);
        match watch {
            Some(watch) => self.instances.assign(watch, id),
            None => self.unwatched.push(id),
        }
    }
}

/// The directory at which a sink's path starts: its fixed part.
fn root_of(directory: &DirHandle) -> &Path {
    directory.parent().map_or(directory.path(), |parent| root_of(parent))
}
