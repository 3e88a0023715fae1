//! A store, and what it says.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use corptokend::domain::{Record, Slot, TenantId, Ticket, Token, WallMs};
use corptokend::store::{Applied, Kept, Lookup, OpenError, Opened, StoreReply, StoreRequest, open};
use corptokend::system::clock::now;
use zeroize::Zeroizing;

/// Longer than any wait in here can take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(120);

pub(crate) fn id(n: u32) -> TenantId {
    format!("crm/ding{n}").parse().unwrap()
}

pub(crate) fn ticket(n: u32) -> Ticket {
    Ticket { slot: Slot(n), seq: 1 }
}

pub(crate) fn token_text(n: u32) -> String {
    format!("token-of-tenant-{n}-{}", "x".repeat(32))
}

pub(crate) fn kept(n: u32) -> Kept {
    kept_as(n, &token_text(n))
}

pub(crate) fn kept_as(n: u32, text: &str) -> Kept {
    let token = Token::new(Zeroizing::new(text.to_owned())).unwrap();
    let record = Record {
        requested_at: WallMs(u64::from(n)),
        expires_at: WallMs(u64::from(n) + 7_200_000),
        fingerprint: token.fingerprint(),
    };
    Kept { ticket: ticket(n), id: id(n), record, token }
}

/// A store and what it says.
pub(crate) struct Running {
    pub(crate) opened: Opened,
    pub(crate) replies: Receiver<StoreReply>,
}

pub(crate) fn try_start(path: &Path) -> Result<Running, OpenError> {
    let (sender, replies) = channel();
    let reply = move |batch: Vec<StoreReply>| batch.into_iter().for_each(|reply| drop(sender.send(reply)));
    open(path, reply, now).map(|opened| Running { opened, replies })
}

pub(crate) fn start(path: &Path) -> Running {
    try_start(path).unwrap()
}

impl Running {
    pub(crate) fn send(&self, request: StoreRequest) {
        self.opened.store.send(request);
    }

    pub(crate) fn next(&self) -> StoreReply {
        self.replies.recv_timeout(SOON).expect("the store answers")
    }

    /// Keeps these and waits until they are on disk.
    pub(crate) fn keep(&self, tenants: impl Iterator<Item = u32>) {
        let batch: Vec<Kept> = tenants.map(kept).collect();
        let count = batch.len();
        self.send(StoreRequest::Keep(batch));
        match self.next() {
            StoreReply::Kept(tickets) => assert_eq!(tickets.len(), count),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn load(&self, tenants: impl Iterator<Item = u32>) -> Vec<Option<String>> {
        self.send(StoreRequest::Load(tenants.map(|n| (ticket(n), id(n))).collect()));
        loop {
            if let StoreReply::Loaded(loaded) = self.next() {
                return loaded.into_iter().map(|(_, found)| Some(found.found()?.1.expose().into())).collect();
            }
        }
    }

    /// The same of one tenant, as it is told.
    pub(crate) fn look_up(&self, tenant: u32) -> Lookup {
        self.send(StoreRequest::Load(vec![(ticket(tenant), id(tenant))]));
        loop {
            if let StoreReply::Loaded(loaded) = self.next() {
                return loaded.into_iter().next().unwrap().1;
            }
        }
    }

    pub(crate) fn stop(self) {
        self.opened.store.stop(SOON);
    }
}

pub(crate) fn scratch() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/state.redb");
    (dir, path)
}

pub(crate) fn applied(texts: Vec<(PathBuf, String)>) -> StoreRequest {
    StoreRequest::Applied(Applied { texts, secrets: Vec::new() })
}
