//! What is known of each token at the start: compact, because it may be a million.

use std::fmt;

use crate::domain::{AppName, Record, TenantId};

/// The records that were read, without the tokens: about 60 bytes a tenant, in a few allocations.
#[derive(Default)]
pub struct Restored {
    /// `app/corp_id` after `app/corp_id`, sorted by bytes.
    keys: String,
    rows: Vec<Row>,
}

struct Row {
    /// Where its key ends in `keys`; it begins where the one before ends.
    end: u32,
    record: Record,
}

impl Restored {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What is known of one tenant's token.
    pub fn get(&self, id: &TenantId) -> Option<Record> {
        let wanted = || id.app.as_str().bytes().chain([b'/']).chain(id.corp_id.as_str().bytes());
        let (mut low, mut high) = (0, self.rows.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.key(middle).bytes().cmp(wanted()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(self.rows[middle].record),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// All of them. Neighbours of one app share the text of its name.
    pub fn iter(&self) -> impl Iterator<Item = (TenantId, Record)> + '_ {
        let mut last: Option<AppName> = None;
        self.rows.iter().enumerate().filter_map(move |(index, row)| {
            let (app, corp_id) = self.key(index).split_once('/')?;
            let app = match &last {
                Some(last) if last.as_str() == app => last.clone(),
                _ => last.insert(app.parse().ok()?).clone(),
            };
            Some((TenantId { app, corp_id: corp_id.parse().ok()? }, row.record))
        })
    }

    /// Adds one. `key` comes after all that were added before; keys over 4 GiB in all are left out.
    pub(super) fn push(&mut self, key: &str, record: Record) {
        let Ok(end) = u32::try_from(self.keys.len() + key.len()) else { return };
        self.keys.push_str(key);
        self.rows.push(Row { end, record });
    }

    fn key(&self, index: usize) -> &str {
        let begin = index.checked_sub(1).map_or(0, |before| self.rows[before].end as usize);
        &self.keys[begin..self.rows[index].end as usize]
    }
}

impl fmt::Debug for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Restored({} records)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Fingerprint, WallMs};

    fn record(n: u64) -> Record {
        Record { asked: WallMs(n), expires: WallMs(n + 1), fingerprint: Fingerprint(n) }
    }

    #[test]
    fn every_record_is_found_again_and_no_other() {
        // `-` sorts before `/`, so these ids are not in the order of (app, corp_id).
        let keys = ["a-b/x", "a/a", "a/ab", "a/b", "b/a"];
        let mut restored = Restored::default();
        for (n, key) in (0..).zip(keys) {
            restored.push(key, record(n));
        }
        for (n, key) in (0..).zip(keys) {
            assert_eq!(restored.get(&key.parse().unwrap()), Some(record(n)), "{key}");
        }
        for key in ["a/aa", "a/c", "a-b/y", "c/a", "0/0"] {
            assert_eq!(restored.get(&key.parse().unwrap()), None, "{key}");
        }
        let listed: Vec<String> = restored.iter().map(|(id, _)| id.to_string()).collect();
        assert_eq!(listed, keys);
    }
}
