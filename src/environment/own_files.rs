//! Which places the daemon's own files and the directories of sinks are, whatever path leads there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::Path;
use std::sync::LazyLock;

use super::time_limit::{self, PathTask};
use crate::config::OwnFiles;
use crate::system::blocking::Blocking;
use crate::system::permissions::{Identity, Reserved, entries};

/// So many looks may hang at once.
const MOST_OUTSTANDING: usize = 1024;

/// Each of the daemon's own is looked at by itself: one that hangs keeps back no other, now or at the next look.
static OWN: LazyLock<Blocking<Reserved>> = LazyLock::new(|| Blocking::new("own", MOST_OUTSTANDING));
/// The directories of sinks, in one look for all that lie in one directory. However many hang, the daemon's own are looked at.
static OF_SINKS: LazyLock<Blocking<Vec<(String, Identity)>>> =
    LazyLock::new(|| Blocking::new("places", MOST_OUTSTANDING));

/// The device and inode of each directory. Directories that do not exist or hang are left out: the sink that publishes there
/// reports them.
pub(super) fn identify(directories: &[String]) -> HashMap<String, Identity> {
    let mut by_parent: BTreeMap<&Path, BTreeSet<String>> = BTreeMap::new();
    for directory in directories {
        let parent = Path::new(directory).parent().unwrap_or(Path::new("/"));
        by_parent.entry(parent).or_default().insert(directory.clone());
    }
    let identified = |path: String| Identity::at(Path::new(&path)).ok().map(|identity| (path, identity));
    let tasks = by_parent.into_iter().map(|(parent, directories)| {
        // Who looks at others in it meanwhile must not share this look.
        let these = BuildHasherDefault::<DefaultHasher>::default().hash_one(&directories);
        PathTask::new(key(&format!("{these:016x}"), parent), move || {
            directories.into_iter().filter_map(identified).collect()
        })
    });
    time_limit::run_all(&OF_SINKS, tasks.collect()).into_iter().flatten().flatten().collect()
}

/// The places that the daemon's own files are now. What hangs is left out.
pub fn reserved(own: &OwnFiles) -> Reserved {
    let of_file = |path: &Path, what| Reserved {
        entries: entries(path).into_iter().map(|entry| (entry, what)).collect(),
        directories: HashMap::new(),
    };
    let of_directory = |path: &Path, what| Reserved {
        entries: HashMap::new(),
        directories: Identity::at(path).into_iter().map(|identity| (identity, what)).collect(),
    };
    let files = own.files.iter().cloned().map(|(path, what)| {
        let key = key(what, &path);
        PathTask::new(key, move || of_file(&path, what))
    });
    let directories = own.directories.iter().cloned().map(|(path, what)| {
        let key = key(&format!("{what}, a directory"), &path);
        PathTask::new(key, move || of_directory(&path, what))
    });
    let mut reserved = Reserved::default();
    for found in time_limit::run_all(&OWN, files.chain(directories).collect()).into_iter().flatten() {
        reserved.entries.extend(found.entries);
        reserved.directories.extend(found.directories);
    }
    reserved
}

/// A path may be looked at for several reasons.
fn key(why: &str, path: &Path) -> OsString {
    let mut key = OsString::from(why);
    key.push(" ");
    key.push(path);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_at_other_paths_meanwhile_are_not_mistaken_for_each_other() {
        let scratch = tempfile::tempdir().unwrap();
        let all: Vec<String> =
            (0..32).map(|n| scratch.path().join(n.to_string()).to_str().unwrap().to_owned()).collect();
        all.iter().for_each(|path| std::fs::create_dir(path).unwrap());
        std::thread::scope(|scope| {
            for path in &all {
                scope.spawn(move || {
                    let looked = identify(std::slice::from_ref(path));
                    assert!(looked.len() == 1 && looked.contains_key(path), "{path}: {looked:?}");
                });
            }
        });
    }
}
