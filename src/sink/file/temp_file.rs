//! The temporary file that becomes the published one by a rename.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::dir::DirHandle;
use super::syscall::{fchmod, fchown, fstat, fsync, openat, renameat, unlinkat, write};
use super::temp_name::{names_are_taken, under_temporary_name};
use crate::domain::SinkFailure;
use crate::sink::error;

/// Mode and owner of a file to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileAttributes {
    pub(crate) mode: u32,
    /// The owner and group that the sink names.
    pub(crate) owner: Option<u32>,
    pub(crate) group: Option<u32>,
    /// The owner and group that the file then has.
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A file under its temporary name. Unlinked on drop unless [`rename_into_place`](Self::rename_into_place) succeeded.
pub(crate) struct TempFile<'a> {
    directory: &'a DirHandle,
    name: OsString,
    /// The path to be published, for messages.
    path: &'a Path,
    file: OwnedFd,
    is_placed: bool,
}

impl<'a> TempFile<'a> {
    /// Makes the file that will be `name` in `directory`, at `path`. Only the daemon's user can open it.
    pub(crate) fn create(directory: &'a DirHandle, name: &OsStr, path: &'a Path) -> Result<Self, SinkFailure> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let make = |temporary: &OsStr| openat(directory.fd(), temporary, flags, Mode::RUSR | Mode::WUSR);
        match under_temporary_name(directory.fd(), name, make) {
            Ok((name, file)) => Ok(Self { directory, name, path, file, is_placed: false }),
            Err(Errno::EXIST) => Err(names_are_taken(path, name)),
            Err(errno) => {
                let directory = path.parent().unwrap_or(path);
                Err(error::within(directory, "make a temporary file beside", path, errno))
            }
        }
    }

    /// Writes all of `bytes`.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), SinkFailure> {
        while !bytes.is_empty() {
            match write(&self.file, bytes) {
                Ok(0) => return Err(self.failed("write the temporary file of", Errno::IO)),
                Ok(written) => bytes = &bytes[written..],
                Err(errno) => return Err(self.failed("write the temporary file of", errno)),
            }
        }
        Ok(())
    }

    /// Sets group, mode and, last, owner, and syncs the file.
    pub(crate) fn finish(&mut self, wanted: FileAttributes) -> Result<(), SinkFailure> {
        let stat = fstat(&self.file).map_err(|errno| self.failed("inspect the temporary file of", errno))?;
        if let Some(group) = wanted.group.filter(|group| *group != stat.st_gid) {
            fchown(&self.file, None, Some(Gid::from_raw(group))).map_err(|errno| {
                let remedy = format!(
                    "make the daemon's user a member of group {group} (SupplementaryGroups= in the unit), or take \
                     `group` out of the sink"
                );
                error::with_remedy("set the group of", self.path, errno, remedy)
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
                error::with_remedy("set the owner of", self.path, errno, remedy)
            })?;
        }
        fsync(&self.file).map_err(|errno| self.failed("sync the temporary file of", errno))
    }

    /// Renames the file to `name`. Returns the status of this file, even if another has been renamed over it by now.
    pub(crate) fn rename_into_place(mut self, name: &OsStr) -> Result<Stat, SinkFailure> {
        let fd = self.directory.fd();
        renameat(fd, &self.name, name).map_err(|errno| self.failed("replace", errno))?;
        self.is_placed = true;
        // The rename changed the change time, so only now is the status final.
        fstat(&self.file).map_err(|errno| self.failed("inspect", errno))
    }

    fn failed(&self, doing: &str, errno: Errno) -> SinkFailure {
        error::of(doing, self.path, errno)
    }
}

impl Drop for TempFile<'_> {
    fn drop(&mut self) {
        if !self.is_placed {
            // If this fails, the next publication to the place removes the file by its name.
            let _ = unlinkat(self.directory.fd(), &*self.name, AtFlags::empty());
        }
    }
}
