//! A directory that is open: all work in it goes through its descriptor, so it is the one that was verified, whatever its
//! path leads to by now.
//!
//! In the fixed part of a path, links are followed that root or the daemon's own user made. Below it each component is
//! opened from its parent's descriptor with `O_NOFOLLOW`, so no link is ever followed there, whenever it appears.
//!
//! Every directory from `/` down is judged by the rule of [`permissions`](crate::system::permissions): whoever can rename a directory can
//! exchange it for another.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::Stat;
use rustix::io::Errno;

use super::stale_files::StaleFiles;
use super::trust::{DaemonUser, DirPolicy, group_of_new_files, judge};
use crate::domain::SinkFailure;
use crate::sink::error;
use crate::sink::file::syscall::{fstat, fsync};
use crate::system::permissions::{Identity, Role, Status, Trusted};

/// The number under which the watch knows a directory.
pub(crate) type DirNumber = u32;

/// An open directory.
#[derive(Debug)]
pub(crate) struct DirHandle {
    fd: OwnedFd,
    path: PathBuf,
    /// `None` for a fixed part.
    parent: Option<Rc<DirHandle>>,
    /// The directories above a fixed part, as they were when it was opened; empty below one.
    above: Vec<(PathBuf, Status)>,
    status: RefCell<Status>,
    /// What new files get from a default access control list.
    inherited: Option<Status>,
    /// The last batch in which the path was checked to lead here.
    validated: Cell<u64>,
    /// An entry changed since the last sync.
    dirty: Cell<bool>,
    watched_as: Cell<Option<DirNumber>>,
    stale_files: StaleFiles,
}

impl DirHandle {
    /// `parent` and `above` are as the fields; `batch` is the one that opened it.
    pub(crate) fn new(
        fd: OwnedFd,
        path: &Path,
        parent: Option<Rc<DirHandle>>,
        above: Vec<(PathBuf, Status)>,
        batch: u64,
    ) -> Result<Self, SinkFailure> {
        let failed = |errno| error::of("inspect the directory", path, errno);
        let stat = fstat(&fd).map_err(failed)?;
        let status = Status::from_stat(&stat, &fd).map_err(failed)?;
        let inherited = status.of_new_files(&fd, 0o777).map_err(failed)?;
        Ok(Self {
            fd,
            path: path.to_owned(),
            parent,
            above,
            status: RefCell::new(status),
            inherited,
            validated: Cell::new(batch),
            dirty: Cell::new(false),
            watched_as: Cell::new(None),
            stale_files: StaleFiles::in_directory_of(stat.st_size),
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The last component of the path.
    pub(crate) fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    pub(crate) fn parent(&self) -> Option<&Rc<DirHandle>> {
        self.parent.as_ref()
    }

    /// Whether `other` is this directory or one above it, up to the fixed part.
    pub(crate) fn is_at_or_below(&self, other: &DirHandle) -> bool {
        std::ptr::eq(self, other) || self.parent.as_ref().is_some_and(|parent| parent.is_at_or_below(other))
    }

    /// Whether the path was checked to lead here in this batch.
    pub(crate) fn is_validated_in(&self, batch: u64) -> bool {
        self.validated.get() == batch
    }

    /// Device and inode.
    pub(crate) fn identity(&self) -> Identity {
        self.status.borrow().identity
    }

    /// Checks in this batch that `stat`, of what the path leads to, is of this directory.
    pub(crate) fn revalidate(&self, stat: &Stat, batch: u64) -> bool {
        if Identity::of(stat) != self.identity() {
            return false;
        }
        let Ok(status) = Status::from_stat(stat, &self.fd) else { return false };
        self.status.replace(status);
        self.validated.set(batch);
        true
    }

    /// Returns the previous value.
    pub(crate) fn set_dirty(&self, dirty: bool) -> bool {
        self.dirty.replace(dirty)
    }

    /// Makes the entries durable.
    pub(crate) fn sync(&self) -> Result<(), SinkFailure> {
        // A file system without directory sync (EINVAL) has nothing to offer.
        match fsync(&self.fd) {
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(errno) => Err(error::of("sync the directory", &self.path, errno)),
        }
    }

    pub(crate) fn watched_as(&self) -> Option<DirNumber> {
        self.watched_as.get()
    }

    pub(crate) fn set_watched_as(&self, id: DirNumber) {
        self.watched_as.set(Some(id));
    }

    /// Whether a killed daemon may have left a file of this temporary name here.
    pub(crate) fn may_hold_stale_file(&self, temporary: &OsStr) -> bool {
        self.stale_files.may_include(temporary, self.fd())
    }

    pub(crate) fn belongs_to(&self, me: DaemonUser) -> bool {
        self.status.borrow().uid == me.uid
    }

    /// The group of files made here, before any chown.
    pub(crate) fn group_of_new_files(&self, me: DaemonUser) -> u32 {
        group_of_new_files(&self.status.borrow(), me)
    }

    /// Verifies that nobody untrusted can write here or, sticky directories apart, in any directory above, up to `/`: whoever
    /// can rename directories can exchange two tenants' files.
    pub(crate) fn verify(&self, policy: &DirPolicy, me: DaemonUser) -> Result<(), SinkFailure> {
        self.verify_replaceable(policy, me)?;
        if policy.trust {
            return Ok(());
        }
        let trusted = policy.trusted(me, self.group_of_new_files(me));
        judge(&trusted, &self.path, &self.status.borrow(), Role::Final, policy)?;
        self.verify_default_acl(policy, me)?;
        self.verify_above(&trusted, policy)
    }

    /// As [`verify`](Self::verify), for a directory in which only directories will be made.
    pub(crate) fn verify_passage(&self, policy: &DirPolicy, me: DaemonUser) -> Result<(), SinkFailure> {
        if policy.trust {
            return Ok(());
        }
        let trusted = policy.trusted(me, self.group_of_new_files(me));
        judge(&trusted, &self.path, &self.status.borrow(), Role::Passage, policy)?;
        self.verify_above(&trusted, policy)
    }

    fn verify_above(&self, trusted: &Trusted, policy: &DirPolicy) -> Result<(), SinkFailure> {
        self.above.iter().rev().try_for_each(|(path, status)| judge(trusted, path, status, Role::Passage, policy))?;
        let Some(parent) = &self.parent else { return Ok(()) };
        judge(trusted, &parent.path, &parent.status.borrow(), Role::Passage, policy)?;
        parent.verify_above(trusted, policy)
    }

    /// In a sticky directory only the owner of a file, or of the directory, can replace it (inode(7)).
    fn verify_replaceable(&self, policy: &DirPolicy, me: DaemonUser) -> Result<(), SinkFailure> {
        let status = self.status.borrow();
        let Some(owner) = policy.owner.filter(|owner| *owner != me.uid) else { return Ok(()) };
        if !me.is_bound_by_sticky || status.mode & 0o1000 == 0 || status.uid == me.uid {
            return Ok(());
        }
        let why = format_args!(
            "is sticky and belongs to user {}, so the daemon (user {}) could not replace a file of user {owner} there: \
             `chmod -t {path}`, or `chown {} {path}`, or take `owner` out of the sink",
            status.uid,
            me.uid,
            me.uid,
            path = self.path.display()
        );
        Err(error::unsafe_path(&self.path, why))
    }

    /// A default access control list gives the users it names the mode's group bits on every new file. Such lists exist to let
    /// more users read; they must not let untrusted ones write.
    fn verify_default_acl(&self, policy: &DirPolicy, me: DaemonUser) -> Result<(), SinkFailure> {
        let Some(inherited) = self.inherited.as_ref().filter(|_| policy.mode & 0o020 != 0) else { return Ok(()) };
        let trusted = policy.trusted(me, self.group_of_new_files(me)).and_user(Some(inherited.uid));
        let Some(risk) = trusted.risk(&self.path, inherited, Role::File) else { return Ok(()) };
        let why = format_args!(
            "has a default access control list by which its new files {}: `setfacl -k {}`, or say `trust_dir = true` in the \
             sink",
            risk.what,
            self.path.display()
        );
        Err(error::unsafe_path(&self.path, why))
    }
}
