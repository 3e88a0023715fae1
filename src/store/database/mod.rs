//! The database file: the only place that touches redb.
//!
//! In: a batch of changes ([`PendingChanges`]), to be committed whole or not at all; ids of tenants, to load their tokens.
//! Out: everything that the state holds, when it is opened.
//!
//! `tables` knows the tables, `codec` the layout of their values, `file` opens and sets aside the file, `overlay` reads a
//! file that cannot be written, and `error` says what a failure of redb means. The store's threads are the only users.

mod codec;
mod error;
mod file;
mod overlay;
mod tables;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{ReadableDatabase, StorageBackend};

use super::message::{Contents, SetAside};
use super::pending::PendingChanges;
use super::stall::MonitoredBackend;
use crate::domain::{Record, TenantId, Token, WallMs};
pub(crate) use error::DatabaseError;
use error::guarded;
use overlay::Overlay;
use tables::DatabaseFormat;

/// redb's default is 1 GiB; more than this brings nothing for a few hundred bytes a tenant.
const CACHE_BYTES: usize = 4 << 20;

/// All that the database holds, without the tokens.
#[derive(Debug, Default)]
pub(crate) struct StoredState {
    pub(crate) contents: Contents,
    pub(crate) seed: u64,
    pub(crate) last_commit: Option<WallMs>,
    /// How many tokens and saved states were skipped because their checksum is wrong.
    pub(crate) rotten: u64,
    /// The database was empty or missing, and has just been created.
    pub(crate) is_new: bool,
}

impl StoredState {
    /// Nothing, and a new seed.
    pub(crate) fn empty() -> Self {
        let mut seed = [0; 8];
        // Without entropy the seed is 0, which only means that this machine's jitter resembles another's.
        let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut seed);
        Self { seed: u64::from_be_bytes(seed), ..Self::default() }
    }
}

/// A tenant's record and token; `None` if it has none that is whole.
pub(crate) type StoredToken = Option<(Record, Token)>;

/// An open database.
#[derive(Debug)]
pub(crate) struct Database {
    /// `None` only while it is dropped.
    db: Option<redb::Database>,
}

impl Database {
    /// Opens the database at `path`, or creates one; a damaged one is set aside first.
    pub(crate) fn open_or_replace(
        path: &Path,
        now: WallMs,
    ) -> Result<(Self, StoredState, Option<SetAside>), DatabaseError> {
        let reason = match Self::open(path, now) {
            Ok((database, state)) => return Ok((database, state, None)),
            Err(DatabaseError::Damaged(reason)) => reason,
            Err(other) => return Err(other),
        };
        let to =
            file::set_aside(path).map_err(|e| DatabaseError::Unusable(format!("{e} (it is unusable: {reason})")))?;
        let (database, state) = Self::open(path, now)?;
        Ok((database, state, Some(SetAside { to, reason })))
    }

    /// Opens the database at `path` for reading, without changing the file: for a disk that cannot be written.
    pub(crate) fn open_to_read(path: &Path) -> Result<Self, DatabaseError> {
        let file = file::open_to_read(path).map_err(DatabaseError::Unusable)?;
        let database = Self::with(|| Ok(Overlay::new(FileBackend::new(file)?)?))?;
        match database.format()? {
            DatabaseFormat::Ours(tables::FORMAT) => Ok(database),
            _ => Err(DatabaseError::Unusable("there is no state yet that could be read".into())),
        }
    }

    pub(crate) fn with<B: StorageBackend>(
        backend: impl FnOnce() -> Result<B, redb::Error>,
    ) -> Result<Self, DatabaseError> {
        let db = guarded(|| {
            let mut builder = redb::Builder::new();
            // Without the check, redb trusts the file's structure and may panic, or worse, on a damaged one.
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
            Ok(builder.create_with_backend(MonitoredBackend(backend()?))?)
        })?;
        Ok(Self { db: Some(db) })
    }

    /// Reads everything but the tokens.
    pub(crate) fn read_all(&self) -> Result<StoredState, DatabaseError> {
        guarded(|| tables::read_all(&self.db().begin_read()?)).map(|(state, _)| state)
    }

    fn open(path: &Path, now: WallMs) -> Result<(Self, StoredState), DatabaseError> {
        let file = file::open_private(path).map_err(DatabaseError::Unusable)?;
        let database = Self::with(|| Ok(FileBackend::new(file)?))?;
        let state = match database.format()? {
            DatabaseFormat::Empty => {
                let state = StoredState { is_new: true, ..StoredState::empty() };
                database.write(|txn| tables::create(txn, state.seed, now))?;
                state
            }
            DatabaseFormat::Ours(tables::FORMAT) => {
                let (state, rotten_saved) = guarded(|| tables::read_all(&database.db().begin_read()?))?;
                if rotten_saved > 0 {
                    // If this fails, the next commit reports why.
                    let _ = database.write(tables::drop_rotten);
                }
                state
            }
            DatabaseFormat::Ours(newer) => {
                return Err(DatabaseError::Damaged(format!(
                    "its format is {newer}, and this version of corptokend knows {}; a newer version wrote it",
                    tables::FORMAT
                )));
            }
            DatabaseFormat::Foreign => return Err(DatabaseError::Damaged("it is not a state of corptokend".into())),
        };
        Ok((database, state))
    }

    /// Writes all changes, or none.
    pub(crate) fn commit(&self, pending: &PendingChanges, now: WallMs) -> Result<(), DatabaseError> {
        self.write(|txn| tables::write(txn, pending, now))
    }

    /// Loads tokens, in the order of `ids`. Returns also how many were not whole.
    pub(crate) fn load<'a>(
        &self,
        ids: impl Iterator<Item = &'a TenantId>,
    ) -> Result<(Vec<StoredToken>, u64), DatabaseError> {
        guarded(|| tables::read_tokens(&self.db().begin_read()?, ids))
    }

    fn format(&self) -> Result<DatabaseFormat, DatabaseError> {
        guarded(|| tables::format(&self.db().begin_read()?))
    }

    /// One transaction, durable once this returns: redb's default, `Durability::Immediate`.
    fn write(
        &self,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), DatabaseError> {
        guarded(|| {
            let txn = self.db().begin_write()?;
            work(&txn)?;
            Ok(txn.commit()?)
        })
    }

    fn db(&self) -> &redb::Database {
        self.db.as_ref().expect("it is taken in `drop` alone")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let db = self.db.take();
        // Closing writes, and may panic on a damaged file.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }
}
