//! File systems of a test's own: one that can be full or read-only, and one that can hang. Each is gone with its value.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{is_root, succeeds, system_allows};

/// The name of the daemon's thread that publishes to the file system at this path.
fn lane_at(path: &Path) -> String {
    format!("files-{:x}", fs::metadata(path).unwrap().dev())
}

/// A tmpfs in place of a directory.
pub struct Tmpfs {
    at: PathBuf,
    /// The directory, where it goes with the file system.
    directory: Option<tempfile::TempDir>,
}

impl Tmpfs {
    /// Mounts one with these options in a directory of its own. `None`, loudly, where mounting is not allowed.
    pub fn temporary(options: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut mounted = Self::mount(directory.path(), options)?;
        mounted.directory = Some(directory);
        Some(mounted)
    }

    /// Mounts one with these options. `None`, loudly, where mounting is not allowed.
    pub fn mount(at: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let done = || succeeds("mount", &["-t", "tmpfs", "-o", options, "tmpfs", at.to_str().unwrap()]);
        system_allows("mounting a tmpfs", is_root() && done()).then(|| Self { at: at.to_owned(), directory: None })
    }

    pub fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(succeeds("mount", &["-o", &options, self.at.to_str().unwrap()]), "{options}");
    }

    pub fn path(&self) -> &Path {
        &self.at
    }

    /// The name of the daemon's thread for it.
    pub fn lane(&self) -> String {
        lane_at(&self.at)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        succeeds("umount", &["-l", self.at.to_str().unwrap()]);
    }
}

/// An ext4 file system in a file, which can be frozen: whoever writes there hangs in the kernel.
pub struct FreezableDisk(PathBuf);

impl FreezableDisk {
    /// Mounts one. `None`, loudly, where the machine lacks what that takes.
    pub fn mount(image: &Path, at: &Path) -> Option<Self> {
        fs::File::create(image).unwrap().set_len(8 << 20).unwrap();
        fs::create_dir_all(at).unwrap();
        let [image, text] = [image, at].map(|path| path.to_str().unwrap());
        let mounted = succeeds("mkfs.ext4", &["-q", image]) && succeeds("mount", &["-o", "loop", image, text]);
        let can_freeze = mounted && succeeds("fsfreeze", &["--version"]);
        system_allows("freezing a disk (root, mkfs.ext4, loop devices, fsfreeze)", can_freeze)
            .then(|| Self(at.to_owned()))
    }

    /// From here on, whoever writes hangs.
    pub fn freeze(&self) {
        assert!(succeeds("fsfreeze", &["-f", self.0.to_str().unwrap()]));
    }

    pub fn thaw(&self) -> bool {
        succeeds("fsfreeze", &["-u", self.0.to_str().unwrap()])
    }

    /// The name of the daemon's thread for it.
    pub fn lane(&self) -> String {
        lane_at(&self.0)
    }
}

impl Drop for FreezableDisk {
    fn drop(&mut self) {
        self.thaw();
        succeeds("umount", &["-l", self.0.to_str().unwrap()]);
    }
}
