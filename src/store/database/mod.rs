//! The database itself. Everything that touches redb is in here, and runs guarded: a damaged file may make redb panic,
//! and that must not end the daemon.

mod codec;
mod file;
mod overlay;
mod tables;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, TableHandle};

use codec::token;
use overlay::Overlay;

use super::message::{Applied, Late, SetAside};
use super::pending::Pending;
use super::snapshot::Snapshot;
use super::stall::Watched;
use crate::domain::{AppName, Fingerprint, Record, SavedKey, SavedState, TenantId, Token, WallMs};

/// The layout of the tables. A higher number than this is a newer version's.
const FORMAT: u64 = 1;

/// redb's own default is 1 GiB; more than this brings nothing for a few hundred bytes a tenant.
const CACHE_BYTES: usize = 4 << 20;

/// A time that is off by less is not written again, in milliseconds.
const WORTH_MS: u64 = 1000;

/// `app/corp_id` to [`token`].
const TOKENS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tokens");
/// `format`, `seed`, `last_commit`.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// The path of a file of the last applied config, to its rank (4 bytes, big-endian), its text and a checksum as in
/// [`token`].
const APPLIED: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("applied");

/// An app's name to the fingerprint of the client secret that it had when the config was applied.
const SECRETS: TableDefinition<'_, &str, u64> = TableDefinition::new("secrets");

/// Why the database cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Another process has it.
    InUse,
    /// The file is no good, and will not get better.
    Damaged(String),
    /// The file could not be read or written; that may pass.
    Unusable(String),
}

/// What lies in the database.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) restored: Snapshot,
    pub(super) memories: Vec<(SavedKey, SavedState)>,
    pub(super) applied: Applied,
    pub(super) seed: u64,
    pub(super) last_commit: Option<WallMs>,
    pub(super) rotten: u64,
    /// There was nothing, and it was begun just now.
    pub(super) is_new: bool,
}

impl Contents {
    /// Nothing, and a new seed.
    pub(super) fn empty() -> Self {
        Self {
            restored: Snapshot::default(),
            memories: Vec::new(),
            applied: Applied::default(),
            seed: random_seed(),
            last_commit: None,
            rotten: 0,
            is_new: false,
        }
    }
}

impl From<Contents> for Late {
    fn from(contents: Contents) -> Self {
        let Contents { restored, memories, applied, .. } = contents;
        Self { restored, memories, applied }
    }
}

/// An open database.
#[derive(Debug)]
pub(super) struct Database {
    /// `None` only while it is dropped.
    db: Option<redb::Database>,
}

impl Database {
    /// Opens the database at `path`, or begins one; a damaged one is set aside first.
    pub(super) fn open_or_replace(path: &Path, now: WallMs) -> Result<(Self, Contents, Option<SetAside>), Trouble> {
        let reason = match Self::open(path, now) {
            Ok((database, contents)) => return Ok((database, contents, None)),
            Err(Trouble::Damaged(reason)) => reason,
            Err(other) => return Err(other),
        };
        let to = file::set_aside(path).map_err(|e| Trouble::Unusable(format!("{e} (it is unusable: {reason})")))?;
        let (database, contents) = Self::open(path, now)?;
        Ok((database, contents, Some(SetAside { to, reason })))
    }

    /// Opens the database at `path` to read it, without a change to the file: where it cannot be written.
    pub(super) fn open_to_read(path: &Path) -> Result<Self, Trouble> {
        let file = file::open_to_read(path).map_err(Trouble::Unusable)?;
        let database = Self::with(|| Ok(Overlay::new(FileBackend::new(file)?)?))?;
        match guarded(|| database.format())? {
            Format::Ours(FORMAT) => Ok(database),
            _ => Err(Trouble::Unusable("there is no state yet that could be read".into())),
        }
    }

    pub(super) fn with<B: StorageBackend>(backend: impl FnOnce() -> Result<B, redb::Error>) -> Result<Self, Trouble> {
        let db = guarded(|| {
            let mut builder = redb::Builder::new();
            // A plain open trusts the file's structure and may panic, or worse, on a damaged one.
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
            Ok(builder.create_with_backend(Watched(backend()?))?)
        })?;
        Ok(Self { db: Some(db) })
    }

    /// All that is in it.
    pub(super) fn read_all(&self) -> Result<Contents, Trouble> {
        guarded(|| self.contents()).map(|(contents, _)| contents)
    }

    fn open(path: &Path, now: WallMs) -> Result<(Self, Contents), Trouble> {
        let file = file::open_private(path).map_err(Trouble::Unusable)?;
        let database = Self::with(|| Ok(FileBackend::new(file)?))?;
        let contents = match guarded(|| database.format())? {
            Format::None => {
                let contents = Contents { is_new: true, ..Contents::empty() };
                guarded(|| database.begin(contents.seed, now))?;
                contents
            }
            Format::Ours(FORMAT) => {
                let (contents, rotten_memories) = guarded(|| database.contents())?;
                if rotten_memories > 0 {
                    // If this fails, the next commit tells why.
                    let _ = guarded(|| database.drop_rotten_memories());
                }
                contents
            }
            Format::Ours(newer) => {
                return Err(Trouble::Damaged(format!(
                    "its format is {newer}, and this version of corptokend knows {FORMAT}; a newer version wrote it"
                )));
            }
            Format::Foreign => return Err(Trouble::Damaged("it is not a state of corptokend".into())),
        };
        Ok((database, contents))
    }

    /// Writes all of it, or nothing.
    pub(super) fn commit(&self, pending: &Pending, now: WallMs) -> Result<(), Trouble> {
        guarded(|| {
            // Durable once this returns: redb's default, `Durability::Immediate`.
            let txn = self.db().begin_write()?;
            {
                let mut tokens = txn.open_table(TOKENS)?;
                for (id, change) in &pending.tokens {
                    let key = id.to_string();
                    match change {
                        Some(kept) => {
                            let value = token::encode(&key, &kept.record, &kept.token);
                            tokens.insert(key.as_str(), value.as_slice())?;
                        }
                        None => {
                            tokens.remove(key.as_str())?;
                        }
                    }
                }
                for (id, record) in &pending.amended {
                    amend(&mut tokens, &id.to_string(), record)?;
                }
                if !pending.memories.is_empty() {
                    tables::write(&txn, &pending.memories)?;
                }
                if let Some(applied) = &pending.applied {
                    write_texts(&txn, &applied.texts)?;
                    write_secrets(&txn, &applied.secrets)?;
                }
                txn.open_table(META)?.insert("last_commit", now.0)?;
            }
            Ok(txn.commit()?)
        })
    }

    /// Reads tokens; `None` where there is none that is whole. Also how many were not.
    pub(super) fn load<'a>(&self, ids: impl Iterator<Item = &'a TenantId>) -> Result<(Vec<Loaded>, u64), Trouble> {
        guarded(|| {
            let tokens = self.db().begin_read()?.open_table(TOKENS)?;
            let mut rotten = 0;
            let loaded = ids.map(|id| {
                let key = id.to_string();
                let Some(value) = tokens.get(key.as_str())? else { return Ok(None) };
                let whole = token::decode_token(&key, value.value());
                rotten += u64::from(whole.is_none());
                Ok(whole)
            });
            let loaded = loaded.collect::<Result<_, redb::Error>>()?;
            Ok((loaded, rotten))
        })
    }

    fn db(&self) -> &redb::Database {
        self.db.as_ref().expect("it is taken in `drop` alone")
    }

    fn format(&self) -> Result<Format, redb::Error> {
        let txn = self.db().begin_read()?;
        if txn.list_tables()?.next().is_none() && txn.list_multimap_tables()?.next().is_none() {
            return Ok(Format::None);
        }
        if !txn.list_tables()?.any(|table| table.name() == META.name()) {
            return Ok(Format::Foreign);
        }
        match txn.open_table(META) {
            Ok(meta) => Ok(meta.get("format")?.map_or(Format::Foreign, |format| Format::Ours(format.value()))),
            Err(redb::TableError::Storage(e)) => Err(e.into()),
            Err(_) => Ok(Format::Foreign),
        }
    }

    fn begin(&self, seed: u64, now: WallMs) -> Result<(), redb::Error> {
        let txn = self.db().begin_write()?;
        {
            txn.open_table(TOKENS)?;
            txn.open_table(APPLIED)?;
            txn.open_table(SECRETS)?;
            let mut meta = txn.open_table(META)?;
            meta.insert("format", FORMAT)?;
            meta.insert("seed", seed)?;
            meta.insert("last_commit", now.0)?;
        }
        Ok(txn.commit()?)
    }

    /// What lies in the database, and how many memories are not whole.
    fn contents(&self) -> Result<(Contents, u64), redb::Error> {
        let txn = self.db().begin_read()?;
        let mut contents = Contents::empty();
        for item in txn.open_table(TOKENS)?.iter()? {
            let (key, value) = item?;
            match token::decode_record(key.value(), value.value()) {
                Some(record) => contents.restored.push(key.value(), record),
                None => contents.rotten += 1,
            }
        }
        let (memories, rotten_memories) = tables::read(&txn)?;
        contents.memories = memories;
        contents.rotten += rotten_memories;
        let meta = txn.open_table(META)?;
        if let Some(seed) = meta.get("seed")? {
            contents.seed = seed.value();
        }
        contents.last_commit = meta.get("last_commit")?.map(|moment| WallMs(moment.value()));
        contents.applied.texts = read_texts(&txn.open_table(APPLIED)?)?;
        contents.applied.secrets = read_secrets(&txn.open_table(SECRETS)?)?;
        Ok((contents, rotten_memories))
    }

    fn drop_rotten_memories(&self) -> Result<(), redb::Error> {
        let txn = self.db().begin_write()?;
        tables::drop_rotten(&txn)?;
        Ok(txn.commit()?)
    }
}

/// A tenant's record and token.
pub(super) type Loaded = Option<(Record, Token)>;

impl Drop for Database {
    fn drop(&mut self) {
        let db = self.db.take();
        // Closing writes, and may panic like anything else on a damaged file.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }
}

enum Format {
    /// A database without tables: it was begun a moment ago.
    None,
    Ours(u64),
    Foreign,
}

/// Tells the times of a token anew that is still the one that the record speaks of.
fn amend(
    tokens: &mut redb::Table<'_, &'static str, &'static [u8]>,
    key: &str,
    record: &Record,
) -> Result<(), redb::Error> {
    let found = tokens.get(key)?.and_then(|value| token::decode_token(key, value.value()));
    let same = found.filter(|(old, _)| old.fingerprint == record.fingerprint && differ(old, record));
    if let Some((_, kept)) = same {
        tokens.insert(key, token::encode(key, record, &kept).as_slice())?;
    }
    Ok(())
}

/// Whether the times of two records are so far apart that it is worth a write.
fn differ(old: &Record, new: &Record) -> bool {
    old.expires_at.0.abs_diff(new.expires_at.0) >= WORTH_MS
        || old.requested_at.0.abs_diff(new.requested_at.0) >= WORTH_MS
}

fn write_texts(txn: &redb::WriteTransaction, texts: &[(PathBuf, String)]) -> Result<(), redb::Error> {
    let mut table = txn.open_table(APPLIED)?;
    let keys: std::collections::HashSet<&[u8]> = texts.iter().map(|(path, _)| bytes_of(path)).collect();
    table.retain(|key, _| keys.contains(key))?;
    for (rank, (path, text)) in (0_u32..).zip(texts) {
        let key = bytes_of(path);
        let mut value = Vec::with_capacity(text.len() + 12);
        value.extend_from_slice(&rank.to_be_bytes());
        value.extend_from_slice(text.as_bytes());
        let checksum = token::checksum(key, &value);
        value.extend_from_slice(&checksum);
        // A config of megabytes is not written again because one drop-in changed.
        let same = table.get(key)?.is_some_and(|old| old.value() == value);
        if !same {
            table.insert(key, value.as_slice())?;
        }
    }
    Ok(())
}

fn write_secrets(txn: &redb::WriteTransaction, secrets: &[(AppName, Fingerprint)]) -> Result<(), redb::Error> {
    let mut table = txn.open_table(SECRETS)?;
    table.retain(|_, _| false)?;
    for (app, fingerprint) in secrets {
        table.insert(app.as_str(), fingerprint.0)?;
    }
    Ok(())
}

fn read_secrets(table: &impl ReadableTable<&'static str, u64>) -> Result<Vec<(AppName, Fingerprint)>, redb::Error> {
    let mut secrets = Vec::new();
    for item in table.iter()? {
        let (app, fingerprint) = item?;
        // One that rotted makes its app be fetched anew, or not: neither does harm.
        secrets.extend(AppName::new(app.value()).ok().map(|app| (app, Fingerprint(fingerprint.value()))));
    }
    Ok(secrets)
}

/// The texts of the last applied config, or nothing at all when a part of it is not whole: half a config is another config.
fn read_texts(table: &impl ReadableTable<&'static [u8], &'static [u8]>) -> Result<Vec<(PathBuf, String)>, redb::Error> {
    let mut files = Vec::new();
    for item in table.iter()? {
        let (key, value) = item?;
        let Some((rank, text)) = whole_text(key.value(), value.value()) else { return Ok(Vec::new()) };
        files.push((rank, path_of(key.value()), text.to_owned()));
    }
    files.sort_unstable();
    Ok(files.into_iter().map(|(_, path, text)| (path, text)).collect())
}

fn whole_text<'a>(key: &[u8], value: &'a [u8]) -> Option<(u32, &'a str)> {
    let (body, sum) = value.split_last_chunk::<8>()?;
    let (rank, text) = body.split_first_chunk::<4>()?;
    let text = std::str::from_utf8(text).ok()?;
    (*sum == token::checksum(key, body)).then_some((u32::from_be_bytes(*rank), text))
}

fn bytes_of(path: &Path) -> &[u8] {
    std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes))
}

fn random_seed() -> u64 {
    let mut seed = [0; 8];
    // Without entropy the seed is 0, which only means that this machine's jitter resembles another's.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut seed);
    u64::from_be_bytes(seed)
}

/// Runs `work` on the database and says what its failure means. A panic is damage: it is how redb meets a file that it
/// cannot have written.
fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Trouble> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(classify),
        Err(_) => Err(Trouble::Damaged("the database's structure makes no sense".into())),
    }
}

fn classify(error: redb::Error) -> Trouble {
    use redb::Error as E;
    use std::io::ErrorKind;
    match error {
        E::DatabaseAlreadyOpen | E::LockProtocolMismatch => Trouble::InUse,
        E::Io(e) if matches!(e.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
            Trouble::Damaged(format!("it is no database, or a damaged one ({e})"))
        }
        E::UpgradeRequired(version) => Trouble::Damaged(format!("its file format is {version}, which is not ours")),
        e @ (E::Corrupted(_)
        | E::RepairAborted
        | E::TableTypeMismatch { .. }
        | E::TableIsMultimap(_)
        | E::TableIsNotMultimap(_)
        | E::TypeDefinitionChanged { .. }
        | E::TableDoesNotExist(_)) => Trouble::Damaged(format!("it is damaged ({e})")),
        e => Trouble::Unusable(format!("cannot read or write the state: {e}")),
    }
}
