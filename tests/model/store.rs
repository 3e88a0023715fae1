//! The state: tokens and what must not be forgotten besides, committed in batches; and how it fails.

use std::collections::{BTreeMap, BTreeSet};

use corptokend::domain::{AppName, Record, SavedKey, SavedState, TenantId, Ticket};

use super::tenants::{PerTenant, TenantNo};

/// A commit that hangs is not waited for after so long, in milliseconds.
pub const HANGS_AFTER_MS: u64 = 4_000;

/// What may be wrong with a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFault {
    /// Commits do not come back; after some seconds nobody waits for them. Nor can anything be read by a new process.
    Hangs,
    /// Commits fail.
    Unwritable,
    /// Commits fail, and so does reading.
    Unreadable,
}

/// A token as the state holds it.
#[derive(Debug, Clone, Copy)]
pub struct Stored {
    /// Which call brought it; `None`: another process's.
    pub seq: Option<u32>,
    pub record: Record,
    /// Its life as the endpoint counts it: milliseconds of the run.
    pub from: u64,
    pub until: u64,
    /// In which of its tenant's lives it came.
    pub life: u16,
    /// Since when it may be published.
    pub published_since: u64,
}

pub enum Write {
    /// `is_told`: it could not be committed for now, and is published from memory.
    Keep {
        ticket: Ticket,
        no: TenantNo,
        token: Stored,
        is_told: bool,
    },
    Forget(TenantNo, TenantId),
    Amend(Vec<(TenantNo, Record)>),
    Remember(SavedKey, Option<SavedState>),
}

pub struct Store {
    pub tokens: PerTenant<Option<Stored>>,
    /// What is remembered besides.
    pub saved: BTreeMap<SavedKey, SavedState>,
    /// How long a commit takes, in milliseconds.
    pub commit_ms: u64,
    pub fault: Option<StoreFault>,
    /// Since when something has been waiting that could not be committed.
    pub failed_at: Option<u64>,
    /// What is to be written, in order; the first `committing` are under way.
    pending: Vec<Write>,
    committing: usize,
    /// Tokens that may be published although they are not committed.
    pub uncommitted: BTreeMap<TenantNo, Stored>,
    /// Answers whose tokens the daemon still has in memory.
    pub in_memory: BTreeSet<Ticket>,
    /// Of a state that was begun anew: the tokens that the one before it held.
    pub begun_anew: BTreeMap<TenantNo, Stored>,
}

impl Store {
    pub fn new() -> Self {
        Self {
            tokens: PerTenant::default(),
            saved: BTreeMap::new(),
            commit_ms: 50,
            fault: None,
            failed_at: None,
            pending: Vec::new(),
            committing: 0,
            uncommitted: BTreeMap::new(),
            in_memory: BTreeSet::new(),
            begun_anew: BTreeMap::new(),
        }
    }

    /// What the state held is lost, and it is begun anew.
    pub fn begin_anew(&mut self) {
        let held = self.tokens.iter().filter_map(|(no, token)| Some((no, (*token)?)));
        self.begun_anew = held.collect();
        self.tokens = PerTenant::default();
        self.saved.clear();
    }

    /// The token that a tenant's sinks are to show: the one in the state, or a newer one that could not be committed.
    pub fn current(&mut self, no: TenantNo) -> Option<&mut Stored> {
        self.uncommitted.get_mut(&no).or(self.tokens[no].as_mut())
    }

    pub fn is_readable(&self) -> bool {
        !matches!(self.fault, Some(StoreFault::Unreadable | StoreFault::Hangs))
    }

    pub fn write(&mut self, write: Write) {
        self.pending.push(write);
    }

    /// Begins a commit, if there is something to commit and none is under way. Returns how long it takes, in milliseconds.
    pub fn begin_commit(&mut self) -> Option<u64> {
        if self.committing > 0 || self.pending.is_empty() {
            return None;
        }
        self.committing = self.pending.len();
        Some(if self.fault == Some(StoreFault::Hangs) { HANGS_AFTER_MS } else { self.commit_ms })
    }

    /// A commit ended.
    pub fn end_commit(&mut self, t: u64) -> Committed {
        let batch = std::mem::take(&mut self.committing);
        if self.fault.is_some() {
            self.failed_at.get_or_insert(t);
            return Committed::Failed(self.publish_uncommitted());
        }
        let written: Vec<Write> = self.pending.drain(..batch).collect();
        if self.pending.is_empty() {
            self.failed_at = None;
        }
        Committed::Written(written)
    }

    /// Each token that is told of for the first time, and the one before it.
    fn publish_uncommitted(&mut self) -> Vec<Uncommitted> {
        let mut first = Vec::new();
        for write in &mut self.pending {
            if let Write::Keep { ticket, no, token, is_told } = write
                && !std::mem::replace(is_told, true)
            {
                let before = self.uncommitted.insert(*no, *token).or(self.tokens[*no]);
                first.push(Uncommitted { ticket: *ticket, no: *no, token: *token, before });
            }
        }
        first
    }

    /// Whether a token would be lost if the process ended now.
    pub fn would_lose_a_token(&self) -> bool {
        self.pending.iter().any(|write| matches!(write, Write::Keep { .. }))
    }

    /// The process ended. Returns how many writes were lost.
    pub fn crash(&mut self, t: u64) -> usize {
        let lost = std::mem::take(&mut self.pending).len();
        self.committing = 0;
        self.uncommitted.clear();
        self.in_memory.clear();
        self.failed_at = self.fault.map(|_| t);
        self.tokens.values_mut().flatten().for_each(|token| token.seq = None);
        lost
    }

    /// Whether nothing waits to be committed.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// New credentials are tried at once, whatever was asked before, even by a process that starts before that is committed.
    pub fn forget_app(&mut self, app: &AppName) {
        self.saved.retain(|subject, _| subject.app() != Some(app));
        let mut at = 0;
        let committing = self.committing;
        self.pending.retain(|write| {
            let goes = matches!(write, Write::Remember(subject, Some(_)) if subject.app() == Some(app));
            if goes && at < committing {
                self.committing -= 1;
            }
            at += 1;
            !goes
        });
    }
}

pub enum Committed {
    Written(Vec<Write>),
    /// Tokens that may be published all the same.
    Failed(Vec<Uncommitted>),
}

/// A token that may be published although it could not be committed.
pub struct Uncommitted {
    pub ticket: Ticket,
    pub no: TenantNo,
    pub token: Stored,
    /// The tenant's token before it.
    pub before: Option<Stored>,
}
