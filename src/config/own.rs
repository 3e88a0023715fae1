//! The files that the daemon itself lives by, and which places they are, whatever path leads there.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use crate::blocking::Blocking;
use crate::trust::{Identity, Reserved};

/// A look at thousands of paths takes milliseconds. Longer than this, and one of them hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// So many looks may hang at once: one for each set of paths.
const MOST_OUTSTANDING: usize = 64;

static LOOKS: LazyLock<Blocking<Looked>> = LazyLock::new(|| Blocking::new("places", MOST_OUTSTANDING));

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
    // Who looks at the same paths meanwhile shares the next look.
    let key = BuildHasherDefault::<DefaultHasher>::default().hash_one((&own.files, &own.directories, &directories));
    let work = move || {
        let note = |add: &mut dyn FnMut(&mut Looked)| add(&mut found.lock().unwrap_or_else(PoisonError::into_inner));
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
        found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    };
    let whole = LOOKS.run_and_block(format!("{key:016x}"), PATIENCE, work);
    // What hangs is found out, and told, by whoever uses it.
    whole.unwrap_or_else(|_| looked.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

impl Own {
    /// The places that these files are now.
    pub fn reserved(&self) -> Reserved {
        look(self, Vec::new()).reserved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_at_other_paths_meanwhile_are_not_mistaken_for_each_other() {
        let scratch = tempfile::tempdir().unwrap();
        let all: Vec<String> =
            (0..32).map(|n| scratch.path().join(n.to_string()).to_str().unwrap().to_owned()).collect();
        all.iter().for_each(|path| std::fs::create_dir(path).unwrap());
        std::thread::scope(|scope| {
            for path in &all {
                scope.spawn(move || {
                    let looked = look(&Own::default(), vec![path.clone()]).directories;
                    assert!(looked.len() == 1 && looked[0].0 == *path, "{path}: {looked:?}");
                });
            }
        });
    }
}
