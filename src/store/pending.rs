//! What is not on disk yet: what gathers for the next commit, and what a broken disk keeps us from writing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::{Applied, Kept};
use crate::domain::{Memory, Record, Subject, TenantId, Ticket, Token};

/// Changes that wait for a commit. The newest change of a tenant replaces the older ones.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// `None`: to be dropped. Sorted, because the database likes sorted insertions better.
    pub(super) tokens: BTreeMap<TenantId, Option<Kept>>,
    /// Times to be told anew, of tokens that are on disk.
    pub(super) amended: BTreeMap<TenantId, Record>,
    /// `None`: to be forgotten.
    pub(super) memories: BTreeMap<Subject, Option<Memory>>,
    /// The last applied config.
    pub(super) applied: Option<Applied>,
    /// Asked for and replaced by something newer before the commit: still owed an answer.
    replaced: Vec<Ticket>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        let Self { tokens, amended, memories, applied, replaced: _ } = self;
        tokens.is_empty() && amended.is_empty() && memories.is_empty() && applied.is_none()
    }

    /// How many changes wait, the config apart.
    pub(super) fn len(&self) -> usize {
        self.tokens.len() + self.amended.len() + self.memories.len()
    }

    pub(super) fn keep(&mut self, kept: Kept) {
        self.amended.remove(&kept.id);
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
        self.amended.remove(&id);
        self.memories.insert(Subject::Tenant(id.clone()), None);
        if let Some(Some(older)) = self.tokens.insert(id, None) {
            self.replaced.push(older.ticket);
        }
    }

    /// A token that waits is told anew at once; of one that is on disk, that waits for the commit.
    pub(super) fn amend(&mut self, id: TenantId, record: Record) {
        match self.tokens.get_mut(&id) {
            Some(Some(kept)) if kept.record.fingerprint == record.fingerprint => kept.record = record,
            Some(_) => {}
            None => _ = self.amended.insert(id, record),
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
