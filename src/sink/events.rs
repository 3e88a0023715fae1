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

/// What a look at the events brought.
#[derive(Default)]
pub(super) struct Seen {
    /// Written to under their own names, which the lane never does.
    pub(super) altered: Vec<Key>,
    /// Removed, or moved elsewhere.
    pub(super) gone: HashSet<DirectoryId>,
    /// To be compared with what was left there.
    pub(super) suspects: Vec<(DirectoryId, Key, OsString)>,
    /// There were events, of whatever kind.
    pub(super) any: bool,
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
            seen.any = true;
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
        if !known.knows_file(key) {
            return;
        }
        if what.contains(ReadFlags::MODIFY) {
            // Not compared: a change time as coarse as a timer tick may not tell it from the publication just before.
            self.altered.push(key);
        } else if self.suspects.last().is_none_or(|(_, last, _)| *last != key) {
            self.suspects.push((directory, key, OsString::from_vec(name.to_vec())));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::domain::{SinkId, Slot, Ticket};

    #[test]
    fn a_write_under_the_published_name_needs_no_comparison_and_one_under_the_temporary_name_is_ours() {
        let mut known = Known::default();
        let stat = rustix::fs::stat("/").unwrap();
        let identity = known.identity(&stat);
        known.put(3, OsStr::new("ding1"), (Ticket { slot: Slot(1), seq: 1 }, SinkId(0)), identity);
        let mut seen = Seen::default();
        seen.note(&known, 3, b".ding1.corptokend-tmp", ReadFlags::MODIFY);
        seen.note(&known, 3, b"neighbour", ReadFlags::MODIFY);
        assert!(seen.altered.is_empty() && seen.suspects.is_empty());
        seen.note(&known, 3, b"ding1", ReadFlags::MODIFY);
        seen.note(&known, 3, b"ding1", ReadFlags::MOVED_TO);
        assert_eq!((seen.altered.len(), seen.suspects.len()), (1, 1));
    }
}
