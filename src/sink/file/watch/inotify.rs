//! What inotify tells of the directories to which a lane publishes (inotify(7)).

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, OsString};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::inotify::{ReadFlags, Reader, WatchFlags};

use super::flood::Flood;
use super::index::{Key, Known};
use super::instances::{Instance, InstanceId, Instances};
use crate::domain::is_temporary_name;
use crate::sink::file::dir::DirectoryId;

/// What is heard of a directory: everything but opening and reading, which readers do all day, and creation, since a name
/// of ours is created only after it was removed.
pub(crate) const CHANGES: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK);

/// How many events of an instance are read at one look: all that its queue holds by default (16,384, and the word that more
/// were lost: `fs.inotify.max_queued_events`). The others are not to wait for more.
const AT_ONCE: usize = 20_000;

/// What a look at the events brought.
#[derive(Default)]
pub(crate) struct Seen {
    /// Written to under their own names, which the lane never does.
    pub(crate) altered: HashSet<Key>,
    /// Removed, or moved elsewhere.
    pub(crate) gone: HashSet<DirectoryId>,
    /// To be compared with what was left there.
    pub(crate) suspects: HashMap<Key, (DirectoryId, OsString)>,
    /// Had too many events.
    pub(crate) flooded: HashSet<DirectoryId>,
    /// There were events, of whatever kind.
    pub(crate) any: bool,
    /// Instances of which events were lost.
    pub(crate) overflowed: HashSet<InstanceId>,
}

impl Seen {
    /// Reads the events that are there, of each instance so many at most.
    pub(crate) fn read(instances: &Instances, known: &Known, flood: &mut Flood) -> Self {
        let mut seen = Self::default();
        for (id, instance) in instances.iter() {
            seen.read_one(id, instance, known, flood);
        }
        seen
    }

    fn read_one(&mut self, id: InstanceId, instance: &Instance, known: &Known, flood: &mut Flood) {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut events = Reader::new(instance.fd(), &mut buffer);
        for _ in 0..AT_ONCE {
            let Ok(event) = events.next() else { return };
            self.any = true;
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                self.overflowed.insert(id);
                continue;
            }
            // What it was not asked for is of a directory that is not watched any more.
            let Some(directory) = instance.directory(event.wd()) else { continue };
            if self.flooded.contains(&directory) {
                continue;
            }
            if flood.count(directory) {
                self.flooded.insert(directory);
                continue;
            }
            let name = event.file_name().map(CStr::to_bytes).unwrap_or_default();
            self.note(known, directory, name, event.events());
        }
    }

    fn note(&mut self, known: &Known, directory: DirectoryId, name: &[u8], what: ReadFlags) {
        let departed = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT | ReadFlags::IGNORED;
        if what.intersects(departed) {
            self.gone.insert(directory);
            return;
        }
        if name.is_empty() || is_temporary_name(name) {
            return;
        }
        let key = known.key(directory, name);
        if !known.knows_file(key) {
            return;
        }
        if what.contains(ReadFlags::MODIFY) {
            // Not compared: a change time as coarse as a timer tick may not tell it from the publication just before.
            self.altered.insert(key);
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
