//! Calls under way: a task for each, never more than the config allows, and each awaited.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::OnceCell;
use tokio::task::{JoinError, JoinSet};

use crate::api::{Answer, Client};
use crate::config::secret::{self, SecretError};
use crate::domain::{AppName, ClientId, CorpId, Failure, FailureKind, Secret, SecretSource, TenantId, Ticket};

/// What is needed to call for the tenants of one app.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) client: Client,
    pub(super) client_id: ClientId,
    pub(super) secret: SecretSource,
}

/// Calls of one app that began in the same turn. They share one reading of the secret, which begins after all of them did:
/// whoever replaced the secret before a call began is heard.
struct Round {
    access: Access,
    credentials_directory: Option<PathBuf>,
    secret: OnceCell<Result<Secret, Failure>>,
}

/// The calls under way.
pub(super) struct Calls {
    tasks: JoinSet<(Ticket, Answer)>,
    /// How the tenants of each app are called for.
    pub(super) access: HashMap<AppName, Access>,
    /// This turn's.
    rounds: HashMap<AppName, Arc<Round>>,
    credentials_directory: Option<PathBuf>,
    most: usize,
}

impl Calls {
    pub(super) fn new(most: usize, credentials_directory: Option<PathBuf>) -> Self {
        Self { tasks: JoinSet::new(), access: HashMap::new(), rounds: HashMap::new(), credentials_directory, most }
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
        let known = id.and_then(|id| Some((self.round(&id.app)?, id.corp_id)));
        self.tasks.spawn(async move {
            let answer = match known {
                Some((round, corp_id)) => round.ask(&corp_id).await,
                None => refusal(Failure::new(FailureKind::ServerError, "the tenant left before it could be called for")),
            };
            (ticket, answer)
        });
    }

    /// The turn is over: calls that begin from here on read their secrets anew.
    pub(super) fn end_turn(&mut self) {
        self.rounds.clear();
    }

    /// The next call to end; `None` when none is under way. May be dropped at any time.
    pub(super) async fn next(&mut self) -> Option<Result<(Ticket, Answer), JoinError>> {
        self.tasks.join_next().await
    }

    /// A call that has ended already, if there is one.
    pub(super) fn ended(&mut self) -> Option<Result<(Ticket, Answer), JoinError>> {
        self.tasks.try_join_next()
    }

    fn round(&mut self, app: &AppName) -> Option<Arc<Round>> {
        if let Some(round) = self.rounds.get(app) {
            return Some(Arc::clone(round));
        }
        let round = Arc::new(Round {
            access: self.access.get(app)?.clone(),
            credentials_directory: self.credentials_directory.clone(),
            secret: OnceCell::new(),
        });
        self.rounds.insert(app.clone(), Arc::clone(&round));
        Some(round)
    }
}

impl Round {
    async fn ask(&self, corp_id: &CorpId) -> Answer {
        match self.secret.get_or_init(|| self.read()).await {
            Ok(secret) => self.access.client.ask(&self.access.client_id, secret, corp_id).await,
            Err(failure) => refusal(failure.clone()),
        }
    }

    /// Reads the app's secret. A file may lie on a mount that hangs, so that is not waited for on the scheduler's thread,
    /// nor for ever.
    async fn read(&self) -> Result<Secret, Failure> {
        let unreadable = |error: SecretError| Failure::new(FailureKind::SecretUnreadable, error.to_string());
        let source = self.access.secret.clone();
        let SecretSource::File(path) = &self.access.secret else {
            return secret::read(&source, self.credentials_directory.as_deref()).map_err(unreadable);
        };
        let reading = tokio::task::spawn_blocking(move || secret::read(&source, None));
        match tokio::time::timeout(self.access.client.timeout(), reading).await {
            Ok(Ok(read)) => read.map_err(unreadable),
            Ok(Err(_)) | Err(_) => Err(hangs(path)),
        }
    }
}

fn hangs(path: &Path) -> Failure {
    let detail = format!("reading {} does not come to an end; look at the file system it lies on", path.display());
    Failure::new(FailureKind::SecretUnreadable, detail)
}

fn refusal(failure: Failure) -> Answer {
    Answer { outcome: Err(failure), server_date: None }
}
