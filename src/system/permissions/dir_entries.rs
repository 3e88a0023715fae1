//! The directory entries on which a file depends.

use std::ffi::OsString;
use std::path::Path;

use super::status::Identity;
use super::walk::{Walk, WalkStep};

/// A directory entry: the directory, and the name in it.
pub type DirEntry = (Identity, OsString);

/// The entries by which `path` is what it is: its own, those of the links on the way, and that of what they lead to. Whoever
/// replaces one of them by a file gives the path another content. What cannot be looked at is left out.
pub fn entries(path: &Path) -> Vec<DirEntry> {
    let mut entries = Vec::new();
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let Ok(mut walk) = Walk::along(&absolute) else { return entries };
    let mut here = None;
    loop {
        let (at, name) = (here, walk.ahead().cloned());
        match walk.step() {
            Ok(WalkStep::Directory(status)) => here = Some(status.identity),
            Ok(WalkStep::Link(..)) => {
                entries.extend(at.zip(name));
                // An absolute link begins at the root again.
                here = Identity::of_open(walk.at()).ok();
            }
            Ok(WalkStep::Other(..) | WalkStep::Missing(_)) => {
                entries.extend(at.zip(name));
                return entries;
            }
            Ok(WalkStep::End) | Err(_) => return entries,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_depends_on_its_own_entry_and_on_every_link_that_leads_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(at("v1")).unwrap();
        std::fs::write(at("v1/config"), "").unwrap();
        symlink("v1", at("data")).unwrap();
        symlink(at("data/config"), at("config")).unwrap();
        let [top, v1] = [directory.path(), &at("v1")].map(|path| Identity::at(path).unwrap());
        let found = entries(&at("config"));
        // The temporary directory may itself lie behind links.
        let expected = [(top, "config".into()), (top, "data".into()), (v1, "config".into())];
        assert!(expected.iter().all(|entry| found.contains(entry)), "{found:?}");
        assert_eq!(entries(&at("v1/none")).last(), Some(&(v1, "none".into())), "one that is missing has its place");
    }
}
