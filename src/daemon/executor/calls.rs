//! Calls in flight: a task for each, never more than the config allows, and each awaited.

use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore};
use tokio::task::{JoinError, JoinSet};

use super::credentials::Credentials;
use crate::api::{self, Answer, TokenClient};
use crate::domain::{
    AppName, BootMs, ClientId, Failure, FailureKind, Fingerprint, Secret, SecretSource, TenantId, Ticket,
};

/// What is needed to call for the tenants of one app.
#[derive(Clone)]
pub(crate) struct Access {
    /// `None` while the certificates to trust do not come to an end being read.
    pub(crate) client: Option<TokenClient>,
    pub(crate) client_id: ClientId,
    pub(crate) secret: SecretSource,
}

/// What a call meets for which there is no client.
const NO_CERTIFICATES: &str =
    "reading the certificates to trust does not come to an end; look at the file system that `ca_file` lies on";

/// For how long a reading of an app's secret serves further calls, in milliseconds. Each reading costs wake-ups of four
/// threads (docs/decisions/0026-what-a-token-costs.md). A reload that finds another secret ends it at once, so this is only
/// how late a call can be where changes of files are not noticed.
const SHARED_MS: u64 = 1000;

/// Once all slots were taken, the next calls begin when this part of the slots is free: calls that begin together go out in one
/// write, and their answers tend to come back together.
const BATCH_PART: usize = 8;
/// For how long a call waits for that, in milliseconds: no longer than an answer takes. Where the slots are taken by calls that
/// hang, that part may never be free.
const BATCH_WAIT_MS: u64 = 10;

/// Calls of one app that share a reading of its secret.
struct SharedSecret {
    began: BootMs,
    access: Access,
    credentials: Credentials,
    secret: OnceCell<Result<Secret, Failure>>,
}

/// A call that ended.
pub(crate) struct CallEnded {
    pub(crate) ticket: Ticket,
    /// For whose tenant it was.
    pub(crate) app: AppName,
    pub(crate) answer: Answer,
}

/// The calls in flight.
pub(crate) struct Calls {
    tasks: JoinSet<CallEnded>,
    /// How the tenants of each app are called for.
    pub(crate) access: HashMap<AppName, Access>,
    /// The last of each app.
    secrets: HashMap<AppName, Arc<SharedSecret>>,
    credentials: Credentials,
    max: usize,
    /// A call holds one of these from when it has its secret: there are `max` of them.
    slots: Arc<Semaphore>,
    /// How many calls wait for their secret. They take no slot from others.
    reading: Arc<AtomicUsize>,
    batching: Batching,
}

/// Whether calls begin, or wait until some can begin together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Batching {
    /// They begin as long as a slot is free.
    Open,
    /// All slots were taken: the next calls wait until a [`BATCH_PART`]th of them is free.
    Full,
    /// Some slots are free, and have been since then.
    FillingSince(BootMs),
}

impl Calls {
    pub(crate) fn new(max: usize, credentials: Credentials) -> Self {
        Self {
            tasks: JoinSet::new(),
            access: HashMap::new(),
            secrets: HashMap::new(),
            credentials,
            max,
            slots: Arc::new(Semaphore::new(max)),
            reading: Arc::default(),
            batching: Batching::Open,
        }
    }

    /// From here on at most so many at once.
    pub(crate) fn set_max(&mut self, max: usize) {
        if max != self.max {
            self.max = max;
            // Those in flight keep their slots until they end.
            self.slots = Arc::new(Semaphore::new(max));
        }
    }

    /// How many may be in flight.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// How many more may begin now.
    pub(crate) fn capacity(&self) -> usize {
        if self.batching == Batching::Open { self.free() } else { 0 }
    }

    fn free(&self) -> usize {
        let reading = self.reading.load(Ordering::Relaxed);
        self.max.saturating_sub(self.tasks.len().saturating_sub(reading))
    }

    /// A turn begins: looks whether enough slots are free by now, or have been waited for long enough.
    pub(crate) fn begin_turn(&mut self, now: BootMs) {
        let free = self.free();
        self.batching = match self.batching {
            _ if free >= (self.max / BATCH_PART).max(1) => Batching::Open,
            Batching::Full if free > 0 => Batching::FillingSince(now),
            Batching::FillingSince(since) if now.since(since) >= BATCH_WAIT_MS => Batching::Open,
            before => before,
        };
    }

    /// When waiting for more free slots comes to its end.
    pub(crate) fn batch_deadline(&self) -> Option<BootMs> {
        match self.batching {
            Batching::FillingSince(since) => Some(since + BATCH_WAIT_MS),
            Batching::Open | Batching::Full => None,
        }
    }

    /// How many are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.tasks.len()
    }

    /// Begins a call. What it brings does not quote the token that the tenant has.
    pub(crate) fn begin(&mut self, now: BootMs, ticket: Ticket, id: TenantId, held: Option<Fingerprint>) {
        let TenantId { app, corp_id } = id;
        let Some(shared) = self.shared_secret(now, &app) else {
            let left = Failure::new(FailureKind::ServerError, "the tenant left before it could be called for");
            self.spawn(ticket, app, held, async { refusal(left) });
            return;
        };
        let slots = Arc::clone(&self.slots);
        let reading = shared.secret.get().is_none().then(|| Reading::new(&self.reading));
        self.spawn(ticket, app, held, async move {
            let secret = shared.secret().await;
            drop(reading);
            // Nobody closes it.
            let _slot = slots.acquire().await;
            match (secret, &shared.access.client) {
                (Ok(secret), Some(client)) => client.request_token(&shared.access.client_id, secret, &corp_id).await,
                (Ok(_), None) => refusal(Failure::new(FailureKind::Unreachable, NO_CERTIFICATES)),
                (Err(failure), _) => refusal(failure.clone()),
            }
        });
    }

    /// A call that panics, which is a defect, is one that failed: ending the daemon for it would end it again after the
    /// restart, for the same answer.
    fn spawn(
        &mut self,
        ticket: Ticket,
        app: AppName,
        held: Option<Fingerprint>,
        call: impl Future<Output = Answer> + Send + 'static,
    ) {
        self.tasks.spawn(async move {
            let mut call = pin!(call);
            let guarded = std::future::poll_fn(|context| {
                // After a panic it is not polled again, only dropped.
                catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context))).unwrap_or_else(|_| {
                    let why = "the call ended in a defect of corptokend, which the log shows; please report it";
                    Poll::Ready(refusal(Failure::new(FailureKind::Malformed, why)))
                })
            });
            let mut answer = guarded.await;
            if let Err(failure) = &mut answer.outcome {
                api::redact_failure(failure, held);
            }
            CallEnded { ticket, app, answer }
        });
        if self.free() == 0 {
            self.batching = Batching::Full;
        }
    }

    /// Calls that begin from here on are made as [`access`](Self::access) says now.
    pub(crate) fn access_changed(&mut self) {
        self.secrets.clear();
    }

    /// The next call to end; `None` when none is in flight. May be dropped at any time.
    pub(crate) async fn next(&mut self) -> Option<Result<CallEnded, JoinError>> {
        self.tasks.join_next().await
    }

    /// A call that has ended already, if there is one.
    pub(crate) fn next_ended(&mut self) -> Option<Result<CallEnded, JoinError>> {
        self.tasks.try_join_next()
    }

    fn shared_secret(&mut self, now: BootMs, app: &AppName) -> Option<Arc<SharedSecret>> {
        if let Some(shared) = self.secrets.get(app).filter(|shared| shared.serves(now)) {
            return Some(Arc::clone(shared));
        }
        // Secrets are not kept longer than they serve, as far as anything happens at all.
        self.secrets.retain(|_, shared| shared.serves(now));
        let shared = Arc::new(SharedSecret {
            began: now,
            access: self.access.get(app)?.clone(),
            credentials: self.credentials.clone(),
            secret: OnceCell::new(),
        });
        self.secrets.insert(app.clone(), Arc::clone(&shared));
        Some(shared)
    }
}

impl SharedSecret {
    /// Whether a call that begins now may use this reading. One that failed serves those alone that waited for it.
    fn serves(&self, now: BootMs) -> bool {
        now.since(self.began) < SHARED_MS && !matches!(self.secret.get(), Some(Err(_)))
    }

    async fn secret(&self) -> &Result<Secret, Failure> {
        let Access { client, secret, .. } = &self.access;
        self.secret
            .get_or_init(|| self.credentials.read(secret, client.as_ref().map_or(Duration::MAX, TokenClient::timeout)))
            .await
    }
}

/// A call that waits for its secret.
struct Reading(Arc<AtomicUsize>);

impl Reading {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn refusal(failure: Failure) -> Answer {
    Answer { outcome: Err(failure), server_date: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Connection, CorpId, Endpoint, Slot};
    use crate::environment::secrets::{self, SecretError};
    use std::path::Path;
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
            client: Some(TokenClient::new(connection).unwrap()),
            client_id: "ding1".parse().unwrap(),
            secret: SecretSource::Env("NO_SUCH".into()),
        };
        let (mut calls, crm) = (Calls::new(most, Credentials::new(None)), AppName::new("crm").unwrap());
        calls.access.insert(crm.clone(), access);
        (calls, crm)
    }

    #[test]
    fn a_reading_of_the_secret_serves_a_second_unless_it_failed_or_the_config_changed() {
        let (mut calls, crm) = calls(1);
        let first = calls.shared_secret(BootMs(5_000), &crm).unwrap();
        let is_first = |shared: Option<Arc<SharedSecret>>| Arc::ptr_eq(&shared.unwrap(), &first);
        assert!(is_first(calls.shared_secret(BootMs(5_999), &crm)));
        let second = calls.shared_secret(BootMs(6_000), &crm).unwrap();
        assert!(!is_first(Some(Arc::clone(&second))));
        calls.access_changed();
        let third = calls.shared_secret(BootMs(6_000), &crm).unwrap();
        assert!(!Arc::ptr_eq(&third, &second));
        third.secret.set(Err(Failure::new(FailureKind::SecretUnreadable, "gone"))).unwrap();
        assert!(!Arc::ptr_eq(&calls.shared_secret(BootMs(6_000), &crm).unwrap(), &third));
    }

    fn refused(call: Option<Result<CallEnded, JoinError>>) -> Failure {
        let CallEnded { answer, .. } = call.expect("a call is in flight").expect("it does not end the daemon");
        answer.outcome.expect_err("it brings no token")
    }

    #[tokio::test]
    async fn a_call_that_panics_is_a_failure_of_its_tenant_and_the_next_one_goes_on() {
        let (mut calls, crm) = calls(2);
        calls.spawn(CRM, crm, None, async { panic!("a defect") });
        let failure = refused(calls.next().await);
        assert_eq!(failure.kind, FailureKind::Malformed);
        assert!(failure.detail.contains("a defect of corptokend"), "{failure}");
        calls.begin(BootMs(5_000), CRM, "hr/ding1".parse().unwrap(), None);
        assert!(refused(calls.next().await).detail.contains("the tenant left"));
        assert_eq!((calls.in_flight(), calls.capacity()), (0, 2));
    }

    #[tokio::test]
    async fn when_all_slots_were_taken_calls_begin_together_but_do_not_wait_for_that_long() {
        let (mut calls, crm) = calls(64);
        let (end, ended) = tokio::sync::watch::channel(0);
        let begin = |calls: &mut Calls, number: u32| {
            let mut ended = ended.clone();
            calls.spawn(CRM, crm.clone(), None, async move {
                let _ = ended.wait_for(|ended| *ended >= number).await;
                refusal(Failure::new(FailureKind::Timeout, "over"))
            });
        };
        (1..=64).for_each(|number| {
            assert_ne!(calls.capacity(), 0, "{number}");
            begin(&mut calls, number);
        });
        for over in 1..=7 {
            end.send_replace(over);
            refused(calls.next().await);
            calls.begin_turn(BootMs(5_000));
            assert_eq!(calls.capacity(), 0, "{over} slots are too few");
        }
        assert_eq!(calls.batch_deadline(), Some(BootMs(5_000 + BATCH_WAIT_MS)));
        end.send_replace(8);
        refused(calls.next().await);
        calls.begin_turn(BootMs(5_001));
        for left in (1..=8).rev() {
            assert_eq!(calls.capacity(), left, "those that begin together all begin");
            begin(&mut calls, u32::MAX);
        }
        end.send_replace(9);
        refused(calls.next().await);
        calls.begin_turn(BootMs(6_000));
        assert_eq!(calls.capacity(), 0);
        calls.begin_turn(BootMs(6_000 + BATCH_WAIT_MS));
        assert_eq!(calls.capacity(), 1, "the others hang, so no more slots get free");
    }

    /// Reads as a program does that does not look what it opens.
    fn careless(source: &SecretSource, _: Option<&Path>) -> Result<Secret, SecretError> {
        let SecretSource::File(path) = source else { return secrets::read(source, None) };
        let _ = std::fs::read(path);
        Err(SecretError::Odd { place: "the pipe".into(), fault: "is none" })
    }

    #[tokio::test]
    async fn six_hundred_secrets_that_hang_cost_a_thread_each_and_nobody_else_a_slot() {
        let directory = tempfile::tempdir().unwrap();
        let credentials = Credentials::reading(careless);
        let (mut calls, healthy) = calls(8);
        calls.credentials = credentials.clone();
        let mut pipes = Vec::new();
        let apps: Vec<AppName> = (0..600).map(|number| AppName::new(&format!("app-{number}")).unwrap()).collect();
        for app in &apps {
            let pipe = directory.path().join(app.as_str());
            rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
            let access = Access { secret: SecretSource::File(pipe.clone()), ..calls.access[&healthy].clone() };
            calls.access.insert(app.clone(), access);
            pipes.push(pipe);
        }
        let id = |app: &AppName| TenantId { app: app.clone(), corp_id: CorpId::new("ding1").unwrap() };
        for round in 0..3 {
            let now = BootMs(10_000 * round);
            apps.iter().for_each(|app| calls.begin(now, Ticket { seq: 2, ..CRM }, id(app), None));
            assert_eq!(calls.capacity(), 8, "a call that waits for its secret takes no slot");
            calls.begin(now, CRM, id(&healthy), None);
            for _ in 0..=600 {
                let CallEnded { ticket, answer, .. } = calls.next().await.unwrap().unwrap();
                let failure = answer.outcome.unwrap_err();
                // That of the healthy app is looked for in the environment.
                let hangs = failure.detail.contains("does not come to an end");
                assert_eq!(hangs, ticket != CRM, "{failure}");
                assert!(!failure.detail.contains("app-"), "{failure}");
            }
            assert_eq!(credentials.outstanding(), 600);
        }
        for pipe in pipes {
            let ends = std::fs::OpenOptions::new().write(true).open(pipe).unwrap();
            drop(ends);
        }
        while credentials.outstanding() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        calls.begin(BootMs(60_000), CRM, id(&apps[0]), None);
        // Now that it can be read again, it is read again.
        let first = directory.path().join("app-0");
        let writer = tokio::task::spawn_blocking(|| std::fs::OpenOptions::new().write(true).open(first).map(drop));
        let failure = refused(calls.next().await);
        assert!(failure.detail.contains("the pipe is none"), "{failure}");
        writer.await.unwrap().unwrap();
    }
}
