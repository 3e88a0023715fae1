//! The names whose change can change a file: its own, and those of the links that lead to it.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::time_limit::{self, PathTask};
use crate::system::blocking::Blocking;

static NAMES: LazyLock<Blocking<Vec<PathBuf>>> = LazyLock::new(|| Blocking::new("links", 1024));

/// The names of which a change can give one of `paths` another content: its own, and, link by link, those of what it leads
/// to (a ConfigMap's file leads over `..data`, which is what is swapped). Of a path that hangs, its own.
pub fn where_to_watch(paths: &[&Path]) -> Vec<PathBuf> {
    let tasks = paths.iter().map(|path| {
        let own = path.to_path_buf();
        PathTask::new(*path, move || links_of(&own))
    });
    let found = time_limit::run_all(&NAMES, tasks.collect());
    let names = paths.iter().zip(found).map(|(path, found)| found.unwrap_or_else(|_| vec![absolute(path)]));
    let mut names: Vec<PathBuf> = names.flatten().collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// See [`where_to_watch`]. May hang.
pub(super) fn links_of(path: &Path) -> Vec<PathBuf> {
    let mut names = Vec::new();
    let mut ahead = vec![absolute(path)];
    let mut links = 0;
    while let Some(path) = ahead.pop() {
        let mut here = PathBuf::new();
        let mut parts = path.components();
        while let Some(part) = parts.next() {
            let parent = here.clone();
            here.push(part);
            let Ok(target) = std::fs::read_link(&here) else { continue };
            links += 1;
            if links > 40 {
                return names;
            }
            names.push(here.clone());
            ahead.push(parent.join(target).join(parts.as_path()));
            break;
        }
        names.extend(Some(here).filter(|here| *here == path));
    }
    names
}

pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}
