//! The database's file: private, and set aside rather than deleted.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

/// Opens or creates the file at `path` with mode 0600, and a missing directory with 0700.
///
/// # Errors
/// A text for the operator: what was tried, what is wrong, what to do.
pub(super) fn open_private(path: &Path) -> Result<File, String> {
    let cannot = |doing: &str, e: io::Error| format!("cannot {doing} the state {}: {e}", path.display());
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| cannot("make the directory of", e))?;
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::openat(CWD, path, flags, Mode::from_raw_mode(0o600)) {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::LOOP) => {
            return Err(format!("the state {} is a symbolic link; name the file that it leads to", path.display()));
        }
        Err(e) => return Err(cannot("open", e.into())),
    };
    let meta = file.metadata().map_err(|e| cannot("inspect", e))?;
    is_ours(path, &meta)?;
    if meta.mode() & 0o177 != 0 {
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o600)).map_err(|e| cannot("protect", e.into()))?;
    }
    Ok(file)
}

/// Opens the file at `path` for reading.
///
/// # Errors
/// As [`open_private`], and when there is no file.
pub(super) fn open_to_read(path: &Path) -> Result<File, String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let cannot = |e: io::Error| format!("cannot read the state {}: {e}", path.display());
    let file = File::from(rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|e| cannot(e.into()))?);
    is_ours(path, &file.metadata().map_err(cannot)?)?;
    Ok(file)
}

fn is_ours(path: &Path, meta: &fs::Metadata) -> Result<(), String> {
    if !meta.is_file() {
        return Err(format!("the state {} is not a regular file; choose another [state] path", path.display()));
    }
    let us = rustix::process::geteuid().as_raw();
    if us != 0 && meta.uid() != us {
        return Err(format!(
            "the state {} belongs to user {}, and we are {us}; fix it with `chown {us} {0}`",
            path.display(),
            meta.uid()
        ));
    }
    Ok(())
}

/// Moves the file at `path` to `PATH.corrupt`, over an older one. Its mode is 0600 from [`open_private`].
///
/// # Errors
/// A text for the operator.
pub(super) fn set_aside(path: &Path) -> Result<PathBuf, String> {
    let mut to = path.as_os_str().to_owned();
    to.push(".corrupt");
    let to = PathBuf::from(to);
    fs::rename(path, &to)
        .map_err(|e| format!("cannot move the unusable state {} to {}: {e}", path.display(), to.display()))?;
    Ok(to)
}
