//! What the server asks of the daemon, and how it waits for the answer.

use std::io;

use tokio::sync::{mpsc, oneshot};

use crate::control::protocol::{DaemonStatus, Page, ReloadRequest, ReloadVerdict, TenantFilter, TenantRow};
use crate::domain::TenantId;

/// A question to the daemon. If the reply is dropped, the client gets a 503.
#[derive(Debug)]
pub enum Query {
    /// The summary.
    Status(oneshot::Sender<DaemonStatus>),
    /// One page of tenants, in the order of their ids.
    Page {
        /// Only ids after this one.
        after: Option<TenantId>,
        /// How many tenants are looked at.
        limit: usize,
        /// Which of these are wanted.
        filter: TenantFilter,
        /// Takes the rows.
        reply: oneshot::Sender<Page>,
    },
    /// One row; `None` if there is no such tenant.
    Tenant(TenantId, oneshot::Sender<Option<TenantRow>>),
    /// Read the config now, and answer once it is applied or rejected.
    Reload {
        /// How to reload.
        request: ReloadRequest,
        /// Takes the outcome.
        reply: oneshot::Sender<ReloadVerdict>,
    },
}

/// The daemon no longer answers.
#[derive(Debug, thiserror::Error)]
#[error("the daemon is stopping")]
pub(super) struct Stopping;

impl From<Stopping> for io::Error {
    fn from(stopping: Stopping) -> Self {
        Self::other(stopping)
    }
}

/// Where queries go to.
#[derive(Debug, Clone)]
pub(super) struct Queries(pub(super) mpsc::Sender<Query>);

impl Queries {
    /// Sends a query, and waits for its answer.
    pub(super) async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Result<T, Stopping> {
        self.send(query).await?.await.map_err(|_| Stopping)
    }

    /// Sends a query; the answer can be awaited later.
    pub(super) async fn send<T>(
        &self,
        query: impl FnOnce(oneshot::Sender<T>) -> Query,
    ) -> Result<oneshot::Receiver<T>, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.0.send(query(reply)).await.map_err(|_| Stopping)?;
        Ok(answer)
    }
}
