//! Which temporary files a killed daemon may have left in a directory.

use std::cell::{Cell, OnceCell};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use rustix::fd::BorrowedFd;
use rustix::fs::Dir;

use crate::domain::is_temporary_name;

/// At least this many names are answered with "maybe" before the directory is listed.
const LIST_AFTER: u64 = 8;

/// An unlink of a missing name costs as much as listing about 32 entries; an entry takes at least 20 bytes of the
/// directory's size (tmpfs; other file systems take more).
const BYTES_PER_UNLINK: u64 = 32 * 20;

/// The stale temporary files of one open directory. Only a killed daemon leaves any: the state admits one daemon at a time,
/// a running one removes its own, and after a failure the directory is opened anew.
///
/// At a start a hundred thousand files may be found unchanged, each with a stale file beside it. Trying to unlink each is
/// cheap until it has cost as much as listing the directory; from then on the list answers.
#[derive(Debug)]
pub(super) struct StaleFiles {
    attempts_left: Cell<u64>,
    listed: OnceCell<HashSet<OsString>>,
}

impl StaleFiles {
    /// For a directory of this size in bytes (`st_size`).
    pub(super) fn in_directory_of(size: i64) -> Self {
        let attempts = u64::try_from(size).unwrap_or(0) / BYTES_PER_UNLINK;
        Self { attempts_left: Cell::new(attempts.max(LIST_AFTER)), listed: OnceCell::new() }
    }

    /// Whether `directory`, always the same one, may hold a temporary file of this name.
    pub(super) fn may_include(&self, name: &OsStr, directory: BorrowedFd<'_>) -> bool {
        if let Some(listed) = self.listed.get() {
            return listed.contains(name);
        }
        if let Some(left) = self.attempts_left.get().checked_sub(1) {
            self.attempts_left.set(left);
            return true;
        }
        let Ok(found) = list(directory) else { return true };
        self.listed.get_or_init(|| found).contains(name)
    }
}

fn list(directory: BorrowedFd<'_>) -> rustix::io::Result<HashSet<OsString>> {
    let mut found = HashSet::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if is_temporary_name(name) {
            found.insert(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(found)
}
