//! How a publication went.

/// How a publication went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrote {
    /// The place holds new bytes.
    Replaced,
    /// The bytes were right; mode, owner or timeout were set right.
    Repaired,
    /// Everything was right already.
    Unchanged,
}

/// What kind of trouble a sink has; a change of kind is worth a new line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SinkFailureKind {
    /// No space, no quota, no inodes.
    Full,
    /// The file system cannot be written: read-only, or an I/O error.
    Unwritable,
    /// Permission was refused.
    Denied,
    /// The path is not what it must be: a link, a wrong type, a directory that others can write.
    Unsafe,
    /// The place is another sink's, or the daemon's own file, by way of a link or a mount.
    Taken,
    /// It has not come back in time.
    Hangs,
    /// The place is not to blame: the state, where the token is kept, cannot be read.
    State,
    /// Anything else.
    Other,
}

impl SinkFailureKind {
    /// The stable name, as in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Unwritable => "unwritable",
            Self::Denied => "denied",
            Self::Unsafe => "unsafe",
            Self::Taken => "taken",
            Self::Hangs => "hangs",
            Self::State => "state",
            Self::Other => "other",
        }
    }
}

/// A publication that did not happen. The place holds what it held before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct SinkFailure {
    /// What kind of trouble.
    pub kind: SinkFailureKind,
    /// What was being done, to what, what went wrong and how to mend it.
    pub detail: Box<str>,
}
