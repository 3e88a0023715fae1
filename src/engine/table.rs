//! The tenants: slots that are reused, found by app and corp_id.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::ops::{Index, IndexMut};

use hashbrown::HashTable;

use super::app::AppIx;
use super::tenant::Tenant;
use crate::domain::{CorpId, Slot};

#[derive(Default)]
pub(super) struct Table {
    slots: Vec<Place>,
    index: HashTable<Slot>,
    free: Vec<Slot>,
}

enum Place {
    Taken(Box<Tenant>),
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

impl Table {
    /// A number for jitter that belongs to the tenant, wherever its slot is.
    pub(super) fn hash_of(&self, slot: Slot) -> u64 {
        let tenant = &self[slot];
        hash(tenant.app, &tenant.corp_id)
    }

    pub(super) fn find(&self, app: AppIx, corp_id: &CorpId) -> Option<Slot> {
        let same = |slot: &Slot| self.get(*slot).is_some_and(|t| t.app == app && t.corp_id == *corp_id);
        self.index.find(hash(app, corp_id), same).copied()
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Tenant> {
        match self.slots.get(slot.0 as usize)? {
            Place::Taken(tenant) => Some(tenant),
            Place::Free(_) => None,
        }
    }

    /// Puts a tenant in; `make` gets the numbers from which it goes on counting.
    pub(super) fn insert(&mut self, app: AppIx, corp_id: &CorpId, make: impl FnOnce(Past) -> Tenant) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Place::Free(Past::default()));
            Slot(u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 tenants"))
        });
        let Place::Free(past) = self.slots[slot.0 as usize] else { unreachable!("a free slot is free") };
        self.slots[slot.0 as usize] = Place::Taken(Box::new(make(past)));
        let Self { slots, index, .. } = self;
        index.insert_unique(hash(app, corp_id), slot, |slot| match &slots[slot.0 as usize] {
            Place::Taken(tenant) => hash(tenant.app, &tenant.corp_id),
            Place::Free(_) => 0,
        });
        slot
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        let tenant = &self[slot];
        let (key, past) = (hash(tenant.app, &tenant.corp_id), Past { seq: tenant.seq, stamp: tenant.stamp });
        if let Ok(entry) = self.index.find_entry(key, |found| *found == slot) {
            entry.remove();
        }
        self.slots[slot.0 as usize] = Place::Free(past);
        self.free.push(slot);
    }

    /// All taken slots from `from` on.
    pub(super) fn slots_from(&self, from: Slot) -> impl Iterator<Item = Slot> {
        let taken =
            self.slots.iter().enumerate().skip(from.0 as usize).filter(|(_, place)| matches!(place, Place::Taken(_)));
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
        match &mut self.slots[slot.0 as usize] {
            Place::Taken(tenant) => tenant,
            Place::Free(_) => unreachable!("the slot is taken: timers and queues are cleared when a tenant goes"),
        }
    }
}
