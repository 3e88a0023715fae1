//! Directories by file descriptor: found without following anybody else's links, made where they are missing, verified
//! by what was opened and not by its name.
//!
//! In the fixed part of a path, links are followed that root or the daemon's own user made. Below it each component is
//! opened from its parent's descriptor with `O_NOFOLLOW`, so no link is ever followed there, whenever it appears.
//!
//! Every directory from `/` down is judged by the one rule of [`trust`](crate::trust): whoever can rename a directory can
//! exchange it for another.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::{Gid, getegid, geteuid};
use rustix::thread::CapabilitySet;

use super::claims::Claims;
use super::known::DirectoryId;
use super::litter::Litter;
use super::system::{fchmod, fchown, fstat, fsync, mkdirat, openat, rename_into_gap, unlinkat};
use super::temporary::{names_are_taken, under_temporary_name};
use super::trouble;
use crate::domain::{FileSink, SinkFailure};
use crate::trust::{Identity, Role, Status, Trusted};

/// Who the daemon is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Me {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Whether sticky directories bind us (no CAP_FOWNER).
    bound: bool,
}

impl Me {
    pub(super) fn current() -> Self {
        let set = rustix::thread::capabilities(None).map(|sets| sets.effective);
        let bound = !set.is_ok_and(|set| set.contains(CapabilitySet::FOWNER));
        Self { uid: geteuid().as_raw(), gid: getegid().as_raw(), bound }
    }
}

/// What a sink asks of its directories.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) owner: Option<u32>,
    pub(super) group: Option<u32>,
    pub(super) mode: u32,
    pub(super) dir_mode: u32,
    pub(super) trust: bool,
}

impl Rules {
    pub(super) fn of(sink: &FileSink) -> Self {
        let FileSink { owner, group, mode, dir_mode, trust_dir: trust, .. } = *sink;
        Self { owner, group, mode, dir_mode, trust }
    }

    /// Who may change directories of this sink, whose files get `group` if it names none.
    pub(super) fn trusted(&self, me: Me, group: u32) -> Trusted {
        Trusted::of(me.uid).and_user(self.owner).and_group(me.gid).and_group(self.group.unwrap_or(group))
    }
}

/// An open directory.
#[derive(Debug)]
pub(super) struct Directory {
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
    pub(super) fn new(fd: OwnedFd, path: &Path, origin: Origin, batch: u64) -> Result<Self, SinkFailure> {
        let failed = |errno| trouble::of("look at the directory", path, errno);
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

    /// Which directory it is, whatever its path.
    pub(super) fn identity(&self) -> Identity {
        self.status.borrow().identity
    }

    /// Whether `stat`, of what the path leads to in this batch, is of this directory.
    pub(super) fn recognise(&self, stat: &Stat, batch: u64) -> bool {
        if Identity::of(stat) != self.identity() {
            return false;
        }
        let Ok(status) = Status::from_stat(stat, &self.fd) else { return false };
        self.status.replace(status);
        self.seen.set(batch);
        true
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
        self.status.borrow().uid == me.uid
    }

    /// The group that a file gets which is made here, if nobody says otherwise.
    pub(super) fn group_of_new_files(&self, me: Me) -> u32 {
        group_of_new_files(&self.status.borrow(), me)
    }

    /// Checks that nobody can write here who has no business with the sink's files, neither here nor, short of a sticky
    /// bit, in any directory above, up to `/`: whoever can rename a directory can swap two tenants'.
    pub(super) fn verify(&self, rules: &Rules, me: Me) -> Result<(), SinkFailure> {
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
    pub(super) fn verify_passage(&self, rules: &Rules, me: Me) -> Result<(), SinkFailure> {
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
        Err(trouble::unsafe_path(&self.path, why))
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
        Err(trouble::unsafe_path(&self.path, why))
    }
}

/// Where a directory was found.
pub(super) enum Origin {
    /// In this one.
    Below(Rc<Directory>),
    /// It is a fixed part, and these are the directories above it.
    Fixed(Vec<(PathBuf, Status)>),
}

/// The group that a file gets which is made in a directory, if nobody says otherwise.
pub(super) fn group_of_new_files(directory: &Status, me: Me) -> u32 {
    if directory.mode & 0o2000 == 0 { me.gid } else { directory.gid }
}

/// Applies the rule to one directory of a sink's path.
pub(super) fn judge(
    trusted: &Trusted,
    path: &Path,
    status: &Status,
    role: Role,
    rules: &Rules,
) -> Result<(), SinkFailure> {
    let Some(risk) = trusted.risk(path, status, role).filter(|_| !rules.trust) else { return Ok(()) };
    let who = match (risk.by_owner, risk.by_group) {
        (true, _) => ", who is neither root, nor the daemon, nor the sink's owner",
        (false, Some(_)) => ", which is not the sink's",
        (false, None) => "",
    };
    let say = match (risk.by_owner, risk.by_group) {
        (true, _) => format!("`owner = {}` or ", status.uid),
        (false, Some(group)) => format!("`group = {group}` or "),
        (false, None) => String::new(),
    };
    let why = format_args!("{}{who}: `{}`, or say {say}`trust_dir = true` in the sink", risk.what, risk.remedy);
    Err(trouble::unsafe_path(path, why))
}

/// How a directory below the fixed part is opened.
pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Makes a directory, with the mode and group that the sink asks for whatever the umask is. It has them before it has its
/// name: one that a failure or a `kill -9` left half made would be taken for somebody else's decision ever after. It takes
/// nobody's place: rename(2) alone would replace an empty directory that somebody made in the meantime.
pub(super) fn make(
    parent: BorrowedFd<'_>,
    parent_is: Identity,
    name: &OsStr,
    path: &Path,
    rules: &Rules,
    claims: &Claims,
) -> Result<OwnedFd, SinkFailure> {
    if let Some(what) = claims.is_reserved(parent_is, name) {
        return Err(trouble::reserved(path, what));
    }
    let made = under_temporary_name(parent, name, |temporary| mkdirat(parent, temporary, Mode::RWXU));
    let (temporary, ()) = made.map_err(|errno| match errno {
        Errno::EXIST => names_are_taken(path, name),
        errno => trouble::of("make the directory", path, errno),
    })?;
    let finished = finish(parent, &temporary, path, rules);
    let placed = finished.and_then(|fd| match rename_into_gap(parent, &temporary, name) {
        Ok(()) => Ok(Some(fd)),
        // Somebody else was faster; what is there is verified like any other.
        Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(None),
        Err(errno) => Err(trouble::of("give its name to the directory just made,", path, errno)),
    });
    if let Ok(Some(fd)) = placed {
        return Ok(fd);
    }
    // Should this fail, the next attempt finds the directory by its name and removes it.
    let _ = unlinkat(parent, &temporary, AtFlags::REMOVEDIR);
    placed?;
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
