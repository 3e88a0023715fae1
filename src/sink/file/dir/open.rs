//! Opens the fixed part of a sink's path, component by component: each link is judged before it is followed, and each
//! directory above the sink is known.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Access, AtFlags, Mode, OFlags, accessat};
use rustix::io::Errno;

use super::create::{IfMissing, make};
use super::trust::{DaemonUser, DirPolicy, group_of_new_files, judge};
use crate::domain::SinkFailure;
use crate::sink::claims::Claims;
use crate::sink::error;
use crate::sink::file::syscall::{fsync, openat};
use crate::system::permissions::{Role, Status, Stuck, Trusted, Walk, WalkStep};

/// An open fixed part.
pub(crate) struct FixedPart {
    pub(crate) fd: OwnedFd,
    /// The directories above it, from `/` on, as they were when they were passed.
    pub(crate) above: Vec<(PathBuf, Status)>,
}

/// Opens the fixed part. `None` if it is missing and was not to be made.
pub(crate) fn open_fixed(
    fixed: &Path,
    missing: IfMissing,
    me: DaemonUser,
    claims: &Claims,
) -> Result<Option<FixedPart>, SinkFailure> {
    let mut walk = FixedPartWalk::start(fixed, me)?;
    while let Some(name) = walk.find_missing()? {
        let IfMissing::Make(policy) = missing else { return Ok(None) };
        walk.make(&name, &policy, claims)?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = openat(walk.walk.at(), ".", flags, Mode::empty())
        .map_err(|errno| error::of("open the directory", fixed, errno))?;
    // The last one is the fixed part itself.
    walk.passed.pop();
    Ok(Some(FixedPart { fd, above: walk.passed }))
}

/// Checks that the fixed part could be made, and makes nothing.
pub(crate) fn could_be_made(fixed: &Path, policy: &DirPolicy, me: DaemonUser) -> Result<(), SinkFailure> {
    let mut walk = FixedPartWalk::start(fixed, me)?;
    let Some(name) = walk.find_missing()? else { return Ok(()) };
    walk.may_make(&name, policy)?;
    let above = walk.walk.path();
    accessat(rustix::fs::CWD, above, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
        .map_err(|errno| error::within(above, "make the directory below", above, errno))
}

/// A walk along a fixed part, with all directories passed, from `/` on.
struct FixedPartWalk {
    walk: Walk,
    passed: Vec<(PathBuf, Status)>,
    me: DaemonUser,
}

impl FixedPartWalk {
    fn start(fixed: &Path, me: DaemonUser) -> Result<Self, SinkFailure> {
        Ok(Self { walk: Walk::along(fixed).map_err(walk_failed)?, passed: Vec::new(), me })
    }

    /// Walks to the first missing name; `None` at the end.
    fn find_missing(&mut self) -> Result<Option<OsString>, SinkFailure> {
        let links_of = Trusted::of(self.me.uid);
        loop {
            match self.walk.step().map_err(walk_failed)? {
                WalkStep::Directory(status) => self.passed.push((self.walk.path().to_owned(), status)),
                WalkStep::Link(path, status) if links_of.risk(&path, &status, Role::Passage).is_some() => {
                    return Err(untrusted_link(&path, &status, self.me));
                }
                WalkStep::Link(..) => {}
                WalkStep::Other(path, ..) => {
                    return Err(error::unsafe_path(&path, "is not a directory: choose another path for the sink"));
                }
                WalkStep::Missing(name) => return Ok(Some(name)),
                WalkStep::End => return Ok(None),
            }
        }
    }

    /// Checks that the daemon may make the missing directory `name` here. Returns its path and its parent's status.
    fn may_make(&self, name: &OsStr, policy: &DirPolicy) -> Result<(PathBuf, &Status), SinkFailure> {
        let path = self.walk.path().join(name);
        let Some((_, here)) = self.passed.last() else { return Err(error::of("make", &path, Errno::NOENT)) };
        if !may_complete(here.uid, self.me) {
            return Err(error::with_remedy(
                "use the directory",
                &path,
                Errno::NOENT,
                format_args!("`install -d -o {} {}`", self.me.uid, path.display()),
            ));
        }
        let trusted = policy.trusted(self.me, group_of_new_files(here, self.me));
        self.passed.iter().try_for_each(|(path, status)| judge(&trusted, path, status, Role::Passage, policy))?;
        Ok((path, here))
    }

    /// Makes the missing directory `name`, and enters it.
    fn make(&mut self, name: &OsStr, policy: &DirPolicy, claims: &Claims) -> Result<(), SinkFailure> {
        let (path, here) = self.may_make(name, policy)?;
        let parent = openat(self.walk.at(), ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| error::of("open the directory", self.walk.path(), errno))?;
        let made = make(parent.as_fd(), here.identity, name, &path, policy, claims)?;
        fsync(&parent).map_err(|errno| error::of("sync the directory", self.walk.path(), errno))?;
        let status = Status::of(&made).map_err(|errno| error::of("inspect", &path, errno))?;
        self.walk.enter(made, name);
        self.passed.push((path, status));
        Ok(())
    }
}

fn walk_failed(Stuck { path, errno }: Stuck) -> SinkFailure {
    let doing = if errno == Errno::LOOP { "follow the link" } else { "open the directory" };
    error::of(doing, &path, errno)
}

fn untrusted_link(path: &Path, status: &Status, me: DaemonUser) -> SinkFailure {
    let why = format_args!(
        "is a symbolic link of user {}; only links of root and of the daemon (user {}) are followed: `chown -h root {}`, or \
         write its target into the config",
        status.uid,
        me.uid,
        path.display()
    );
    error::unsafe_path(path, why)
}

/// Whether the daemon may make what is missing of a fixed part in a directory of user `owner`: in its own directories, and as
/// root anywhere. Elsewhere a missing directory is more likely a missing mount or a typing error.
fn may_complete(owner: u32, me: DaemonUser) -> bool {
    me.uid == 0 || owner == me.uid
}
