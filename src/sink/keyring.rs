//! Publication to the kernel's keyrings: one key of type "user" a token, updated in place.
//!
//! A key is looked for, read, and only added again when its payload differs: adding replaces the payload at once for all
//! readers and keeps the serial number, but clears the timeout, which is therefore set after it.

use std::collections::HashMap;

use rustix::fd::BorrowedFd;
use rustix::io::Errno;

use super::keyctl::{self, Kind, PERMISSIONS, Serial, failed};
use super::lane::Work;
use super::{Job, Publication, Report};
use crate::domain::{KeyringRoot, KeyringSink, OnExpiry, Place, SinkFailure, SinkFailureKind, SinkKind, WallMs, Wrote};

/// The state of the lane for keys.
pub(super) struct Keys<C> {
    clock: C,
    /// The root keyrings that this batch has met.
    roots: HashMap<KeyringRoot, Serial>,
    /// What hangs in the keyrings that this batch has met.
    links: HashMap<Serial, Vec<Serial>>,
}

/// A key's place, taken apart.
struct KeyPlace {
    root: KeyringRoot,
    /// The keyrings on the way, and last the key's description.
    path: Vec<String>,
    /// All of it, for messages.
    shown: String,
}

/// Whether keyrings on the way are made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Leave,
}

impl<C: Fn() -> WallMs> Keys<C> {
    pub(super) fn new(clock: C) -> Self {
        Self { clock, roots: HashMap::new(), links: HashMap::new() }
    }

    fn publish(&mut self, job: &Publication) -> Result<Wrote, SinkFailure> {
        let spec = job.specs.get(usize::from(job.sink.0));
        let Some((SinkKind::Keyring(_), spec)) = spec.map(|spec| (&spec.kind, spec)) else {
            return Err(not_a_key());
        };
        let place = KeyPlace::of(&spec.place(&job.names))?;
        let seconds = match spec.on_expiry {
            OnExpiry::Keep => 0,
            OnExpiry::Delete => {
                let left = job.expires.since((self.clock)()) / 1000;
                u32::try_from(left).unwrap_or(u32::MAX).max(1)
            }
        };
        let payload = job.token.expose().as_bytes();
        match self.put(&place, payload, seconds) {
            // A keyring was taken away between two calls: from the top, once.
            Err(Trouble { errno: Errno::NOKEY | Errno::KEYREVOKED | Errno::KEYEXPIRED, .. }) => {
                self.forget();
                self.put(&place, payload, seconds)
            }
            other => other,
        }
        .map_err(|trouble| trouble.into_failure(&place))
    }

    fn put(&mut self, place: &KeyPlace, payload: &[u8], seconds: u32) -> Result<Wrote, Trouble> {
        let rings = self.walk(place, Missing::Make)?;
        let ring = rings[rings.len() - 1];
        let description = place.description();
        let found = self.find(ring, Kind::User, description).map_err(Trouble::at("look for the key"))?;
        let wrote = match found {
            Some(key) if keyctl::read(key).is_ok_and(|held| *held == payload) => {
                self.settle(key, seconds, Settled::Before).map_err(Trouble::at("set the timeout of the key"))?
            }
            _ => {
                let key = self.add(ring, description, payload).map_err(Trouble::at("add the key"))?;
                self.settle(key, seconds, Settled::Never).map_err(Trouble::at("set the timeout of the key"))?;
                Wrote::Replaced
            }
        };
        Ok(wrote)
    }

    fn add(&mut self, ring: Serial, description: &str, payload: &[u8]) -> Result<Serial, Errno> {
        let added = match keyctl::add(ring, Kind::User, description, payload) {
            Err(errno) if is_dead(errno) || errno == Errno::NOKEY => {
                bury(ring)?;
                keyctl::add(ring, Kind::User, description, payload)
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

    /// Sets what adding a key leaves unset. The kernel does not tell a key's timeout, so it is set each time.
    fn settle(&self, key: Serial, seconds: u32, before: Settled) -> Result<Wrote, Errno> {
        keyctl::set_timeout(key, seconds)?;
        let right = matches!(before, Settled::Before)
            && keyctl::describe(key).is_ok_and(|found| found.permissions == PERMISSIONS);
        if right {
            return Ok(Wrote::Unchanged);
        }
        keyctl::set_permissions(key, PERMISSIONS)?;
        Ok(Wrote::Mended)
    }

    /// The keyrings from the root to the one in which the key hangs.
    fn walk(&mut self, place: &KeyPlace, missing: Missing) -> Result<Vec<Serial>, Trouble> {
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

    /// Others change keyrings too, so nothing is remembered for longer than a batch.
    fn forget(&mut self) {
        self.roots.clear();
        self.links.clear();
    }

    fn root(&mut self, root: KeyringRoot) -> Result<Serial, Errno> {
        if let Some(serial) = self.roots.get(&root) {
            return Ok(*serial);
        }
        let serial = keyctl::root(root)?;
        self.roots.insert(root, serial);
        Ok(serial)
    }

    fn make(&mut self, above: Serial, name: &str) -> Result<Serial, Errno> {
        let ring = keyctl::add(above, Kind::Keyring, name, &[])?;
        keyctl::set_permissions(ring, PERMISSIONS)?;
        self.links.remove(&above);
        Ok(ring)
    }

    /// The key of this type and description that hangs directly in `ring`. The kernel's own search is fast, but goes on
    /// into the keyrings below.
    fn find(&mut self, ring: Serial, kind: Kind, description: &str) -> Result<Option<Serial>, Errno> {
        let nearest = match keyctl::search(ring, kind, description) {
            Ok(key) => key,
            Err(Errno::NOKEY) => return Ok(None),
            // A dead one is in the way of the search; a live keyring of this name may be beside it.
            Err(Errno::KEYEXPIRED | Errno::KEYREVOKED | Errno::KEYREJECTED) if kind == Kind::User => return Ok(None),
            Err(Errno::KEYEXPIRED | Errno::KEYREVOKED | Errno::KEYREJECTED) => {
                return self.scan(ring, kind, description);
            }
            Err(errno) => return Err(errno),
        };
        if self.links_of(ring)?.binary_search(&nearest).is_ok() {
            return Ok(Some(nearest));
        }
        self.scan(ring, kind, description)
    }

    fn scan(&mut self, ring: Serial, kind: Kind, description: &str) -> Result<Option<Serial>, Errno> {
        let is_it = |key: &&Serial| {
            keyctl::describe(**key)
                .is_ok_and(|found| found.is_keyring == (kind == Kind::Keyring) && found.description == description)
        };
        Ok(self.links_of(ring)?.iter().find(is_it).copied())
    }

    fn links_of(&mut self, ring: Serial) -> Result<&Vec<Serial>, Errno> {
        use std::collections::hash_map::Entry;
        match self.links.entry(ring) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => Ok(unknown.insert(keyctl::links(ring)?)),
        }
    }

    fn withdraw(&mut self, place: &Place) -> Result<(), SinkFailure> {
        let place = KeyPlace::of(place)?;
        self.take_away(&place).map_err(|trouble| trouble.into_failure(&place))
    }

    fn take_away(&mut self, place: &KeyPlace) -> Result<(), Trouble> {
        let rings = self.walk(place, Missing::Leave)?;
        if rings.len() == place.path.len() {
            let ring = rings[rings.len() - 1];
            let found = self.find(ring, Kind::User, place.description());
            match found.map_err(Trouble::at("look for the key"))? {
                Some(key) => keyctl::unlink(key, ring),
                // An expired key holds no token any more, but would keep the keyring from being empty.
                None => bury(ring),
            }
            .map_err(Trouble::at("remove the key"))?;
        }
        // From the innermost keyring outwards, as long as they are empty. The root stays.
        for pair in rings.windows(2).rev() {
            let [above, ring] = [pair[0], pair[1]];
            if !keyctl::links(ring).is_ok_and(|links| links.is_empty()) || keyctl::unlink(ring, above).is_err() {
                break;
            }
        }
        self.links.clear();
        Ok(())
    }
}

/// Tries whether the root of a sink can be reached and read, and publishes nothing.
pub(super) fn probe(sink: &KeyringSink) -> Result<(), SinkFailure> {
    let failed = |errno| failed("use the keyring", &sink.root.to_string(), errno);
    let root = keyctl::root(sink.root).map_err(failed)?;
    let described = keyctl::describe(root).map_err(failed)?;
    if !described.is_keyring {
        return Err(failed(Errno::NOTDIR));
    }
    keyctl::links(root).map(drop).map_err(failed)
}

/// Expired and revoked keys stay linked until the kernel collects them (`/proc/sys/kernel/keys/gc_delay`, 300 s), and an
/// expired one can be in the way of its successor.
fn bury(ring: Serial) -> Result<(), Errno> {
    for key in keyctl::links(ring)? {
        // What is dead does not even tell its description.
        if keyctl::describe(key).is_err_and(is_dead) {
            keyctl::unlink(key, ring)?;
        }
    }
    Ok(())
}

fn is_dead(errno: Errno) -> bool {
    matches!(errno, Errno::KEYEXPIRED | Errno::KEYREVOKED | Errno::KEYREJECTED)
}

/// Whether a key was there before, with permissions that may be right already.
enum Settled {
    Before,
    Never,
}

impl<C: Fn() -> WallMs> Work for Keys<C> {
    fn work(&mut self, jobs: &mut dyn Iterator<Item = Job>) -> Vec<Report> {
        self.forget();
        jobs.map(|job| match job {
            Job::Publish(job) => Report::Published { ticket: job.ticket, sink: job.sink, outcome: self.publish(&job) },
            Job::Withdraw { root, place, .. } => {
                let outcome = self.withdraw(&place);
                Report::Withdrawn { root, place, outcome }
            }
        })
        .collect()
    }

    fn wake_on(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    fn look_around(&mut self) -> Vec<Report> {
        Vec::new()
    }
}

impl KeyPlace {
    fn of(place: &Place) -> Result<Self, SinkFailure> {
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

    fn rings(&self) -> &[String] {
        &self.path[..self.path.len() - 1]
    }

    fn description(&self) -> &str {
        &self.path[self.path.len() - 1]
    }
}

/// A call that failed, and what it was for.
struct Trouble {
    doing: &'static str,
    errno: Errno,
}

impl Trouble {
    fn at(doing: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self { doing, errno }
    }

    fn into_failure(self, place: &KeyPlace) -> SinkFailure {
        failed(self.doing, &place.shown, self.errno)
    }
}

/// A job that belongs to another lane: a defect of the daemon, said rather than hidden.
fn not_a_key() -> SinkFailure {
    SinkFailure {
        kind: SinkFailureKind::Other,
        detail: "the lane for keys was sent a job for a file; this is a defect of the daemon".into(),
    }
}
