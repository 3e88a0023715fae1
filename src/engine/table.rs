//! The tenants: slots that are reused, found by app and corp_id.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::ops::{Index, IndexMut};

use hashbrown::HashTable;

use super::app::AppIx;
use super::tenant::Tenant;
use super::view::State;
use crate::domain::{CorpId, Slot};

/// Tenants lie side by side in chunks of this many, so that a table which grows moves nobody.
const CHUNK: usize = 512;

#[derive(Default)]
pub(super) struct Table {
    /// All are full but the last.
    chunks: Vec<Chunk>,
    index: HashTable<Slot>,
    free: Vec<Slot>,
}

#[derive(Default)]
struct Chunk {
    places: Vec<Place>,
    /// How many of its tenants are not fresh. Where none is, nobody in trouble need be looked for.
    unfresh: u16,
}

enum Place {
    Taken(Tenant),
    Free(Past),
}

/// What a slot remembers of its owners, so that nothing of theirs is mistaken for the next one's.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Past {
    /// The number of the last call.
    pub(super) seq: u32,
    /// The stamp of the last queue entry.
    pub(super) stamp: u32,
}

/// SipHash with a fixed key: the same in every run, as everything in the engine is.
fn hash(app: AppIx, corp_id: &CorpId) -> u32 {
    let wide = BuildHasherDefault::<DefaultHasher>::default().hash_one((app, corp_id));
    (wide >> 32) as u32
}

/// The index wants a key that differs in its highest bits, too.
fn key(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Where a slot lies: in which chunk, and where in it.
fn position(slot: Slot) -> (usize, usize) {
    (slot.0 as usize / CHUNK, slot.0 as usize % CHUNK)
}

impl Table {
    pub(super) fn find(&self, app: AppIx, corp_id: &CorpId) -> Option<Slot> {
        let same = |slot: &Slot| self.get(*slot).is_some_and(|t| t.app == app && t.corp_id == *corp_id);
        self.index.find(key(hash(app, corp_id)), same).copied()
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Tenant> {
        let (chunk, place) = position(slot);
        match self.chunks.get(chunk)?.places.get(place)? {
            Place::Taken(tenant) => Some(tenant),
            Place::Free(_) => None,
        }
    }

    /// Puts a tenant in; `make` gets its hash, and the numbers from which it goes on counting.
    pub(super) fn insert(&mut self, app: AppIx, corp_id: &CorpId, make: impl FnOnce(u32, Past) -> Tenant) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| self.grow());
        let place = self.place(slot);
        let Place::Free(past) = *place else { unreachable!("a free slot is free") };
        let hash = hash(app, corp_id);
        let tenant = make(hash, past);
        let unfresh = is_unfresh(tenant.state);
        *place = Place::Taken(tenant);
        let Self { chunks, index, .. } = self;
        chunks[position(slot).0].unfresh += unfresh;
        index.insert_unique(key(hash), slot, |slot| {
            let (chunk, place) = position(*slot);
            match &chunks[chunk].places[place] {
                Place::Taken(tenant) => key(tenant.hash),
                Place::Free(_) => 0,
            }
        });
        slot
    }

    /// One free slot more.
    fn grow(&mut self) -> Slot {
        if self.chunks.last().is_none_or(|last| last.places.len() == CHUNK) {
            self.chunks.push(Chunk { places: Vec::with_capacity(CHUNK), unfresh: 0 });
        }
        let before = (self.chunks.len() - 1) * CHUNK;
        let last = &mut self.chunks[before / CHUNK].places;
        last.push(Place::Free(Past::default()));
        Slot(u32::try_from(before + last.len() - 1).expect("fewer than 2^32 tenants"))
    }

    fn place(&mut self, slot: Slot) -> &mut Place {
        let (chunk, place) = position(slot);
        &mut self.chunks[chunk].places[place]
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        let tenant = &self[slot];
        let (key, past) = (key(tenant.hash), Past { seq: tenant.seq, stamp: tenant.stamp });
        let unfresh = is_unfresh(tenant.state);
        if let Ok(entry) = self.index.find_entry(key, |found| *found == slot) {
            entry.remove();
        }
        self.chunks[position(slot).0].unfresh -= unfresh;
        *self.place(slot) = Place::Free(past);
        self.free.push(slot);
    }

    pub(super) fn set_state(&mut self, slot: Slot, state: State) {
        let before = std::mem::replace(&mut self[slot].state, state);
        let unfresh = &mut self.chunks[position(slot).0].unfresh;
        *unfresh = *unfresh + is_unfresh(state) - is_unfresh(before);
    }

    /// The slots of tenants that are not fresh, of those included that left. Where all are fresh, nobody is visited.
    pub(super) fn unfresh(&self) -> impl Iterator<Item = Slot> {
        let places = self.chunks.iter().enumerate().filter(|(_, chunk)| chunk.unfresh > 0).flat_map(slots_of);
        places.filter(|(_, tenant)| tenant.state != State::Fresh).map(|(slot, _)| slot)
    }

    /// All taken slots from `from` on.
    pub(super) fn slots_from(&self, from: Slot) -> impl Iterator<Item = Slot> {
        let chunks = self.chunks.iter().enumerate().skip(position(from).0);
        chunks.flat_map(slots_of).map(|(slot, _)| slot).skip_while(move |slot| *slot < from)
    }
}

/// The taken slots of a chunk.
fn slots_of((number, chunk): (usize, &Chunk)) -> impl Iterator<Item = (Slot, &Tenant)> {
    let places = chunk.places.iter().enumerate();
    places.filter_map(move |(place, owner)| match owner {
        Place::Taken(tenant) => Some((Slot(u32::try_from(number * CHUNK + place).unwrap_or(u32::MAX)), tenant)),
        Place::Free(_) => None,
    })
}

fn is_unfresh(state: State) -> u16 {
    u16::from(state != State::Fresh)
}

impl Index<Slot> for Table {
    type Output = Tenant;
    fn index(&self, slot: Slot) -> &Tenant {
        self.get(slot).expect("the slot is taken: timers and queues are cleared when a tenant goes")
    }
}

impl IndexMut<Slot> for Table {
    fn index_mut(&mut self, slot: Slot) -> &mut Tenant {
        match self.place(slot) {
            Place::Taken(tenant) => tenant,
            Place::Free(_) => unreachable!("the slot is taken: timers and queues are cleared when a tenant goes"),
        }
    }
}
