//! How a call can fail, and what the daemon does next.

use std::fmt;

use crate::domain::token::Fingerprint;

/// Who is to blame for a failed call. It decides whose calls are held back, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The endpoint, or something on the way to it. If several tenants are affected, a breaker opens; if only one is, it alone backs
    /// off exponentially.
    Transient,
    /// Perhaps a wrong corp_id: a few quick retries, then as for [`Blame::Tenant`].
    Suspect,
    /// The organisation: a slow retry for this tenant.
    Tenant,
    /// The app: every tenant of it would fail alike, so one probe stands for all.
    App,
    /// This app calls too often: it slows down.
    AppTooFast,
    /// The endpoint is too busy: every app that calls it slows down.
    EveryoneTooFast,
    /// This address is banned from the endpoint's host: all calls from it stop.
    Banned,
}

/// The kinds of failure of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureKind {
    /// No connection: name resolution, connect, TLS, reset.
    Unreachable,
    /// The call took longer than it may.
    Timeout,
    /// The endpoint reports an internal error.
    ServerError,
    /// The answer is not as documented: nothing is published.
    Malformed,
    /// A page of HTML with status 200 instead of a token: from something between here and the endpoint, or a wrong endpoint.
    HtmlPage,
    /// A page of HTML with status 403, which a banned address gets, and which a middlebox may send. It is a ban if several tenants get
    /// it at once.
    Blocked,
    /// The endpoint reports an "unknown error", as it also does for a wrong corp_id.
    SuspectCorp,
    /// The app is not authorised for this organisation.
    Unauthorized,
    /// client_id or client_secret is wrong.
    WrongCredentials,
    /// The client secret could not be read; no call was made.
    SecretUnreadable,
    /// The endpoint does not know the grant type: a defect of the daemon.
    UnsupportedGrant,
    /// This machine's address is not on the app's allow-list.
    AddressNotAllowed,
    /// The token is the one of another organisation.
    SharedToken,
    /// The lifetime of tokens is too short to keep them fresh within the limits.
    ShortLived,
    /// Too many calls for this app.
    AppThrottled,
    /// Too many calls for the endpoint as a whole.
    ApiThrottled,
    /// This address is banned for minutes.
    Banned,
}

impl FailureKind {
    /// Every kind, for tables and tests.
    pub const ALL: [Self; 17] = [
        Self::Unreachable,
        Self::Timeout,
        Self::ServerError,
        Self::Malformed,
        Self::HtmlPage,
        Self::Blocked,
        Self::SuspectCorp,
        Self::Unauthorized,
        Self::WrongCredentials,
        Self::SecretUnreadable,
        Self::UnsupportedGrant,
        Self::AddressNotAllowed,
        Self::SharedToken,
        Self::ShortLived,
        Self::AppThrottled,
        Self::ApiThrottled,
        Self::Banned,
    ];

    /// The kind of this stable name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The stable name, as in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::ServerError => "server_error",
            Self::Malformed => "malformed",
            Self::HtmlPage => "html_page",
            Self::Blocked => "blocked",
            Self::SuspectCorp => "suspect_corp_id",
            Self::Unauthorized => "unauthorized",
            Self::WrongCredentials => "wrong_credentials",
            Self::SecretUnreadable => "secret_unreadable",
            Self::UnsupportedGrant => "unsupported_grant",
            Self::AddressNotAllowed => "address_not_allowed",
            Self::SharedToken => "shared_token",
            Self::ShortLived => "short_lived",
            Self::AppThrottled => "app_throttled",
            Self::ApiThrottled => "api_throttled",
            Self::Banned => "banned",
        }
    }

    /// Who is to blame.
    pub fn blame(self) -> Blame {
        match self {
            Self::Unreachable
            | Self::Timeout
            | Self::ServerError
            | Self::Malformed
            | Self::HtmlPage
            | Self::Blocked => Blame::Transient,
            Self::SuspectCorp => Blame::Suspect,
            Self::ShortLived => Blame::Transient,
            Self::Unauthorized | Self::SharedToken => Blame::Tenant,
            Self::WrongCredentials | Self::SecretUnreadable | Self::UnsupportedGrant | Self::AddressNotAllowed => {
                Blame::App
            }
            Self::AppThrottled => Blame::AppTooFast,
            Self::ApiThrottled => Blame::EveryoneTooFast,
            Self::Banned => Blame::Banned,
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A call that brought no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind.
    pub kind: FailureKind,
    /// The endpoint's own code, where the answer had a plausible one.
    pub code: Option<Box<str>>,
    /// The endpoint's request id, where the answer had a plausible one.
    pub request_id: Option<Box<str>>,
    /// What happened, for people. Never a part of a body that could hold a token or a secret.
    pub detail: Box<str>,
    /// How long the endpoint asked us to wait, in seconds.
    pub retry_after_s: Option<u32>,
}

impl Failure {
    /// A failure with nothing known but its kind and what happened.
    pub fn new(kind: FailureKind, detail: impl Into<Box<str>>) -> Self {
        Self { kind, code: None, request_id: None, detail: detail.into(), retry_after_s: None }
    }

    /// Removes a request id that is the token of this fingerprint, with the dashes of a UUID.
    pub fn remove_token(&mut self, held: Fingerprint) {
        self.request_id = self.request_id.take().filter(|id| !is_spelling_of(id, held));
    }
}

/// Whether the id is the text of this fingerprint, in one of its spellings.
fn is_spelling_of(id: &str, held: Fingerprint) -> bool {
    let bare = id.replace('-', "");
    let backwards = |text: &str| text.chars().rev().collect::<String>();
    let spellings = [id.to_owned(), backwards(id), backwards(&bare), bare];
    spellings.iter().flat_map(|text| [text.clone(), text.to_lowercase(), text.to_uppercase()]).any(|text| {
        // These are all the tokens that the dashed id can stand for.
        Fingerprint::of(text.as_bytes()) == held
    })
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        if let Some(code) = &self.code {
            write!(f, " (code {code})")?;
        }
        Ok(())
    }
}
