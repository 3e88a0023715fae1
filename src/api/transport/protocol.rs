//! HTTP/2 or HTTP/1.1, and how that is found out.
//!
//! A client that negotiates by ALPN cannot know, while it connects, whether the connection will carry one call or all of
//! them, so 64 calls at once open 64 connections. A client that knows the server to speak HTTP/2 opens one. Therefore the
//! first call goes alone, negotiates, and tells the others.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

/// How long a call waits for the one that finds out, at most. Then it goes anyway: all that is lost is a connection.
const PATIENCE: Duration = Duration::from_secs(1);

const UNKNOWN: u8 = 0;
const NEGOTIATED: u8 = 1;
const HTTP2: u8 = 2;

/// The two ways to a server, and which of them is to be taken.
pub(in crate::api) struct ProtocolChoice {
    /// Negotiates for each connection; right for servers that speak HTTP/1.1, and for finding out.
    negotiating: reqwest::Client,
    /// Few connections, HTTP/2 only. `None` where there is no TLS, and so no ALPN.
    http2: Option<reqwest::Client>,
    known: AtomicU8,
    finding_out: Mutex<()>,
}

/// The way that one call takes.
pub(in crate::api) struct Choice<'a> {
    pub(in crate::api) client: &'a reqwest::Client,
    pub(in crate::api) is_http2: bool,
    /// Held by the call that finds out, until its answer begins.
    _finding_out: Option<MutexGuard<'a, ()>>,
}

impl ProtocolChoice {
    pub(in crate::api) fn new(negotiating: reqwest::Client, http2: Option<reqwest::Client>) -> Self {
        let known = if http2.is_some() { UNKNOWN } else { NEGOTIATED };
        Self { negotiating, http2, known: AtomicU8::new(known), finding_out: Mutex::new(()) }
    }

    /// The way for the next call.
    pub(in crate::api) async fn way(&self) -> Choice<'_> {
        if let Some(way) = self.known_way() {
            return way;
        }
        let turn = tokio::time::timeout(PATIENCE, self.finding_out.lock()).await.ok();
        if let Some(way) = self.known_way() {
            return way;
        }
        Choice { client: &self.negotiating, is_http2: false, _finding_out: turn }
    }

    /// The way for a call that HTTP/2 turned away.
    pub(in crate::api) fn fallback(&self) -> Choice<'_> {
        Choice { client: &self.negotiating, is_http2: false, _finding_out: None }
    }

    /// An answer came over this version.
    pub(in crate::api) fn learn(&self, version: reqwest::Version) {
        let speaks_http2 = self.http2.is_some() && version == reqwest::Version::HTTP_2;
        self.known.store(if speaks_http2 { HTTP2 } else { NEGOTIATED }, Ordering::Relaxed);
    }

    /// The server does not speak what it spoke before.
    pub(in crate::api) fn forget(&self) {
        if self.http2.is_some() {
            self.known.store(UNKNOWN, Ordering::Relaxed);
        }
    }

    fn known_way(&self) -> Option<Choice<'_>> {
        let (client, is_http2) = match self.known.load(Ordering::Relaxed) {
            UNKNOWN => return None,
            HTTP2 => (self.http2.as_ref()?, true),
            _ => (&self.negotiating, false),
        };
        Some(Choice { client, is_http2, _finding_out: None })
    }
}
