//! What inotify tells of the directories to which a lane publishes (inotify(7)).

use std::collections::HashSet;
use std::ffi::{CStr, OsString};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt;

use rustix::fd::OwnedFd;
use rustix::fs::inotify::{ReadFlags, Reader, WatchFlags};

use super::known::{DirectoryId, Key, Known};
use super::temporary::is_temporary;

/// What is heard of a directory: everything but opening and reading, which readers do all day, and creation, since a name
/// of ours is created only after it was removed.
pub(super) const CHANGES: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK);

/// What is heard of the directory above the fixed part. An open directory's own removal is only told there.
pub(super) const DEPARTURES: WatchFlags =
    WatchFlags::MOVED_FROM.union(WatchFlags::DELETE).union(WatchFlags::ONLYDIR).union(WatchFlags::MASK_ADD);

/// What a look at the events brought.
#[derive(Default)]
pub(super) struct Seen {
    /// Written to under their own names, which the lane never does.
    pub(super) altered: Vec<Key>,
    /// Removed, or moved elsewhere.
    pub(super) gone: HashSet<DirectoryId>,
    /// To be compared with what was left there.
    pub(super) suspects: Vec<(DirectoryId, Key, OsString)>,
    /// Events were lost.
    pub(super) overflow: bool,
}

impl Seen {
    /// Reads all the events that are there.
    pub(super) fn read(inotify: &OwnedFd, known: &Known) -> Self {
        let mut seen = Self::default();
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut events = Reader::new(inotify, &mut buffer);
        while let Ok(event) = events.next() {
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                seen.overflow = true;
            } else if let Ok(directory) = u32::try_from(event.wd()) {
                let name = event.file_name().map(CStr::to_bytes).unwrap_or_default();
                seen.note(known, directory, name, event.events());
            }
        }
        seen
    }

    fn note(&mut self, known: &Known, directory: DirectoryId, name: &[u8], what: ReadFlags) {
        let departed = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT | ReadFlags::IGNORED;
        if what.intersects(departed) {
            self.gone.insert(directory);
            return;
        }
        if name.is_empty() || is_temporary(name) {
            return;
        }
        let key = known.key(directory, name);
        if let Some(child) = known.child(key) {
            if what.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
                self.gone.insert(child);
            }
            return;
        }
        if !known.knows_file(key) {
            return;
        }
        if what.contains(ReadFlags::MODIFY) {
            self.altered.push(key);
        } else if self.suspects.last().is_none_or(|(_, last, _)| *last != key) {
            self.suspects.push((directory, key, OsString::from_vec(name.to_vec())));
        }
    }
}
