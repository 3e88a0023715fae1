//! Directories by file descriptor: found without following anybody else's links, made where they are missing, verified
//! by what was opened and not by its name.
//!
//! In the fixed part of a path, links are followed that root or the daemon's own user made. Below it each component is
//! opened from its parent's descriptor with `O_NOFOLLOW`, so no link is ever followed there, whenever it appears.

use std::cell::Cell;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::{Gid, getegid, geteuid};

use super::known::DirectoryId;
use super::litter::Litter;
use super::system::{fchmod, fchown, fstat, fsync, mkdirat, openat, renameat, unlinkat};
use super::temporary::{names_are_taken, under_temporary_name};
use super::trouble;
use crate::domain::{FileSink, SinkFailure};

/// Who the daemon is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Me {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Me {
    pub(super) fn current() -> Self {
        Self { uid: geteuid().as_raw(), gid: getegid().as_raw() }
    }
}

/// What a sink asks of its directories.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) owner: Option<u32>,
    pub(super) group: Option<u32>,
    pub(super) dir_mode: u32,
    pub(super) trust: bool,
}

impl Rules {
    pub(super) fn of(sink: &FileSink) -> Self {
        Self { owner: sink.owner, group: sink.group, dir_mode: sink.dir_mode, trust: sink.trust_dir }
    }
}

/// An open directory.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    /// Below the fixed part: whose entry it is.
    parent: Option<Rc<Directory>>,
    facts: Cell<Facts>,
    /// The batch in which the path was last seen to lead here.
    seen: Cell<u64>,
    /// Whether an entry changed since the last sync.
    dirty: Cell<bool>,
    watched_as: Cell<Option<DirectoryId>>,
    litter: Litter,
}

/// What a directory is to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The file lies in it.
    Final,
    /// It lies between the fixed part and the file.
    Passage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts {
    device: u64,
    inode: u64,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Facts {
    fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino, mode: stat.st_mode, uid: stat.st_uid, gid: stat.st_gid }
    }
}

impl Directory {
    pub(super) fn new(
        fd: OwnedFd,
        path: &Path,
        parent: Option<Rc<Directory>>,
        batch: u64,
    ) -> Result<Self, SinkFailure> {
        let stat = fstat(&fd).map_err(|errno| trouble::of("look at the directory", path, errno))?;
        Ok(Self {
            fd,
            path: path.to_owned(),
            parent,
            facts: Cell::new(Facts::of(&stat)),
            seen: Cell::new(batch),
            dirty: Cell::new(false),
            watched_as: Cell::new(None),
            litter: Litter::in_directory_of(stat.st_size),
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its own name, the last component of the path.
    pub(super) fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    pub(super) fn parent(&self) -> Option<&Rc<Directory>> {
        self.parent.as_ref()
    }

    /// Whether `other` is this directory or one above it, up to the fixed part.
    pub(super) fn is_at_or_below(&self, other: &Directory) -> bool {
        std::ptr::eq(self, other) || self.parent.as_ref().is_some_and(|parent| parent.is_at_or_below(other))
    }

    /// Whether the path was seen to lead here in this batch.
    pub(super) fn was_seen_in(&self, batch: u64) -> bool {
        self.seen.get() == batch
    }

    /// Whether `stat`, of what the path leads to in this batch, is of this directory.
    pub(super) fn recognise(&self, stat: &Stat, batch: u64) -> bool {
        let (facts, known) = (Facts::of(stat), self.facts.get());
        let same = (facts.device, facts.inode) == (known.device, known.inode);
        if same {
            self.facts.set(facts);
            self.seen.set(batch);
        }
        same
    }

    /// Notes whether an entry changed since the last sync. Answers what was noted before.
    pub(super) fn set_dirty(&self, dirty: bool) -> bool {
        self.dirty.replace(dirty)
    }

    /// Makes what was renamed, made or removed here survive a power cut.
    pub(super) fn sync(&self) -> Result<(), SinkFailure> {
        // A file system without directory sync (EINVAL) has nothing to offer.
        match fsync(&self.fd) {
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(errno) => Err(trouble::of("sync the directory", &self.path, errno)),
        }
    }

    /// The number under which the watch knows it.
    pub(super) fn watched_as(&self) -> Option<DirectoryId> {
        self.watched_as.get()
    }

    pub(super) fn set_watched_as(&self, id: DirectoryId) {
        self.watched_as.set(Some(id));
    }

    /// Whether a predecessor may have left a file of this temporary name here.
    pub(super) fn may_hold_litter(&self, temporary: &OsStr) -> bool {
        self.litter.may_include(temporary, self.fd())
    }

    pub(super) fn belongs_to(&self, me: Me) -> bool {
        self.facts.get().uid == me.uid
    }

    /// The group that a file gets which is made here, if nobody says otherwise.
    pub(super) fn group_of_new_files(&self, me: Me) -> u32 {
        let facts = self.facts.get();
        if facts.mode & 0o2000 == 0 { me.gid } else { facts.gid }
    }

    /// Checks that nobody can write here who has no business with the sink's files, neither here nor, short of a sticky
    /// bit, in the directories between here and the fixed part: whoever can rename a directory can swap two tenants'.
    pub(super) fn verify(&self, rules: &Rules, me: Me) -> Result<(), SinkFailure> {
        if rules.trust {
            return Ok(());
        }
        self.verify_one(rules, me, Role::Final)?;
        self.parent.as_ref().map_or(Ok(()), |parent| parent.verify_passage(rules, me))
    }

    pub(super) fn verify_passage(&self, rules: &Rules, me: Me) -> Result<(), SinkFailure> {
        if rules.trust {
            return Ok(());
        }
        self.verify_one(rules, me, Role::Passage)?;
        self.parent.as_ref().map_or(Ok(()), |parent| parent.verify_passage(rules, me))
    }

    fn verify_one(&self, rules: &Rules, me: Me, role: Role) -> Result<(), SinkFailure> {
        let Facts { mode, uid, gid, .. } = self.facts.get();
        if uid != 0 && uid != me.uid && Some(uid) != rules.owner {
            let why = format!(
                "belongs to user {uid}, who is neither root, nor the daemon (user {}), nor the sink's owner: chown it, \
                 or say `owner = {uid}` or `trust_dir = true` in the sink",
                me.uid
            );
            return Err(trouble::unsafe_path(&self.path, why));
        }
        if role == Role::Passage && mode & 0o1000 != 0 {
            return Ok(());
        }
        if mode & 0o002 != 0 {
            let why = format!(
                "can be written by everybody (mode {:04o}): `chmod o-w {}`, or say `trust_dir = true` in the sink",
                mode & 0o7777,
                self.path.display()
            );
            return Err(trouble::unsafe_path(&self.path, why));
        }
        let group = rules.group.unwrap_or_else(|| self.group_of_new_files(me));
        if mode & 0o020 != 0 && gid != group && gid != me.gid {
            let why = format!(
                "can be written by group {gid}, which is not the sink's (mode {:04o}): `chmod g-w {}`, or say \
                 `group = {gid}` or `trust_dir = true` in the sink",
                mode & 0o7777,
                self.path.display()
            );
            return Err(trouble::unsafe_path(&self.path, why));
        }
        Ok(())
    }
}

/// How a directory below the fixed part is opened.
pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Makes a directory, with the mode and group that the sink asks for whatever the umask is. It has them before it has its
/// name: one that a failure or a `kill -9` left half made would be taken for somebody else's decision ever after.
pub(super) fn make(parent: BorrowedFd<'_>, name: &OsStr, path: &Path, rules: &Rules) -> Result<OwnedFd, SinkFailure> {
    let made = under_temporary_name(parent, name, |temporary| mkdirat(parent, temporary, Mode::RWXU));
    let (temporary, ()) = made.map_err(|errno| match errno {
        Errno::EXIST => names_are_taken(path, name),
        errno => trouble::of("make the directory", path, errno),
    })?;
    let finished = finish(parent, &temporary, path, rules).and_then(|fd| match renameat(parent, &temporary, name) {
        Ok(()) => Ok(Some(fd)),
        // Somebody else was faster; what is there is verified like any other.
        Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(None),
        Err(errno) => Err(trouble::of("give its name to the directory just made,", path, errno)),
    });
    if let Ok(Some(fd)) = finished {
        return Ok(fd);
    }
    // Should this fail, the next attempt finds the directory by its name and removes it.
    let _ = unlinkat(parent, &temporary, AtFlags::REMOVEDIR);
    finished?;
    openat(parent, name, DIRECTORY, Mode::empty()).map_err(|errno| trouble::of("open the directory", path, errno))
}

/// Opens the directory just made, and gives it its group and mode.
fn finish(parent: BorrowedFd<'_>, name: &OsStr, path: &Path, rules: &Rules) -> Result<OwnedFd, SinkFailure> {
    let fd = openat(parent, name, DIRECTORY, Mode::empty())
        .map_err(|errno| trouble::of("open the directory just made,", path, errno))?;
    let stat = fstat(&fd).map_err(|errno| trouble::of("look at the directory just made,", path, errno))?;
    if let Some(group) = rules.group.filter(|group| *group != stat.st_gid) {
        fchown(&fd, None, Some(Gid::from_raw(group))).map_err(|errno| {
            trouble::with_remedy(
                "set the group of the directory just made,",
                path,
                errno,
                format_args!("make the daemon's user a member of group {group} (SupplementaryGroups= in the unit)"),
            )
        })?;
    }
    // A setgid bit that came from the parent stays.
    let mode = rules.dir_mode | stat.st_mode & 0o2000;
    if stat.st_mode & 0o7777 != mode {
        fchmod(&fd, Mode::from_raw_mode(mode))
            .map_err(|errno| trouble::of("set the mode of the directory just made,", path, errno))?;
    }
    Ok(fd)
}
