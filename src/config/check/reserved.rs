//! What no sink may write: the daemon's own files and the directories that it watches, by path and by what the path leads to.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::Path;

use super::places::name_of;
use crate::config::model::OwnFiles;
use crate::system::permissions::{Identity, Reserved};

/// Message and remedy.
pub(crate) type PlaceFault = (String, &'static str);

/// The daemon's own files as sinks could meet them.
pub(crate) struct ReservedPlaces<'a> {
    /// The files, and the directories above them, of which a sink would make files; each with the message.
    files: HashMap<String, String>,
    above: HashMap<String, String>,
    directories: HashMap<&'a Path, &'static str>,
    by_identity: &'a Reserved,
}

impl<'a> ReservedPlaces<'a> {
    pub(crate) fn new(own: &'a OwnFiles, by_identity: &'a Reserved) -> Self {
        let directories = own.directories.iter().map(|(path, what)| (path.as_path(), *what)).collect();
        let mut reserved = Self { files: HashMap::new(), above: HashMap::new(), directories, by_identity };
        for (path, what) in &own.files {
            let text = format!("the sink would overwrite {what}");
            let mut names = path.ancestors().filter_map(Path::to_str).map(str::to_owned);
            reserved.files.extend(names.next().map(|name| (name, text.clone())));
            reserved.above.extend(names.map(|name| (name, text.clone())));
        }
        reserved
    }

    /// What is wrong with a place by itself.
    pub(crate) fn fault(&self, place: &str, directory: Option<Identity>) -> Option<PlaceFault> {
        let by_path = self.files.get(place).or_else(|| self.above.get(place)).cloned();
        let text = by_path.or_else(|| {
            let what = self.by_identity.entries.get(&(directory?, OsStr::new(name_of(place)).to_owned()))?;
            Some(format!("the sink would overwrite {what}, to which a link or a mount leads"))
        })?;
        Some((text, "publish to another place"))
    }

    /// What is wrong with all places in a directory.
    pub(crate) fn fault_of_directory(&self, path: &str, directory: Option<Identity>) -> Option<PlaceFault> {
        let path = Path::new(path);
        if let Some(text) = path.ancestors().filter_map(Path::to_str).find_map(|above| self.files.get(above)) {
            return Some((text.clone(), "publish to another place"));
        }
        let by_path = self.directories.get(path);
        let what = by_path.or_else(|| self.by_identity.directories.get(&directory?))?;
        let text = format!("the sink lies in {}, which is {what}", path.display());
        Some((text, "publish to another directory; one below it will do"))
    }
}
