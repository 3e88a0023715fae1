//! Who holds which token. One token that two organisations get is the wrong one for at least one of them.

use hashbrown::HashTable;

use super::table::Table;
use super::tenant::Held;
use crate::domain::{Failure, FailureKind, Fingerprint, Now, Slot};
use crate::engine::Engine;

/// Finds tenants by the fingerprint of the token that they hold.
#[derive(Default)]
pub(crate) struct Holders(HashTable<Slot>);

/// A fingerprint is random already; the table wants a key that differs in its highest bits, too.
fn key(fingerprint: Fingerprint) -> u64 {
    fingerprint.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn fingerprint(tenants: &Table, slot: Slot) -> Option<Fingerprint> {
    Some(tenants.get(slot)?.held?.fingerprint)
}

impl Holders {
    fn insert(&mut self, tenants: &Table, held: Fingerprint, slot: Slot) {
        self.0.insert_unique(key(held), slot, |slot| fingerprint(tenants, *slot).map_or(0, key));
    }

    fn remove(&mut self, held: Fingerprint, slot: Slot) {
        if let Ok(entry) = self.0.find_entry(key(held), |found| *found == slot) {
            entry.remove();
        }
    }
}

impl Engine {
    /// A tenant has this token from here on, or none.
    pub(crate) fn hold(&mut self, slot: Slot, held: Option<Held>) {
        self.let_go_of(slot);
        self.tenants[slot].held = held;
        if let Some(held) = held {
            self.holders.insert(&self.tenants, held.fingerprint, slot);
            let ix = self.tenants[slot].app;
            self.app_mut(ix).demand += held.lives();
        }
    }

    /// What a tenant holds counts no more.
    pub(crate) fn let_go_of(&mut self, slot: Slot) {
        let tenant = &self.tenants[slot];
        let (Some(held), ix) = (tenant.held, tenant.app) else { return };
        self.holders.remove(held.fingerprint, slot);
        let app = self.app_mut(ix);
        app.demand = app.demand.saturating_sub(held.lives());
    }

    /// The failure that a token is which another organisation holds and can use, as far as anybody here knows. Where two apps
    /// ask for one organisation, they may be one app to the endpoint, and the token rightly the same.
    pub(crate) fn refusal_of_shared(&self, now: Now, slot: Slot, fingerprint: Fingerprint) -> Option<Failure> {
        let corp_id = &self.tenants[slot].corp_id;
        let holds = |other: &Slot| {
            let same =
                self.tenants.get(*other).filter(|other| other.held.is_some_and(|h| h.fingerprint == fingerprint));
            same.is_some_and(|other| other.corp_id != *corp_id && other.is_valid(now.boot))
        };
        let other = self.id(*self.holders.0.find(key(fingerprint), holds)?)?;
        let why = format!(
            "the endpoint gave it the token that {other} has; one of the two corp_ids is wrong, or what answers for the \
             endpoint mixes them up; nothing is published for it"
        );
        Some(Failure::new(FailureKind::SharedToken, why))
    }
}
