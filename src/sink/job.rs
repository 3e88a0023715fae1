//! What a lane is asked to do, and what it reports.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::domain::{Names, Place, RootId, SinkFailure, SinkId, SinkSpec, Ticket, Token, WallMs, Wrote};

/// What a lane is asked to do.
#[derive(Debug)]
pub enum Job {
    /// Make the place of this tenant's sink hold this token.
    Publish(Publication),
    /// Empty the place.
    Withdraw {
        /// Failures are counted by root.
        root: RootId,
        /// What to empty.
        place: Place,
        /// For a file: the fixed part of its sink's path ([`FileSink::fixed_part`](crate::domain::FileSink::fixed_part)).
        /// Directories below it are removed when they become empty; it stays itself. Not looked at for a key.
        fixed: Arc<Path>,
    },
}

/// One token for one place.
#[derive(Debug)]
pub struct Publication {
    /// Whose token, and which.
    pub ticket: Ticket,
    /// Which of the tenant's sinks.
    pub sink: SinkId,
    /// The tenant's sinks; `sink` is an index into it.
    pub specs: Arc<[SinkSpec]>,
    /// What the place's path and the content are filled in from.
    pub names: Names,
    /// The token.
    pub token: Token,
    /// When it stops working.
    pub expires: WallMs,
}

/// What a lane has to say.
#[derive(Debug)]
pub enum LaneReport {
    /// A [`Job::Publish`] ended.
    Published {
        /// As in the job.
        ticket: Ticket,
        /// As in the job.
        sink: SinkId,
        /// How.
        outcome: Result<Wrote, SinkFailure>,
    },
    /// A [`Job::Withdraw`] ended.
    Withdrawn {
        /// As in the job.
        root: RootId,
        /// As in the job.
        place: Place,
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
}
