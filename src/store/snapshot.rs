//! The records of all tokens in the state, read at the start: compact, because there may be a million.

use std::cmp::Ordering;
use std::fmt;

use crate::domain::{AppName, CorpId, Record, TenantId};

/// Records without their tokens: about 60 bytes a tenant, in a few allocations.
#[derive(Default)]
pub struct Snapshot {
    /// The concatenated keys, `app/corp_id` each, sorted by bytes.
    keys: String,
    rows: Vec<SnapshotRow>,
}

struct SnapshotRow {
    /// The end of its key in `keys`; it begins at the end of the previous one.
    end: u32,
    record: Record,
}

impl Snapshot {
    /// The number of records.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// A tenant's record.
    pub fn get(&self, id: &TenantId) -> Option<Record> {
        Some(self.record(self.find(0, id)?))
    }

    /// The index of a tenant's record. `likely` is tried first, for callers that look up tenants in order.
    pub fn find(&self, likely: usize, id: &TenantId) -> Option<usize> {
        let order = |at: usize| order(self.key(at), &id.app, &id.corp_id);
        self.search(likely, order)
    }

    /// The record at an index from [`find`](Self::find).
    pub fn record(&self, at: usize) -> Record {
        self.rows[at].record
    }

    /// All tenants except these, which are found fastest in order.
    pub fn others<'a>(&self, known: impl Iterator<Item = (&'a AppName, &'a CorpId)>) -> Vec<TenantId> {
        let mut is_known = vec![false; self.rows.len()];
        let mut likely = 0;
        for (app, corp_id) in known {
            if let Some(at) = self.search(likely, |at| order(self.key(at), app, corp_id)) {
                is_known[at] = true;
                likely = at + 1;
            }
        }
        self.iter().zip(is_known).filter(|(_, known)| !known).map(|((id, _), _)| id).collect()
    }

    fn search(&self, likely: usize, order: impl Fn(usize) -> Ordering) -> Option<usize> {
        if likely < self.rows.len() && order(likely) == Ordering::Equal {
            return Some(likely);
        }
        let (mut low, mut high) = (0, self.rows.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match order(middle) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Some(middle),
                Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// All records. Consecutive tenants of an app share its name's text.
    pub fn iter(&self) -> impl Iterator<Item = (TenantId, Record)> + '_ {
        self.from(0)
    }

    /// The records from an index on, without those with invalid names.
    pub fn from(&self, first: usize) -> impl Iterator<Item = (TenantId, Record)> + '_ {
        let mut last: Option<AppName> = None;
        self.rows.iter().enumerate().skip(first).filter_map(move |(index, row)| {
            let (app, corp_id) = self.key(index).split_once('/')?;
            let app = match &last {
                Some(last) if last.as_str() == app => last.clone(),
                _ => last.insert(app.parse().ok()?).clone(),
            };
            Some((TenantId { app, corp_id: corp_id.parse().ok()? }, row.record))
        })
    }

    /// Adds a record. `key` must sort after all earlier ones; beyond 4 GiB of keys, records are left out.
    pub(super) fn push(&mut self, key: &str, record: Record) {
        let Ok(end) = u32::try_from(self.keys.len() + key.len()) else { return };
        self.keys.push_str(key);
        self.rows.push(SnapshotRow { end, record });
    }

    fn key(&self, index: usize) -> &str {
        let begin = index.checked_sub(1).map_or(0, |before| self.rows[before].end as usize);
        &self.keys[begin..self.rows[index].end as usize]
    }
}

/// Compares a key with `app/corp_id`.
fn order(key: &str, app: &AppName, corp_id: &CorpId) -> Ordering {
    let (key, app) = (key.as_bytes(), app.as_str().as_bytes());
    let Some((head, tail)) = key.split_at_checked(app.len()) else { return key.cmp(app) };
    let tail = tail.split_first();
    head.cmp(app).then_with(|| {
        tail.map_or(Ordering::Less, |(slash, tail)| {
            slash.cmp(&b'/').then_with(|| tail.cmp(corp_id.as_str().as_bytes()))
        })
    })
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({} records)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Fingerprint, WallMs};

    fn record(n: u64) -> Record {
        Record { requested_at: WallMs(n), expires_at: WallMs(n + 1), fingerprint: Fingerprint(n) }
    }

    #[test]
    fn every_record_is_found_again_and_no_other() {
        // `-` sorts before `/`, so these ids are not in the order of (app, corp_id).
        let keys = ["a-b/x", "a/a", "a/ab", "a/b", "b/a"];
        let mut restored = Snapshot::default();
        for (n, key) in (0..).zip(keys) {
            restored.push(key, record(n));
        }
        for (n, key) in (0..).zip(keys) {
            assert_eq!(restored.get(&key.parse().unwrap()), Some(record(n)), "{key}");
        }
        for key in ["a/aa", "a/c", "a-b/y", "c/a", "0/0"] {
            assert_eq!(restored.get(&key.parse().unwrap()), None, "{key}");
        }
        let known: Vec<TenantId> = ["a/a", "a/ab", "a-b/x"].map(|key| key.parse().unwrap()).into();
        let others = restored.others(known.iter().map(|id| (&id.app, &id.corp_id)));
        assert_eq!(others.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a/b", "b/a"]);
        let listed: Vec<String> = restored.iter().map(|(id, _)| id.to_string()).collect();
        assert_eq!(listed, keys);
    }
}
