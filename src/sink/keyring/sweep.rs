//! Finds drift: what others do to published keys. The kernel has no events for keys, so they are checked, a slice of them
//! every 750 ms; `docs/decisions/0016-sweeping-keys.md` has what that costs, and what many keys mean for it.
//!
//! A key's timeout cannot be read either, so each check sets it again. A key that expired was removed by the kernel, as
//! intended.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use zeroize::Zeroize;

use super::sys::{self, KeyType, PERMISSIONS, Serial};
use crate::domain::{SinkId, Ticket, Token, WallMs};
use crate::sink::job::PublicationId;
use crate::sink::ticker::Ticker;

/// How often a slice of the keys is checked.
const PERIOD: Duration = Duration::from_millis(750);

/// The keys in a slice. With fewer keys, each is checked every time.
const SLICE: usize = 200;

/// Which publication a key is, and how long it lives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PublishedKey {
    pub(crate) ticket: Ticket,
    pub(crate) sink: SinkId,
    /// When the kernel removes it; `None` for never.
    pub(crate) expires: Option<WallMs>,
}

/// The whole seconds left, for a key's timeout: rounded down.
pub(crate) fn seconds_left(expires: WallMs, now: WallMs) -> u32 {
    u32::try_from(expires.since(now) / 1000).unwrap_or(u32::MAX)
}

/// The published keys.
#[derive(Debug)]
pub(crate) struct KeySweep {
    hasher: RandomState,
    rings: BTreeMap<Serial, SweptKeyring>,
    /// The last key that was checked, after its keyring.
    last: Option<(Serial, Serial)>,
    ticker: Ticker,
    /// Payloads are read into this, and zeroized.
    payload: Box<[u8]>,
}

/// A keyring with published keys.
#[derive(Debug)]
struct SweptKeyring {
    /// The keyrings from the root to this one.
    path: Box<[Serial]>,
    keys: BTreeMap<Serial, SweptKey>,
}

#[derive(Debug, Clone, Copy)]
struct SweptKey {
    published: PublishedKey,
    /// A hash of the payload.
    payload: u64,
}

/// What checking a key shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyCheck {
    Unchanged,
    Drifted,
    /// Its timeout has passed.
    Expired,
}

impl KeySweep {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            hasher: RandomState::new(),
            rings: BTreeMap::new(),
            last: None,
            ticker: Ticker::new(PERIOD)?,
            payload: vec![0; Token::MAX_BYTES + 1].into(),
        })
    }

    /// Tracks a key that was published, or found unchanged. `path` has the keyrings from the root to its own.
    pub(crate) fn track(&mut self, path: &[Serial], key: Serial, payload: &[u8], published: PublishedKey) {
        let Some(&ring) = path.last() else { return };
        let known = SweptKey { published, payload: self.hasher.hash_one(payload) };
        let ring = self.rings.entry(ring).or_insert_with(|| SweptKeyring { path: path.into(), keys: BTreeMap::new() });
        if *ring.path != *path {
            ring.path = path.into();
        }
        ring.keys.insert(key, known);
        self.ticker.run(true);
    }

    /// Stops tracking a key that is withdrawn.
    pub(crate) fn untrack(&mut self, ring: Serial, key: Serial) {
        if let Some(known) = self.rings.get_mut(&ring) {
            known.keys.remove(&key);
            if known.keys.is_empty() {
                self.rings.remove(&ring);
            }
        }
        self.ticker.run(!self.rings.is_empty());
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.ticker.fd()
    }

    /// Checks the next slice, if it is due. Returns what drifted; that is tracked again when it is published again.
    pub(crate) fn check_due(&mut self, clock: impl Fn() -> WallMs) -> Vec<PublicationId> {
        if self.ticker.elapsed() == 0 {
            return Vec::new();
        }
        let (now, mut reached, mut drifted) = (clock(), HashMap::new(), Vec::new());
        for (ring, key) in self.next_slice() {
            let Some(known) = self.rings.get(&ring).and_then(|ring| ring.keys.get(&key)).copied() else { continue };
            if !self.is_reached(ring, &mut reached) {
                let lost = self.rings.remove(&ring).into_iter().flat_map(|ring| ring.keys.into_values());
                drifted.extend(lost.map(|known| (known.published.ticket, known.published.sink)));
                continue;
            }
            let check = self.check(ring, key, known, now);
            if check != KeyCheck::Unchanged {
                self.untrack(ring, key);
            }
            if check == KeyCheck::Drifted {
                drifted.push((known.published.ticket, known.published.sink));
            }
        }
        self.ticker.run(!self.rings.is_empty());
        drifted
    }

    /// The keys after the last one checked, or from the first again.
    fn next_slice(&mut self) -> Vec<(Serial, Serial)> {
        let (ring, key) = self.last.unwrap_or((Serial::MIN, Serial::MIN));
        let of = |(ring, known): (&Serial, &SweptKeyring), after| {
            let ring = *ring;
            known.keys.range((after, Unbounded)).take(SLICE).map(move |(key, _)| (ring, *key)).collect::<Vec<_>>()
        };
        let begun = self.rings.get_key_value(&ring).map(|begun| of(begun, Excluded(key)));
        let others = self.rings.range((Excluded(ring), Unbounded)).map(|other| of(other, Unbounded));
        let slice: Vec<_> = begun.into_iter().chain(others).flatten().take(SLICE).collect();
        self.last = slice.last().copied().filter(|_| slice.len() == SLICE);
        slice
    }

    /// Whether the keyring is still linked at its path from the root. `reached` caches the answer for each keyring.
    fn is_reached(&self, ring: Serial, reached: &mut HashMap<Serial, bool>) -> bool {
        let path = self.rings.get(&ring).map(|ring| &*ring.path).unwrap_or_default();
        path.windows(2).all(|step| {
            *reached.entry(step[1]).or_insert_with(|| {
                sys::describe(step[1])
                    .is_ok_and(|ring| is_linked_in(step[0], step[1], KeyType::Keyring, &ring.description))
            })
        })
    }

    fn check(&mut self, ring: Serial, key: Serial, known: SweptKey, now: WallMs) -> KeyCheck {
        let left = known.published.expires.map(|at| seconds_left(at, now));
        let found = match sys::describe(key) {
            // Timeouts have whole seconds, so a key expires up to two before its token.
            Err(Errno::KEYEXPIRED) if left.is_some_and(|left| left <= 1) => return KeyCheck::Expired,
            Err(_) if left == Some(0) => return KeyCheck::Expired,
            Err(Errno::ACCESS) => {
                // A key that its owner may not even view cannot be repaired, so it is replaced.
                let _ = sys::unlink(key, ring);
                return KeyCheck::Drifted;
            }
            Err(_) => return KeyCheck::Drifted,
            Ok(found) => found,
        };
        let unchanged = found.permissions == PERMISSIONS
            && is_linked_in(ring, key, KeyType::User, &found.description)
            && self.payload_of(key) == Some(known.payload)
            // At the very end a new timeout would make it live longer.
            && (left.is_some_and(|left| left <= 1) || sys::set_timeout(key, left.unwrap_or(0)).is_ok());
        if unchanged { KeyCheck::Unchanged } else { KeyCheck::Drifted }
    }

    fn payload_of(&mut self, key: Serial) -> Option<u64> {
        let length = sys::read_into(key, &mut self.payload).ok()?;
        let length = length.min(self.payload.len());
        let held = &mut self.payload[..length];
        let hash = self.hasher.hash_one(&*held);
        held.zeroize();
        Some(hash)
    }
}

/// Whether this key is linked directly in that keyring. The list of links is long, so it is read only if the kernel's search
/// finds another key of that name first.
fn is_linked_in(ring: Serial, key: Serial, key_type: KeyType, description: &str) -> bool {
    sys::search(ring, key_type, description) == Ok(key)
        || sys::links(ring).is_ok_and(|links| links.binary_search(&key).is_ok())
}
