//! The tables, and what is read from and written to each.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, TableError, TableHandle, WriteTransaction};

use super::codec::{config_text, saved_state, token};
use super::{StoredState, StoredToken};
use crate::domain::{AppName, Fingerprint, Record, SavedKey, SavedState, TenantId, WallMs};
use crate::store::message::Kept;
use crate::store::pending::PendingChanges;

/// The layout of the tables. A newer version has a higher number.
pub(super) const FORMAT: u64 = 1;

/// Times that differ by less are not rewritten, in milliseconds.
const AMEND_FROM_MS: u64 = 1000;

/// `app/corp_id` to [`token`].
const TOKENS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tokens");
/// `format`, `seed`, `last_commit`.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// The path of a file of the last applied config, to [`config_text`].
const APPLIED: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("applied");
/// An app's name to the fingerprint of its client secret when the config was applied.
const SECRETS: TableDefinition<'_, &str, u64> = TableDefinition::new("secrets");
/// The key of a subject to [`saved_state`]. The first release did without this table.
const SAVED_STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("memories");

/// What a database file is.
pub(super) enum DatabaseFormat {
    /// It has no tables: it was just created.
    Empty,
    Ours(u64),
    Foreign,
}

pub(super) fn format(txn: &ReadTransaction) -> Result<DatabaseFormat, redb::Error> {
    if txn.list_tables()?.next().is_none() && txn.list_multimap_tables()?.next().is_none() {
        return Ok(DatabaseFormat::Empty);
    }
    if !txn.list_tables()?.any(|table| table.name() == META.name()) {
        return Ok(DatabaseFormat::Foreign);
    }
    match txn.open_table(META) {
        Ok(meta) => {
            Ok(meta.get("format")?.map_or(DatabaseFormat::Foreign, |format| DatabaseFormat::Ours(format.value())))
        }
        Err(TableError::Storage(e)) => Err(e.into()),
        Err(_) => Ok(DatabaseFormat::Foreign),
    }
}

pub(super) fn create(txn: &WriteTransaction, seed: u64, now: WallMs) -> Result<(), redb::Error> {
    txn.open_table(TOKENS)?;
    txn.open_table(APPLIED)?;
    txn.open_table(SECRETS)?;
    let mut meta = txn.open_table(META)?;
    meta.insert("format", FORMAT)?;
    meta.insert("seed", seed)?;
    meta.insert("last_commit", now.0)?;
    Ok(())
}

/// Reads everything but the tokens. Returns also how many saved states are rotten.
pub(super) fn read_all(txn: &ReadTransaction) -> Result<(StoredState, u64), redb::Error> {
    let mut state = StoredState::empty();
    for item in txn.open_table(TOKENS)?.iter()? {
        let (key, value) = item?;
        match token::decode_record(key.value(), value.value()) {
            Some(record) => state.contents.snapshot.push(key.value(), record),
            None => state.rotten += 1,
        }
    }
    let (saved, rotten_saved) = read_saved_state(txn)?;
    state.contents.saved = saved;
    state.rotten += rotten_saved;
    let meta = txn.open_table(META)?;
    if let Some(seed) = meta.get("seed")? {
        state.seed = seed.value();
    }
    state.last_commit = meta.get("last_commit")?.map(|moment| WallMs(moment.value()));
    state.contents.applied.texts = read_texts(&txn.open_table(APPLIED)?)?;
    state.contents.applied.secrets = read_secrets(&txn.open_table(SECRETS)?)?;
    Ok((state, rotten_saved))
}

pub(super) fn write(txn: &WriteTransaction, pending: &PendingChanges, now: WallMs) -> Result<(), redb::Error> {
    write_tokens(txn, &pending.tokens, &pending.amended)?;
    write_saved_state(txn, &pending.saved)?;
    if let Some(applied) = &pending.applied {
        write_texts(txn, &applied.texts)?;
        write_secrets(txn, &applied.secrets)?;
    }
    txn.open_table(META)?.insert("last_commit", now.0)?;
    Ok(())
}

/// Reads tokens, in the order of `ids`. Returns also how many are rotten.
pub(super) fn read_tokens<'a>(
    txn: &ReadTransaction,
    ids: impl Iterator<Item = &'a TenantId>,
) -> Result<(Vec<StoredToken>, u64), redb::Error> {
    let tokens = txn.open_table(TOKENS)?;
    let mut rotten = 0;
    let stored = ids.map(|id| {
        let key = id.to_string();
        let Some(value) = tokens.get(key.as_str())? else { return Ok(None) };
        let whole = token::decode_token(&key, value.value());
        rotten += u64::from(whole.is_none());
        Ok(whole)
    });
    let stored = stored.collect::<Result<_, redb::Error>>()?;
    Ok((stored, rotten))
}

fn write_tokens(
    txn: &WriteTransaction,
    changes: &BTreeMap<TenantId, Option<Kept>>,
    amended: &BTreeMap<TenantId, Record>,
) -> Result<(), redb::Error> {
    let mut tokens = txn.open_table(TOKENS)?;
    for (id, change) in changes {
        let key = id.to_string();
        match change {
            Some(kept) => {
                let value = token::encode(&key, &kept.record, &kept.token);
                tokens.insert(key.as_str(), value.as_slice())?;
            }
            None => drop(tokens.remove(key.as_str())?),
        }
    }
    amended.iter().try_for_each(|(id, record)| amend(&mut tokens, &id.to_string(), record))
}

/// Rewrites the times of a token, if it is still the one of this record.
fn amend(tokens: &mut Table<'_, &'static str, &'static [u8]>, key: &str, record: &Record) -> Result<(), redb::Error> {
    let found = tokens.get(key)?.and_then(|value| token::decode_token(key, value.value()));
    let same = found.filter(|(old, _)| old.fingerprint == record.fingerprint && differ(old, record));
    if let Some((_, text)) = same {
        tokens.insert(key, token::encode(key, record, &text).as_slice())?;
    }
    Ok(())
}

fn differ(old: &Record, new: &Record) -> bool {
    old.expires_at.0.abs_diff(new.expires_at.0) >= AMEND_FROM_MS
        || old.requested_at.0.abs_diff(new.requested_at.0) >= AMEND_FROM_MS
}

fn write_saved_state(
    txn: &WriteTransaction,
    changes: &BTreeMap<SavedKey, Option<SavedState>>,
) -> Result<(), redb::Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut table = txn.open_table(SAVED_STATE)?;
    for (subject, saved) in changes {
        let key = saved_state::key(subject);
        match saved {
            Some(saved) => drop(table.insert(key.as_str(), saved_state::encode(&key, saved).as_slice())?),
            None => drop(table.remove(key.as_str())?),
        }
    }
    Ok(())
}

fn read_saved_state(txn: &ReadTransaction) -> Result<(Vec<(SavedKey, SavedState)>, u64), redb::Error> {
    let table = match txn.open_table(SAVED_STATE) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok((Vec::new(), 0)),
        Err(error) => return Err(error.into()),
    };
    let (mut saved, mut rotten) = (Vec::new(), 0);
    for item in table.iter()? {
        let (key, value) = item?;
        match saved_state::decode(key.value(), value.value()) {
            Some(state) => saved.push(state),
            None => rotten += 1,
        }
    }
    Ok((saved, rotten))
}

/// Drops rotten saved states: unlike tokens, nothing overwrites them.
pub(super) fn drop_rotten(txn: &WriteTransaction) -> Result<(), redb::Error> {
    Ok(txn.open_table(SAVED_STATE)?.retain(|key, value| saved_state::decode(key, value).is_some())?)
}

fn write_texts(txn: &WriteTransaction, texts: &[(PathBuf, String)]) -> Result<(), redb::Error> {
    let mut table = txn.open_table(APPLIED)?;
    let keys: HashSet<&[u8]> = texts.iter().map(|(path, _)| path.as_os_str().as_bytes()).collect();
    table.retain(|key, _| keys.contains(key))?;
    for (rank, (path, text)) in (0_u32..).zip(texts) {
        let key = path.as_os_str().as_bytes();
        let value = config_text::encode(key, rank, text);
        // A config of megabytes is not rewritten because one drop-in changed.
        let is_same = table.get(key)?.is_some_and(|old| old.value() == value);
        if !is_same {
            table.insert(key, value.as_slice())?;
        }
    }
    Ok(())
}

/// The texts of the last applied config. Nothing if one of them is rotten: half a config is another config.
fn read_texts(table: &impl ReadableTable<&'static [u8], &'static [u8]>) -> Result<Vec<(PathBuf, String)>, redb::Error> {
    let mut files = Vec::new();
    for item in table.iter()? {
        let (key, value) = item?;
        let Some((rank, text)) = config_text::decode(key.value(), value.value()) else { return Ok(Vec::new()) };
        files.push((rank, Path::new(OsStr::from_bytes(key.value())).to_owned(), text.to_owned()));
    }
    files.sort_unstable();
    Ok(files.into_iter().map(|(_, path, text)| (path, text)).collect())
}

fn write_secrets(txn: &WriteTransaction, secrets: &[(AppName, Fingerprint)]) -> Result<(), redb::Error> {
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
        // A rotten fingerprint makes its app's tokens be fetched anew, at worst.
        secrets.extend(AppName::new(app.value()).ok().map(|app| (app, Fingerprint(fingerprint.value()))));
    }
    Ok(secrets)
}
