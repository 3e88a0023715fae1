//! The reader's guarantee: at every instant the path holds one whole token, old or new, with the right mode and owner,
//! or, before the first success, nothing.
//!
//! What has to hold for that, and what ensures it:
//!
//! 1. *Whole*: all bytes are written to a temporary file that nobody else can open (0600, `O_EXCL`), and synced, before
//!    it gets the name: [`TempFile::write`], [`TempFile::finish`].
//! 2. *Atomic*: the name changes hands by rename(2) within one directory, which is held open by descriptor:
//!    [`TempFile::rename_into_place`]. The place is never unlinked on the way.
//! 3. *Mode and owner before the name*: set on the temporary file's descriptor: group, mode and, last, owner, since after
//!    giving the file away the daemon may no longer change its mode: [`TempFile::finish`].
//! 4. *Durable*: the file is synced before the rename, so the name can never lead to missing bytes after a power cut; the
//!    directory is synced before the publication is reported: [`DirectoryCache::sync`].
//! 5. *Nothing else is touched*: no link is followed at the place (rename replaces the link itself), and a place that is
//!    not a regular file is not opened: [`ExistingFile::inspect`].
//! 6. *One sink, one place*: a file is claimed by device, inode and name before anything is written, so that a second path
//!    to it, by a link or a mount, never replaces it: [`DirectoryCache::claim`].
//! 7. *No stale files*: the temporary file's name follows from the place's (a second and third, should somebody have put a
//!    directory there), so the next publication to it removes what a `kill -9` left; after an error it is unlinked at once:
//!    [`TempFile`]'s drop.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::dir::{DaemonUser, DirHandle, DirPolicy, DirectoryCache, IfMissing};
use super::syscall::{fchmod, fstat, openat, read, statat, unlinkat};
use super::temp_file::{FileAttributes, TempFile};
use super::temp_name::temporary_names;
use crate::domain::{FileSink, SinkFailure, SinkFailureKind, TEMPORARY_EXTENSION, Wrote};
use crate::sink::error;

/// What a publication did, and what it left at its place.
#[derive(Debug)]
pub(crate) struct PublishedFile {
    pub(crate) wrote: Wrote,
    pub(crate) directory: Rc<DirHandle>,
    pub(crate) name: OsString,
    /// The file's status right after.
    pub(crate) left: Stat,
}

/// How often a publication is retried because a directory was removed under it.
const RETRIES: usize = 3;

/// Makes `path` hold `bytes`. `before_write` is called with its directory once that is verified, before anything is written.
pub(crate) fn publish(
    directories: &mut DirectoryCache,
    me: DaemonUser,
    sink: &FileSink,
    path: &Path,
    bytes: &[u8],
    mut before_write: impl FnMut(&DirHandle),
) -> Result<PublishedFile, SinkFailure> {
    let mut left = RETRIES;
    loop {
        match publish_once(directories, me, sink, path, bytes, &mut before_write) {
            // Mostly ENOENT: somebody removed the directory after it was opened. It is made again, without a failure.
            Err(failure) if failure.kind == SinkFailureKind::Other && left > 0 => {
                directories.forget(sink.fixed_part());
                left -= 1;
            }
            outcome => return outcome,
        }
    }
}

fn publish_once(
    directories: &mut DirectoryCache,
    me: DaemonUser,
    sink: &FileSink,
    path: &Path,
    bytes: &[u8],
    before_write: &mut impl FnMut(&DirHandle),
) -> Result<PublishedFile, SinkFailure> {
    let (above, name) = split(path)?;
    let policy = DirPolicy::of(sink);
    let directory = directories
        .open(sink.fixed_part(), above, IfMissing::Make(policy))?
        .ok_or_else(|| error::of("open the directory", above, Errno::NOENT))?;
    let verified = directory.verify(&policy, me).and_then(|()| directories.claim(&directory, name));
    let outcome = verified.and_then(|()| {
        before_write(&directory);
        let wanted = FileAttributes {
            mode: sink.mode,
            owner: sink.owner,
            group: sink.group,
            uid: sink.owner.unwrap_or(me.uid),
            gid: sink.group.unwrap_or_else(|| directory.group_of_new_files(me)),
        };
        place(directories, &directory, name, path, bytes, wanted)
    });
    if outcome.is_err() {
        // The next attempt opens everything anew.
        directories.forget(above);
    }
    let (wrote, left) = outcome?;
    Ok(PublishedFile { wrote, directory, name: name.to_owned(), left })
}

fn place(
    directories: &mut DirectoryCache,
    directory: &Rc<DirHandle>,
    name: &OsStr,
    path: &Path,
    bytes: &[u8],
    wanted: FileAttributes,
) -> Result<(Wrote, Stat), SinkFailure> {
    let same_bytes = match ExistingFile::inspect(directory, name, path, bytes, wanted)? {
        ExistingFile::Current(stat) => {
            remove_stale_files(directory, name);
            return Ok((Wrote::Unchanged, stat));
        }
        ExistingFile::Repaired(stat) => {
            remove_stale_files(directory, name);
            return Ok((Wrote::Repaired, stat));
        }
        ExistingFile::SameBytes => true,
        ExistingFile::Different => false,
    };
    let mut file = TempFile::create(directory, name, path)?;
    file.write(bytes)?;
    file.finish(wanted)?;
    let left = file.rename_into_place(name)?;
    remove_stale_files(directory, name);
    directories.mark_dirty(directory);
    Ok((if same_bytes { Wrote::Repaired } else { Wrote::Replaced }, left))
}

/// Removes what a killed daemon left under the temporary names of `name`.
fn remove_stale_files(directory: &DirHandle, name: &OsStr) {
    for temporary in temporary_names(name).filter(|temporary| directory.may_hold_stale_file(temporary)) {
        let _ = unlinkat(directory.fd(), &*temporary, AtFlags::empty());
    }
}

/// The file that is at the place already.
enum ExistingFile {
    /// It is as wanted, and stays as it is, its modification time included.
    Current(Stat),
    /// Its mode was wrong, and has been corrected in place.
    Repaired(Stat),
    /// It holds the bytes, but has to be replaced for its owner, mode or second name.
    SameBytes,
    /// It is something else, or there is none.
    Different,
}

impl ExistingFile {
    fn inspect(
        directory: &DirHandle,
        name: &OsStr,
        path: &Path,
        bytes: &[u8],
        wanted: FileAttributes,
    ) -> Result<Self, SinkFailure> {
        let stat = match statat(directory.fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Self::Different),
            Err(errno) => return Err(error::of("inspect", path, errno)),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if usize::try_from(stat.st_size) == Ok(bytes.len()) => {}
            FileType::Directory => {
                return Err(error::unsafe_path(
                    path,
                    "is a directory, and the sink's file should be there: remove it, or choose another path",
                ));
            }
            // Of another length, or a link, a pipe, a device: the rename replaces it, unopened.
            _ => return Ok(Self::Different),
        }
        Ok(Self::compare(directory, name, bytes, wanted))
    }

    /// Compares a regular file of the right length.
    fn compare(directory: &DirHandle, name: &OsStr, bytes: &[u8], wanted: FileAttributes) -> Self {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // A file given to another owner may be unreadable. It is then replaced without comparing.
        let Ok(file) = openat(directory.fd(), name, flags, Mode::empty()) else { return Self::Different };
        let Ok(stat) = fstat(&file) else { return Self::Different };
        let same_length = usize::try_from(stat.st_size) == Ok(bytes.len());
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !same_length || !holds(&file, bytes) {
            return Self::Different;
        }
        let found = stat.st_mode & 0o7777;
        // A second hard link may be changed by its owner, so such a file is replaced.
        if (stat.st_uid, stat.st_gid, stat.st_nlink) != (wanted.uid, wanted.gid, 1) {
            return Self::SameBytes;
        }
        if found == wanted.mode {
            return Self::Current(stat);
        }
        // Somebody may have opened it while it was writable, so such a file is replaced.
        let could_be_written = found & !wanted.mode & 0o222 != 0;
        if could_be_written || fchmod(&file, Mode::from_raw_mode(wanted.mode)).is_err() {
            return Self::SameBytes;
        }
        fstat(&file).map_or(Self::SameBytes, Self::Repaired)
    }
}

/// Whether a file of this length holds these bytes.
fn holds(file: &OwnedFd, bytes: &[u8]) -> bool {
    let mut found = Zeroizing::new(vec![0; bytes.len()]);
    let mut length = 0;
    while length < found.len() {
        match read(file, &mut found[length..]) {
            Ok(0) | Err(_) => return false,
            Ok(more) => length += more,
        }
    }
    **found == *bytes
}

/// Empties a place: unlinks the published file, then the directories below the fixed part that became empty. Returns the
/// directory and the name, to be watched no longer.
pub(crate) fn withdraw<'a>(
    directories: &mut DirectoryCache,
    me: DaemonUser,
    fixed: &Path,
    path: &'a Path,
) -> Result<Option<(Rc<DirHandle>, &'a OsStr)>, SinkFailure> {
    let (above, name) = split(path)?;
    let Some(directory) = directories.open(fixed, above, IfMissing::Leave)? else { return Ok(None) };
    if !directories.release(&directory, name) {
        // The place belongs to another sink, by another path, or to the daemon itself.
        return Ok(None);
    }
    for temporary in temporary_names(name) {
        let _ = unlinkat(directory.fd(), &*temporary, AtFlags::empty());
    }
    match statat(directory.fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(error::of("inspect", path, errno)),
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::Symlink => {
                unlinkat(directory.fd(), name, AtFlags::empty())
                    .or_else(|errno| if errno == Errno::NOENT { Ok(()) } else { Err(errno) })
                    .map_err(|errno| error::of("remove", path, errno))?;
                directories.mark_dirty(&directory);
            }
            // No publication leaves such a thing, so it is not ours to delete, and it holds no token.
            _ => {}
        },
    }
    remove_empty(directories, me, Rc::clone(&directory));
    Ok(Some((directory, name)))
}

/// Removes directories that became empty, up to the fixed part, which stays, as does another user's directory.
fn remove_empty(directories: &mut DirectoryCache, me: DaemonUser, mut directory: Rc<DirHandle>) {
    while let Some(parent) = directory.parent().cloned() {
        let (Some(name), true) = (directory.path().file_name(), directory.belongs_to(me)) else { return };
        // ENOTEMPTY is the usual end.
        if unlinkat(parent.fd(), name, AtFlags::REMOVEDIR).is_err() {
            return;
        }
        directories.removed(&directory);
        directories.mark_dirty(&parent);
        directory = parent;
    }
}

/// Splits a path into its directory and the file's name.
fn split(path: &Path) -> Result<(&Path, &OsStr), SinkFailure> {
    match (path.parent(), path.file_name()) {
        (Some(above), Some(name)) => Ok((above, name)),
        _ => Err(error::unsafe_path(path, "does not end in a file's name: correct the sink's path")),
    }
}

/// Writes what a publication to this directory would write, and removes it again.
pub(crate) fn probe_directory(directory: &DirHandle, sink: &FileSink) -> Result<(), SinkFailure> {
    // A name that no sink may have, so that it is no sink's place.
    let name = format!(".probe-{}.{TEMPORARY_EXTENSION}", rustix::process::getpid().as_raw_nonzero());
    let name = OsStr::new(&name);
    let path: PathBuf = directory.path().join(name);
    let mut file = TempFile::create(directory, name, &path)?;
    file.write(b"probe")?;
    file.finish(FileAttributes { mode: sink.mode, owner: sink.owner, group: sink.group, uid: 0, gid: 0 })
}
