//! A trial of a sink that publishes nothing.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, AtFlags, accessat};
use rustix::io::Errno;

use super::directories::{Directories, Missing};
use super::directory::{Me, Rules};
use super::file::try_directory;
use super::fixed::{may_complete, nearest_existing};
use super::trouble;
use crate::domain::{FileSink, SinkFailure, SinkKind, SinkSpec};

/// Tries whether a publication to this sink could succeed: for a file, that its fixed directory exists (or can be made),
/// that nobody can write there who should not, and that a file with the sink's group, mode and owner can be made there.
/// That file is removed again, and no directory is made. For a key, that the keyring at which its path starts can be read.
///
/// # Errors
/// The failure that a publication would meet.
pub fn probe(spec: &SinkSpec) -> Result<(), SinkFailure> {
    match &spec.kind {
        SinkKind::File(sink) => probe_file(sink),
        SinkKind::Keyring(sink) => super::keyring::probe(sink),
    }
}

/// The number of the file system that `path` lies on, or will lie on once it is made (`st_dev`): sinks with the same
/// number share a lane.
///
/// # Errors
/// When nothing above `path` can be looked at.
pub fn file_system_of(path: &Path) -> io::Result<u64> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for above in path.ancestors() {
        match above.metadata() {
            Ok(metadata) => return Ok(metadata.dev()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn probe_file(sink: &FileSink) -> Result<(), SinkFailure> {
    let me = Me::current();
    let fixed = sink.fixed_part();
    let Some(directory) = Directories::new(me).open(fixed, fixed, Missing::Leave)? else {
        return could_be_made(fixed, me);
    };
    // Whether files lie here, or in directories that are made below.
    let depth = |text: &str| text.matches('/').count();
    let is_final = depth(&sink.path.to_string()) == depth(sink.path.fixed_prefix());
    if is_final {
        directory.verify(&Rules::of(sink), me)?;
    } else {
        directory.verify_passage(&Rules::of(sink), me)?;
    }
    try_directory(&directory, sink)
}

fn could_be_made(fixed: &Path, me: Me) -> Result<(), SinkFailure> {
    let above = nearest_existing(fixed);
    let owner = above.metadata().map(|metadata| metadata.uid());
    if !owner.is_ok_and(|owner| may_complete(owner, me)) {
        let remedy = format!("`install -d -o {} {}`", me.uid, fixed.display());
        return Err(trouble::with_remedy("use the directory", fixed, Errno::NOENT, remedy));
    }
    accessat(rustix::fs::CWD, above, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
        .map_err(|errno| trouble::within(above, "make the directory below", above, errno))
}
