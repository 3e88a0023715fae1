//! Notices that the config, a drop-in or a secret file may have changed. What changed is found out by reading: an event
//! only says when to look.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::UnboundedSender;

use super::Input;

/// Watches directories, not files: a file that is renamed into place, or a link that is swapped, is another file.
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    /// What is watched, by name. The kernel watches a directory, whatever it is called by now.
    watched: BTreeMap<PathBuf, Directory>,
}

/// A directory, by device and inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Directory(u64, u64);

/// Whether everything that can be watched was watched before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    /// Yes: whatever changed was told of.
    Already,
    /// No: what changed before this moment was not told of, so it must be looked at once more.
    FromNowOn,
}

impl Watch {
    pub(super) fn new(inputs: UnboundedSender<Input>) -> Self {
        let on_event = move |event: notify::Result<notify::Event>| {
            // Reading the files ourselves must not wake us; everything else may mean a change, a lost event above all.
            let is_own_reading =
                matches!(&event, Ok(event) if matches!(event.kind, EventKind::Access(_)) && !event.need_rescan());
            if !is_own_reading {
                let _ = inputs.send(Input::FilesChanged);
            }
        };
        let watcher = notify::recommended_watcher(on_event)
            .inspect_err(|error| {
                tracing::warn!(
                    event = "watch_failed",
                    "changes of the config are not noticed ({error}); use `corptokend reload`"
                );
            })
            .ok();
        Self { watcher, watched: BTreeMap::new() }
    }

    /// Watches exactly these directories from here on. For one that does not exist, the nearest that does is watched, in
    /// which it will appear. One that was replaced by another of its name is another directory, and watched anew.
    pub(super) fn set(&mut self, wanted: impl IntoIterator<Item = PathBuf>) -> Watched {
        let Some(watcher) = &mut self.watcher else { return Watched::Already };
        let wanted: BTreeMap<PathBuf, Directory> = wanted.into_iter().filter_map(nearest).collect();
        self.watched.retain(|path, directory| {
            let stays = wanted.get(path) == Some(directory);
            if !stays {
                // It fails when the directory is gone, which is just as well.
                let _ = watcher.unwatch(path);
            }
            stays
        });
        let mut outcome = Watched::Already;
        for (path, directory) in wanted {
            if !self.watched.contains_key(&path) && watch_one(watcher, &path) {
                self.watched.insert(path, directory);
                outcome = Watched::FromNowOn;
            }
        }
        outcome
    }
}

/// The directory, or the nearest above it that exists.
fn nearest(path: PathBuf) -> Option<(PathBuf, Directory)> {
    path.ancestors().find_map(|path| {
        let status = path.metadata().ok().filter(std::fs::Metadata::is_dir)?;
        Some((path.to_path_buf(), Directory(status.dev(), status.ino())))
    })
}

fn watch_one(watcher: &mut RecommendedWatcher, path: &Path) -> bool {
    match watcher.watch(path, RecursiveMode::NonRecursive) {
        Ok(()) => true,
        Err(error) => {
            if path.exists() {
                let path = path.display();
                tracing::warn!(
                    event = "watch_failed",
                    "changes in {path} are not noticed ({error}); use `corptokend reload`"
                );
            }
            false
        }
    }
}
