//! What is not on disk yet: what gathers for the next commit, and what a broken disk keeps us from writing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::{Applied, Kept};
use crate::domain::{Record, TenantId, Ticket, Token};

/// Changes that wait for a commit. The newest change of a tenant replaces the older ones.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// `None`: to be dropped. Sorted, because the database likes sorted insertions better.
    pub(super) tokens: BTreeMap<TenantId, Option<Kept>>,
    /// The last applied config.
    pub(super) applied: Option<Applied>,
    /// Asked for and replaced by something newer before the commit: still owed an answer.
    replaced: Vec<Ticket>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.applied.is_none()
    }

    pub(super) fn keep(&mut self, kept: Kept) {
        match self.tokens.entry(kept.id.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Some(kept));
            }
            Entry::Occupied(mut occupied) => {
                if let Some(older) = occupied.insert(Some(kept)) {
                    self.replaced.push(older.ticket);
                }
            }
        }
    }

    pub(super) fn forget(&mut self, id: TenantId) {
        if let Some(Some(older)) = self.tokens.insert(id, None) {
            self.replaced.push(older.ticket);
        }
    }

    /// What is waiting for this tenant: `None` nothing, `Some(None)` that it be dropped.
    pub(super) fn get(&self, id: &TenantId) -> Option<Option<(Record, Token)>> {
        self.tokens.get(id).map(|change| change.as_ref().map(|kept| (kept.record, kept.token.clone())))
    }

    /// Everything that is owed an answer when this was committed.
    pub(super) fn tickets(&mut self) -> Vec<Ticket> {
        let mut tickets = std::mem::take(&mut self.replaced);
        tickets.extend(self.tokens.values().flatten().map(|kept| kept.ticket));
        tickets
    }

    /// Those that were replaced are owed no second answer, after they were told that they are not kept.
    pub(super) fn forgive_replaced(&mut self) {
        self.replaced.clear();
    }
}
