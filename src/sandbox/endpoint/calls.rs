//! The log of calls, and their totals.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// The protocol of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Protocol {
    /// HTTP/1.1
    #[serde(rename = "http/1.1")]
    Http1,
    /// HTTP/2
    #[serde(rename = "h2")]
    Http2,
}

/// One call. It never holds a secret or a token.
#[derive(Debug, Clone, Serialize)]
pub struct LoggedCall {
    /// When, in milliseconds since the sandbox started.
    pub at_ms: u64,
    /// The app.
    pub client_id: Box<str>,
    /// The organisation.
    pub corp_id: Box<str>,
    /// The protocol.
    pub protocol: Protocol,
    /// The connection's number, from 1.
    pub connection: u64,
    /// The caller's address.
    pub peer: SocketAddr,
    /// How it ended: `granted`, a refusal such as `invalid_client`, or the name of the fault that was injected.
    pub outcome: &'static str,
}

/// Counts over all calls.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Totals {
    /// All calls.
    pub calls: u64,
    /// Connections that were accepted, idle ones included.
    pub connections: u64,
    /// Calls by how they ended.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// The most calls that each app made within any one second.
    pub busiest_second: BTreeMap<Box<str>, usize>,
}

/// The log of calls. It keeps at most `capacity` of them.
pub(super) struct CallLog {
    start: Instant,
    capacity: usize,
    calls: VecDeque<LoggedCall>,
    totals: Totals,
    windows: HashMap<Box<str>, VecDeque<Instant>>,
}

impl CallLog {
    pub(super) fn new(start: Instant, capacity: usize) -> Self {
        Self { start, capacity, calls: VecDeque::new(), totals: Totals::default(), windows: HashMap::new() }
    }

    /// Counts one more call of this app, and says how many it made within the second that ends now.
    pub(super) fn count(&mut self, client_id: &str, now: Instant) -> usize {
        if !self.windows.contains_key(client_id) {
            self.windows.insert(client_id.into(), VecDeque::new());
            self.totals.busiest_second.insert(client_id.into(), 0);
        }
        let Some(window) = self.windows.get_mut(client_id) else { return 0 };
        while window.front().is_some_and(|&then| now.duration_since(then) >= Duration::from_secs(1)) {
            window.pop_front();
        }
        window.push_back(now);
        if let Some(most) = self.totals.busiest_second.get_mut(client_id) {
            *most = (*most).max(window.len());
        }
        window.len()
    }

    pub(super) fn push(&mut self, call: LoggedCall) {
        self.totals.calls += 1;
        *self.totals.outcomes.entry(call.outcome).or_default() += 1;
        if self.capacity == 0 {
            return;
        }
        if self.calls.len() >= self.capacity {
            self.calls.pop_front();
        }
        self.calls.push_back(call);
    }

    pub(super) fn count_connection(&mut self) -> u64 {
        self.totals.connections += 1;
        self.totals.connections
    }

    pub(super) fn since_start_ms(&self, now: Instant) -> u64 {
        u64::try_from(now.duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn calls(&self) -> Vec<LoggedCall> {
        self.calls.iter().cloned().collect()
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals.clone()
    }

    /// Connections keep their numbers.
    pub(super) fn forget(&mut self) {
        self.calls.clear();
        self.windows.clear();
        self.totals = Totals { connections: self.totals.connections, ..Totals::default() };
    }
}
