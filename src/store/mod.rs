//! Tokens and deadlines over restarts, in an embedded database on a thread of its own.

use crate::domain::{Record, TenantId, Ticket, Token};
use std::path::PathBuf;

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

/// What the store is asked to do.
#[derive(Debug)]
pub enum Request {
    /// Commit these. Answered with [`Reply::Kept`] or [`Reply::NotKept`].
    Keep(Vec<Kept>),
    /// Read these tokens for publication. Answered with [`Reply::Loaded`].
    Load(Vec<(Ticket, TenantId)>),
    /// Drop what is kept of these tenants.
    Forget(Vec<TenantId>),
    /// Remember the texts of the config that was applied, so that the next start can compare and, if need be, run it.
    Applied(Vec<(PathBuf, String)>),
}

/// What the store has to say.
#[derive(Debug)]
pub enum Reply {
    /// These are on disk.
    Kept(Vec<Ticket>),
    /// These could not be committed; they stay in memory, here, until they can.
    NotKept(Vec<Ticket>),
    /// What was read, in the order of the request; `None` where nothing (or nothing whole) is kept.
    Loaded(Vec<(Ticket, Option<(Record, Token)>)>),
    /// The database became writable (`None`) or unwritable (the reason).
    Health(Option<String>),
}
