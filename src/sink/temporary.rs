//! The temporary file that becomes the published one.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::directory::Directory;
use super::file::Wanted;
use super::system::{fchmod, fchown, fstat, fsync, openat, renameat, unlinkat, write};
use super::trouble;
use crate::domain::{Fingerprint, SinkFailure};

/// What a temporary file's name ends in.
const SUFFIX: &[u8] = b".corptokend-tmp";

/// The longest name of a directory entry, in bytes (NAME_MAX).
const NAME_MAX: usize = 255;

/// The name under which the file for the place `name` is prepared: always the same, so that a new attempt replaces what
/// an interrupted one left.
pub(super) fn temporary_name(name: &OsStr) -> OsString {
    let mut temporary = Vec::with_capacity(1 + name.len() + SUFFIX.len());
    temporary.push(b'.');
    if 1 + name.len() + SUFFIX.len() <= NAME_MAX {
        temporary.extend_from_slice(name.as_bytes());
    } else {
        temporary.extend_from_slice(format!("{:016x}", Fingerprint::of(name.as_bytes()).0).as_bytes());
    }
    temporary.extend_from_slice(SUFFIX);
    OsString::from_vec(temporary)
}

/// Whether `name` is one that [`temporary_name`] makes.
pub(super) fn is_temporary(name: &[u8]) -> bool {
    name.first() == Some(&b'.') && name.ends_with(SUFFIX)
}

/// A file under its temporary name. Dropped before it took its place, it is gone.
pub(super) struct Temporary<'a> {
    directory: &'a Directory,
    name: &'a OsStr,
    /// The place that it is for, for messages.
    path: &'a Path,
    file: OwnedFd,
    placed: bool,
}

impl<'a> Temporary<'a> {
    /// Makes the file, which only the daemon's user can open.
    pub(super) fn create(directory: &'a Directory, name: &'a OsStr, path: &'a Path) -> Result<Self, SinkFailure> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || openat(directory.fd(), name, flags, Mode::RUSR | Mode::WUSR);
        let made = match open() {
            Err(Errno::EXIST) => unlinkat(directory.fd(), name, AtFlags::empty()).and_then(|()| open()),
            other => other,
        };
        match made {
            Ok(file) => Ok(Self { directory, name, path, file, placed: false }),
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
        renameat(fd, self.name, name).map_err(|errno| self.failed("replace", errno))?;
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
            let _ = unlinkat(self.directory.fd(), self.name, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_name_is_never_too_long_and_always_the_same() {
        let long = "n".repeat(255);
        for name in ["token", "阿里", &long] {
            let temporary = temporary_name(OsStr::new(name));
            assert_eq!(temporary, temporary_name(OsStr::new(name)));
            assert!(temporary.len() <= NAME_MAX && is_temporary(temporary.as_bytes()), "{temporary:?}");
        }
        assert_ne!(temporary_name(OsStr::new(&long)), temporary_name(OsStr::new(&"m".repeat(255))));
        assert!(!is_temporary(b"token") && !is_temporary(b".token"));
    }
}
