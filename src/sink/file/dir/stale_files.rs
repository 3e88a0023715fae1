//! Temporary files that a killed predecessor left beside files that are right.

use std::cell::{Cell, OnceCell};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use rustix::fd::BorrowedFd;
use rustix::fs::Dir;

use crate::domain::is_temporary_name;

/// At least so many files are asked about before the directory is listed.
const LIST_AFTER: u64 = 8;

/// To try to remove what is not there costs as much as to list about 32 entries; a directory has a size of at least 20 bytes
/// for each (tmpfs; others have more).
const BYTES_AN_ATTEMPT: u64 = 32 * 20;

/// What is known of the temporary files in an open directory. Only a predecessor leaves any: the state lets one daemon run,
/// it takes its own away, and after a failure it opens the directory anew.
///
/// At a start a hundred thousand files are found right, and each may have such a file beside it. Once it was tried to remove
/// so many that it would have been as cheap to list the directory, that is done.
#[derive(Debug)]
pub(crate) struct Litter {
    /// So many more are tried first.
    attempts: Cell<u64>,
    listed: OnceCell<HashSet<OsString>>,
}

impl Litter {
    /// In a directory of this size, in bytes (`st_size`).
    pub(crate) fn in_directory_of(size: i64) -> Self {
        let attempts = u64::try_from(size).unwrap_or(0) / BYTES_AN_ATTEMPT;
        Self { attempts: Cell::new(attempts.max(LIST_AFTER)), listed: OnceCell::new() }
    }

    /// Whether `directory`, which is always the same, may hold a temporary file of this name.
    pub(crate) fn may_include(&self, name: &OsStr, directory: BorrowedFd<'_>) -> bool {
        if let Some(listed) = self.listed.get() {
            return listed.contains(name);
        }
        if let Some(left) = self.attempts.get().checked_sub(1) {
            self.attempts.set(left);
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
