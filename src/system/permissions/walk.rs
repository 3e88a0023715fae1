//! A walk along a path, component by component, so that each is examined before it is passed.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, readlinkat};
use rustix::io::{Errno, retry_on_intr};
use rustix::path::Arg;

use super::status::Status;

/// As many links as the kernel follows in one path (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// A link itself is opened, not what it leads to; and nothing needs to be readable.
const PASSING: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Where the walk is: always in a directory, held open.
#[derive(Debug)]
pub struct Walk {
    at: OwnedFd,
    path: PathBuf,
    ahead: VecDeque<OsString>,
    links: u32,
    begun: bool,
}

/// What came next.
#[derive(Debug)]
pub enum WalkStep {
    /// A directory, in which the walk is now.
    Directory(Status),
    /// A link, which the next step follows.
    Link(PathBuf, Status),
    /// Something else. The walk cannot go on from here.
    Other(PathBuf, Status, OwnedFd),
    /// There is nothing of this name. The walk cannot go on from here, unless it is made ([`Walk::enter`]).
    Missing(OsString),
    /// The path ends in the directory in which the walk is.
    End,
}

/// Why a walk ended early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// What was looked at.
    pub path: PathBuf,
    /// What the system said.
    pub errno: Errno,
}

impl Walk {
    /// Begins at `/`. A relative path is taken as one from there.
    ///
    /// # Errors
    /// When `/` cannot be opened.
    pub fn along(path: &Path) -> Result<Self, Stuck> {
        Ok(Self { at: root()?, path: "/".into(), ahead: steps(path).collect(), links: 0, begun: false })
    }

    /// Takes one step.
    ///
    /// # Errors
    /// When what comes next cannot be looked at, or there are more than 40 links.
    pub fn step(&mut self) -> Result<WalkStep, Stuck> {
        if !self.begun {
            self.begun = true;
            let status = Status::of(&self.at).map_err(|errno| Stuck { path: self.path.clone(), errno })?;
            return Ok(WalkStep::Directory(status));
        }
        let Some(name) = self.ahead.pop_front() else { return Ok(WalkStep::End) };
        let path = self.path.join(&name);
        let stuck = |errno| Stuck { path: path.clone(), errno };
        let fd = match openat(&self.at, &name) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(WalkStep::Missing(name)),
            Err(errno) => return Err(stuck(errno)),
        };
        let status = Status::of(&fd).map_err(stuck)?;
        match status.kind {
            FileType::Directory => self.enter(fd, &name),
            FileType::Symlink => {
                self.links += 1;
                if self.links > MAX_LINKS {
                    return Err(stuck(Errno::LOOP));
                }
                self.follow(&fd).map_err(|Stuck { errno, .. }| stuck(errno))?;
                return Ok(WalkStep::Link(path, status));
            }
            _ => return Ok(WalkStep::Other(path, status, fd)),
        }
        Ok(WalkStep::Directory(status))
    }

    /// Goes on in a directory of this name that was just made.
    pub fn enter(&mut self, directory: OwnedFd, name: &OsStr) {
        self.at = directory;
        // The path so far has no links, so this is where `..` leads.
        if name == ".." {
            self.path.pop();
        } else {
            self.path.push(name);
        }
    }

    /// The directory in which the walk is, opened with `O_PATH` only.
    pub fn at(&self) -> BorrowedFd<'_> {
        self.at.as_fd()
    }

    /// And its path, which has no links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name at which the next step looks; `None` before the first step, which looks at `/`, and at the end.
    pub fn ahead(&self) -> Option<&OsString> {
        self.ahead.front().filter(|_| self.begun)
    }

    fn follow(&mut self, link: &OwnedFd) -> Result<(), Stuck> {
        let read = readlinkat(link, "", Vec::new()).map_err(|errno| Stuck { path: PathBuf::new(), errno })?;
        let target = PathBuf::from(OsString::from_vec(read.into_bytes()));
        for step in steps(&target).rev() {
            self.ahead.push_front(step);
        }
        if target.is_absolute() {
            self.at = root()?;
            self.path = "/".into();
        }
        Ok(())
    }
}

fn root() -> Result<OwnedFd, Stuck> {
    retry_on_intr(|| rustix::fs::open("/", PASSING, Mode::empty())).map_err(|errno| Stuck { path: "/".into(), errno })
}

fn openat(at: impl AsFd, name: impl Arg + Copy) -> rustix::io::Result<OwnedFd> {
    retry_on_intr(|| rustix::fs::openat(&at, name, PASSING, Mode::empty()))
}

/// The components of a path as the walk takes them.
fn steps(path: &Path) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}
