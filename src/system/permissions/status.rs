//! What is known of one directory, link or file on a path.

use std::path::Path;

use rustix::fd::{AsFd, AsRawFd};
use rustix::fs::{FileType, Stat, StatVfsMountFlags};
use rustix::io::{Errno, Result, retry_on_intr};

use super::acl::Acl;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
/// A list of about 500 entries. Ext4 and XFS keep at most that, more or less; others, larger ones.
const USUAL_BYTES: usize = 4096;
/// The most that any attribute has (XATTR_SIZE_MAX in linux/limits.h).
const MOST_BYTES: usize = 65_536;

/// Device and inode number: the same for every path, link and bind mount that leads here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// What a `stat` tells.
    pub fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }

    /// The number of the file system that it lies on (`st_dev`).
    pub fn device(self) -> u64 {
        self.device
    }

    /// Of what is open.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn of_open(fd: impl AsFd) -> Result<Self> {
        Ok(Self::of(&retry_on_intr(|| rustix::fs::fstat(&fd))?))
    }

    /// Of what `path` leads to now, links followed.
    ///
    /// # Errors
    /// When nothing is there, or it cannot be looked at.
    pub fn at(path: &Path) -> std::io::Result<Self> {
        Ok(Self::of(&retry_on_intr(|| rustix::fs::stat(path))?))
    }
}

/// A directory, link or file: which one it is, and who may write it.
#[derive(Debug, Clone)]
pub struct Status {
    /// Which one.
    pub identity: Identity,
    /// What kind of thing.
    pub kind: FileType,
    /// All mode bits, the kind apart.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The owning group.
    pub gid: u32,
    pub(super) acl: Acl,
}

impl Status {
    /// Looks at what is open, be it with `O_PATH` only.
    ///
    /// # Errors
    /// As fstat(2) and getxattr(2); a file system without access control lists is no error.
    pub fn of(fd: impl AsFd) -> Result<Self> {
        Self::from_stat(&retry_on_intr(|| rustix::fs::fstat(&fd))?, &fd)
    }

    /// As [`Status::of`], where the `stat` of what is open is known.
    ///
    /// # Errors
    /// As getxattr(2).
    pub fn from_stat(stat: &Stat, fd: impl AsFd) -> Result<Self> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        // With a list, the group bits of the mode are its mask: without them the list gives nobody anything.
        let of_interest = if kind == FileType::Directory { 0o020 } else { 0o060 };
        let listed = kind != FileType::Symlink && stat.st_mode & of_interest != 0;
        let list = if listed { attribute(&fd, ACCESS)? } else { None };
        let acl = match list {
            Some(bytes) => Acl::parse(&bytes, stat.st_gid).map_err(|_| Errno::INVAL)?,
            None => Acl::of_mode(stat.st_mode, stat.st_gid),
        };
        let (mode, uid, gid) = (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid);
        Ok(Self { identity: Identity::of(stat), kind, mode, uid, gid, acl })
    }

    /// What files that are made in this directory get as their list, as if they had mode `mode`; `None`: there is no such
    /// default.
    ///
    /// # Errors
    /// As getxattr(2).
    pub fn of_new_files(&self, fd: impl AsFd, mode: u32) -> Result<Option<Self>> {
        let Some(bytes) = attribute(fd, DEFAULT)? else { return Ok(None) };
        let inherited = Acl::parse(&bytes, self.gid).map_err(|_| Errno::INVAL)?;
        // A later chmod sets the mask to the mode's group bits.
        let acl = inherited.masked(u16::try_from(mode >> 3 & 7).unwrap_or(7));
        Ok(Some(Self { acl, mode: mode & !0o007, kind: FileType::RegularFile, ..self.clone() }))
    }

    /// What the owning group may: 4 read, 2 write, 1 execute. With an access control list, the mode's group bits are not
    /// that, but the list's mask.
    pub fn group_bits(&self) -> u16 {
        self.acl.of_owning_group(self.gid)
    }

    pub(super) fn is_sticky(&self) -> bool {
        self.kind == FileType::Directory && self.mode & 0o1000 != 0
    }
}

/// Whether what is open lies on a read-only mount, so that nobody can change it here.
pub fn is_on_read_only_mount(fd: impl AsFd) -> bool {
    rustix::fs::fstatvfs(fd).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// An extended attribute of what is open; `None`: there is none, or none are kept.
fn attribute(fd: impl AsFd, name: &str) -> Result<Option<Vec<u8>>> {
    // fgetxattr refuses a descriptor that was opened with O_PATH; its name in /proc leads to the very same thing.
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let mut bytes = Vec::new();
    for most in [USUAL_BYTES, MOST_BYTES] {
        bytes.resize(most, 0);
        match retry_on_intr(|| rustix::fs::getxattr(&path, name, &mut bytes[..])) {
            Ok(length) => {
                bytes.truncate(length);
                return Ok(Some(bytes));
            }
            Err(Errno::NODATA | Errno::NOTSUP) => return Ok(None),
            Err(Errno::RANGE) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::RANGE)
}
