//! `GET /v1/tenants`, and one tenant of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::{AppName, TenantId, TenantState};

/// `GET /v1/tenants/{app}/{corp_id}`, and one element of `GET /v1/tenants`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantRow {
    /// `app/corp_id`.
    pub tenant: String,
    /// The app alone.
    pub app: String,
    /// The organisation alone.
    pub corp_id: String,
    /// The operator's own name for it.
    pub name: Option<String>,
    /// Its state.
    pub state: TenantState,
    /// When its token stops working, or did.
    pub expires_at: Option<String>,
    /// The same, from now.
    pub expires_in_s: Option<i64>,
    /// When it is called next.
    pub next_refresh_at: Option<String>,
    /// The same, from now.
    pub next_refresh_in_s: Option<i64>,
    /// Why then: "70 % of its life is over", "retry after failure 3", "waits for the rate limit".
    pub why: String,
    /// The last call's failure; gone after a success.
    pub last_error: Option<LastError>,
    /// The first 8 hex digits of the token's SHA-256.
    pub fingerprint: Option<String>,
    /// Where its token is published.
    pub sinks: Vec<SinkRow>,
}

/// Why the last call brought no token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// The typed refusal, one of [`crate::domain::FailureKind::as_str`].
    pub kind: String,
    /// The endpoint's own code.
    pub code: Option<String>,
    /// The endpoint's request id, for its support.
    pub requestid: Option<String>,
    /// What happened, for people.
    pub detail: String,
    /// When.
    pub at: Option<String>,
}

/// One place where a token is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkRow {
    /// A path, or the path of a key.
    pub place: String,
    /// How it stands there.
    pub state: SinkState,
    /// Why it fails.
    pub error: Option<String>,
}

/// How a token stands in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkState {
    /// The place holds the current token.
    Published,
    /// It does not yet, or there is no token yet.
    Pending,
    /// It could not be written; that is tried again.
    Failing,
}

/// Which rows of `GET /v1/tenants` are wanted: `app=crm&state=expired,refused`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TenantFilter {
    /// Those of this app; `None`: of all.
    pub app: Option<AppName>,
    /// Those in one of these states; empty: in any.
    pub states: Vec<TenantState>,
}

impl TenantFilter {
    /// Whether tenants of `app` are wanted.
    pub fn admits_app(&self, app: &str) -> bool {
        self.app.as_ref().is_none_or(|wanted| wanted.as_str() == app)
    }

    /// Whether tenants in `state` are wanted.
    pub fn admits_state(&self, state: TenantState) -> bool {
        self.states.is_empty() || self.states.contains(&state)
    }
}

/// Some of the tenants. The list is put together page by page: each row is consistent, the list need not be.
pub struct Page {
    /// The rows, in the order of their ids. They are put into words by whoever takes them, as they are taken.
    pub rows: Box<dyn ExactSizeIterator<Item = TenantRow> + Send>,
    /// Where the next page begins (the last id that was looked at); `None` on the last.
    pub next: Option<TenantId>,
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("rows", &self.rows.len()).field("next", &self.next).finish()
    }
}
