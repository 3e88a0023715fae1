//! Why the database cannot be used. Everything that touches redb runs through [`guarded`]: a damaged file may make redb
//! panic, and that must not end the daemon.

use std::fmt;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why the database cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DatabaseError {
    /// Another process has it.
    InUse,
    /// The file's content is wrong. Only setting it aside helps.
    Damaged(String),
    /// The file could not be read or written. Trying again may help.
    Unusable(String),
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse => f.write_str("another process took it"),
            Self::Damaged(reason) | Self::Unusable(reason) => f.write_str(reason),
        }
    }
}

/// Runs `work` on the database. A panic counts as damage: redb panics on a file that it cannot have written.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, DatabaseError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(classify),
        Err(_) => Err(DatabaseError::Damaged("the database's structure makes no sense".into())),
    }
}

fn classify(error: redb::Error) -> DatabaseError {
    use redb::Error as E;
    match error {
        E::DatabaseAlreadyOpen | E::LockProtocolMismatch => DatabaseError::InUse,
        E::Io(e) if matches!(e.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
            DatabaseError::Damaged(format!("it is no database, or a damaged one ({e})"))
        }
        E::UpgradeRequired(version) => {
            DatabaseError::Damaged(format!("its file format is {version}, which is not ours"))
        }
        e @ (E::Corrupted(_)
        | E::RepairAborted
        | E::TableTypeMismatch { .. }
        | E::TableIsMultimap(_)
        | E::TableIsNotMultimap(_)
        | E::TypeDefinitionChanged { .. }
        | E::TableDoesNotExist(_)) => DatabaseError::Damaged(format!("it is damaged ({e})")),
        e => DatabaseError::Unusable(format!("cannot read or write the state: {e}")),
    }
}
