//! The keyrings between a root and a key: how a path leads to a key, and what is in the way there.

use std::collections::HashMap;

use rustix::io::Errno;

use super::sys::{self, Kind, PERMISSIONS, Serial, failed};
use crate::domain::{KeyringRoot, Place, SinkFailure, SinkFailureKind};

/// A key's place, taken apart.
pub(crate) struct KeyPlace {
    root: KeyringRoot,
    /// The keyrings on the way, and last the key's description.
    pub(crate) path: Vec<String>,
    /// All of it, for messages.
    shown: String,
}

/// Whether keyrings on the way are made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Make,
    Leave,
}

/// The keyrings that a batch has met. Others change keyrings too, so nothing is remembered for longer.
#[derive(Default)]
pub(crate) struct Rings {
    roots: HashMap<KeyringRoot, Serial>,
    /// What hangs in them.
    links: HashMap<Serial, Vec<Serial>>,
}

impl Rings {
    /// From here on, everything is looked at again.
    pub(crate) fn forget(&mut self) {
        self.roots.clear();
        self.links.clear();
    }

    /// The keyrings from the root to the one in which the key hangs.
    pub(crate) fn walk(&mut self, place: &KeyPlace, missing: Missing) -> Result<Vec<Serial>, Trouble> {
        let mut rings = vec![self.root(place.root).map_err(Trouble::at("open the root keyring of"))?];
        for name in place.rings() {
            let above = rings[rings.len() - 1];
            let found = self.find(above, Kind::Keyring, name).map_err(Trouble::at("look for the keyring of"))?;
            match (found, missing) {
                (Some(ring), _) => rings.push(ring),
                (None, Missing::Leave) => break,
                (None, Missing::Make) => {
                    rings.push(self.make(above, name).map_err(Trouble::at("make the keyring of"))?);
                }
            }
        }
        Ok(rings)
    }

    pub(crate) fn add(&mut self, ring: Serial, description: &str, payload: &[u8]) -> Result<Serial, Errno> {
        let added = match sys::add(ring, Kind::User, description, payload) {
            Err(errno) if is_dead(errno) || errno == Errno::NOKEY => {
                bury(ring)?;
                sys::add(ring, Kind::User, description, payload)
            }
            other => other,
        }?;
        if let Some(links) = self.links.get_mut(&ring)
            && let Err(at) = links.binary_search(&added)
        {
            links.insert(at, added);
        }
        Ok(added)
    }

    fn root(&mut self, root: KeyringRoot) -> Result<Serial, Errno> {
        if let Some(serial) = self.roots.get(&root) {
            return Ok(*serial);
        }
        let serial = sys::root(root)?;
        self.roots.insert(root, serial);
        Ok(serial)
    }

    fn make(&mut self, above: Serial, name: &str) -> Result<Serial, Errno> {
        let ring = sys::add(above, Kind::Keyring, name, &[])?;
        sys::set_permissions(ring, PERMISSIONS)?;
        self.links.remove(&above);
        Ok(ring)
    }

    /// The key of this type and description that hangs directly in `ring`. The kernel's own search is fast, but goes on
    /// into the keyrings below.
    pub(crate) fn find(&mut self, ring: Serial, kind: Kind, description: &str) -> Result<Option<Serial>, Errno> {
        let nearest = match sys::search(ring, kind, description) {
            Ok(key) => key,
            Err(Errno::NOKEY) => return Ok(None),
            // A dead one is in the way of the search; a live keyring of this name may be beside it.
            Err(errno) if is_dead(errno) && kind == Kind::User => return Ok(None),
            Err(errno) if is_dead(errno) => return self.scan(ring, kind, description),
            Err(errno) => return Err(errno),
        };
        if self.links_of(ring)?.binary_search(&nearest).is_ok() {
            return Ok(Some(nearest));
        }
        self.scan(ring, kind, description)
    }

    fn scan(&mut self, ring: Serial, kind: Kind, description: &str) -> Result<Option<Serial>, Errno> {
        let is_it = |key: &&Serial| {
            sys::describe(**key)
                .is_ok_and(|found| found.is_keyring == (kind == Kind::Keyring) && found.description == description)
        };
        Ok(self.links_of(ring)?.iter().find(is_it).copied())
    }

    fn links_of(&mut self, ring: Serial) -> Result<&Vec<Serial>, Errno> {
        use std::collections::hash_map::Entry;
        match self.links.entry(ring) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => Ok(unknown.insert(sys::links(ring)?)),
        }
    }
}

/// Expired and revoked keys stay linked until the kernel collects them (`/proc/sys/kernel/keys/gc_delay`, 300 s), and an
/// expired one can be in the way of its successor.
pub(crate) fn bury(ring: Serial) -> Result<(), Errno> {
    for key in sys::links(ring)? {
        // What is dead does not even tell its description.
        if sys::describe(key).is_err_and(is_dead) {
            sys::unlink(key, ring)?;
        }
    }
    Ok(())
}

fn is_dead(errno: Errno) -> bool {
    matches!(errno, Errno::KEYEXPIRED | Errno::KEYREVOKED | Errno::KEYREJECTED)
}

impl KeyPlace {
    pub(crate) fn of(place: &Place) -> Result<Self, SinkFailure> {
        let Place::Key { root, path } = place else { return Err(not_a_key()) };
        let shown = place.to_string();
        let root = if root == "@u" {
            KeyringRoot::User
        } else {
            KeyringRoot::Serial(root.parse().map_err(|_| failed("use", &shown, Errno::INVAL))?)
        };
        if path.is_empty() || path.iter().any(|part| part.is_empty() || part.contains('\0')) {
            return Err(failed("use", &shown, Errno::INVAL));
        }
        Ok(Self { root, path: path.clone(), shown })
    }

    pub(crate) fn rings(&self) -> &[String] {
        &self.path[..self.path.len() - 1]
    }

    pub(crate) fn description(&self) -> &str {
        &self.path[self.path.len() - 1]
    }
}

/// A call that failed, and what it was for.
pub(crate) struct Trouble {
    doing: &'static str,
    pub(crate) errno: Errno,
}

impl Trouble {
    pub(crate) fn at(doing: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self { doing, errno }
    }

    pub(crate) fn into_failure(self, place: &KeyPlace) -> SinkFailure {
        failed(self.doing, &place.shown, self.errno)
    }
}

/// A job that belongs to another lane: a defect of the daemon, said rather than hidden.
pub(crate) fn not_a_key() -> SinkFailure {
    SinkFailure {
        kind: SinkFailureKind::Other,
        detail: "the lane for keys was sent a job for a file; this is a defect of the daemon".into(),
    }
}
