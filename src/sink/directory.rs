//! Directories by file descriptor: found without following anybody else's links, made where they are missing, verified
//! by what was opened and not by its name.
//!
//! In the fixed part of a path, links are followed that root or the daemon's own user made. Below it each component is
//! opened from its parent's descriptor with `O_NOFOLLOW`, so no link is ever followed there, whenever it appears.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fchmod, fchown, fstat, mkdirat, openat, statat};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Gid, getegid, geteuid};

use super::fixed::open_fixed;
use super::known::DirectoryId;
use super::trouble;
use crate::domain::{FileSink, SinkFailure};

/// How many directories stay open between batches.
const KEPT_OPEN: usize = 64;

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

/// What to do about a directory that is not there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Missing {
    /// Make it.
    Make(Rules),
    /// There is nothing to do then.
    Leave,
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

    fn same_place(self, other: Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

impl Directory {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn parent(&self) -> Option<&Rc<Directory>> {
        self.parent.as_ref()
    }

    /// Whether `other` is this directory or one above it, up to the fixed part.
    pub(super) fn is_at_or_below(&self, other: &Directory) -> bool {
        std::ptr::eq(self, other) || self.parent.as_ref().is_some_and(|parent| parent.is_at_or_below(other))
    }

    /// Makes what was renamed, made or removed here survive a power cut.
    fn sync(&self) -> Result<(), SinkFailure> {
        // A file system without directory sync (EINVAL) has nothing to offer.
        match retry_on_intr(|| rustix::fs::fsync(&self.fd)) {
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

/// The directories that are open, the last used first.
#[derive(Debug)]
pub(super) struct Directories {
    known: Vec<Known>,
    /// Those with entries that changed since the last sync. One whose sync failed stays until it succeeds.
    dirty: Vec<Rc<Directory>>,
    batch: u64,
    me: Me,
}

#[derive(Debug)]
struct Known {
    /// Length of the path's fixed part: the same path can be reached by sinks with different ones.
    fixed: usize,
    directory: Rc<Directory>,
}

impl Directories {
    pub(super) fn new(me: Me) -> Self {
        Self { known: Vec::with_capacity(KEPT_OPEN + 1), dirty: Vec::new(), batch: 0, me }
    }

    /// From here on, each directory is looked at again before it is used: its name may lead elsewhere by now.
    pub(super) fn begin_batch(&mut self) {
        self.batch += 1;
    }

    /// Opens `path`, which is `fixed` or lies below it. `None`: it is missing, and was to be left so.
    pub(super) fn open(
        &mut self,
        fixed: &Path,
        path: &Path,
        missing: Missing,
    ) -> Result<Option<Rc<Directory>>, SinkFailure> {
        if let Some(known) = self.recall(fixed, path, missing)? {
            return Ok(Some(known));
        }
        let (fd, parent) = if path == fixed {
            let Some(fd) = open_fixed(fixed, missing, self.me)? else { return Ok(None) };
            (fd, None)
        } else {
            let (above, name) = split_below(fixed, path)?;
            let Some(parent) = self.open(fixed, above, missing)? else { return Ok(None) };
            let Some(fd) = self.open_child(&parent, name, path, missing)? else { return Ok(None) };
            (fd, Some(parent))
        };
        let stat = fstat(&fd).map_err(|errno| trouble::of("look at the directory", path, errno))?;
        let directory = Rc::new(Directory {
            fd,
            path: path.to_owned(),
            parent,
            facts: Cell::new(Facts::of(&stat)),
            seen: Cell::new(self.batch),
            dirty: Cell::new(false),
            watched_as: Cell::new(None),
        });
        self.known.insert(0, Known { fixed: fixed.as_os_str().len(), directory: Rc::clone(&directory) });
        self.known.truncate(KEPT_OPEN);
        Ok(Some(directory))
    }

    /// Closes `path`, so that the next use opens it anew.
    pub(super) fn forget(&mut self, path: &Path) {
        self.known.retain(|known| !known.directory.path.starts_with(path));
    }

    /// Forgets a directory that was removed.
    pub(super) fn removed(&mut self, directory: &Rc<Directory>) {
        self.forget(directory.path());
        self.dirty.retain(|dirty| !Rc::ptr_eq(dirty, directory));
    }

    /// Notes that an entry of `directory` changed.
    pub(super) fn soil(&mut self, directory: &Rc<Directory>) {
        if !directory.dirty.replace(true) {
            self.dirty.push(Rc::clone(directory));
        }
    }

    /// Syncs every directory in which an entry changed, once. Answers with those that could not be.
    pub(super) fn sync(&mut self) -> Vec<(Rc<Directory>, SinkFailure)> {
        let mut failed = Vec::new();
        for directory in std::mem::take(&mut self.dirty) {
            match directory.sync() {
                Ok(()) => directory.dirty.set(false),
                Err(failure) => {
                    self.dirty.push(Rc::clone(&directory));
                    failed.push((directory, failure));
                }
            }
        }
        // A directory that is gone can never be synced.
        self.dirty.truncate(KEPT_OPEN);
        failed
    }

    fn open_child(
        &mut self,
        parent: &Rc<Directory>,
        name: &OsStr,
        path: &Path,
        missing: Missing,
    ) -> Result<Option<OwnedFd>, SinkFailure> {
        match (openat(&parent.fd, name, DIRECTORY, Mode::empty()), missing) {
            (Ok(fd), _) => Ok(Some(fd)),
            (Err(Errno::NOENT), Missing::Leave) => Ok(None),
            (Err(Errno::NOENT), Missing::Make(rules)) => {
                parent.verify_passage(&rules, self.me)?;
                let fd = make(parent.fd(), name, path, &rules)?;
                self.soil(parent);
                Ok(Some(fd))
            }
            (Err(errno @ (Errno::LOOP | Errno::NOTDIR)), _) => Err(not_a_directory(parent, name, path, errno)),
            (Err(errno), _) => Err(trouble::of("open the directory", path, errno)),
        }
    }

    fn recall(&mut self, fixed: &Path, path: &Path, missing: Missing) -> Result<Option<Rc<Directory>>, SinkFailure> {
        let length = fixed.as_os_str().len();
        // Bytes, not components: a path comes in the same spelling each time.
        let same = |known: &Known| known.fixed == length && known.directory.path.as_os_str() == path.as_os_str();
        let Some(at) = self.known.iter().position(same) else { return Ok(None) };
        let directory = Rc::clone(&self.known[at].directory);
        if directory.seen.get() != self.batch && !self.still_there(fixed, &directory, missing)? {
            self.forget(path);
            return Ok(None);
        }
        // Looking at the parents may have moved the entries about.
        if let Some(at) = self.known.iter().position(same) {
            self.known[..=at].rotate_right(1);
        }
        Ok(Some(directory))
    }

    /// Whether the path still leads to the directory that is open.
    fn still_there(&mut self, fixed: &Path, directory: &Directory, missing: Missing) -> Result<bool, SinkFailure> {
        let found = match &directory.parent {
            None => statat(rustix::fs::CWD, &directory.path, AtFlags::empty()),
            Some(held) => {
                let (above, name) = split_below(fixed, &directory.path)?;
                match self.open(fixed, above, missing)? {
                    Some(parent) if Rc::ptr_eq(&parent, held) => statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW),
                    _ => return Ok(false),
                }
            }
        };
        let Ok(stat) = found else { return Ok(false) };
        let facts = Facts::of(&stat);
        let same = facts.same_place(directory.facts.get());
        if same {
            directory.facts.set(facts);
            directory.seen.set(self.batch);
        }
        Ok(same)
    }
}

/// Makes a directory, with the mode and group that the sink asks for whatever the umask is.
pub(super) fn make(parent: BorrowedFd<'_>, name: &OsStr, path: &Path, rules: &Rules) -> Result<OwnedFd, SinkFailure> {
    match mkdirat(parent, name, Mode::from_raw_mode(rules.dir_mode & 0o777)) {
        // Somebody else was faster; what is there is verified like any other.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(trouble::of("make the directory", path, errno)),
    }
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

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn not_a_directory(parent: &Directory, name: &OsStr, path: &Path, errno: Errno) -> SinkFailure {
    match statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => trouble::unsafe_path(
            path,
            "is a symbolic link, and below the fixed part of a sink's path none are followed: remove it, or write the \
             link's target into the config",
        ),
        Ok(_) => trouble::unsafe_path(path, "is not a directory: remove it, or choose another path for the sink"),
        Err(_) => trouble::of("open the directory", path, errno),
    }
}

/// The directory above, and the last component, of a path below the fixed part.
fn split_below<'a>(fixed: &Path, path: &'a Path) -> Result<(&'a Path, &'a OsStr), SinkFailure> {
    match (path.parent(), path.components().next_back()) {
        (Some(above), Some(Component::Normal(name))) if above.starts_with(fixed) => Ok((above, name)),
        _ => Err(trouble::unsafe_path(
            path,
            format_args!("does not lie below {}: take `..` out of the sink's path", fixed.display()),
        )),
    }
}

/// The components of a path as the walk of the fixed part takes them.
pub(super) fn steps(path: &Path) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}
