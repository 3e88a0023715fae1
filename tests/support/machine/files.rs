//! The files of the machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Machine;

impl Machine {
    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub fn config_path(&self) -> PathBuf {
        self.path("etc/config.toml")
    }

    pub fn write(&self, below: &str, text: &str) {
        fs::write(self.path(below), text).unwrap();
    }

    pub fn write_with_mode(&self, below: &str, text: &str, mode: u32) {
        self.write(below, text);
        fs::set_permissions(self.path(below), fs::Permissions::from_mode(mode)).unwrap();
    }

    pub fn read(&self, below: &str) -> Option<String> {
        fs::read_to_string(self.path(below)).ok()
    }

    /// The token file of a tenant in the default sink.
    pub fn token(&self, app: &str, corp_id: &str) -> Option<String> {
        self.read(&format!("tokens/{app}/{corp_id}"))
    }

    /// The config on disk, with `from` replaced by `to`; saved as most editors do, by rename.
    pub fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.config_path()).unwrap();
        assert!(text.contains(from), "{from:?} is in the config");
        self.save(&text.replace(from, to));
    }

    /// Saves the config by rename.
    pub fn save(&self, text: &str) {
        self.write_with_mode("etc/.config.toml.new", text, 0o644);
        fs::rename(self.path("etc/.config.toml.new"), self.config_path()).unwrap();
    }

    /// What lies in a directory, sorted.
    pub fn names_in(&self, below: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(below)).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// All files below the tokens directory, relative to it.
    pub fn token_files(&self) -> Vec<String> {
        let root = self.path("tokens");
        let mut files = Vec::new();
        walk(&root, &mut |path| files.push(path.strip_prefix(&root).unwrap().display().to_string()));
        files.sort();
        files
    }
}

fn walk(directory: &Path, each: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), each);
        } else {
            each(&entry.path());
        }
    }
}
