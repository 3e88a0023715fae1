//! A sandbox and a client that trusts it.

use std::time::Duration;

use corptokend::api::{Answer, TokenClient};
use corptokend::domain::{Connection, CorpId, Endpoint, Secret};
use corptokend::sandbox::{self, Options, Sandbox};
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

/// What every client sends as its secret, and what no text may ever show.
pub(crate) const SECRET: &str = "s3cr3t-canary";

pub(crate) struct Fixture {
    pub(crate) sandbox: Sandbox,
    pub(crate) client: TokenClient,
    pub(crate) connection: Connection,
    /// What the client trusts; it is read once, and deleted when this is dropped.
    pub(crate) ca_file: NamedTempFile,
}

impl Fixture {
    pub(crate) async fn new(options: Options) -> Self {
        Self::with(options, |_| {}).await
    }

    pub(crate) async fn with(options: Options, change: impl FnOnce(&mut Connection)) -> Self {
        let sandbox = sandbox::start(options).await.unwrap();
        let ca_file = ca_file(&sandbox.ca_pem());
        let mut connection = connection(&sandbox.endpoint());
        connection.ca_file = Some(ca_file.path().to_owned());
        change(&mut connection);
        let client = TokenClient::new(connection.clone()).unwrap();
        Self { sandbox, client, connection, ca_file }
    }

    pub(crate) async fn ask(&self, corp_id: &str) -> Answer {
        ask(&self.client, corp_id).await
    }

    /// Makes so many calls, each for an organisation of its own, so many at a time. Returns those that brought no token.
    pub(crate) async fn ask_many(&self, calls: usize, at_a_time: usize) -> Vec<Answer> {
        let mut under_way = tokio::task::JoinSet::new();
        let mut refused = Vec::new();
        for number in 0..calls {
            if under_way.len() >= at_a_time {
                refused.extend(under_way.join_next().await.map(|answer: Result<Answer, _>| answer.unwrap()));
            }
            let client = self.client.clone();
            under_way.spawn(async move { ask(&client, &format!("corp{number}")).await });
        }
        refused.extend(under_way.join_all().await);
        refused.retain(|answer| answer.outcome.is_err());
        refused
    }
}

pub(crate) fn ca_file(pem: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pem).unwrap();
    file
}

pub(crate) fn connection(endpoint: &str) -> Connection {
    Connection {
        endpoint: Endpoint::new(endpoint).unwrap(),
        proxy: None,
        ca_file: None,
        local_address: None,
        timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(5),
    }
}

pub(crate) async fn ask(client: &TokenClient, corp_id: &str) -> Answer {
    let secret = Secret::new(Zeroizing::new(SECRET.to_owned())).unwrap();
    client.request_token(&"ding1".parse().unwrap(), &secret, &CorpId::new(corp_id).unwrap()).await
}
