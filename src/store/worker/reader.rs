//! The store's other thread: it reads tokens, also while the first one cannot write, or hangs.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::queue::Desk;
use super::writer::reason_of;
use crate::domain::{TenantId, Ticket};
use crate::store::database::{Loaded, Trouble};
use crate::store::message::{Answer, Lookup, StoreReply};

/// What is to be read.
pub(crate) type Wanted = Vec<(Ticket, TenantId)>;

pub(crate) struct Reader {
    pub(crate) desk: Arc<Desk>,
    pub(crate) answer: Answer,
    /// How the database is called in messages.
    pub(crate) path: String,
    /// Whether a rotten record was already spoken of.
    pub(crate) rot_reported: bool,
}

impl Reader {
    /// Reads until nobody is left to ask for anything.
    pub(crate) fn run(mut self, wanted: &Receiver<Wanted>) {
        for wanted in wanted {
            let desk = Arc::clone(&self.desk);
            let loaded = desk.reading.during(|| self.load(wanted));
            (self.answer)(vec![StoreReply::Loaded(loaded)]);
        }
    }

    /// What waits for a commit is newer than what is on disk. Whoever asks knows which token may be published.
    fn load(&mut self, wanted: Wanted) -> Vec<(Ticket, Lookup)> {
        let in_memory = self.desk.recall(wanted.iter().map(|(_, id)| id));
        let missing = || wanted.iter().zip(&in_memory).filter(|(_, known)| known.is_none()).map(|((_, id), _)| id);
        let mut on_disk =
            if missing().next().is_none() { Ok(Vec::new()) } else { self.read(missing()) }.map(Vec::into_iter);
        let lookup = |known: Option<Loaded>| match (known, &mut on_disk) {
            (Some(known), _) => Lookup::from(known),
            (None, Ok(on_disk)) => Lookup::from(on_disk.next().flatten()),
            (None, Err(reason)) => Lookup::Unavailable(Arc::clone(reason)),
        };
        let lookups: Vec<Lookup> = in_memory.into_iter().map(lookup).collect();
        wanted.into_iter().map(|(ticket, _)| ticket).zip(lookups).collect()
    }

    fn read<'a>(&mut self, ids: impl Iterator<Item = &'a TenantId>) -> Result<Vec<Loaded>, Arc<str>> {
        let database = self.desk.look()?;
        match database.load(ids) {
            Ok((loaded, rotten)) => {
                self.report_rot(rotten);
                Ok(loaded)
            }
            Err(trouble) => {
                let reason = reason_of(&trouble).into();
                self.desk.read_failed(&database, trouble);
                Err(reason)
            }
        }
    }

    fn report_rot(&mut self, rotten: u64) {
        if rotten > 0 && !std::mem::replace(&mut self.rot_reported, true) {
            tracing::warn!(
                event = "state_rot",
                "{rotten} tokens in the state {} are not what was written there; they are fetched anew. Check the disk",
                self.path
            );
        }
    }
}

impl From<Loaded> for Lookup {
    fn from(loaded: Loaded) -> Self {
        loaded.map_or(Self::Missing, |(record, token)| Self::Found(record, token))
    }
}

impl Trouble {
    /// Whether another process has the database.
    pub(crate) fn is_in_use(&self) -> bool {
        *self == Self::InUse
    }
}
