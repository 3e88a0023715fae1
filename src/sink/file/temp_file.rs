//! The temporary file that becomes the published one.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::dir::Directory;
use super::syscall::{fchmod, fchown, fstat, fsync, openat, renameat, unlinkat, write};
use super::temp_name::{names_are_taken, under_temporary_name};
use crate::domain::SinkFailure;
use crate::sink::error;

/// What a file has to be, its bytes apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) mode: u32,
    /// Who the file is to be given to, where the sink says so.
    pub(crate) owner: Option<u32>,
    pub(crate) group: Option<u32>,
    /// Who it then belongs to.
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A file under its temporary name. Dropped before it took its place, it is gone.
pub(crate) struct Temporary<'a> {
    directory: &'a Directory,
    name: OsString,
    /// The place that it is for, for messages.
    path: &'a Path,
    file: OwnedFd,
    placed: bool,
}

impl<'a> Temporary<'a> {
    /// Makes the file for the place `name`, at `path`; only the daemon's user can open it.
    pub(crate) fn create(directory: &'a Directory, name: &OsStr, path: &'a Path) -> Result<Self, SinkFailure> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let make = |temporary: &OsStr| openat(directory.fd(), temporary, flags, Mode::RUSR | Mode::WUSR);
        match under_temporary_name(directory.fd(), name, make) {
            Ok((name, file)) => Ok(Self { directory, name, path, file, placed: false }),
            Err(Errno::EXIST) => Err(names_are_taken(path, name)),
            Err(errno) => {
                let directory = path.parent().unwrap_or(path);
                Err(error::within(directory, "make a temporary file beside", path, errno))
            }
        }
    }

    /// Writes all of `bytes`.
    pub(crate) fn fill(&mut self, mut bytes: &[u8]) -> Result<(), SinkFailure> {
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
    pub(crate) fn finish(&mut self, wanted: Wanted) -> Result<(), SinkFailure> {
        let stat = fstat(&self.file).map_err(|errno| self.failed("look at the temporary file of", errno))?;
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

    /// Gives the file its name. Answers with the file as it was left: this one, even if somebody was so fast that another
    /// has the name by now.
    pub(crate) fn take_place(mut self, name: &OsStr) -> Result<Stat, SinkFailure> {
        let fd = self.directory.fd();
        renameat(fd, &self.name, name).map_err(|errno| self.failed("replace", errno))?;
        self.placed = true;
        // The rename moved the change time, so this is the time to look.
        fstat(&self.file).map_err(|errno| self.failed("look at", errno))
    }

    fn failed(&self, doing: &str, errno: Errno) -> SinkFailure {
        error::of(doing, self.path, errno)
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
