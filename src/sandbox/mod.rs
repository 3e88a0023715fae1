//! A simulated token endpoint: a real server on loopback, TLS with a throw-away authority, HTTP/1.1 and HTTP/2. It has
//! DingTalk's errors and throttling, and faults on demand. `corptokend dev` runs it, and so do the tests.
//!
//! Goes in: [`Options`] at the start, later faults and changes through [`Sandbox`] or over HTTP (`/_sandbox/`). Comes out: answers
//! to calls, and a log of the calls and the tokens issued. `cli` uses it for `dev`, and the tests use it.

mod answer;
mod endpoint;
mod faults;
mod options;
mod server;
mod thread;
mod tls;

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use answer::RawAnswer;
pub use endpoint::{Issued, LoggedCall, Protocol, Totals, sequence_of};
pub use faults::{Fault, Scope, Times};
pub use options::{Options, TokenMode};
pub use thread::SandboxHandle;
pub use tls::{Authority, Protocols, Transport};

use endpoint::SimulatedEndpoint;

/// A running simulated endpoint. It stops when dropped.
pub struct Sandbox {
    /// The address that it listens on.
    pub address: SocketAddr,
    transport: Transport,
    authority: Arc<Authority>,
    endpoint: Arc<SimulatedEndpoint>,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

/// Starts a sandbox on the current runtime.
///
/// # Errors
/// When the address cannot be bound, or no certificate can be made.
pub async fn start(options: Options) -> io::Result<Sandbox> {
    let listener = TcpListener::bind(options.address).await?;
    let address = listener.local_addr()?;
    let authority = match &options.authority {
        Some(authority) => Arc::clone(authority),
        None => Arc::new(Authority::new()?),
    };
    let transport = options.transport;
    let acceptor = authority.acceptor(transport, options.protocols)?;
    let endpoint = Arc::new(SimulatedEndpoint::new(options));
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(server::run(listener, acceptor, Arc::clone(&endpoint), stopped));
    Ok(Sandbox { address, transport, authority, endpoint, stop, task: Some(task) })
}

impl Sandbox {
    /// Runs a sandbox on a thread of its own: see [`SandboxHandle`].
    ///
    /// # Errors
    /// As for [`start`].
    pub fn spawn_thread(options: Options) -> io::Result<SandboxHandle> {
        SandboxHandle::spawn(options)
    }

    /// The base URL, by address: `https://127.0.0.1:PORT`. The certificate is for `localhost` as well.
    pub fn endpoint(&self) -> String {
        let scheme = if self.transport == Transport::Plain { "http" } else { "https" };
        format!("{scheme}://{}", self.address)
    }

    /// The authority's certificate in PEM, for `ca_file`. Never a key.
    pub fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    /// The authority, for another sandbox that the same clients shall trust.
    pub fn authority(&self) -> Arc<Authority> {
        Arc::clone(&self.authority)
    }

    /// From now on this fault applies to calls in `scope`. Of several that match a call, the last one applies.
    pub fn inject(&self, scope: Scope, fault: Fault, times: Times) {
        self.endpoint.inject(scope, fault, times);
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.endpoint.clear_faults();
    }

    /// The last calls, oldest first; at most [`Options::call_log`].
    pub fn calls(&self) -> Vec<LoggedCall> {
        self.endpoint.calls()
    }

    /// Totals over all calls, also those that the log no longer holds.
    pub fn totals(&self) -> Totals {
        self.endpoint.totals()
    }

    /// Forgets all calls and counts; tokens and faults stay.
    pub fn forget_calls(&self) {
        self.endpoint.forget_calls();
    }

    /// The tokens that were issued for this organisation, over all apps, oldest first; the last
    /// [`Options::issue_log`] for each app.
    pub fn issued(&self, corp_id: &str) -> Vec<Issued> {
        self.endpoint.issued(corp_id)
    }

    /// From now on tokens have this lifetime, in seconds.
    pub fn set_lifetime_s(&self, lifetime_s: u32) {
        self.endpoint.change(|options| options.lifetime_s = lifetime_s);
    }

    /// From now on every answer is delayed by this.
    pub fn set_latency(&self, latency: Duration) {
        self.endpoint.change(|options| options.latency = latency);
    }

    /// From now on these organisations exist and no others; `None`: all exist.
    pub fn set_known_corps(&self, known: Option<HashSet<String>>) {
        self.endpoint.change(|options| options.known_corps = known);
    }

    /// From now on an app may make so many calls in any second; `None`: as many as it likes.
    pub fn set_per_app_limit(&self, limit: Option<u32>) {
        self.endpoint.change(|options| options.per_app_limit = limit);
    }

    /// From now on this app exists and has this secret.
    pub fn set_secret(&self, client_id: &str, secret: &str) {
        self.endpoint.change(|options| {
            options.apps.insert(client_id.to_owned(), secret.to_owned());
        });
    }

    /// Stops, and waits until every connection is closed.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if let Some(task) = self.task.take() {
            // A panic of the task shows in calls without an answer.
            let _ = task.await;
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}
