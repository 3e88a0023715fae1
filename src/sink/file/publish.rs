//! The reader's guarantee: at every instant the path holds one whole token, old or new, with the right mode and owner,
//! or, before the first success, nothing.
//!
//! What has to hold for that, and where it is seen to:
//!
//! 1. *Whole*: all bytes are written to a temporary file that nobody else can open (0600, `O_EXCL`), and synced, before
//!    it gets the name: [`Temporary::fill`], [`Temporary::finish`].
//! 2. *Atomic*: the name changes hands by rename(2) within one directory, which is held open by descriptor:
//!    [`Temporary::take_place`]. The place is never unlinked on the way.
//! 3. *Mode and owner before the name*: set on the temporary file's descriptor: group, mode and, last, owner, since after
//!    giving the file away the daemon may no longer change its mode: [`Temporary::finish`].
//! 4. *Durable*: the file is synced before the rename, so the name can never lead to missing bytes after a power cut; the
//!    directory is synced before the publication is reported: [`Directories::sync`].
//! 5. *Nothing else is touched*: no link is followed at the place (rename replaces the link itself), and a place that is
//!    not a regular file is not opened: [`Standing::look`].
//! 6. *One sink, one place*: a file is claimed by device, inode and name before anything is written, so that a second path
//!    to it, by a link or a mount, never replaces it: [`Directories::claim`].
//! 7. *No litter*: the temporary file's name follows from the place's (a second and third, should somebody have put a
//!    directory there), so that the next publication to it takes away what a `kill -9` left; after an error it is unlinked
//!    at once: [`Temporary`]'s drop.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::dir::{Directories, Directory, Me, Missing, Rules};
use super::syscall::{fchmod, fstat, openat, read, statat, unlinkat};
use super::temp_file::{Temporary, Wanted};
use super::temp_name::temporary_names;
use crate::domain::{FileSink, SinkFailure, SinkFailureKind, TEMPORARY_EXTENSION, Wrote};
use crate::sink::error;

/// What a publication left at its place.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) wrote: Wrote,
    pub(crate) directory: Rc<Directory>,
    pub(crate) name: OsString,
    /// The file as it was left.
    pub(crate) left: Stat,
}

/// How often a publication begins anew because something went from under it.
const BEGIN_ANEW: usize = 3;

/// Makes `path` hold `bytes`. `before` is called with its directory, once that is found safe, before anything is done there.
pub(crate) fn publish(
    directories: &mut Directories,
    me: Me,
    sink: &FileSink,
    path: &Path,
    bytes: &[u8],
    mut before: impl FnMut(&Directory),
) -> Result<Outcome, SinkFailure> {
    let mut left = BEGIN_ANEW;
    loop {
        match publish_once(directories, me, sink, path, bytes, &mut before) {
            // ENOENT, above all: somebody removed the directory after it was opened. It is made again, and that is no
            // failure of the place.
            Err(failure) if failure.kind == SinkFailureKind::Other && left > 0 => {
                directories.forget(sink.fixed_part());
                left -= 1;
            }
            outcome => return outcome,
        }
    }
}

fn publish_once(
    directories: &mut Directories,
    me: Me,
    sink: &FileSink,
    path: &Path,
    bytes: &[u8],
    before: &mut impl FnMut(&Directory),
) -> Result<Outcome, SinkFailure> {
    let (above, name) = split(path)?;
    let rules = Rules::of(sink);
    let directory = directories
        .open(sink.fixed_part(), above, Missing::Make(rules))?
        .ok_or_else(|| error::of("open the directory", above, Errno::NOENT))?;
    let ours = directory.verify(&rules, me).and_then(|()| directories.claim(&directory, name));
    let outcome = ours.and_then(|()| {
        before(&directory);
        let wanted = Wanted {
            mode: sink.mode,
            owner: sink.owner,
            group: sink.group,
            uid: sink.owner.unwrap_or(me.uid),
            gid: sink.group.unwrap_or_else(|| directory.group_of_new_files(me)),
        };
        place(directories, &directory, name, path, bytes, wanted)
    });
    if outcome.is_err() {
        // Whatever is wrong, the next attempt looks at everything afresh.
        directories.forget(above);
    }
    let (wrote, left) = outcome?;
    Ok(Outcome { wrote, directory, name: name.to_owned(), left })
}

fn place(
    directories: &mut Directories,
    directory: &Rc<Directory>,
    name: &OsStr,
    path: &Path,
    bytes: &[u8],
    wanted: Wanted,
) -> Result<(Wrote, Stat), SinkFailure> {
    let same_bytes = match Standing::look(directory, name, path, bytes, wanted)? {
        Standing::Right(stat) => {
            tidy(directory, name);
            return Ok((Wrote::Unchanged, stat));
        }
        Standing::Mended(stat) => {
            tidy(directory, name);
            return Ok((Wrote::Mended, stat));
        }
        Standing::SameBytes => true,
        Standing::Other => false,
    };
    let mut file = Temporary::create(directory, name, path)?;
    file.fill(bytes)?;
    file.finish(wanted)?;
    let left = file.take_place(name)?;
    tidy(directory, name);
    directories.soil(directory);
    Ok((if same_bytes { Wrote::Mended } else { Wrote::Replaced }, left))
}

/// Takes away what a killed predecessor left under temporary names of a file that is right.
fn tidy(directory: &Directory, name: &OsStr) {
    for temporary in temporary_names(name).filter(|temporary| directory.may_hold_litter(temporary)) {
        let _ = unlinkat(directory.fd(), &*temporary, AtFlags::empty());
    }
}

/// What stands at the place already.
enum Standing {
    /// Just what should: it is left alone, its modification time too.
    Right(Stat),
    /// The right bytes, and the mode has been set right.
    Mended(Stat),
    /// The right bytes in a file that has to be replaced.
    SameBytes,
    /// Something else, or nothing.
    Other,
}

impl Standing {
    fn look(
        directory: &Directory,
        name: &OsStr,
        path: &Path,
        bytes: &[u8],
        wanted: Wanted,
    ) -> Result<Self, SinkFailure> {
        let stat = match statat(directory.fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Self::Other),
            Err(errno) => return Err(error::of("look at", path, errno)),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if usize::try_from(stat.st_size) == Ok(bytes.len()) => {}
            FileType::Directory => {
                return Err(error::unsafe_path(
                    path,
                    "is a directory, and the sink's file should be there: remove it, or choose another path",
                ));
            }
            // Of another length, or a link, a pipe, a device: it gives way to the rename, unopened.
            _ => return Ok(Self::Other),
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // A file that was given away may not be readable any more. It is then replaced without comparing.
        let Ok(file) = openat(directory.fd(), name, flags, Mode::empty()) else { return Ok(Self::Other) };
        let Ok(stat) = fstat(&file) else { return Ok(Self::Other) };
        let same_length = usize::try_from(stat.st_size) == Ok(bytes.len());
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !same_length || !holds(&file, bytes) {
            return Ok(Self::Other);
        }
        let found = stat.st_mode & 0o7777;
        // A file with a second name can be changed by that name's owner, so it does not count as ours.
        if (stat.st_uid, stat.st_gid, stat.st_nlink) != (wanted.uid, wanted.gid, 1) {
            return Ok(Self::SameBytes);
        }
        if found == wanted.mode {
            return Ok(Self::Right(stat));
        }
        // Whoever could write it may still have it open: such a file is replaced.
        let could_be_written = found & !wanted.mode & 0o222 != 0;
        if could_be_written || fchmod(&file, Mode::from_raw_mode(wanted.mode)).is_err() {
            return Ok(Self::SameBytes);
        }
        Ok(fstat(&file).map_or(Self::SameBytes, Self::Mended))
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

/// Empties a place: unlinks what a publication left there, then the directories below the fixed part that became empty.
/// Answers with the directory and the name, so that they are no longer looked after.
pub(crate) fn withdraw<'a>(
    directories: &mut Directories,
    me: Me,
    fixed: &Path,
    path: &'a Path,
) -> Result<Option<(Rc<Directory>, &'a OsStr)>, SinkFailure> {
    let (above, name) = split(path)?;
    let Some(directory) = directories.open(fixed, above, Missing::Leave)? else { return Ok(None) };
    if !directories.release(&directory, name) {
        // By another path another sink is there, or the daemon itself: what stands there is theirs.
        return Ok(None);
    }
    for temporary in temporary_names(name) {
        let _ = unlinkat(directory.fd(), &*temporary, AtFlags::empty());
    }
    match statat(directory.fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(error::of("look at", path, errno)),
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::Symlink => {
                unlinkat(directory.fd(), name, AtFlags::empty())
                    .or_else(|errno| if errno == Errno::NOENT { Ok(()) } else { Err(errno) })
                    .map_err(|errno| error::of("remove", path, errno))?;
                directories.soil(&directory);
            }
            // It became something that no publication leaves: not ours to delete, and no token is there.
            _ => {}
        },
    }
    remove_empty(directories, me, Rc::clone(&directory));
    Ok(Some((directory, name)))
}

/// Removes directories that are empty now. The fixed part itself stays, and so does a directory of somebody else's.
fn remove_empty(directories: &mut Directories, me: Me, mut directory: Rc<Directory>) {
    while let Some(parent) = directory.parent().cloned() {
        let (Some(name), true) = (directory.path().file_name(), directory.belongs_to(me)) else { return };
        // ENOTEMPTY is the usual end.
        if unlinkat(parent.fd(), name, AtFlags::REMOVEDIR).is_err() {
            return;
        }
        directories.removed(&directory);
        directories.soil(&parent);
        directory = parent;
    }
}

/// The directory and the file's own name.
fn split(path: &Path) -> Result<(&Path, &OsStr), SinkFailure> {
    match (path.parent(), path.file_name()) {
        (Some(above), Some(name)) => Ok((above, name)),
        _ => Err(error::unsafe_path(path, "does not end in a file's name: correct the sink's path")),
    }
}

/// Tries what a publication to a directory needs, and leaves nothing behind.
pub(crate) fn try_directory(directory: &Directory, sink: &FileSink) -> Result<(), SinkFailure> {
    // A name that no sink may have, so that this is in no place's way.
    let name = format!(".probe-{}.{TEMPORARY_EXTENSION}", rustix::process::getpid().as_raw_nonzero());
    let name = OsStr::new(&name);
    let path: PathBuf = directory.path().join(name);
    let mut file = Temporary::create(directory, name, &path)?;
    file.fill(b"probe")?;
    file.finish(Wanted { mode: sink.mode, owner: sink.owner, group: sink.group, uid: 0, gid: 0 })
}
