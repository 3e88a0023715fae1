//! Who could change anything on the path of a file that the daemon reads.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, BorrowedFd};

use super::rule::{Risk, Role, Trusted};
use super::status::{Status, is_on_read_only_mount};
use super::walk::{Walk, WalkStep};

/// Something on the path of a file that strangers could change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Danger {
    /// The directory, the link, or the file itself.
    pub path: PathBuf,
    /// What it is.
    pub thing: PathElement,
    /// Who could do what.
    pub risk: Risk,
    /// It lies on a read-only mount, as the config in a container may.
    pub read_only: bool,
}

/// What a [`Danger`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathElement {
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// The file.
    File,
}

/// Audits paths, and reports each danger once.
#[derive(Debug)]
pub struct PathAudit {
    trusted: Trusted,
    reported: HashSet<PathBuf>,
}

impl PathAudit {
    /// Applies this rule.
    pub fn new(trusted: Trusted) -> Self {
        Self { trusted, reported: HashSet::new() }
    }

    /// Everything between `/` and `path`, both included, that strangers could change, links judged before they are followed.
    /// A path that cannot be walked to its end is audited as far as it goes: reading the file reports the rest.
    pub fn to(&mut self, path: &Path) -> Vec<Danger> {
        let mut dangers = Vec::new();
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let Ok(mut walk) = Walk::along(&absolute) else { return dangers };
        loop {
            match walk.step() {
                Ok(WalkStep::Directory(status)) => {
                    dangers.extend(self.danger(walk.path(), PathElement::Directory, &status, walk.at()));
                }
                Ok(WalkStep::Link(path, status)) => {
                    dangers.extend(self.danger(&path, PathElement::Link, &status, walk.at()));
                }
                Ok(WalkStep::Other(path, status, fd)) => {
                    dangers.extend(self.danger(&path, PathElement::File, &status, fd.as_fd()));
                    return dangers;
                }
                Ok(WalkStep::Missing(_) | WalkStep::End) | Err(_) => return dangers,
            }
        }
    }

    /// `mount`: something that is open on the same mount.
    fn danger(&mut self, path: &Path, thing: PathElement, status: &Status, mount: BorrowedFd<'_>) -> Option<Danger> {
        let role = if thing == PathElement::File { Role::File } else { Role::Passage };
        let risk = self.trusted.risk(path, status, role)?;
        let path = path.to_path_buf();
        self.reported.insert(path.clone()).then(|| Danger {
            path,
            thing,
            risk,
            read_only: is_on_read_only_mount(mount),
        })
    }
}
