//! The tenants: slots that are reused, found by app and corp_id.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::ops::{Index, IndexMut};

use hashbrown::HashTable;

use super::duplicate_tokens::TokenIndex;
use super::failure::{TenantFailure, TenantFailures};
use super::tenant::Tenant;
use crate::domain::{CorpId, Slot, TenantState};
use crate::engine::AppIx;

/// Tenants lie side by side in chunks of this many, so that a table which grows moves nobody.
const CHUNK: usize = 512;

#[derive(Default)]
pub(crate) struct Tenants {
    /// All are full but the last.
    chunks: Vec<Chunk>,
    index: HashTable<Slot>,
    free: Vec<Slot>,
    /// The first tenant of each app, by the app's number.
    firsts: Vec<Option<Slot>>,
    pub(super) by_token: TokenIndex,
    pub(crate) failures: TenantFailures,
}

#[derive(Default)]
struct Chunk {
    entries: Vec<SlotState>,
    /// The neighbours of each tenant among those of its app: 8 bytes, so that looking at an app's tenants costs nobody else's.
    links: Vec<Link>,
    /// How many of its tenants are not fresh. Where none is, nobody in trouble need be looked for.
    unfresh: u16,
}

/// [`NOBODY`] stands for no neighbour.
#[derive(Debug, Clone, Copy)]
struct Link {
    before: u32,
    after: u32,
}

const NOBODY: u32 = u32::MAX;

enum SlotState {
    Taken(Tenant),
    Free(Past),
}

/// What a slot remembers of its owners, so that nothing of theirs is mistaken for the next one's.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Past {
    /// The number of the last call.
    pub(crate) seq: u32,
    /// The stamp of the last queue entry.
    pub(crate) stamp: u32,
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

impl Tenants {
    pub(crate) fn find(&self, app: AppIx, corp_id: &CorpId) -> Option<Slot> {
        let same = |slot: &Slot| self.get(*slot).is_some_and(|t| t.app == app && t.corp_id == *corp_id);
        self.index.find(key(hash(app, corp_id)), same).copied()
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Tenant> {
        let (chunk, place) = position(slot);
        match self.chunks.get(chunk)?.entries.get(place)? {
            SlotState::Taken(tenant) => Some(tenant),
            SlotState::Free(_) => None,
        }
    }

    /// Why a tenant's calls fail, if they do.
    pub(crate) fn failure(&self, slot: Slot) -> Option<&TenantFailure> {
        self.failures.get(slot)
    }

    /// Puts a tenant in; `make` gets its hash, and the numbers from which it goes on counting.
    pub(crate) fn insert(&mut self, app: AppIx, corp_id: &CorpId, make: impl FnOnce(u32, Past) -> Tenant) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| self.grow());
        let entry = self.entry(slot);
        let SlotState::Free(past) = *entry else { unreachable!("a free slot is free") };
        let hash = hash(app, corp_id);
        let tenant = make(hash, past);
        let unfresh = is_unfresh(tenant.state);
        *entry = SlotState::Taken(tenant);
        self.link(app, slot);
        let Self { chunks, index, .. } = self;
        chunks[position(slot).0].unfresh += unfresh;
        index.insert_unique(key(hash), slot, |slot| {
            let (chunk, place) = position(*slot);
            match &chunks[chunk].entries[place] {
                SlotState::Taken(tenant) => key(tenant.hash),
                SlotState::Free(_) => 0,
            }
        });
        slot
    }

    /// One free slot more.
    fn grow(&mut self) -> Slot {
        if self.chunks.last().is_none_or(|last| last.entries.len() == CHUNK) {
            self.chunks.push(Chunk {
                entries: Vec::with_capacity(CHUNK),
                links: Vec::with_capacity(CHUNK),
                unfresh: 0,
            });
        }
        let before = (self.chunks.len() - 1) * CHUNK;
        let last = &mut self.chunks[before / CHUNK];
        last.entries.push(SlotState::Free(Past::default()));
        last.links.push(Link { before: NOBODY, after: NOBODY });
        Slot(u32::try_from(before + last.entries.len() - 1).expect("fewer than 2^32 tenants"))
    }

    fn entry(&mut self, slot: Slot) -> &mut SlotState {
        let (chunk, place) = position(slot);
        &mut self.chunks[chunk].entries[place]
    }

    pub(crate) fn remove(&mut self, slot: Slot) {
        let tenant = &self[slot];
        let (key, past) = (key(tenant.hash), Past { seq: tenant.seq, stamp: tenant.stamp });
        let unfresh = is_unfresh(tenant.state);
        if let Ok(entry) = self.index.find_entry(key, |found| *found == slot) {
            entry.remove();
        }
        self.chunks[position(slot).0].unfresh -= unfresh;
        self.unlink(self[slot].app, slot);
        *self.entry(slot) = SlotState::Free(past);
        self.free.push(slot);
    }

    /// A tenant of this app, from whom [`next_of_app`](Self::next_of_app) leads to all the others.
    pub(crate) fn first_of(&self, app: AppIx) -> Option<Slot> {
        *self.firsts.get(app.0 as usize)?
    }

    /// The next tenant of the same app, if that was not the last.
    pub(crate) fn next_of_app(&self, slot: Slot) -> Option<Slot> {
        let (chunk, place) = position(slot);
        taken(self.chunks[chunk].links[place].after)
    }

    /// Puts a tenant before all others of its app.
    fn link(&mut self, app: AppIx, slot: Slot) {
        let number = app.0 as usize;
        if self.firsts.len() <= number {
            self.firsts.resize(number + 1, None);
        }
        let after = self.firsts[number].replace(slot);
        *self.link_of(slot) = Link { before: NOBODY, after: after.map_or(NOBODY, |slot| slot.0) };
        if let Some(after) = after {
            self.link_of(after).before = slot.0;
        }
    }

    fn unlink(&mut self, app: AppIx, slot: Slot) {
        let Link { before, after } = *self.link_of(slot);
        match taken(before) {
            Some(before) => self.link_of(before).after = after,
            None => self.firsts[app.0 as usize] = taken(after),
        }
        if let Some(after) = taken(after) {
            self.link_of(after).before = before;
        }
    }

    fn link_of(&mut self, slot: Slot) -> &mut Link {
        let (chunk, place) = position(slot);
        &mut self.chunks[chunk].links[place]
    }

    pub(crate) fn set_state(&mut self, slot: Slot, state: TenantState) {
        let before = std::mem::replace(&mut self[slot].state, state);
        let unfresh = &mut self.chunks[position(slot).0].unfresh;
        *unfresh = *unfresh + is_unfresh(state) - is_unfresh(before);
    }

    /// The slots of tenants that are not fresh, of those included that left. Where all are fresh, nobody is visited.
    pub(crate) fn unfresh(&self) -> impl Iterator<Item = Slot> {
        let taken = self.chunks.iter().enumerate().filter(|(_, chunk)| chunk.unfresh > 0).flat_map(slots_of);
        taken.filter(|(_, tenant)| tenant.state != TenantState::Fresh).map(|(slot, _)| slot)
    }

    /// All taken slots from `from` on.
    pub(crate) fn slots_from(&self, from: Slot) -> impl Iterator<Item = Slot> {
        let chunks = self.chunks.iter().enumerate().skip(position(from).0);
        chunks.flat_map(slots_of).map(|(slot, _)| slot).skip_while(move |slot| *slot < from)
    }
}

fn taken(slot: u32) -> Option<Slot> {
    (slot != NOBODY).then_some(Slot(slot))
}

/// The taken slots of a chunk.
fn slots_of((number, chunk): (usize, &Chunk)) -> impl Iterator<Item = (Slot, &Tenant)> {
    let entries = chunk.entries.iter().enumerate();
    entries.filter_map(move |(place, owner)| match owner {
        SlotState::Taken(tenant) => Some((Slot(u32::try_from(number * CHUNK + place).unwrap_or(u32::MAX)), tenant)),
        SlotState::Free(_) => None,
    })
}

fn is_unfresh(state: TenantState) -> u16 {
    u16::from(state != TenantState::Fresh)
}

impl Index<Slot> for Tenants {
    type Output = Tenant;
    fn index(&self, slot: Slot) -> &Tenant {
        self.get(slot).expect("the slot is taken: timers and queues are cleared when a tenant goes")
    }
}

impl IndexMut<Slot> for Tenants {
    fn index_mut(&mut self, slot: Slot) -> &mut Tenant {
        match self.entry(slot) {
            SlotState::Taken(tenant) => tenant,
            SlotState::Free(_) => unreachable!("the slot is taken: timers and queues are cleared when a tenant goes"),
        }
    }
}
