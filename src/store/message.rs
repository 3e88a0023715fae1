//! What the store is asked to do, and what it answers.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::snapshot::Snapshot;
use crate::domain::{AppName, Fingerprint, Record, SavedKey, SavedState, TenantId, Ticket, Token};

/// One token to be kept.
#[derive(Debug)]
pub struct Kept {
    /// The call that brought it.
    pub ticket: Ticket,
    /// Whose token it is.
    pub id: TenantId,
    /// Its times and fingerprint.
    pub record: Record,
    /// The token.
    pub token: Token,
}

/// A config that was applied.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Its files, in order: paths and texts.
    pub texts: Vec<(PathBuf, String)>,
    /// The fingerprint of each app's client secret.
    pub secrets: Vec<(AppName, Fingerprint)>,
}

/// Without the texts, which may hold the password of a proxy.
impl fmt::Debug for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<&PathBuf> = self.texts.iter().map(|(path, _)| path).collect();
        f.debug_struct("Applied").field("paths", &paths).field("secrets", &self.secrets.len()).finish()
    }
}

/// What the store is asked to do.
#[derive(Debug)]
pub enum StoreRequest {
    /// Commit these. Answered with [`StoreReply::Kept`] or [`StoreReply::NotKept`], within 200 ms and a commit, unless the
    /// disk hangs.
    Keep(Vec<Kept>),
    /// Load these tokens for publication. Answered with [`StoreReply::Loaded`].
    Load(Vec<(Ticket, TenantId)>),
    /// Drop everything about these tenants. Not answered.
    Forget(Vec<TenantId>),
    /// Correct the times of these tokens, where the same tokens are still kept. Not answered.
    Amend(Vec<(TenantId, Record)>),
    /// Save these, each replacing what was saved for its subject; `None` removes it. Not answered.
    Remember(Vec<(SavedKey, Option<SavedState>)>),
    /// Save the applied config, so that the next start can compare with it and, if need be, run it. Not answered.
    Applied(Applied),
}

/// What the store answers or reports.
#[derive(Debug)]
pub enum StoreReply {
    /// These are on disk.
    Kept(Vec<Ticket>),
    /// These could not be committed, and stay in memory until they can. [`StoreReply::Kept`] follows for those that nothing
    /// newer replaced.
    NotKept(Vec<Ticket>),
    /// What was loaded, in the order of the request.
    Loaded(Vec<(Ticket, Lookup)>),
    /// What the state held before this process, if that could not be read when it was opened.
    Found(Box<Contents>),
    /// The state was lost, and a new one was created. It has what was requested but not committed, and what is requested from
    /// now on.
    Begun,
    /// The database became writable (`None`) or unwritable (the reason).
    Health(Option<String>),
}

/// What the store knows of a tenant's token.
#[derive(Debug)]
pub enum Lookup {
    /// The newest token, on disk or not.
    Found(Record, Token),
    /// There is none, or none that is whole.
    Missing,
    /// It cannot be read now, for this reason.
    Unavailable(Arc<str>),
}

impl Lookup {
    /// The token, if it was found.
    pub fn found(self) -> Option<(Record, Token)> {
        match self {
            Self::Found(record, token) => Some((record, token)),
            Self::Missing | Self::Unavailable(_) => None,
        }
    }
}

/// What the state held before this process.
#[derive(Debug, Default)]
pub struct Contents {
    /// The record of each token.
    pub snapshot: Snapshot,
    /// What was saved besides tokens.
    pub saved: Vec<(SavedKey, SavedState)>,
    /// The config that was applied last.
    pub applied: Applied,
}

/// A database that could not be used and was moved out of the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Its path now. The next one that is set aside replaces it.
    pub to: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// Where replies go.
pub(super) type ReplyCallback = Arc<dyn Fn(Vec<StoreReply>) + Send + Sync>;
