//! Makes missing directories.

use std::ffi::OsStr;
use std::path::Path;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Gid;

use super::trust::DirPolicy;
use crate::domain::SinkFailure;
use crate::sink::claims::Claims;
use crate::sink::error;
use crate::sink::file::syscall::{fchmod, fchown, fstat, mkdirat, openat, rename_noreplace, unlinkat};
use crate::sink::file::temp_name::{names_are_taken, under_temporary_name};
use crate::system::permissions::Identity;

/// What to do about a missing directory.
#[derive(Debug, Clone, Copy)]
pub(crate) enum IfMissing {
    /// Make it, as this policy says.
    Make(DirPolicy),
    /// Report that it is missing.
    Leave,
}

/// The flags for opening a directory below the fixed part.
pub(crate) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Makes a directory with the sink's mode and group, whatever the umask. It gets them under a temporary name: one left half
/// made by a failure or a `kill -9` would look like an operator's choice ever after. It replaces nothing: a plain rename(2)
/// would replace an empty directory that somebody made in the meantime.
pub(crate) fn make(
    parent: BorrowedFd<'_>,
    parent_is: Identity,
    name: &OsStr,
    path: &Path,
    policy: &DirPolicy,
    claims: &Claims,
) -> Result<OwnedFd, SinkFailure> {
    if let Some(what) = claims.is_reserved(parent_is, name) {
        return Err(error::reserved(path, what));
    }
    let made = under_temporary_name(parent, name, |temporary| mkdirat(parent, temporary, Mode::RWXU));
    let (temporary, ()) = made.map_err(|errno| match errno {
        Errno::EXIST => names_are_taken(path, name),
        errno => error::of("make the directory", path, errno),
    })?;
    let finished = finish(parent, &temporary, path, policy);
    let placed = finished.and_then(|fd| match rename_noreplace(parent, &temporary, name) {
        Ok(()) => Ok(Some(fd)),
        // Somebody else made it first; theirs is verified like any other.
        Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(None),
        Err(errno) => Err(error::of("give its name to the directory just made,", path, errno)),
    });
    if let Ok(Some(fd)) = placed {
        return Ok(fd);
    }
    // If this fails, the next attempt removes the directory by its temporary name.
    let _ = unlinkat(parent, &temporary, AtFlags::REMOVEDIR);
    placed?;
    openat(parent, name, DIRECTORY, Mode::empty()).map_err(|errno| error::of("open the directory", path, errno))
}

/// Opens the new directory, and sets its group and mode.
fn finish(parent: BorrowedFd<'_>, name: &OsStr, path: &Path, policy: &DirPolicy) -> Result<OwnedFd, SinkFailure> {
    let fd = openat(parent, name, DIRECTORY, Mode::empty())
        .map_err(|errno| error::of("open the directory just made,", path, errno))?;
    let stat = fstat(&fd).map_err(|errno| error::of("inspect the directory just made,", path, errno))?;
    if let Some(group) = policy.group.filter(|group| *group != stat.st_gid) {
        fchown(&fd, None, Some(Gid::from_raw(group))).map_err(|errno| {
            error::with_remedy(
                "set the group of the directory just made,",
                path,
                errno,
                format_args!("make the daemon's user a member of group {group} (SupplementaryGroups= in the unit)"),
            )
        })?;
    }
    // A setgid bit inherited from the parent stays.
    let mode = policy.dir_mode | stat.st_mode & 0o2000;
    if stat.st_mode & 0o7777 != mode {
        fchmod(&fd, Mode::from_raw_mode(mode))
            .map_err(|errno| error::of("set the mode of the directory just made,", path, errno))?;
    }
    Ok(fd)
}
