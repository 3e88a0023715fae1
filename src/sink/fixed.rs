//! The fixed part of a sink's path: walked component by component, so that each link is judged before it is followed.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, readlinkat};
use rustix::io::Errno;

use super::directories::Missing;
use super::directory::{Me, Rules, make};
use super::system::{fstat, fsync, openat};
use super::trouble;
use crate::domain::SinkFailure;

/// As many links as the kernel follows in one path (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// Opens the fixed part. `None`: it is missing, and was to be left so.
pub(super) fn open_fixed(fixed: &Path, missing: Missing, me: Me) -> Result<Option<OwnedFd>, SinkFailure> {
    let mut walk = Walk::start(fixed)?;
    let mut links = 0;
    while let Some(step) = walk.ahead.pop_front() {
        let next = walk.path.join(&step);
        let fd = match openat(&walk.at, &step, PASSING, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => match missing {
                Missing::Leave => return Ok(None),
                Missing::Make(rules) => walk.make(&step, &next, &rules, me)?,
            },
            Err(errno) => return Err(trouble::of("open the directory", &next, errno)),
        };
        let stat = fstat(&fd).map_err(|errno| trouble::of("look at", &next, errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                walk.at = fd;
                walk.path = next;
            }
            FileType::Symlink if stat.st_uid != 0 && stat.st_uid != me.uid => {
                return Err(trouble::unsafe_path(
                    &next,
                    format_args!(
                        "is a symbolic link of user {}; only links of root and of the daemon (user {}) are followed: \
                         `chown -h root {}`, or write its target into the config",
                        stat.st_uid,
                        me.uid,
                        next.display()
                    ),
                ));
            }
            FileType::Symlink if links == MAX_LINKS => {
                return Err(trouble::of("follow the link", &next, Errno::LOOP));
            }
            FileType::Symlink => {
                links += 1;
                walk.follow(&fd, &next)?;
            }
            _ => return Err(trouble::unsafe_path(&next, "is not a directory: choose another path for the sink")),
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(&walk.at, ".", flags, Mode::empty())
        .map(Some)
        .map_err(|errno| trouble::of("open the directory", fixed, errno))
}

/// The directory above a missing fixed part, and its path: for a trial that makes nothing.
pub(super) fn nearest_existing(path: &Path) -> &Path {
    path.ancestors().find(|above| above.symlink_metadata().is_ok()).unwrap_or(Path::new("/"))
}

/// Whether the daemon may complete a fixed part that ends in a directory of user `owner`: it may in its own directories,
/// and root may anywhere. Elsewhere a missing directory is more likely a missing mount or a slip of the pen.
pub(super) fn may_complete(owner: u32, me: Me) -> bool {
    me.uid == 0 || owner == me.uid
}

const PASSING: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

struct Walk {
    at: OwnedFd,
    path: PathBuf,
    ahead: VecDeque<OsString>,
}

impl Walk {
    fn start(fixed: &Path) -> Result<Self, SinkFailure> {
        let root = Path::new("/");
        let at = rustix::fs::open(root, PASSING, Mode::empty()).map_err(|errno| trouble::of("open", root, errno))?;
        Ok(Self { at, path: root.to_owned(), ahead: steps(fixed).collect() })
    }

    fn follow(&mut self, link: &OwnedFd, path: &Path) -> Result<(), SinkFailure> {
        let target = readlinkat(link, "", Vec::new()).map_err(|errno| trouble::of("read the link", path, errno))?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        for step in steps(&target).rev() {
            self.ahead.push_front(step);
        }
        if target.is_absolute() {
            let ahead = std::mem::take(&mut self.ahead);
            *self = Self { ahead, ..Self::start(Path::new("/"))? };
        }
        Ok(())
    }

    fn make(&self, step: &OsString, path: &Path, rules: &Rules, me: Me) -> Result<OwnedFd, SinkFailure> {
        let owner = fstat(&self.at).map_err(|errno| trouble::of("look at", &self.path, errno))?.st_uid;
        if !may_complete(owner, me) {
            return Err(trouble::with_remedy(
                "use the directory",
                path,
                Errno::NOENT,
                format_args!("`install -d -o {} {}`", me.uid, path.display()),
            ));
        }
        let made = make(self.at.as_fd(), step, path, rules)?;
        let above = openat(&self.at, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        above.and_then(fsync).map_err(|errno| trouble::of("sync the directory", &self.path, errno))?;
        Ok(made)
    }
}

/// The components of a path as the walk takes them.
fn steps(path: &Path) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}
