//! The system calls of a publication, retried on EINTR: a file system in another process or on another machine may answer it
//! to any of them (fuse(4), nfs(5)).

use std::ffi::OsStr;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, RenameFlags, Stat, Uid};
use rustix::io::{Errno, Result, retry_on_intr};
use rustix::path::Arg;

pub(crate) fn openat(at: impl AsFd, name: impl Arg + Copy, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    retry_on_intr(|| rustix::fs::openat(&at, name, flags, mode))
}

pub(crate) fn statat(at: impl AsFd, name: impl Arg + Copy, flags: AtFlags) -> Result<Stat> {
    retry_on_intr(|| rustix::fs::statat(&at, name, flags))
}

pub(crate) fn fstat(file: impl AsFd) -> Result<Stat> {
    retry_on_intr(|| rustix::fs::fstat(&file))
}

pub(crate) fn read(file: impl AsFd, into: &mut [u8]) -> Result<usize> {
    retry_on_intr(|| rustix::io::read(&file, &mut *into))
}

pub(crate) fn write(file: impl AsFd, bytes: &[u8]) -> Result<usize> {
    retry_on_intr(|| rustix::io::write(&file, bytes))
}

pub(crate) fn fchown(file: impl AsFd, owner: Option<Uid>, group: Option<Gid>) -> Result<()> {
    retry_on_intr(|| rustix::fs::fchown(&file, owner, group))
}

pub(crate) fn fchmod(file: impl AsFd, mode: Mode) -> Result<()> {
    retry_on_intr(|| rustix::fs::fchmod(&file, mode))
}

pub(crate) fn fsync(file: impl AsFd) -> Result<()> {
    retry_on_intr(|| rustix::fs::fsync(&file))
}

/// Renames within one directory.
pub(crate) fn renameat(at: impl AsFd, from: &OsStr, to: &OsStr) -> Result<()> {
    retry_on_intr(|| rustix::fs::renameat(&at, from, &at, to))
}

/// Renames `from` to `to` unless that exists (EEXIST). Where the file system has no such call (EINVAL, as over NFS, or ENOSYS),
/// the name is checked first; within these microseconds a stranger's empty directory could be replaced.
pub(crate) fn rename_noreplace(at: impl AsFd, from: &OsStr, to: &OsStr) -> Result<()> {
    let renamed = retry_on_intr(|| rustix::fs::renameat_with(&at, from, &at, to, RenameFlags::NOREPLACE));
    match renamed {
        Err(Errno::INVAL | Errno::NOSYS) => match statat(&at, to, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => renameat(at, from, to),
            Err(errno) => Err(errno),
        },
        renamed => renamed,
    }
}

pub(crate) fn unlinkat(at: impl AsFd, name: impl Arg + Copy, flags: AtFlags) -> Result<()> {
    retry_on_intr(|| rustix::fs::unlinkat(&at, name, flags))
}

pub(crate) fn mkdirat(at: impl AsFd, name: impl Arg + Copy, mode: Mode) -> Result<()> {
    retry_on_intr(|| rustix::fs::mkdirat(&at, name, mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_takes_the_place_of_no_empty_one() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        std::fs::create_dir(at("made")).unwrap();
        std::fs::create_dir(at("strange")).unwrap();
        let parent = rustix::fs::open(scratch.path(), OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
        let into = |to: &str| rename_noreplace(&parent, OsStr::new("made"), OsStr::new(to));
        assert_eq!(into("strange"), Err(Errno::EXIST));
        assert!(at("made").exists() && at("strange").exists());
        assert_eq!(into("free"), Ok(()));
        assert!(at("free").exists());
    }
}
