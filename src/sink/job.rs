//! What a lane is asked to do, and what it reports.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::domain::{
    FileSink, KeyPath, KeyringSink, Names, OnExpiry, SinkFailure, SinkId, Ticket, Token, WallMs, WithdrawalId, Wrote,
};

/// A job of a thread for files.
#[derive(Debug)]
pub enum FileJob {
    /// Make the tenant's file hold this token.
    Publish(Publication<FileSink>),
    /// Remove a file.
    Remove {
        /// Why; the report repeats it.
        cause: RemovalCause,
        /// The file.
        path: PathBuf,
        /// The fixed part of its sink's path ([`FileSink::fixed_part`]). Directories below it are removed when they become
        /// empty; it stays itself.
        fixed: Arc<Path>,
    },
}

/// A job of the thread for keys.
#[derive(Debug)]
pub enum KeyJob {
    /// Make the tenant's key hold this token.
    Publish {
        /// Which token, and for which key.
        publication: Publication<KeyringSink>,
        /// [`OnExpiry::Delete`]: the kernel removes the key when the token expires.
        on_expiry: OnExpiry,
    },
    /// Remove a key.
    Remove {
        /// Why; the report repeats it.
        cause: RemovalCause,
        /// The key.
        key: KeyPath,
    },
}

/// One token for one place of a sink.
#[derive(Debug)]
pub struct Publication<S> {
    /// Whose token, and which.
    pub ticket: Ticket,
    /// Which of the tenant's sinks.
    pub sink: SinkId,
    /// The sink.
    pub spec: Arc<S>,
    /// What the place's path and the content are filled in from.
    pub names: Names,
    /// The token.
    pub token: Token,
    /// When it stops working.
    pub expires_at: WallMs,
}

/// Why a place is emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovalCause {
    /// The token of this ticket expired there.
    Expired(Ticket, SinkId),
    /// The place belongs to nobody any more.
    Withdrawn(WithdrawalId),
}

/// What a lane reports.
#[derive(Debug)]
pub enum LaneReport {
    /// A publication ended. What it says is on the disk.
    Published {
        /// As in the job.
        ticket: Ticket,
        /// As in the job.
        sink: SinkId,
        /// How.
        outcome: Result<Wrote, SinkFailure>,
    },
    /// A removal ended.
    Removed {
        /// As in the job.
        cause: RemovalCause,
        /// Whether the place is empty now (or was already).
        outcome: Result<(), SinkFailure>,
    },
    /// Somebody else deleted, altered or re-permissioned what was published here.
    Drifted {
        /// The last publication's ticket; its slot and sink say which place.
        ticket: Ticket,
        /// Which of the tenant's sinks.
        sink: SinkId,
    },
    /// A directory was opened that lies on another file system than the lane is for: it was mounted since.
    Mounted {
        /// Where, as far as sinks' paths tell.
        at: PathBuf,
        /// The file system's number (`st_dev`).
        device: u64,
    },
    /// Somebody writes so much below a root that directories there are not watched for a while: they are swept, within a
    /// minute.
    FloodBegins {
        /// The fixed part of the sinks' paths.
        root: Arc<Path>,
        /// The first such directory.
        directory: PathBuf,
    },
    /// All directories below the root are watched again, and were calm for a minute.
    FloodEnds {
        /// As when it began.
        root: Arc<Path>,
    },
}

/// Which publication: the last ticket of the place, and which of the tenant's sinks.
pub(crate) type PublicationId = (Ticket, SinkId);

impl LaneReport {
    pub(crate) fn drifted((ticket, sink): PublicationId) -> Self {
        Self::Drifted { ticket, sink }
    }

    /// Whether it is the end of a job.
    pub fn ends_job(&self) -> bool {
        matches!(self, Self::Published { .. } | Self::Removed { .. })
    }
}
