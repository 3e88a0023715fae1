//! Notices that the config, a drop-in or a secret file may have changed. What changed is found out by reading: an event
//! only says when to look.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::UnboundedSender;

use super::Input;

/// Watches directories, not files: a file that is renamed into place, or a link that is swapped, is another file.
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
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
        Self { watcher, watched: BTreeSet::new() }
    }

    /// Watches exactly these directories from here on. One that does not exist is tried again with the next call.
    pub(super) fn set(&mut self, wanted: impl IntoIterator<Item = PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted: BTreeSet<PathBuf> = wanted.into_iter().collect();
        for gone in self.watched.difference(&wanted) {
            // It fails when the directory is gone, which is just as well.
            let _ = watcher.unwatch(gone);
        }
        self.watched.retain(|path| wanted.contains(path));
        for path in wanted {
            if !self.watched.contains(&path) && watch_one(watcher, &path) {
                self.watched.insert(path);
            }
        }
    }
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
