//! How a sandbox behaves, as set at its start.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::tls::{Authority, Protocols, Transport};

/// The answer to a call for a tenant whose last token is still valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenMode {
    /// A new token each time (documented for apps that other organisations authorised).
    New,
    /// The same token with its full life again (documented for apps inside one organisation).
    Same,
    /// The same token with what is left of its life, as Feishu's endpoint answers.
    Remaining,
}

/// How a sandbox behaves.
#[derive(Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// How connections are secured.
    pub transport: Transport,
    /// The protocols.
    pub protocols: Protocols,
    /// Who signs the certificate; `None`: an authority made for this sandbox.
    pub authority: Option<Arc<Authority>>,
    /// How long a token lives, in seconds. DingTalk's: 7,200.
    pub lifetime_s: u32,
    /// What another call brings while the token is valid.
    pub mode: TokenMode,
    /// The most calls of one app in any second; beyond, it is throttled. DingTalk's: 20. `None`: no limit.
    pub per_app_limit: Option<u32>,
    /// The delay of every answer.
    pub latency: Duration,
    /// client_id → secret. Empty: any app with any secret is accepted.
    pub apps: HashMap<String, String>,
    /// The organisations that exist; others get `unknownError`, as DingTalk's do. `None`: all exist.
    pub known_corps: Option<HashSet<String>>,
    /// After so many requests a connection is closed gracefully: GOAWAY, or `Connection: close`.
    pub requests_per_connection: Option<u32>,
    /// How far the `Date` of the answers is ahead of the clock, in seconds.
    pub date_skew_s: i64,
    /// How many calls are remembered.
    pub call_log: usize,
    /// How many tokens are remembered for each tenant.
    pub issue_log: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            transport: Transport::Tls,
            protocols: Protocols::Both,
            authority: None,
            lifetime_s: 7200,
            mode: TokenMode::New,
            per_app_limit: None,
            latency: Duration::ZERO,
            apps: HashMap::new(),
            known_corps: None,
            requests_per_connection: None,
            date_skew_s: 0,
            call_log: 100_000,
            issue_log: 16,
        }
    }
}
