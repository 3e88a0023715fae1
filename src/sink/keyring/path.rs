//! Finds or makes the keyrings on the way to a key, and finds the key.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;

use rustix::io::Errno;

use super::sys::{self, KeyType, PERMISSIONS, Serial, failed};
use crate::domain::{KeyPath, KeyringRoot, SinkFailure};

/// A key's place, parsed.
pub(crate) struct ParsedKey {
    root: KeyringRoot,
    /// The keyrings' names and, last, the key's description.
    pub(crate) path: Vec<String>,
    /// The whole place, for messages.
    shown: String,
}

/// Whether missing keyrings are made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum MissingKeyrings {
    Make,
    Leave,
}

/// The keyrings that a batch has used. Others change keyrings too, so nothing is cached for longer.
#[derive(Default)]
pub(crate) struct KeyringCache {
    roots: HashMap<KeyringRoot, Serial>,
    /// What is linked in each.
    links: HashMap<Serial, Vec<Serial>>,
}

impl KeyringCache {
    pub(crate) fn clear(&mut self) {
        self.roots.clear();
        self.links.clear();
    }

    /// The keyrings from the root to the one that is to hold the key; fewer if some are missing and left so.
    pub(crate) fn walk(&mut self, place: &ParsedKey, missing: MissingKeyrings) -> Result<Vec<Serial>, KeyError> {
        let mut rings = vec![self.root(place.root).map_err(KeyError::at("open the root keyring of"))?];
        for name in place.rings() {
            let above = rings[rings.len() - 1];
            let found = self.find(above, KeyType::Keyring, name).map_err(KeyError::at("look for the keyring of"))?;
            match (found, missing) {
                (Some(ring), _) => rings.push(ring),
                (None, MissingKeyrings::Leave) => break,
                (None, MissingKeyrings::Make) => {
                    rings.push(self.make(above, name).map_err(KeyError::at("make the keyring of"))?);
                }
            }
        }
        Ok(rings)
    }

    pub(crate) fn add(&mut self, ring: Serial, description: &str, payload: &[u8]) -> Result<Serial, Errno> {
        let added = match sys::add(ring, KeyType::User, description, payload) {
            Err(errno) if is_dead(errno) || errno == Errno::NOKEY => {
                unlink_dead_keys(ring)?;
                sys::add(ring, KeyType::User, description, payload)
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
        let ring = sys::add(above, KeyType::Keyring, name, &[])?;
        sys::set_permissions(ring, PERMISSIONS)?;
        self.links.remove(&above);
        Ok(ring)
    }

    /// The key of this type and description directly in `ring`. The kernel's search is fast, but goes on into the keyrings
    /// below.
    pub(crate) fn find(&mut self, ring: Serial, key_type: KeyType, description: &str) -> Result<Option<Serial>, Errno> {
        let nearest = match sys::search(ring, key_type, description) {
            Ok(key) => key,
            Err(Errno::NOKEY) => return Ok(None),
            // The search stops at a dead keyring; a live one of this name may be beside it.
            Err(errno) if is_dead(errno) && key_type == KeyType::User => return Ok(None),
            Err(errno) if is_dead(errno) => return self.scan(ring, key_type, description),
            Err(errno) => return Err(errno),
        };
        if self.links_of(ring)?.binary_search(&nearest).is_ok() {
            return Ok(Some(nearest));
        }
        self.scan(ring, key_type, description)
    }

    fn scan(&mut self, ring: Serial, key_type: KeyType, description: &str) -> Result<Option<Serial>, Errno> {
        let is_it = |key: &&Serial| {
            sys::describe(**key).is_ok_and(|found| {
                found.is_keyring == (key_type == KeyType::Keyring) && found.description == description
            })
        };
        Ok(self.links_of(ring)?.iter().find(is_it).copied())
    }

    fn links_of(&mut self, ring: Serial) -> Result<&Vec<Serial>, Errno> {
        match self.links.entry(ring) {
            MapEntry::Occupied(known) => Ok(known.into_mut()),
            MapEntry::Vacant(unknown) => Ok(unknown.insert(sys::links(ring)?)),
        }
    }
}

/// Unlinks expired and revoked keys. They stay linked until the kernel collects them (`/proc/sys/kernel/keys/gc_delay`,
/// 300 s), and adding a key can fail on an expired one of its name.
pub(crate) fn unlink_dead_keys(ring: Serial) -> Result<(), Errno> {
    for key in sys::links(ring)? {
        // A dead key has no description.
        if sys::describe(key).is_err_and(is_dead) {
            sys::unlink(key, ring)?;
        }
    }
    Ok(())
}

fn is_dead(errno: Errno) -> bool {
    matches!(errno, Errno::KEYEXPIRED | Errno::KEYREVOKED | Errno::KEYREJECTED)
}

impl ParsedKey {
    pub(crate) fn of(key: &KeyPath) -> Result<Self, SinkFailure> {
        let (KeyPath { root, path }, shown) = (key.clone(), key.to_string());
        if path.is_empty() || path.iter().any(|part| part.is_empty() || part.contains('\0')) {
            return Err(failed("use", &shown, Errno::INVAL));
        }
        Ok(Self { root, path, shown })
    }

    pub(crate) fn rings(&self) -> &[String] {
        &self.path[..self.path.len() - 1]
    }

    pub(crate) fn description(&self) -> &str {
        &self.path[self.path.len() - 1]
    }
}

/// A key call that failed, and what it was for.
pub(crate) struct KeyError {
    doing: &'static str,
    pub(crate) errno: Errno,
}

impl KeyError {
    pub(crate) fn at(doing: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self { doing, errno }
    }

    pub(crate) fn into_failure(self, place: &ParsedKey) -> SinkFailure {
        failed(self.doing, &place.shown, self.errno)
    }
}
