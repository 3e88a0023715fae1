//! Self-repair: what others do to published keys. The kernel tells nobody of that, so the keys are looked at, a slice of
//! them every 750 ms; `docs/decisions/0016-sweeping-keys.md` has what that costs, and what many keys mean for it.
//!
//! A key's timeout is not told either, so it is simply set again. A key that goes because its time is over was withdrawn by
//! the kernel, as it was asked to.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use zeroize::Zeroize;

use super::sys::{self, Kind, PERMISSIONS, Serial};
use crate::domain::{SinkId, Ticket, Token, WallMs};
use crate::sink::ticker::Ticker;

/// How often a slice of the keys is looked at.
const PERIOD: Duration = Duration::from_millis(750);

/// How many keys a slice has. With fewer, each is looked at every time.
const SLICE: usize = 200;

/// Whose key it is, and until when it is to be there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Published {
    pub(crate) ticket: Ticket,
    pub(crate) sink: SinkId,
    /// When the kernel is to withdraw it; `None`: never.
    pub(crate) expires: Option<WallMs>,
}

/// The whole seconds that are left, as a key's timeout is told: rather a second too few than one too many.
pub(crate) fn seconds_left(expires: WallMs, now: WallMs) -> u32 {
    u32::try_from(expires.since(now) / 1000).unwrap_or(u32::MAX)
}

/// What is known of the keys that were published.
#[derive(Debug)]
pub(crate) struct Sweep {
    hasher: RandomState,
    rings: BTreeMap<Serial, Ring>,
    /// The key that was looked at last, and its keyring.
    last: Option<(Serial, Serial)>,
    ticker: Ticker,
    /// What a key holds is read into this, and wiped.
    payload: Box<[u8]>,
}

/// A keyring with published keys.
#[derive(Debug)]
struct Ring {
    /// The keyrings from the root down to this one.
    way: Box<[Serial]>,
    keys: BTreeMap<Serial, Known>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    published: Published,
    /// A hash of the payload, which is not kept.
    payload: u64,
}

/// What a look at a key shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    AsItWas,
    Touched,
    /// Its time is over.
    Expired,
}

impl Sweep {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            hasher: RandomState::new(),
            rings: BTreeMap::new(),
            last: None,
            ticker: Ticker::new(PERIOD)?,
            payload: vec![0; Token::MAX_BYTES + 1].into(),
        })
    }

    /// Looks after a key that was just published, or found to be right. `way` leads from the root to its keyring.
    pub(crate) fn track(&mut self, way: &[Serial], key: Serial, payload: &[u8], published: Published) {
        let Some(&ring) = way.last() else { return };
        let known = Known { published, payload: self.hasher.hash_one(payload) };
        let ring = self.rings.entry(ring).or_insert_with(|| Ring { way: way.into(), keys: BTreeMap::new() });
        if *ring.way != *way {
            ring.way = way.into();
        }
        ring.keys.insert(key, known);
        self.ticker.run(true);
    }

    /// Looks no more after a key that is withdrawn.
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

    /// Looks at the next slice, if it is time to. Answers with what somebody else touched; that is looked after again once
    /// it is published again.
    pub(crate) fn look(&mut self, clock: impl Fn() -> WallMs) -> Vec<(Ticket, SinkId)> {
        if self.ticker.elapsed() == 0 {
            return Vec::new();
        }
        let (now, mut sound, mut touched) = (clock(), HashMap::new(), Vec::new());
        for (ring, key) in self.next_slice() {
            let Some(known) = self.rings.get(&ring).and_then(|ring| ring.keys.get(&key)).copied() else { continue };
            if !self.is_reached(ring, &mut sound) {
                let lost = self.rings.remove(&ring).into_iter().flat_map(|ring| ring.keys.into_values());
                touched.extend(lost.map(|known| (known.published.ticket, known.published.sink)));
                continue;
            }
            let look = self.look_at(ring, key, known, now);
            if look != Probe::AsItWas {
                self.untrack(ring, key);
            }
            if look == Probe::Touched {
                touched.push((known.published.ticket, known.published.sink));
            }
        }
        self.ticker.run(!self.rings.is_empty());
        touched
    }

    /// The keys after the one that was looked at last; from the first one again after the last.
    fn next_slice(&mut self) -> Vec<(Serial, Serial)> {
        let (ring, key) = self.last.unwrap_or((Serial::MIN, Serial::MIN));
        let of = |(ring, known): (&Serial, &Ring), after| {
            let ring = *ring;
            known.keys.range((after, Unbounded)).take(SLICE).map(move |(key, _)| (ring, *key)).collect::<Vec<_>>()
        };
        let begun = self.rings.get_key_value(&ring).map(|begun| of(begun, Excluded(key)));
        let others = self.rings.range((Excluded(ring), Unbounded)).map(|other| of(other, Unbounded));
        let slice: Vec<_> = begun.into_iter().chain(others).flatten().take(SLICE).collect();
        self.last = slice.last().copied().filter(|_| slice.len() == SLICE);
        slice
    }

    /// Whether the way from the root still leads to this keyring. What was found of each keyring is noted in `sound`.
    fn is_reached(&self, ring: Serial, sound: &mut HashMap<Serial, bool>) -> bool {
        let way = self.rings.get(&ring).map(|ring| &*ring.way).unwrap_or_default();
        way.windows(2).all(|step| {
            *sound.entry(step[1]).or_insert_with(|| {
                sys::describe(step[1]).is_ok_and(|ring| hangs_in(step[0], step[1], Kind::Keyring, &ring.description))
            })
        })
    }

    fn look_at(&mut self, ring: Serial, key: Serial, known: Known, now: WallMs) -> Probe {
        let left = known.published.expires.map(|at| seconds_left(at, now));
        let found = match sys::describe(key) {
            // Told in whole seconds, it goes up to two before its token does.
            Err(Errno::KEYEXPIRED) if left.is_some_and(|left| left <= 1) => return Probe::Expired,
            Err(_) if left == Some(0) => return Probe::Expired,
            Err(Errno::ACCESS) => {
                // Nobody could mend a key that its owner may not even look at; its successor takes its place.
                let _ = sys::unlink(key, ring);
                return Probe::Touched;
            }
            Err(_) => return Probe::Touched,
            Ok(found) => found,
        };
        let untouched = found.permissions == PERMISSIONS
            && hangs_in(ring, key, Kind::User, &found.description)
            && self.payload_of(key) == Some(known.payload)
            // At the very end it would live longer by that.
            && (left.is_some_and(|left| left <= 1) || sys::set_timeout(key, left.unwrap_or(0)).is_ok());
        if untouched { Probe::AsItWas } else { Probe::Touched }
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

/// Whether this key hangs directly in that keyring. Its list is long, so it is only read where the kernel's own search finds
/// another of that name first.
fn hangs_in(ring: Serial, key: Serial, kind: Kind, description: &str) -> bool {
    sys::search(ring, kind, description) == Ok(key)
        || sys::links(ring).is_ok_and(|links| links.binary_search(&key).is_ok())
}
