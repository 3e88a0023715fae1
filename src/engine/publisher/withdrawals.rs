//! Places that no longer belong to anybody and are to be emptied.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{LaneId, Place, RootId, Slot, WithdrawalId};
use crate::engine::messages::Action;

/// A place that no longer belongs to anybody.
#[derive(Debug)]
pub(super) struct Withdrawal {
    pub(super) lane: LaneId,
    pub(super) root: RootId,
    pub(super) place: Place,
}

/// Withdrawals that have not succeeded yet.
#[derive(Debug, Default)]
pub(super) struct Withdrawals {
    pending: BTreeMap<WithdrawalId, Withdrawal>,
    next: u32,
    /// Those of places that a publication may still be in flight to, by the tenant that left them.
    deferred: BTreeMap<Slot, Vec<Withdrawal>>,
}

impl From<(LaneId, RootId, Place)> for Withdrawal {
    fn from((lane, root, place): (LaneId, RootId, Place)) -> Self {
        Self { lane, root, place }
    }
}

impl Withdrawal {
    pub(super) fn action(&self, id: WithdrawalId) -> Action {
        Action::Withdraw { id, lane: self.lane, root: self.root, place: self.place.clone() }
    }
}

impl Withdrawals {
    pub(super) fn begin(&mut self, withdrawal: Withdrawal) -> WithdrawalId {
        let id = WithdrawalId(self.next);
        self.next = self.next.wrapping_add(1);
        self.pending.insert(id, withdrawal);
        id
    }

    /// Puts withdrawals off until [`take_deferred`](Self::take_deferred).
    pub(super) fn defer(&mut self, slot: Slot, withdrawals: Vec<Withdrawal>) {
        if !withdrawals.is_empty() {
            self.deferred.entry(slot).or_default().extend(withdrawals);
        }
    }

    /// Nothing is published any more to the places that a tenant left: their withdrawals can begin.
    pub(super) fn take_deferred(&mut self, slot: Slot) -> Vec<Withdrawal> {
        self.deferred.remove(&slot).unwrap_or_default()
    }

    pub(super) fn get(&self, id: WithdrawalId) -> Option<&Withdrawal> {
        self.pending.get(&id)
    }

    pub(super) fn end(&mut self, id: WithdrawalId) {
        self.pending.remove(&id);
    }

    /// The places of all withdrawals.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.pending.values().chain(self.deferred.values().flatten()).map(|withdrawal| &withdrawal.place)
    }

    /// These places belong to somebody again: drops their withdrawals. Returns those that had begun, each with its root.
    pub(super) fn reclaim(&mut self, places: &[Place]) -> Vec<(WithdrawalId, RootId)> {
        let places: BTreeSet<&Place> = places.iter().collect();
        for deferred in self.deferred.values_mut() {
            deferred.retain(|withdrawal| !places.contains(&withdrawal.place));
        }
        let dropped = self.pending.extract_if(.., |_, withdrawal| places.contains(&withdrawal.place));
        dropped.map(|(id, withdrawal)| (id, withdrawal.root)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn withdrawal(path: &str) -> Withdrawal {
        (LaneId(1), RootId(0), Place::File(path.into())).into()
    }

    #[test]
    fn a_place_that_is_somebodys_again_is_not_emptied_whether_that_had_begun_or_not() {
        let mut withdrawals = Withdrawals::default();
        let begun = withdrawals.begin(withdrawal("/a"));
        let stays = withdrawals.begin(withdrawal("/b"));
        withdrawals.defer(Slot(1), vec![withdrawal("/c"), withdrawal("/d")]);
        assert_eq!(withdrawals.places().count(), 4);
        assert_eq!(withdrawals.reclaim(&["/a", "/c"].map(|path| Place::File(path.into()))), [(begun, RootId(0))]);
        assert!(withdrawals.get(begun).is_none() && withdrawals.get(stays).is_some());
        let deferred = withdrawals.take_deferred(Slot(1));
        assert_eq!(deferred.iter().map(|withdrawal| withdrawal.place.to_string()).collect::<Vec<_>>(), ["/d"]);
        assert!(withdrawals.take_deferred(Slot(1)).is_empty());
    }
}
