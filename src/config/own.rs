//! The files that the daemon itself lives by, and which places they are, whatever path leads there.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use crate::blocking::Blocking;
use crate::trust::{Identity, Reserved};

/// A look at thousands of paths takes milliseconds. Longer than this, and one of them hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// One look at a time, however many configs are read: a path that hangs holds one thread.
static LOOKS: LazyLock<Blocking<()>> = LazyLock::new(|| Blocking::new("places", 1));

/// What no sink may write. Each with what it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Own {
    /// The state, the control socket, the config, certificates, secrets, the program.
    pub files: Vec<(PathBuf, &'static str)>,
    /// Those whose changes mean another config, and that of the credentials.
    pub directories: Vec<(PathBuf, &'static str)>,
}

/// What was found out of places on the file system.
#[derive(Debug, Clone, Default)]
pub(super) struct Looked {
    pub(super) reserved: Reserved,
    /// As asked for; what could not be looked at is missing.
    pub(super) directories: Vec<(String, Identity)>,
}

/// Looks at the daemon's own files and at `directories`. What a mount that hangs keeps back is left out.
pub(super) fn look(own: &Own, directories: Vec<String>) -> Looked {
    let looked = Arc::new(Mutex::new(Looked::default()));
    let (own, found) = (own.clone(), Arc::clone(&looked));
    let note = move |add: &mut dyn FnMut(&mut Looked)| {
        add(&mut found.lock().unwrap_or_else(PoisonError::into_inner));
    };
    let work = move || {
        // Nothing is held while the file system is asked.
        for (path, what) in &own.directories {
            let identity = Identity::at(path).ok();
            note(&mut |looked| looked.reserved.directories.extend(identity.map(|identity| (identity, *what))));
        }
        for (path, what) in &own.files {
            let entries = crate::trust::entries(path);
            note(&mut |looked| looked.reserved.entries.extend(entries.iter().cloned().map(|entry| (entry, *what))));
        }
        for directory in directories {
            let identity = Identity::at(Path::new(&directory)).ok();
            note(&mut |looked| looked.directories.extend(identity.map(|identity| (directory.clone(), identity))));
        }
    };
    // What hangs is found out, and told, by whoever uses it.
    let _ = LOOKS.run_and_block("places", PATIENCE, work);
    looked.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

impl Own {
    /// The places that these files are now.
    pub fn reserved(&self) -> Reserved {
        look(self, Vec::new()).reserved
    }
}
