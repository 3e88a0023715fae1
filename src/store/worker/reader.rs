//! The reading thread: it loads tokens, even while the writing thread cannot write, or hangs.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::queue::StoreQueue;
use crate::domain::{TenantId, Ticket};
use crate::store::database::StoredToken;
use crate::store::message::{Lookup, ReplyCallback, StoreReply};

/// The tokens to load.
pub(crate) type LoadRequest = Vec<(Ticket, TenantId)>;

pub(crate) struct StoreReader {
    pub(crate) queue: Arc<StoreQueue>,
    pub(crate) reply: ReplyCallback,
    /// The database's path, for messages.
    pub(crate) path: String,
    /// Rot was logged already.
    pub(crate) is_rot_logged: bool,
}

impl StoreReader {
    /// Serves requests until the store is dropped.
    pub(crate) fn run(mut self, wanted: &Receiver<LoadRequest>) {
        for wanted in wanted {
            let queue = Arc::clone(&self.queue);
            let loaded = queue.reading.during(|| self.load(wanted));
            (self.reply)(vec![StoreReply::Loaded(loaded)]);
        }
    }

    /// Loads tokens. One that waits for a commit is newer than the one on disk.
    fn load(&mut self, wanted: LoadRequest) -> Vec<(Ticket, Lookup)> {
        let in_memory = self.queue.in_memory(wanted.iter().map(|(_, id)| id));
        let missing = || wanted.iter().zip(&in_memory).filter(|(_, known)| known.is_none()).map(|((_, id), _)| id);
        let mut on_disk =
            if missing().next().is_none() { Ok(Vec::new()) } else { self.read(missing()) }.map(Vec::into_iter);
        let lookup = |known: Option<StoredToken>| match (known, &mut on_disk) {
            (Some(known), _) => Lookup::from(known),
            (None, Ok(on_disk)) => Lookup::from(on_disk.next().flatten()),
            (None, Err(reason)) => Lookup::Unavailable(Arc::clone(reason)),
        };
        let lookups: Vec<Lookup> = in_memory.into_iter().map(lookup).collect();
        wanted.into_iter().map(|(ticket, _)| ticket).zip(lookups).collect()
    }

    fn read<'a>(&mut self, ids: impl Iterator<Item = &'a TenantId>) -> Result<Vec<StoredToken>, Arc<str>> {
        let database = self.queue.readable()?;
        match database.load(ids) {
            Ok((loaded, rotten)) => {
                self.log_rot(rotten);
                Ok(loaded)
            }
            Err(error) => {
                let reason = error.to_string().into();
                self.queue.read_failed(&database, error);
                Err(reason)
            }
        }
    }

    fn log_rot(&mut self, rotten: u64) {
        if rotten > 0 && !std::mem::replace(&mut self.is_rot_logged, true) {
            tracing::warn!(
                event = "state_rot",
                "{rotten} tokens in the state {} are not what was written there; they are fetched anew. Check the disk",
                self.path
            );
        }
    }
}

impl From<StoredToken> for Lookup {
    fn from(loaded: StoredToken) -> Self {
        loaded.map_or(Self::Missing, |(record, token)| Self::Found(record, token))
    }
}
