//! The tenants: slots that are reused, found by app and corp_id.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::ops::{Index, IndexMut};

use hashbrown::HashTable;

use super::app::AppIx;
use super::tenant::Tenant;
use crate::domain::{CorpId, Slot};

/// Tenants lie side by side in chunks of this many, so that a table which grows moves nobody.
const CHUNK: usize = 512;

#[derive(Default)]
pub(super) struct Table {
    /// All are full but the last.
    chunks: Vec<Vec<Place>>,
    index: HashTable<Slot>,
    free: Vec<Slot>,
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
fn hash(app: AppIx, corp_id: &CorpId) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one((app, corp_id))
}

/// Where a slot lies: in which chunk, and where in it.
fn position(slot: Slot) -> (usize, usize) {
    (slot.0 as usize / CHUNK, slot.0 as usize % CHUNK)
}

impl Table {
    pub(super) fn find(&self, app: AppIx, corp_id: &CorpId) -> Option<Slot> {
        let same = |slot: &Slot| self.get(*slot).is_some_and(|t| t.app == app && t.corp_id == *corp_id);
        self.index.find(hash(app, corp_id), same).copied()
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Tenant> {
        let (chunk, place) = position(slot);
        match self.chunks.get(chunk)?.get(place)? {
            Place::Taken(tenant) => Some(tenant),
            Place::Free(_) => None,
        }
    }

    /// Puts a tenant in; `make` gets its hash, and the numbers from which it goes on counting.
    pub(super) fn insert(&mut self, app: AppIx, corp_id: &CorpId, make: impl FnOnce(u64, Past) -> Tenant) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| self.grow());
        let place = self.place(slot);
        let Place::Free(past) = *place else { unreachable!("a free slot is free") };
        let key = hash(app, corp_id);
        *place = Place::Taken(make(key, past));
        let Self { chunks, index, .. } = self;
        index.insert_unique(key, slot, |slot| {
            let (chunk, place) = position(*slot);
            match &chunks[chunk][place] {
                Place::Taken(tenant) => tenant.hash,
                Place::Free(_) => 0,
            }
        });
        slot
    }

    /// One free slot more.
    fn grow(&mut self) -> Slot {
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let before = (self.chunks.len() - 1) * CHUNK;
        let last = &mut self.chunks[before / CHUNK];
        last.push(Place::Free(Past::default()));
        Slot(u32::try_from(before + last.len() - 1).expect("fewer than 2^32 tenants"))
    }

    fn place(&mut self, slot: Slot) -> &mut Place {
        let (chunk, place) = position(slot);
        &mut self.chunks[chunk][place]
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        let tenant = &self[slot];
        let (key, past) = (tenant.hash, Past { seq: tenant.seq, stamp: tenant.stamp });
        if let Ok(entry) = self.index.find_entry(key, |found| *found == slot) {
            entry.remove();
        }
        *self.place(slot) = Place::Free(past);
        self.free.push(slot);
    }

    /// All taken slots from `from` on.
    pub(super) fn slots_from(&self, from: Slot) -> impl Iterator<Item = Slot> {
        let (first, skipped) = position(from);
        let places = self.chunks.iter().enumerate().skip(first).flat_map(move |(chunk, places)| {
            let skipped = if chunk == first { skipped } else { 0 };
            places.iter().enumerate().skip(skipped).map(move |(number, place)| (chunk * CHUNK + number, place))
        });
        let taken = places.filter(|(_, place)| matches!(place, Place::Taken(_)));
        taken.map(|(number, _)| Slot(u32::try_from(number).unwrap_or(u32::MAX)))
    }
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
