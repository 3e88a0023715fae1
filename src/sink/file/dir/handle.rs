//! Directories by file descriptor: found without following anybody else's links, made where they are missing, verified
//! by what was opened and not by its name.
//!
//! In the fixed part of a path, links are followed that root or the daemon's own user made. Below it each component is
//! opened from its parent's descriptor with `O_NOFOLLOW`, so no link is ever followed there, whenever it appears.
//!
//! Every directory from `/` down is judged by the one rule of [`trust`](crate::system::permissions): whoever can rename a directory can
//! exchange it for another.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::Stat;
use rustix::io::Errno;

use super::stale_files::Litter;
use super::trust::{Me, Rules, group_of_new_files, judge};
use crate::domain::SinkFailure;
use crate::sink::error;
use crate::sink::file::syscall::{fstat, fsync};
use crate::system::permissions::{Identity, Role, Status, Trusted};

/// The number under which the watch knows a directory.
pub(crate) type DirectoryId = u32;

/// An open directory.
#[derive(Debug)]
pub(crate) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    /// Below the fixed part: whose entry it is.
    parent: Option<Rc<Directory>>,
    /// Of a fixed part: the directories above it, as they were when it was opened.
    above: Vec<(PathBuf, Status)>,
    status: RefCell<Status>,
    /// What files made here get from a default access control list.
    inherited: Option<Status>,
    /// The batch in which the path was last seen to lead here.
    seen: Cell<u64>,
    /// Whether an entry changed since the last sync.
    dirty: Cell<bool>,
    watched_as: Cell<Option<DirectoryId>>,
    litter: Litter,
}

impl Directory {
    pub(crate) fn new(fd: OwnedFd, path: &Path, origin: Origin, batch: u64) -> Result<Self, SinkFailure> {
        let failed = |errno| error::of("look at the directory", path, errno);
        let stat = fstat(&fd).map_err(failed)?;
        let status = Status::from_stat(&stat, &fd).map_err(failed)?;
        let inherited = status.of_new_files(&fd, 0o777).map_err(failed)?;
        let (parent, above) = match origin {
            Origin::Below(parent) => (Some(parent), Vec::new()),
            Origin::Fixed(above) => (None, above),
        };
        Ok(Self {
            fd,
            path: path.to_owned(),
            parent,
            above,
            status: RefCell::new(status),
            inherited,
            seen: Cell::new(batch),
            dirty: Cell::new(false),
            watched_as: Cell::new(None),
            litter: Litter::in_directory_of(stat.st_size),
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its own name, the last component of the path.
    pub(crate) fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    pub(crate) fn parent(&self) -> Option<&Rc<Directory>> {
        self.parent.as_ref()
    }

    /// Whether `other` is this directory or one above it, up to the fixed part.
    pub(crate) fn is_at_or_below(&self, other: &Directory) -> bool {
        std::ptr::eq(self, other) || self.parent.as_ref().is_some_and(|parent| parent.is_at_or_below(other))
    }

    /// Whether the path was seen to lead here in this batch.
    pub(crate) fn was_seen_in(&self, batch: u64) -> bool {
        self.seen.get() == batch
    }

    /// Which directory it is, whatever its path.
    pub(crate) fn identity(&self) -> Identity {
        self.status.borrow().identity
    }

    /// Whether `stat`, of what the path leads to in this batch, is of this directory.
    pub(crate) fn recognise(&self, stat: &Stat, batch: u64) -> bool {
        if Identity::of(stat) != self.identity() {
            return false;
        }
        let Ok(status) = Status::from_stat(stat, &self.fd) else { return false };
        self.status.replace(status);
        self.seen.set(batch);
        true
    }

    /// Notes whether an entry changed since the last sync. Answers what was noted before.
    pub(crate) fn set_dirty(&self, dirty: bool) -> bool {
        self.dirty.replace(dirty)
    }

    /// Makes what was renamed, made or removed here survive a power cut.
    pub(crate) fn sync(&self) -> Result<(), SinkFailure> {
        // A file system without directory sync (EINVAL) has nothing to offer.
        match fsync(&self.fd) {
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(errno) => Err(error::of("sync the directory", &self.path, errno)),
        }
    }

    /// The number under which the watch knows it.
    pub(crate) fn watched_as(&self) -> Option<DirectoryId> {
        self.watched_as.get()
    }

    pub(crate) fn set_watched_as(&self, id: DirectoryId) {
        self.watched_as.set(Some(id));
    }

    /// Whether a predecessor may have left a file of this temporary name here.
    pub(crate) fn may_hold_litter(&self, temporary: &OsStr) -> bool {
        self.litter.may_include(temporary, self.fd())
    }

    pub(crate) fn belongs_to(&self, me: Me) -> bool {
        self.status.borrow().uid == me.uid
    }

    /// The group that a file gets which is made here, if nobody says otherwise.
    pub(crate) fn group_of_new_files(&self, me: Me) -> u32 {
        group_of_new_files(&self.status.borrow(), me)
    }

    /// Checks that nobody can write here who has no business with the sink's files, neither here nor, short of a sticky
    /// bit, in any directory above, up to `/`: whoever can rename a directory can swap two tenants'.
    pub(crate) fn verify(&self, rules: &Rules, me: Me) -> Result<(), SinkFailure> {
        self.verify_replaceable(rules, me)?;
        if rules.trust {
            return Ok(());
        }
        let trusted = rules.trusted(me, self.group_of_new_files(me));
        judge(&trusted, &self.path, &self.status.borrow(), Role::Final, rules)?;
        self.verify_heirs(rules, me)?;
        self.verify_above(&trusted, rules)
    }

    /// The same of a directory in which only directories will be made.
    pub(crate) fn verify_passage(&self, rules: &Rules, me: Me) -> Result<(), SinkFailure> {
        if rules.trust {
            return Ok(());
        }
        let trusted = rules.trusted(me, self.group_of_new_files(me));
        judge(&trusted, &self.path, &self.status.borrow(), Role::Passage, rules)?;
        self.verify_above(&trusted, rules)
    }

    fn verify_above(&self, trusted: &Trusted, rules: &Rules) -> Result<(), SinkFailure> {
        self.above.iter().rev().try_for_each(|(path, status)| judge(trusted, path, status, Role::Passage, rules))?;
        let Some(parent) = &self.parent else { return Ok(()) };
        judge(trusted, &parent.path, &parent.status.borrow(), Role::Passage, rules)?;
        parent.verify_above(trusted, rules)
    }

    /// In a sticky directory a file can be replaced by its owner and by the directory's alone (inode(7)).
    fn verify_replaceable(&self, rules: &Rules, me: Me) -> Result<(), SinkFailure> {
        let status = self.status.borrow();
        let Some(owner) = rules.owner.filter(|owner| *owner != me.uid) else { return Ok(()) };
        if !me.bound || status.mode & 0o1000 == 0 || status.uid == me.uid {
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

    /// A default access control list gives whoever it names the mode's group bits on every new file. To be read by more is
    /// what such a list is made for; to be written by strangers is not.
    fn verify_heirs(&self, rules: &Rules, me: Me) -> Result<(), SinkFailure> {
        let Some(inherited) = self.inherited.as_ref().filter(|_| rules.mode & 0o020 != 0) else { return Ok(()) };
        let trusted = rules.trusted(me, self.group_of_new_files(me)).and_user(Some(inherited.uid));
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

/// Where a directory was found.
pub(crate) enum Origin {
    /// In this one.
    Below(Rc<Directory>),
    /// It is a fixed part, and these are the directories above it.
    Fixed(Vec<(PathBuf, Status)>),
}
