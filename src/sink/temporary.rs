//! The temporary file that becomes the published one.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::directory::Directory;
use super::file::Wanted;
use super::system::{fchmod, fchown, fstat, fsync, openat, renameat, unlinkat, write};
use super::trouble;
use crate::domain::{Fingerprint, SinkFailure, TEMPORARY_EXTENSION};

/// The longest name of a directory entry, in bytes (NAME_MAX).
const NAME_MAX: usize = 255;

/// How many names a temporary file can have: a second is only used where somebody else put something under the first
/// that cannot be removed.
const NAMES: u8 = 4;

/// The name under which the file for the place `name` is prepared: always the same, so that a new attempt replaces what
/// an interrupted one left.
pub(super) fn temporary_name(name: &OsStr) -> OsString {
    nth_name(name, 0)
}

/// All names under which the file for the place `name` may be prepared, the usual one first.
pub(super) fn temporary_names(name: &OsStr) -> impl Iterator<Item = OsString> + '_ {
    (0..NAMES).map(|number| nth_name(name, number))
}

/// No two places have a name in common: what follows the last dot tells the number, and whether the name before it is the
/// place's own or, being too long, a hash of it.
fn nth_name(name: &OsStr, number: u8) -> OsString {
    let room = NAME_MAX - "..".len() - TEMPORARY_EXTENSION.len() - "h1".len();
    let (stem, mark) = match name.len() <= room {
        true => (name.as_bytes().to_vec(), ""),
        false => (format!("{:016x}", Fingerprint::of(name.as_bytes()).0).into_bytes(), "h"),
    };
    let number = if number == 0 { String::new() } else { number.to_string() };
    let extension = format!(".{TEMPORARY_EXTENSION}{mark}{number}");
    OsString::from_vec([b".", &stem[..], extension.as_bytes()].concat())
}

/// Makes something under a temporary name for the place `name`: under the first name at which nothing stands that cannot
/// be removed. Answers with that name as well.
///
/// # Errors
/// What `make` met; EEXIST when each of the names is taken.
pub(super) fn under_temporary_name<T>(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    make: impl Fn(&OsStr) -> rustix::io::Result<T>,
) -> rustix::io::Result<(OsString, T)> {
    for temporary in temporary_names(name) {
        let made = match make(&temporary) {
            Err(Errno::EXIST) => match remove(directory, &temporary) {
                Ok(()) => make(&temporary),
                Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST | Errno::PERM | Errno::BUSY) => continue,
                Err(errno) => return Err(errno),
            },
            other => other,
        };
        match made {
            // Somebody was faster, and will be again.
            Err(Errno::EXIST) => {}
            other => return other.map(|made| (temporary, made)),
        }
    }
    Err(Errno::EXIST)
}

/// Removes what an interrupted predecessor left under a temporary name: a file, or a directory that is still empty.
fn remove(directory: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => unlinkat(directory, name, AtFlags::REMOVEDIR),
        other => other,
    }
}

/// What an operator reads when each temporary name is taken.
pub(super) fn names_are_taken(path: &Path, name: &OsStr) -> SinkFailure {
    let first = path.with_file_name(temporary_name(name));
    let remedy = format!("remove {} and its like, which somebody else put there", first.display());
    trouble::with_remedy("prepare a file or directory for", path, Errno::EXIST, remedy)
}

/// A file under its temporary name. Dropped before it took its place, it is gone.
pub(super) struct Temporary<'a> {
    directory: &'a Directory,
    name: OsString,
    /// The place that it is for, for messages.
    path: &'a Path,
    file: OwnedFd,
    placed: bool,
}

impl<'a> Temporary<'a> {
    /// Makes the file for the place `name`, at `path`; only the daemon's user can open it.
    pub(super) fn create(directory: &'a Directory, name: &OsStr, path: &'a Path) -> Result<Self, SinkFailure> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let make = |temporary: &OsStr| openat(directory.fd(), temporary, flags, Mode::RUSR | Mode::WUSR);
        match under_temporary_name(directory.fd(), name, make) {
            Ok((name, file)) => Ok(Self { directory, name, path, file, placed: false }),
            Err(Errno::EXIST) => Err(names_are_taken(path, name)),
            Err(errno) => {
                let directory = path.parent().unwrap_or(path);
                Err(trouble::within(directory, "make a temporary file beside", path, errno))
            }
        }
    }

    /// Writes all of `bytes`.
    pub(super) fn fill(&mut self, mut bytes: &[u8]) -> Result<(), SinkFailure> {
        while !bytes.is_empty() {
            match write(&self.file, bytes) {
                Ok(0) => return Err(self.failed("write the temporary file of", Errno::IO)),
                Ok(written) => bytes = &bytes[written..],
                Err(errno) => return Err(self.failed("write the temporary file of", errno)),
            }
        }
        Ok(())
    }

    /// Gives the file its group, its mode and, last, its owner, and puts all of it on the disk.
    pub(super) fn finish(&mut self, wanted: Wanted) -> Result<(), SinkFailure> {
        let stat = fstat(&self.file).map_err(|errno| self.failed("look at the temporary file of", errno))?;
        if let Some(group) = wanted.group.filter(|group| *group != stat.st_gid) {
            fchown(&self.file, None, Some(Gid::from_raw(group))).map_err(|errno| {
                let remedy = format!(
                    "make the daemon's user a member of group {group} (SupplementaryGroups= in the unit), or take \
                     `group` out of the sink"
                );
                trouble::with_remedy("set the group of", self.path, errno, remedy)
            })?;
        }
        if stat.st_mode & 0o7777 != wanted.mode {
            fchmod(&self.file, Mode::from_raw_mode(wanted.mode))
                .map_err(|errno| self.failed("set the mode of", errno))?;
        }
        if let Some(owner) = wanted.owner.filter(|owner| *owner != stat.st_uid) {
            fchown(&self.file, Some(Uid::from_raw(owner)), None).map_err(|errno| {
                let remedy = "giving a file away needs CAP_CHOWN (AmbientCapabilities=CAP_CHOWN and \
                              CapabilityBoundingSet=CAP_CHOWN in a drop-in of the unit), or take `owner` out of the sink";
                trouble::with_remedy("set the owner of", self.path, errno, remedy)
            })?;
        }
        fsync(&self.file).map_err(|errno| self.failed("sync the temporary file of", errno))
    }

    /// Gives the file its name. Answers with the file as it was left: this one, even if somebody was so fast that another
    /// has the name by now.
    pub(super) fn take_place(mut self, name: &OsStr) -> Result<Stat, SinkFailure> {
        let fd = self.directory.fd();
        renameat(fd, &self.name, name).map_err(|errno| self.failed("replace", errno))?;
        self.placed = true;
        // The rename moved the change time, so this is the time to look.
        fstat(&self.file).map_err(|errno| self.failed("look at", errno))
    }

    fn failed(&self, doing: &str, errno: Errno) -> SinkFailure {
        trouble::of(doing, self.path, errno)
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.placed {
            // Should this fail, the next publication to the place finds the file by its name and removes it.
            let _ = unlinkat(self.directory.fd(), &*self.name, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::is_temporary_name;

    #[test]
    fn a_temporary_name_is_never_too_long_and_always_the_same() {
        let long = "n".repeat(255);
        for name in ["token", "阿里", &"n".repeat(237), &"n".repeat(238), &long] {
            for (first, second) in temporary_names(OsStr::new(name)).zip(temporary_names(OsStr::new(name))) {
                assert_eq!(first, second);
                assert!(first.len() <= NAME_MAX && is_temporary_name(first.as_bytes()), "{first:?}");
            }
        }
        assert!(!is_temporary_name(b"token") && !is_temporary_name(b".token"));
    }

    #[test]
    fn no_two_places_have_a_temporary_name_in_common() {
        let [long, longer] = ["n".repeat(240), "n".repeat(255)];
        let hash = format!("{:016x}", Fingerprint::of(long.as_bytes()).0);
        let names = ["token", "token.1", "token1", "1", &hash, &format!("{hash}h"), &long, &longer, &"m".repeat(255)];
        let all: Vec<OsString> = names.iter().flat_map(|name| temporary_names(OsStr::new(name))).collect();
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!((all.len(), different.len()), (names.len() * 4, names.len() * 4));
    }
}
