//! The fixed part of a sink's path: walked component by component, so that each link is judged before it is followed, and
//! each directory above the sink is known.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Access, AtFlags, Mode, OFlags, accessat};
use rustix::io::Errno;

use super::make::{Missing, make};
use super::trust::{Me, Rules, group_of_new_files, judge};
use crate::domain::SinkFailure;
use crate::sink::claims::Claims;
use crate::sink::error;
use crate::sink::file::syscall::{fsync, openat};
use crate::system::permissions::{Role, Status, Step, Stuck, Trusted, Walk};

/// A fixed part, open.
pub(crate) struct Fixed {
    pub(crate) fd: OwnedFd,
    /// The directories that were passed on the way, from `/` on, as they were then.
    pub(crate) above: Vec<(PathBuf, Status)>,
}

/// Opens the fixed part. `None`: it is missing, and was to be left so.
pub(crate) fn open_fixed(
    fixed: &Path,
    missing: Missing,
    me: Me,
    claims: &Claims,
) -> Result<Option<Fixed>, SinkFailure> {
    let mut way = Way::start(fixed, me)?;
    while let Some(name) = way.find_missing()? {
        let Missing::Make(rules) = missing else { return Ok(None) };
        way.make(&name, &rules, claims)?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = openat(way.walk.at(), ".", flags, Mode::empty())
        .map_err(|errno| error::of("open the directory", fixed, errno))?;
    // The last one is the fixed part itself.
    way.passed.pop();
    Ok(Some(Fixed { fd, above: way.passed }))
}

/// Tries whether the fixed part could be made, and makes nothing.
pub(crate) fn could_be_made(fixed: &Path, rules: &Rules, me: Me) -> Result<(), SinkFailure> {
    let mut way = Way::start(fixed, me)?;
    let Some(name) = way.find_missing()? else { return Ok(()) };
    way.may_make(&name, rules)?;
    let above = way.walk.path();
    accessat(rustix::fs::CWD, above, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
        .map_err(|errno| error::within(above, "make the directory below", above, errno))
}

/// The way along a fixed part, with all directories that were passed, from `/` on.
struct Way {
    walk: Walk,
    passed: Vec<(PathBuf, Status)>,
    me: Me,
}

impl Way {
    fn start(fixed: &Path, me: Me) -> Result<Self, SinkFailure> {
        Ok(Self { walk: Walk::along(fixed).map_err(stuck)?, passed: Vec::new(), me })
    }

    /// Walks to the first name that is missing; `None`: to the end.
    fn find_missing(&mut self) -> Result<Option<OsString>, SinkFailure> {
        let links_of = Trusted::of(self.me.uid);
        loop {
            match self.walk.step().map_err(stuck)? {
                Step::Directory(status) => self.passed.push((self.walk.path().to_owned(), status)),
                Step::Link(path, status) if links_of.risk(&path, &status, Role::Passage).is_some() => {
                    return Err(somebody_elses_link(&path, &status, self.me));
                }
                Step::Link(..) => {}
                Step::Other(path, ..) => {
                    return Err(error::unsafe_path(&path, "is not a directory: choose another path for the sink"));
                }
                Step::Missing(name) => return Ok(Some(name)),
                Step::End => return Ok(None),
            }
        }
    }

    /// Whether the directory `name`, which is missing here, is ours to make. Answers with its path and what it would lie in.
    fn may_make(&self, name: &OsStr, rules: &Rules) -> Result<(PathBuf, &Status), SinkFailure> {
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
        let trusted = rules.trusted(self.me, group_of_new_files(here, self.me));
        self.passed.iter().try_for_each(|(path, status)| judge(&trusted, path, status, Role::Passage, rules))?;
        Ok((path, here))
    }

    /// Makes the directory `name`, which is missing here, and goes on in it.
    fn make(&mut self, name: &OsStr, rules: &Rules, claims: &Claims) -> Result<(), SinkFailure> {
        let (path, here) = self.may_make(name, rules)?;
        let parent = openat(self.walk.at(), ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| error::of("open the directory", self.walk.path(), errno))?;
        let made = make(parent.as_fd(), here.identity, name, &path, rules, claims)?;
        fsync(&parent).map_err(|errno| error::of("sync the directory", self.walk.path(), errno))?;
        let status = Status::of(&made).map_err(|errno| error::of("look at", &path, errno))?;
        self.walk.enter(made, name);
        self.passed.push((path, status));
        Ok(())
    }
}

fn stuck(Stuck { path, errno }: Stuck) -> SinkFailure {
    let doing = if errno == Errno::LOOP { "follow the link" } else { "open the directory" };
    error::of(doing, &path, errno)
}

fn somebody_elses_link(path: &Path, status: &Status, me: Me) -> SinkFailure {
    let why = format_args!(
        "is a symbolic link of user {}; only links of root and of the daemon (user {}) are followed: `chown -h root {}`, or \
         write its target into the config",
        status.uid,
        me.uid,
        path.display()
    );
    error::unsafe_path(path, why)
}

/// Whether the daemon may complete a fixed part that ends in a directory of user `owner`: it may in its own directories,
/// and root may anywhere. Elsewhere a missing directory is more likely a missing mount or a slip of the pen.
fn may_complete(owner: u32, me: Me) -> bool {
    me.uid == 0 || owner == me.uid
}
