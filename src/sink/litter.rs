//! Temporary files that a killed predecessor left beside files that are right.

use std::cell::{Cell, OnceCell};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use rustix::fd::BorrowedFd;
use rustix::fs::Dir;

use super::temporary::is_temporary;

/// A directory that was asked about so often is listed: to try to remove what is not there costs as much as to open a file,
/// and at a start it would be tried for each of a hundred thousand.
const LIST_AFTER: u32 = 8;

/// What is known of the temporary files in an open directory. Only a predecessor leaves any: the state lets one daemon run,
/// it takes its own away, and after a failure it opens the directory anew.
#[derive(Debug, Default)]
pub(super) struct Litter {
    asked: Cell<u32>,
    listed: OnceCell<HashSet<OsString>>,
}

impl Litter {
    /// Whether `directory`, which is always the same, may hold a temporary file of this name.
    pub(super) fn may_include(&self, name: &OsStr, directory: BorrowedFd<'_>) -> bool {
        if let Some(listed) = self.listed.get() {
            return listed.contains(name);
        }
        if self.asked.replace(self.asked.get() + 1) < LIST_AFTER {
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
        if is_temporary(name) {
            found.insert(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(found)
}
