//! Reads inotify events of the directories to which a lane publishes (inotify(7)).

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, OsString};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::inotify::{ReadFlags, Reader, WatchFlags};

use super::flood::FloodGuard;
use super::index::{FileKey, PublicationIndex};
use super::instances::{Instance, InstanceId, Instances};
use crate::domain::is_temporary_name;
use crate::sink::file::dir::DirNumber;

/// Everything but opening and reading, which readers do all day, and creation, since a published name can only be created
/// after it was removed.
pub(crate) const WATCHED_EVENTS: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK);

/// The most events read of one instance at a time: all that its queue holds by default (16,384 and an overflow:
/// `fs.inotify.max_queued_events`). Other instances must not wait for more.
const MAX_EVENTS: usize = 20_000;

/// The pending events, by what has to be done.
#[derive(Default)]
pub(crate) struct EventBatch {
    /// Written to under their published names, which the lane never does.
    pub(crate) modified: HashSet<FileKey>,
    /// Removed, or moved elsewhere.
    pub(crate) removed: HashSet<DirNumber>,
    /// To be compared with what was published.
    pub(crate) suspects: HashMap<FileKey, (DirNumber, OsString)>,
    /// Had too many events.
    pub(crate) flooded: HashSet<DirNumber>,
    /// There were events of any kind.
    pub(crate) any: bool,
    /// Instances that lost events.
    pub(crate) overflowed: HashSet<InstanceId>,
}

impl EventBatch {
    /// Reads pending events.
    pub(crate) fn read(instances: &Instances, index: &PublicationIndex, flood: &mut FloodGuard) -> Self {
        let mut events = Self::default();
        for (id, instance) in instances.iter() {
            events.read_one(id, instance, index, flood);
        }
        events
    }

    fn read_one(&mut self, id: InstanceId, instance: &Instance, index: &PublicationIndex, flood: &mut FloodGuard) {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut events = Reader::new(instance.fd(), &mut buffer);
        for _ in 0..MAX_EVENTS {
            let Ok(event) = events.next() else { return };
            self.any = true;
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                self.overflowed.insert(id);
                continue;
            }
            // The directory may be no longer watched.
            let Some(directory) = instance.directory(event.wd()) else { continue };
            if self.flooded.contains(&directory) {
                continue;
            }
            if flood.count(directory) {
                self.flooded.insert(directory);
                continue;
            }
            let name = event.file_name().map(CStr::to_bytes).unwrap_or_default();
            self.note(index, directory, name, event.events());
        }
    }

    fn note(&mut self, index: &PublicationIndex, directory: DirNumber, name: &[u8], what: ReadFlags) {
        let removed = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT | ReadFlags::IGNORED;
        if what.intersects(removed) {
            self.removed.insert(directory);
            return;
        }
        if name.is_empty() || is_temporary_name(name) {
            return;
        }
        let key = index.key(directory, name);
        if !index.has_file(key) {
            return;
        }
        if what.contains(ReadFlags::MODIFY) {
            // Not compared: with a change time as coarse as a timer tick it may look like the publication just before.
            self.modified.insert(key);
        } else {
            self.suspects.entry(key).or_insert_with(|| (directory, OsString::from_vec(name.to_vec())));
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
        let mut index = PublicationIndex::default();
        let stat = rustix::fs::stat("/").unwrap();
        let state = index.state_of(&stat);
        index.insert(3, OsStr::new("ding1"), (Ticket { slot: Slot(1), seq: 1 }, SinkId(0)), state);
        let mut events = EventBatch::default();
        events.note(&index, 3, b".ding1.corptokend-tmp", ReadFlags::MODIFY);
        events.note(&index, 3, b"neighbour", ReadFlags::MODIFY);
        assert!(events.modified.is_empty() && events.suspects.is_empty());
        events.note(&index, 3, b"ding1", ReadFlags::MODIFY);
        events.note(&index, 3, b"ding1", ReadFlags::MOVED_TO);
        assert_eq!((events.modified.len(), events.suspects.len()), (1, 1));
    }
}
