//! The table of what is remembered besides the tokens. It was added after the first release, which does without.

use std::collections::BTreeMap;

use redb::{ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction};

use super::codec::saved_state;
use crate::domain::{SavedKey, SavedState};

/// The key of a subject to its [`saved_state`].
const MEMORIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("memories");

/// Writes each in place of what was remembered of its subject.
pub(super) fn write(
    txn: &WriteTransaction,
    memories: &BTreeMap<SavedKey, Option<SavedState>>,
) -> Result<(), redb::Error> {
    let mut table = txn.open_table(MEMORIES)?;
    for (subject, memory) in memories {
        let key = saved_state::key(subject);
        match memory {
            Some(memory) => drop(table.insert(key.as_str(), saved_state::encode(&key, memory).as_slice())?),
            None => drop(table.remove(key.as_str())?),
        }
    }
    Ok(())
}

/// Reads those that are whole, and counts those that are not.
pub(super) fn read(txn: &ReadTransaction) -> Result<(Vec<(SavedKey, SavedState)>, u64), redb::Error> {
    let table = match txn.open_table(MEMORIES) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok((Vec::new(), 0)),
        Err(error) => return Err(error.into()),
    };
    let (mut memories, mut rotten) = (Vec::new(), 0);
    for item in table.iter()? {
        let (key, value) = item?;
        match saved_state::decode(key.value(), value.value()) {
            Some(memory) => memories.push(memory),
            None => rotten += 1,
        }
    }
    Ok((memories, rotten))
}

/// Drops those that are not whole: nothing comes to overwrite them, as with tokens.
pub(super) fn drop_rotten(txn: &WriteTransaction) -> Result<(), redb::Error> {
    Ok(txn.open_table(MEMORIES)?.retain(|key, value| saved_state::decode(key, value).is_some())?)
}
