//! Which tenant has which token. One token that two organisations get is the wrong one for at least one of them.

use hashbrown::HashTable;

use super::tenant::{Tenant, TokenInfo};
use crate::domain::{Failure, FailureKind, Fingerprint, Now, Slot};
use crate::engine::Engine;

/// Finds tenants by the fingerprint of the token that they have.
#[derive(Default)]
pub(super) struct TokenIndex(HashTable<Slot>);

/// A fingerprint is random already; the table wants a key that differs in its highest bits, too.
fn key(fingerprint: Fingerprint) -> u64 {
    fingerprint.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl TokenIndex {
    /// `fingerprint_of`: which token a tenant has that is in the index.
    fn insert(&mut self, fingerprint: Fingerprint, slot: Slot, fingerprint_of: impl Fn(Slot) -> Option<Fingerprint>) {
        self.0.insert_unique(key(fingerprint), slot, |slot| fingerprint_of(*slot).map_or(0, key));
    }

    fn remove(&mut self, fingerprint: Fingerprint, slot: Slot) {
        if let Ok(entry) = self.0.find_entry(key(fingerprint), |found| *found == slot) {
            entry.remove();
        }
    }

    fn find(&self, fingerprint: Fingerprint, fits: impl Fn(Slot) -> bool) -> Option<Slot> {
        self.0.find(key(fingerprint), |slot| fits(*slot)).copied()
    }
}

impl Engine {
    /// A tenant has this token from here on, or none.
    pub(crate) fn set_token(&mut self, slot: Slot, token: Option<TokenInfo>) {
        self.drop_token(slot);
        self.tenants[slot].token = token;
        if let Some(token) = token {
            let mut index = std::mem::take(&mut self.tenants.by_token);
            let fingerprint_of = |slot| Some(self.tenants.get(slot)?.token?.fingerprint);
            index.insert(token.fingerprint, slot, fingerprint_of);
            self.tenants.by_token = index;
            let ix = self.tenants[slot].app;
            self.apps[ix].add_demand(&token);
        }
    }

    /// The token that a tenant has counts no more.
    pub(crate) fn drop_token(&mut self, slot: Slot) {
        let tenant = &self.tenants[slot];
        let (Some(token), ix) = (tenant.token, tenant.app) else { return };
        self.tenants.by_token.remove(token.fingerprint, slot);
        self.apps[ix].remove_demand(&token);
    }

    /// The failure of a call that brought a token which another organisation has and can use, as far as anybody here knows.
    /// Where two apps ask for one organisation, they may be one app to the endpoint, and the token rightly the same.
    pub(crate) fn refusal_of_duplicate(&self, now: Now, slot: Slot, fingerprint: Fingerprint) -> Option<Failure> {
        let corp_id = &self.tenants[slot].corp_id;
        let has_it = |other| {
            let has_it = |other: &&Tenant| other.token.is_some_and(|token| token.fingerprint == fingerprint);
            let other = self.tenants.get(other).filter(has_it);
            other.is_some_and(|other| other.corp_id != *corp_id && other.is_valid(now.boot))
        };
        let other = self.id(self.tenants.by_token.find(fingerprint, has_it)?)?;
        let why = format!(
            "the endpoint gave it the token that {other} has; one of the two corp_ids is wrong, or what answers for the \
             endpoint mixes them up; nothing is published for it"
        );
        Some(Failure::new(FailureKind::SharedToken, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_its_fingerprint_until_its_tenant_loses_it() {
        let mut index = TokenIndex::default();
        let fingerprint_of = |slot: Slot| Some(Fingerprint(u64::from(slot.0) / 2));
        (0..1000).for_each(|n| index.insert(Fingerprint(n / 2), Slot(n as u32), fingerprint_of));
        let other = |index: &TokenIndex| index.find(Fingerprint(250), |slot| slot != Slot(500));
        assert_eq!(other(&index), Some(Slot(501)));
        index.remove(Fingerprint(250), Slot(501));
        assert_eq!(other(&index), None);
    }
}
