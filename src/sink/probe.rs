//! A probe of sinks that publishes nothing.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::file::{DaemonUser, DirHandle, DirPolicy, DirectoryCache, IfMissing, could_be_made, probe_directory};
use crate::domain::{FileSink, Names, SinkFailure, SinkKind, SinkSpec};

/// Tries sinks, and remembers what came of it: tenants mostly share a directory, and it is tried once.
pub struct Probe {
    directories: DirectoryCache,
    me: DaemonUser,
    tried: HashMap<(PathBuf, Role, Demands), Result<(), SinkFailure>>,
}

/// What a directory is to a file that is to be published.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Role {
    /// The file lies in it.
    Final,
    /// It is the last one on the way that exists; the rest is made by the first publication.
    Passage,
}

/// What a sink asks of a directory, its path and content apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Demands {
    mode: u32,
    dir_mode: u32,
    owner: Option<u32>,
    group: Option<u32>,
    trust_dir: bool,
}

impl Default for Probe {
    fn default() -> Self {
        Self::new()
    }
}

impl Probe {
    /// Nothing is tried yet.
    pub fn new() -> Self {
        let me = DaemonUser::current();
        Self { directories: DirectoryCache::new(me, Arc::default()), me, tried: HashMap::new() }
    }

    /// Tries whether a publication to this sink could succeed for the tenant of these names. For a file: that the fixed
    /// directory exists (or can be made), that nobody can write there who should not, and that a file with the sink's
    /// group, mode and owner can be made in the last directory of the path that exists. That file is removed again, and no
    /// directory is made. For a key: that the keyring at which its path starts can be read.
    ///
    /// # Errors
    /// The failure that a publication would meet.
    pub fn sink(&mut self, spec: &SinkSpec, names: &Names) -> Result<(), SinkFailure> {
        match &spec.kind {
            SinkKind::Keyring(sink) => super::keyring::probe(sink),
            SinkKind::File(sink) => self.file(sink, &sink.place(names)),
        }
    }

    fn file(&mut self, sink: &FileSink, path: &Path) -> Result<(), SinkFailure> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        self.once(directory, Role::Final, sink, |probe| {
            let fixed = sink.fixed_part();
            let Some(last) = probe.last_existing(fixed, directory)? else {
                return could_be_made(fixed, &DirPolicy::of(sink), probe.me);
            };
            let role = if last.path() == directory { Role::Final } else { Role::Passage };
            match role {
                Role::Final => {
                    last.verify(&DirPolicy::of(sink), probe.me)?;
                    probe_directory(&last, sink)
                }
                Role::Passage => probe.once(last.path(), role, sink, |probe| {
                    last.verify_passage(&DirPolicy::of(sink), probe.me)?;
                    probe_directory(&last, sink)
                }),
            }
        })
    }

    /// Tries a directory, unless it was tried in this role for the same demands.
    fn once(
        &mut self,
        directory: &Path,
        role: Role,
        sink: &FileSink,
        attempt: impl FnOnce(&mut Self) -> Result<(), SinkFailure>,
    ) -> Result<(), SinkFailure> {
        let &FileSink { mode, dir_mode, owner, group, trust_dir, .. } = sink;
        let key = (directory.to_path_buf(), role, Demands { mode, dir_mode, owner, group, trust_dir });
        if let Some(known) = self.tried.get(&key) {
            return known.clone();
        }
        let outcome = attempt(self);
        self.tried.insert(key, outcome.clone());
        outcome
    }

    /// The deepest directory that exists, from `fixed` down to `directory`; `None` when not even `fixed` does.
    fn last_existing(&mut self, fixed: &Path, directory: &Path) -> Result<Option<Rc<DirHandle>>, SinkFailure> {
        for above in directory.ancestors().take_while(|above| above.starts_with(fixed)) {
            if let Some(found) = self.directories.open(fixed, above, IfMissing::Leave)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
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
