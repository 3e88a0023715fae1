//! The endpoint that the machine's daemon calls: a sandbox in the test's process.

use std::time::Duration;

use corptokend::sandbox::{Options, Sandbox, SandboxHandle};

/// The app that the endpoint knows.
pub(crate) const CLIENT_ID: &str = "dingtest";
/// Its secret.
pub(crate) const SECRET: &str = "a-secret-for-tests";

/// A running endpoint; it stops when it is dropped.
pub(crate) struct Endpoint(SandboxHandle);

impl Endpoint {
    /// Starts it on a free port of loopback.
    pub(crate) fn start() -> Self {
        let apps = [(CLIENT_ID.to_owned(), SECRET.to_owned())].into();
        Self(Sandbox::spawn_thread(Options { apps, ..Options::default() }).expect("loopback has a free port"))
    }

    /// Its base URL.
    pub(crate) fn url(&self) -> String {
        self.0.endpoint()
    }

    /// What a client must trust.
    pub(crate) fn ca_pem(&self) -> String {
        self.0.ca_pem()
    }

    /// From now on, answers take so long.
    pub(crate) fn answer_after(&self, latency: Duration) {
        self.0.set_latency(latency);
    }

    /// How many calls came.
    pub(crate) fn calls(&self) -> usize {
        self.0.calls().len()
    }

    /// Whether it gave this token to this organisation.
    pub(crate) fn issued(&self, corp_id: &str, token: &str) -> bool {
        self.0.issued(corp_id).iter().any(|issued| *issued.token == *token)
    }
}
