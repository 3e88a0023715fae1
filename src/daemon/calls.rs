//! Calls under way: a task for each, never more than the config allows, and each awaited.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tokio::task::{JoinError, JoinSet};

use crate::api::{Answer, Client};
use crate::config::secret::{self, SecretError};
use crate::domain::{AppName, ClientId, Failure, FailureKind, Secret, SecretSource, TenantId, Ticket};

/// What is needed to call for the tenants of one app.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) client: Client,
    pub(super) client_id: ClientId,
    pub(super) secret: SecretSource,
}

/// The calls under way.
pub(super) struct Calls {
    tasks: JoinSet<(Ticket, Answer)>,
    /// How the tenants of each app are called for.
    pub(super) access: HashMap<AppName, Access>,
    credentials_directory: Option<PathBuf>,
    most: usize,
}

impl Calls {
    pub(super) fn new(most: usize, credentials_directory: Option<PathBuf>) -> Self {
        Self { tasks: JoinSet::new(), access: HashMap::new(), credentials_directory, most }
    }

    /// From here on at most so many at once.
    pub(super) fn set_most(&mut self, most: usize) {
        self.most = most;
    }

    /// How many more may begin.
    pub(super) fn room(&self) -> usize {
        self.most.saturating_sub(self.tasks.len())
    }

    /// How many are under way.
    pub(super) fn under_way(&self) -> usize {
        self.tasks.len()
    }

    /// Begins a call; `id` is `None` if the tenant left at this very moment.
    pub(super) fn begin(&mut self, ticket: Ticket, id: Option<TenantId>) {
        let known = id.and_then(|id| Some((self.access.get(&id.app)?.clone(), id)));
        let credentials_directory = self.credentials_directory.clone();
        self.tasks.spawn(async move {
            let answer = match known {
                Some((access, id)) => ask(&access, &id, credentials_directory).await,
                None => failed(FailureKind::ServerError, "the tenant left before it could be called for"),
            };
            (ticket, answer)
        });
    }

    /// The next call to end; `None` when none is under way. May be dropped at any time.
    pub(super) async fn next(&mut self) -> Option<Result<(Ticket, Answer), JoinError>> {
        self.tasks.join_next().await
    }

    /// A call that has ended already, if there is one.
    pub(super) fn ended(&mut self) -> Option<Result<(Ticket, Answer), JoinError>> {
        self.tasks.try_join_next()
    }
}

async fn ask(access: &Access, id: &TenantId, credentials_directory: Option<PathBuf>) -> Answer {
    match read(access, credentials_directory).await {
        Ok(secret) => access.client.ask(&access.client_id, &secret, &id.corp_id).await,
        Err(answer) => answer,
    }
}

/// Reads the app's secret. A file may lie on a mount that hangs, so that is not waited for on the scheduler's thread, nor
/// for ever.
async fn read(access: &Access, credentials_directory: Option<PathBuf>) -> Result<Secret, Answer> {
    let unreadable = |error: SecretError| failed(FailureKind::SecretUnreadable, error.to_string());
    let source = access.secret.clone();
    let SecretSource::File(path) = &access.secret else {
        return secret::read(&source, credentials_directory.as_deref()).map_err(unreadable);
    };
    let reading = tokio::task::spawn_blocking(move || secret::read(&source, None));
    match tokio::time::timeout(access.client.timeout(), reading).await {
        Ok(Ok(read)) => read.map_err(unreadable),
        Ok(Err(_)) | Err(_) => Err(hangs(path)),
    }
}

fn hangs(path: &Path) -> Answer {
    let detail = format!("reading {} does not come to an end; look at the file system it lies on", path.display());
    failed(FailureKind::SecretUnreadable, detail)
}

fn failed(kind: FailureKind, detail: impl Into<Box<str>>) -> Answer {
    Answer { outcome: Err(Failure::new(kind, detail)), server_date: None }
}
