//! Changes that are not on disk yet, because the next commit is not due, or the disk is broken.

use std::collections::BTreeMap;

use super::message::{Applied, Kept};
use crate::domain::{Record, SavedKey, SavedState, TenantId, Ticket, Token};

/// Changes that wait for a commit. The newest change of a tenant replaces the older ones, so it never grows beyond what the
/// state itself holds.
#[derive(Debug, Default)]
pub(super) struct PendingChanges {
    /// `None` drops the token. Sorted, since sorted insertions are faster.
    pub(super) tokens: BTreeMap<TenantId, Option<Kept>>,
    /// New times of tokens that are on disk.
    pub(super) amended: BTreeMap<TenantId, Record>,
    /// `None` removes the saved state.
    pub(super) saved: BTreeMap<SavedKey, Option<SavedState>>,
    /// The last applied config.
    pub(super) applied: Option<Applied>,
    /// Tickets without a reply, including those that something newer replaced.
    unreplied: Vec<Ticket>,
}

impl PendingChanges {
    pub(super) fn is_empty(&self) -> bool {
        let Self { tokens, amended, saved, applied, unreplied: _ } = self;
        tokens.is_empty() && amended.is_empty() && saved.is_empty() && applied.is_none()
    }

    /// How many changes wait, the config apart.
    pub(super) fn len(&self) -> usize {
        self.tokens.len() + self.amended.len() + self.saved.len()
    }

    pub(super) fn keep(&mut self, kept: Kept) {
        self.unreplied.push(kept.ticket);
        self.amended.remove(&kept.id);
        self.tokens.insert(kept.id.clone(), Some(kept));
    }

    pub(super) fn forget(&mut self, id: TenantId) {
        self.amended.remove(&id);
        self.saved.insert(SavedKey::Tenant(id.clone()), None);
        self.tokens.insert(id, None);
    }

    /// Corrects the times of a token: at once if it waits here, with the commit if it is on disk.
    pub(super) fn amend(&mut self, id: TenantId, record: Record) {
        match self.tokens.get_mut(&id) {
            Some(Some(kept)) if kept.record.fingerprint == record.fingerprint => kept.record = record,
            Some(_) => {}
            None => _ = self.amended.insert(id, record),
        }
    }

    /// Merges newer changes into these.
    pub(super) fn absorb(&mut self, newer: Self) {
        let Self { tokens, amended, saved, applied, mut unreplied } = newer;
        tokens.keys().for_each(|id| _ = self.amended.remove(id));
        self.tokens.extend(tokens);
        amended.into_iter().for_each(|(id, record)| self.amend(id, record));
        self.saved.extend(saved);
        self.applied = applied.or(self.applied.take());
        self.unreplied.append(&mut unreplied);
    }

    /// The change of this tenant's token: `None` if there is none, `Some(None)` if it is to be dropped.
    pub(super) fn get(&self, id: &TenantId) -> Option<Option<(Record, Token)>> {
        self.tokens.get(id).map(|change| change.as_ref().map(|kept| (kept.record, kept.token.clone())))
    }

    /// Whether somebody waits for a reply.
    pub(super) fn needs_reply(&self) -> bool {
        !self.unreplied.is_empty()
    }

    /// The tickets to reply to because nothing can be committed. If the commit succeeds later, they are replied to once more.
    pub(super) fn take_unreplied(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.unreplied)
    }

    /// The tickets to reply to after the commit.
    pub(super) fn tickets(self) -> Vec<Ticket> {
        let Self { tokens, unreplied: mut tickets, .. } = self;
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
        let mut waiting = PendingChanges::default();
        for seq in 0..10_000 {
            waiting.keep(kept(seq % 3, seq));
            // The reply was that it is not kept.
            assert_eq!(waiting.take_unreplied().len(), 1);
        }
        assert_eq!((waiting.len(), waiting.needs_reply()), (3, false));
        assert_eq!(waiting.unreplied.capacity(), 0);
        let seqs: Vec<u32> = waiting.tickets().iter().map(|ticket| ticket.seq).collect();
        assert_eq!(seqs, [9_999, 9_997, 9_998]);
    }

    #[test]
    fn what_came_while_a_commit_failed_lies_on_top_of_it() {
        let (mut failed, mut newer) = (PendingChanges::default(), PendingChanges::default());
        (0..4).for_each(|tenant| failed.keep(kept(tenant, 1)));
        let id = |tenant: u32| kept(tenant, 0).id;
        let amended = |fingerprint| Record { requested_at: WallMs(5), expires_at: WallMs(6), fingerprint };
        newer.keep(kept(0, 2));
        newer.forget(id(1));
        newer.amend(id(2), amended(kept(2, 1).record.fingerprint));
        newer.amend(id(3), amended(Fingerprint(7)));
        failed.absorb(newer);
        let record = |tenant: u32| failed.get(&id(tenant)).unwrap().map(|(record, _)| record);
        assert_eq!(record(0), Some(kept(0, 2).record));
        assert_eq!(record(1), None);
        assert_eq!(record(2).unwrap().expires_at, WallMs(6), "it is the same token");
        assert_eq!(record(3).unwrap().expires_at, WallMs(1), "it is another");
        assert_eq!(failed.take_unreplied().len(), 5);
    }
}
