//! `GET /v1/tenants`, and one tenant of it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::domain::{AppName, TenantId};

/// The state of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It never had a token.
    Pending,
    /// Its token is valid, published and not due.
    Fresh,
    /// Its token is valid and past its refresh point.
    Due,
    /// Its token is due, and the last call failed.
    Failing,
    /// The endpoint says no.
    Refused,
    /// Its token is valid, and a sink does not hold it: publication fails, or takes longer than seconds.
    Unpublished,
    /// Its token stopped working, or a sink still holds one that did.
    Expired,
    /// The config says `enabled = false`.
    Disabled,
}

impl State {
    /// Every state, worst first.
    pub const WORST_FIRST: [Self; 8] = [
        Self::Expired,
        Self::Refused,
        Self::Unpublished,
        Self::Failing,
        Self::Pending,
        Self::Due,
        Self::Fresh,
        Self::Disabled,
    ];

    /// The stable name, as in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Fresh => "fresh",
            Self::Due => "due",
            Self::Failing => "failing",
            Self::Refused => "refused",
            Self::Unpublished => "unpublished",
            Self::Expired => "expired",
            Self::Disabled => "disabled",
        }
    }

    /// Its place in [`State::WORST_FIRST`]: 0 is the worst.
    pub fn rank(self) -> usize {
        Self::WORST_FIRST.iter().position(|state| *state == self).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::WORST_FIRST.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            let known = Self::WORST_FIRST.map(Self::as_str).join(", ");
            format!("`{text}` is not a state; there are {known}")
        })
    }
}

/// How many tenants are in each state; a state without tenants may be absent.
pub type Counts = BTreeMap<State, u64>;

/// How many tenants there are in these states together.
pub fn total<'a>(counts: impl IntoIterator<Item = &'a u64>) -> u64 {
    counts.into_iter().fold(0, |total, count| total.saturating_add(*count))
}

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
    pub state: State,
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
    pub states: Vec<State>,
}

impl TenantFilter {
    /// Whether tenants of `app` are wanted.
    pub fn admits_app(&self, app: &str) -> bool {
        self.app.as_ref().is_none_or(|wanted| wanted.as_str() == app)
    }

    /// Whether tenants in `state` are wanted.
    pub fn admits_state(&self, state: State) -> bool {
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
