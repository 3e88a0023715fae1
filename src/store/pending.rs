//! What is not on disk yet: what gathers for the next commit, and what a broken disk keeps us from writing.

use std::collections::BTreeMap;

use super::message::{Applied, Kept};
use crate::domain::{Record, SavedKey, SavedState, TenantId, Ticket, Token};

/// Changes that wait for a commit. The newest change of a tenant replaces the older ones, so it never grows beyond what the
/// state itself holds.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// `None`: to be dropped. Sorted, because the database likes sorted insertions better.
    pub(super) tokens: BTreeMap<TenantId, Option<Kept>>,
    /// Times to be told anew, of tokens that are on disk.
    pub(super) amended: BTreeMap<TenantId, Record>,
    /// `None`: to be forgotten.
    pub(super) memories: BTreeMap<SavedKey, Option<SavedState>>,
    /// The last applied config.
    pub(super) applied: Option<Applied>,
    /// Asked for, those included that something newer replaced, and not answered yet.
    owed: Vec<Ticket>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        let Self { tokens, amended, memories, applied, owed: _ } = self;
        tokens.is_empty() && amended.is_empty() && memories.is_empty() && applied.is_none()
    }

    /// How many changes wait, the config apart.
    pub(super) fn len(&self) -> usize {
        self.tokens.len() + self.amended.len() + self.memories.len()
    }

    pub(super) fn keep(&mut self, kept: Kept) {
        self.owed.push(kept.ticket);
        self.amended.remove(&kept.id);
        self.tokens.insert(kept.id.clone(), Some(kept));
    }

    pub(super) fn forget(&mut self, id: TenantId) {
        self.amended.remove(&id);
        self.memories.insert(SavedKey::Tenant(id.clone()), None);
        self.tokens.insert(id, None);
    }

    /// A token that waits is told anew at once; of one that is on disk, that waits for the commit.
    pub(super) fn amend(&mut self, id: TenantId, record: Record) {
        match self.tokens.get_mut(&id) {
            Some(Some(kept)) if kept.record.fingerprint == record.fingerprint => kept.record = record,
            Some(_) => {}
            None => _ = self.amended.insert(id, record),
        }
    }

    /// Takes in what came later.
    pub(super) fn absorb(&mut self, newer: Self) {
        let Self { tokens, amended, memories, applied, mut owed } = newer;
        tokens.keys().for_each(|id| _ = self.amended.remove(id));
        self.tokens.extend(tokens);
        amended.into_iter().for_each(|(id, record)| self.amend(id, record));
        self.memories.extend(memories);
        self.applied = applied.or(self.applied.take());
        self.owed.append(&mut owed);
    }

    /// What is waiting for this tenant: `None` nothing, `Some(None)` that it be dropped.
    pub(super) fn get(&self, id: &TenantId) -> Option<Option<(Record, Token)>> {
        self.tokens.get(id).map(|change| change.as_ref().map(|kept| (kept.record, kept.token.clone())))
    }

    /// Whether somebody waits for an answer.
    pub(super) fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Everything that is owed an answer now that it cannot be committed. What comes of it later is told once more.
    pub(super) fn take_owed(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.owed)
    }

    /// Everything that is owed an answer when this was committed.
    pub(super) fn tickets(self) -> Vec<Ticket> {
        let Self { tokens, owed: mut tickets, .. } = self;
        tickets.extend(tokens.values().flatten().map(|kept| kept.ticket));
        tickets.sort_unstable();
        tickets.dedup();
        tickets
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::domain::{Fingerprint, Slot, WallMs};

    fn kept(tenant: u32, seq: u32) -> Kept {
        let token = Token::new(Zeroizing::new(format!("token-{tenant}-{seq}"))).unwrap();
        let record = Record { requested_at: WallMs(0), expires_at: WallMs(1), fingerprint: token.fingerprint() };
        let id = format!("crm/ding{tenant}").parse().unwrap();
        Kept { ticket: Ticket { slot: Slot(tenant), seq }, id, record, token }
    }

    #[test]
    fn what_waits_for_a_day_holds_the_newest_of_each_tenant_alone() {
        let mut waiting = Pending::default();
        for seq in 0..10_000 {
            waiting.keep(kept(seq % 3, seq));
            // Whoever waited was told that it is not kept.
            assert_eq!(waiting.take_owed().len(), 1);
        }
        assert_eq!((waiting.len(), waiting.owes()), (3, false));
        assert_eq!(waiting.owed.capacity(), 0);
        let seqs: Vec<u32> = waiting.tickets().iter().map(|ticket| ticket.seq).collect();
        assert_eq!(seqs, [9_999, 9_997, 9_998]);
    }

    #[test]
    fn what_came_while_a_commit_failed_lies_on_top_of_it() {
        let (mut failed, mut newer) = (Pending::default(), Pending::default());
        (0..4).for_each(|tenant| failed.keep(kept(tenant, 1)));
        let id = |tenant: u32| kept(tenant, 0).id;
        let told = |fingerprint| Record { requested_at: WallMs(5), expires_at: WallMs(6), fingerprint };
        newer.keep(kept(0, 2));
        newer.forget(id(1));
        newer.amend(id(2), told(kept(2, 1).record.fingerprint));
        newer.amend(id(3), told(Fingerprint(7)));
        failed.absorb(newer);
        let record = |tenant: u32| failed.get(&id(tenant)).unwrap().map(|(record, _)| record);
        assert_eq!(record(0), Some(kept(0, 2).record));
        assert_eq!(record(1), None);
        assert_eq!(record(2).unwrap().expires_at, WallMs(6), "it is the same token");
        assert_eq!(record(3).unwrap().expires_at, WallMs(1), "it is another");
        assert_eq!(failed.take_owed().len(), 5);
    }
}
