//! Calls under way: a task for each, never more than the config allows, and each awaited.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::OnceCell;
use tokio::task::{JoinError, JoinSet};

use crate::api::{Answer, Client};
use crate::config::secret::{self, SecretError};
use crate::domain::{AppName, BootMs, ClientId, CorpId, Failure, FailureKind, Secret, SecretSource, TenantId, Ticket};

/// What is needed to call for the tenants of one app.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) client: Client,
    pub(super) client_id: ClientId,
    pub(super) secret: SecretSource,
}

/// For how long a reading of an app's secret serves further calls, in milliseconds. Each reading costs wake-ups of four
/// threads (docs/decisions/0026-what-a-token-costs.md). A reload that finds another secret ends it at once, so this is only
/// how late a call can be where changes of files are not noticed.
const SHARED_MS: u64 = 1000;

/// Calls begin together in so large a part of all that may be under way, once that many are wanted.
const COMPANY: usize = 8;

/// Calls of one app that share a reading of its secret.
struct Round {
    began: BootMs,
    access: Access,
    credentials_directory: Option<PathBuf>,
    secret: OnceCell<Result<Secret, Failure>>,
}

/// The calls under way.
pub(super) struct Calls {
    tasks: JoinSet<(Ticket, Answer)>,
    /// How the tenants of each app are called for.
    pub(super) access: HashMap<AppName, Access>,
    /// The last of each app.
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

    /// How many more may begin. When so many are under way that few more may, the few wait for company: calls that begin
    /// together go out in one write, and their answers tend to come back together.
    pub(super) fn room(&self) -> usize {
        let free = self.most.saturating_sub(self.tasks.len());
        if free < self.most / COMPANY { 0 } else { free }
    }

    /// How many are under way.
    pub(super) fn under_way(&self) -> usize {
        self.tasks.len()
    }

    /// Begins a call; `id` is `None` if the tenant left at this very moment.
    pub(super) fn begin(&mut self, now: BootMs, ticket: Ticket, id: Option<TenantId>) {
        let known = id.and_then(|id| Some((self.round(now, &id.app)?, id.corp_id)));
        self.tasks.spawn(async move {
            let answer = match known {
                Some((round, corp_id)) => round.ask(&corp_id).await,
                None => {
                    refusal(Failure::new(FailureKind::ServerError, "the tenant left before it could be called for"))
                }
            };
            (ticket, answer)
        });
    }

    /// Calls that begin from here on are made as [`access`](Self::access) says now.
    pub(super) fn access_changed(&mut self) {
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

    fn round(&mut self, now: BootMs, app: &AppName) -> Option<Arc<Round>> {
        if let Some(round) = self.rounds.get(app).filter(|round| round.serves(now)) {
            return Some(Arc::clone(round));
        }
        // Secrets are not kept longer than they serve, as far as anything happens at all.
        self.rounds.retain(|_, round| round.serves(now));
        let round = Arc::new(Round {
            began: now,
            access: self.access.get(app)?.clone(),
            credentials_directory: self.credentials_directory.clone(),
            secret: OnceCell::new(),
        });
        self.rounds.insert(app.clone(), Arc::clone(&round));
        Some(round)
    }
}

impl Round {
    /// Whether a call that begins now may use this reading. One that failed serves those alone that waited for it.
    fn serves(&self, now: BootMs) -> bool {
        now.since(self.began) < SHARED_MS && !matches!(self.secret.get(), Some(Err(_)))
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Connection, Endpoint, Slot};
    use std::time::Duration;

    const CRM: Ticket = Ticket { slot: Slot(0), seq: 1 };

    /// Calls for the app `crm`, at most so many at once.
    fn calls(most: usize) -> (Calls, AppName) {
        let connection = Connection {
            endpoint: Endpoint::new("http://127.0.0.1:9").unwrap(),
            proxy: None,
            ca_file: None,
            local_address: None,
            timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
        };
        let access = Access {
            client: Client::new(connection).unwrap(),
            client_id: "ding1".parse().unwrap(),
            secret: SecretSource::Env("NO_SUCH".into()),
        };
        let (mut calls, crm) = (Calls::new(most, None), AppName::new("crm").unwrap());
        calls.access.insert(crm.clone(), access);
        (calls, crm)
    }

    #[test]
    fn a_reading_of_the_secret_serves_a_second_unless_it_failed_or_the_config_changed() {
        let (mut calls, crm) = calls(1);
        let first = calls.round(BootMs(5_000), &crm).unwrap();
        let is_first = |round: Option<Arc<Round>>| Arc::ptr_eq(&round.unwrap(), &first);
        assert!(is_first(calls.round(BootMs(5_999), &crm)));
        let second = calls.round(BootMs(6_000), &crm).unwrap();
        assert!(!is_first(Some(Arc::clone(&second))));
        calls.access_changed();
        let third = calls.round(BootMs(6_000), &crm).unwrap();
        assert!(!Arc::ptr_eq(&third, &second));
        third.secret.set(Err(Failure::new(FailureKind::SecretUnreadable, "gone"))).unwrap();
        assert!(!Arc::ptr_eq(&calls.round(BootMs(6_000), &crm).unwrap(), &third));
    }

    #[tokio::test]
    async fn few_calls_wait_for_company_when_many_are_under_way() {
        for (most, under_way, room) in [(64, 0, 64), (64, 56, 8), (64, 57, 0), (64, 64, 0), (4, 3, 1), (1, 0, 1)] {
            let (mut calls, _) = calls(most);
            (0..under_way).for_each(|_| calls.begin(BootMs(5_000), CRM, None));
            assert_eq!(calls.room(), room, "{under_way} of {most}");
        }
    }
}
