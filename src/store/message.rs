//! What the store is asked to do, and what it answers.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::snapshot::Snapshot;
use crate::domain::{AppName, Fingerprint, Record, SavedKey, SavedState, TenantId, Ticket, Token};

/// One token to be kept.
#[derive(Debug)]
pub struct Kept {
    /// Whose call brought it.
    pub ticket: Ticket,
    /// Whose token it is.
    pub id: TenantId,
    /// What is known of it.
    pub record: Record,
    /// The token.
    pub token: Token,
}

/// A config that was applied.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Its files, in order: paths and texts.
    pub texts: Vec<(PathBuf, String)>,
    /// Which client secret each app had.
    pub secrets: Vec<(AppName, Fingerprint)>,
}

/// The texts may hold the password of a proxy.
impl fmt::Debug for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<&PathBuf> = self.texts.iter().map(|(path, _)| path).collect();
        f.debug_struct("Applied").field("paths", &paths).field("secrets", &self.secrets.len()).finish()
    }
}

/// What the store is asked to do.
#[derive(Debug)]
pub enum StoreRequest {
    /// Commit these. Answered with [`StoreReply::Kept`] or [`StoreReply::NotKept`], within 200 ms and a commit, unless the disk hangs.
    Keep(Vec<Kept>),
    /// Read these tokens for publication. Answered with [`StoreReply::Loaded`].
    Load(Vec<(Ticket, TenantId)>),
    /// Drop what is kept of these tenants.
    Forget(Vec<TenantId>),
    /// Tell the times of these tokens anew, where the same tokens are still kept. Not answered.
    Amend(Vec<(TenantId, Record)>),
    /// Remember these, each in place of what was remembered of its subject; `None`: nothing any more. Not answered.
    Remember(Vec<(SavedKey, Option<SavedState>)>),
    /// Remember the config that was applied, so that the next start can compare and, if need be, run it.
    Applied(Applied),
}

/// What the store has to say.
#[derive(Debug)]
pub enum StoreReply {
    /// These are on disk.
    Kept(Vec<Ticket>),
    /// These could not be committed; they stay in memory, here, until they can. Then comes [`StoreReply::Kept`] for those
    /// that nothing newer replaced.
    NotKept(Vec<Ticket>),
    /// What was read, in the order of the request.
    Loaded(Vec<(Ticket, Lookup)>),
    /// What the state held before this process, where that could not be read when it was opened.
    Found(Box<Late>),
    /// What the state held is lost, and it was begun anew: nothing is remembered but what was asked for and not answered
    /// yet, and what is asked for from here on.
    Begun,
    /// The database became writable (`None`) or unwritable (the reason).
    Health(Option<String>),
}

/// What the state knows of a tenant's token.
#[derive(Debug)]
pub enum Lookup {
    /// The newest that it was given, whether that is on disk yet or not.
    Found(Record, Token),
    /// There is none, or none that is whole.
    Missing,
    /// It cannot be read now, for this reason.
    Unavailable(Arc<str>),
}

impl Lookup {
    /// What was found, if anything was.
    pub fn found(self) -> Option<(Record, Token)> {
        match self {
            Self::Found(record, token) => Some((record, token)),
            Self::Missing | Self::Unavailable(_) => None,
        }
    }
}

/// What the state held before this process.
#[derive(Debug)]
pub struct Late {
    /// What is known of each token.
    pub restored: Snapshot,
    /// What is remembered besides the tokens.
    pub memories: Vec<(SavedKey, SavedState)>,
    /// The config that was applied last, by a process before this one.
    pub applied: Applied,
}

/// A database that could not be used and was moved out of the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Where it lies now. The next one that is set aside replaces it.
    pub to: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// Where answers go.
pub(super) type Answer = Arc<dyn Fn(Vec<StoreReply>) + Send + Sync>;
