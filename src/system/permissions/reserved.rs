//! Places to which nothing may be published.

use std::collections::HashMap;
use std::ffi::OsStr;

use super::dir_entries::DirEntry;
use super::status::Identity;

/// Directory entries and directories that are kept for something else, and what each is, for messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reserved {
    /// Files, and the links that lead to them.
    pub entries: HashMap<DirEntry, &'static str>,
    /// Directories in which nothing may be published.
    pub directories: HashMap<Identity, &'static str>,
}

impl Reserved {
    /// What `name` in `directory` is kept for.
    pub fn what(&self, directory: Identity, name: &OsStr) -> Option<&'static str> {
        let of_directory = self.directories.get(&directory);
        of_directory.or_else(|| self.entries.get(&(directory, name.to_owned()))).copied()
    }
}
