//! Which directories are watched for a list of files, and which of their events count.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use notify::{Event, EventKind};

use crate::environment::{self, PathTask};
use crate::system::blocking::Blocking;

/// What is to be watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Watchlist {
    /// Files and links, whether they exist or not.
    pub(crate) names: Vec<PathBuf>,
    /// The directory of drop-ins.
    pub(crate) drop_ins: Option<PathBuf>,
}

/// A directory, by device and inode number. The kernel watches a directory, whatever it is called by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct WatchedDirectory(u64, u64);

/// Which events count.
#[derive(Default)]
pub(super) struct EventFilter {
    /// What is watched, by name.
    pub(super) directories: BTreeMap<PathBuf, WatchedDirectory>,
    /// Entries of these directories.
    names: HashSet<(WatchedDirectory, OsString)>,
    drop_ins: Option<WatchedDirectory>,
}

impl EventFilter {
    /// Whether an event may mean another config, or that events were lost.
    pub(super) fn counts(&self, event: &Event) -> bool {
        // The daemon's own reads are no changes.
        event.need_rescan()
            || (!matches!(event.kind, EventKind::Access(_))
                && (event.paths.is_empty() || event.paths.iter().any(|path| self.is_meant(path))))
    }

    fn is_meant(&self, path: &Path) -> bool {
        // The directory itself was moved, removed or re-permissioned.
        if self.directories.contains_key(path) {
            return true;
        }
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return true };
        let Some(directory) = self.directories.get(above) else { return true };
        self.names.contains(&(*directory, name.to_owned()))
            || (self.drop_ins == Some(*directory) && environment::is_drop_in(name))
    }
}

type Nearest = Option<(PathBuf, WatchedDirectory)>;

static LOOKS: LazyLock<Blocking<Nearest>> = LazyLock::new(|| Blocking::new("watched", 1024));

/// What to watch, and the directories that hang.
pub(super) fn plan(wanted: &Watchlist) -> (EventFilter, HashSet<PathBuf>) {
    let parents = wanted.names.iter().filter_map(|name| name.parent());
    let directories: HashSet<&Path> = parents.chain(wanted.drop_ins.as_deref()).collect();
    let directories: Vec<&Path> = directories.into_iter().collect();
    let looks = directories.iter().map(|path| {
        let own = path.to_path_buf();
        PathTask::new(*path, move || nearest(&own))
    });
    let found = environment::run_all(&LOOKS, looks.collect());
    let (mut nearest, mut unseen) = (BTreeMap::new(), HashSet::new());
    for (path, found) in directories.into_iter().zip(found) {
        match found {
            Ok(found) => drop(nearest.insert(path, found)),
            Err(_) => drop(unseen.insert(path.to_path_buf())),
        }
    }
    let mut filter = EventFilter::default();
    let mut add = |above: &Path, path: &Path| {
        let (found, directory) = nearest.get(above)?.as_ref()?;
        filter.directories.insert(found.clone(), *directory);
        // The name below it: the file's own, or that of a directory which is to appear.
        let name = path.strip_prefix(found).ok()?.components().next()?;
        filter.names.insert((*directory, name.as_os_str().to_owned()));
        Some(())
    };
    for name in &wanted.names {
        name.parent().and_then(|above| add(above, name));
    }
    if let Some(drop_ins) = &wanted.drop_ins {
        add(drop_ins, drop_ins);
        filter.drop_ins = match nearest.get(&**drop_ins) {
            Some(Some((found, directory))) if found == drop_ins => Some(*directory),
            _ => None,
        };
    }
    (filter, unseen)
}

/// The directory, or the nearest above it that exists. May hang.
fn nearest(path: &Path) -> Nearest {
    path.ancestors().find_map(|path| {
        let status = path.metadata().ok().filter(std::fs::Metadata::is_dir)?;
        Some((path.to_path_buf(), WatchedDirectory(status.dev(), status.ino())))
    })
}
