//! HTTP/2 or HTTP/1.1: which one a server speaks, found out by ALPN.
//!
//! A client that negotiates by ALPN does not know, while it connects, whether the connection will carry one call or all of them, so
//! 64 calls at once open 64 connections. A client that knows the server to speak HTTP/2 opens one. Therefore the first call goes
//! alone and negotiates, and the others wait for its result.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

/// How long a call waits for the one that negotiates. After that it is sent anyway, which costs a connection.
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(1);

const UNKNOWN: u8 = 0;
const NEGOTIATED: u8 = 1;
const HTTP2: u8 = 2;

/// The two clients for a server, and which of them to use.
pub(in crate::api) struct ProtocolChoice {
    /// Negotiates on each connection: for servers that speak HTTP/1.1, and while the protocol is unknown.
    negotiating: reqwest::Client,
    /// HTTP/2 only, few connections. `None` without TLS, where there is no ALPN.
    http2: Option<reqwest::Client>,
    known: AtomicU8,
    negotiating_call: Mutex<()>,
}

/// The client for one call.
pub(in crate::api) struct Choice<'a> {
    pub(in crate::api) client: &'a reqwest::Client,
    pub(in crate::api) is_http2: bool,
    /// Held by the call that negotiates, until its answer begins.
    _turn: Option<MutexGuard<'a, ()>>,
}

impl ProtocolChoice {
    pub(in crate::api) fn new(negotiating: reqwest::Client, http2: Option<reqwest::Client>) -> Self {
        let known = if http2.is_some() { UNKNOWN } else { NEGOTIATED };
        Self { negotiating, http2, known: AtomicU8::new(known), negotiating_call: Mutex::new(()) }
    }

    /// Chooses the client for the next call.
    pub(in crate::api) async fn choose(&self) -> Choice<'_> {
        if let Some(choice) = self.known_choice() {
            return choice;
        }
        let turn = tokio::time::timeout(NEGOTIATION_TIMEOUT, self.negotiating_call.lock()).await.ok();
        if let Some(choice) = self.known_choice() {
            return choice;
        }
        Choice { client: &self.negotiating, is_http2: false, _turn: turn }
    }

    /// The client for a call that was refused over HTTP/2.
    pub(in crate::api) fn fallback(&self) -> Choice<'_> {
        Choice { client: &self.negotiating, is_http2: false, _turn: None }
    }

    /// An answer arrived over this version.
    pub(in crate::api) fn learn(&self, version: reqwest::Version) {
        let speaks_http2 = self.http2.is_some() && version == reqwest::Version::HTTP_2;
        self.known.store(if speaks_http2 { HTTP2 } else { NEGOTIATED }, Ordering::Relaxed);
    }

    /// The server may no longer speak the protocol that it spoke before.
    pub(in crate::api) fn forget(&self) {
        if self.http2.is_some() {
            self.known.store(UNKNOWN, Ordering::Relaxed);
        }
    }

    fn known_choice(&self) -> Option<Choice<'_>> {
        let (client, is_http2) = match self.known.load(Ordering::Relaxed) {
            UNKNOWN => return None,
            HTTP2 => (self.http2.as_ref()?, true),
            _ => (&self.negotiating, false),
        };
        Some(Choice { client, is_http2, _turn: None })
    }
}
