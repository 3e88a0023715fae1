//! A turn's jobs for the store, in order; what comes together goes as one request.

use crate::domain::{Record, SavedKey, SavedState, TenantId, Ticket};
use crate::store::{Applied, Kept, StoreRequest};

#[derive(Default)]
pub(super) struct StoreBatch(Vec<StoreRequest>);

impl StoreBatch {
    pub(super) fn take(&mut self) -> Vec<StoreRequest> {
        std::mem::take(&mut self.0)
    }

    pub(super) fn commit(&mut self, token: Kept) {
        match self.0.last_mut() {
            Some(StoreRequest::Keep(tokens)) => tokens.push(token),
            _ => self.0.push(StoreRequest::Keep(vec![token])),
        }
    }

    pub(super) fn load(&mut self, wanted: impl IntoIterator<Item = (Ticket, TenantId)>) {
        let mut wanted = wanted.into_iter().peekable();
        match self.0.last_mut() {
            _ if wanted.peek().is_none() => {}
            Some(StoreRequest::Load(batch)) => batch.extend(wanted),
            _ => self.0.push(StoreRequest::Load(wanted.collect())),
        }
    }

    pub(super) fn delete_record(&mut self, id: TenantId) {
        match self.0.last_mut() {
            Some(StoreRequest::Forget(ids)) => ids.push(id),
            _ => self.0.push(StoreRequest::Forget(vec![id])),
        }
    }

    pub(super) fn update_records(&mut self, records: Vec<(TenantId, Record)>) {
        self.0.push(StoreRequest::Amend(records));
    }

    pub(super) fn save(&mut self, key: SavedKey, state: Option<SavedState>) {
        match self.0.last_mut() {
            Some(StoreRequest::Remember(batch)) => batch.push((key, state)),
            _ => self.0.push(StoreRequest::Remember(vec![(key, state)])),
        }
    }

    pub(super) fn save_config(&mut self, applied: Applied) {
        self.0.push(StoreRequest::Applied(applied));
    }
}
