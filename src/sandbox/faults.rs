//! Faults, and the calls that they apply to.

use std::time::Duration;

use super::answer::{Manner, RawAnswer, ScriptedAnswer};

/// A fault that can be injected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// 400 `invalid.client`
    InvalidClient,
    /// 400 `unsupported.grant.type`
    UnsupportedGrant,
    /// 400 `unauthorized.client`
    UnauthorizedClient,
    /// 500 `server.error`
    ServerError,
    /// 500 `unknownError`, also what a wrong corp_id gets
    UnknownError,
    /// 403 `Forbidden.AccessDenied.QpsLimitForAppkeyAndApi`
    AppThrottled,
    /// 403 `Forbidden.AccessDenied.QpsLimitForApi`
    ApiThrottled,
    /// 403 `Forbidden.AccessDenied.IpNotInWhiteList`; the message names 203.0.113.7
    AddressNotAllowed,
    /// 200 with a page of HTML: what a middlebox answers, and perhaps what a banned address sees
    BanPage,
    /// 403 with a page of HTML: what a banned address sees, and what a middlebox answers
    BlockPage,
    /// 403 with `"punish":"deny"`
    Punish,
    /// 429 with `Retry-After: 7`
    TooManyRequests,
    /// 503 with `Retry-After: 7`
    Unavailable,
    /// 504 with an HTML page
    GatewayTimeout,
    /// 302 to another host
    Redirect,
    /// 200 with half of the JSON, and a `Content-Length` that fits
    Truncated,
    /// 200 with 65 KiB of JSON
    Oversized,
    /// 200 that says `Content-Encoding: gzip`
    Gzip,
    /// 200 with nothing
    Empty,
    /// 200 with a number for a token and a string for a life
    WrongTypes,
    /// The right answer, later.
    Delay(Duration),
    /// There is never an answer.
    Hang,
    /// The connection is reset before there is an answer.
    Reset,
    /// The connection is closed in the middle of the right answer.
    CloseMidBody,
    /// The right answer, one byte every 100 ms.
    Trickle,
    /// Any answer at all.
    Raw(RawAnswer),
}

/// The faults that need nothing but a name, as `/_sandbox/fault?kind=…` knows them.
const NAMED: &[(&str, Fault)] = &[
    ("invalid_client", Fault::InvalidClient),
    ("unsupported_grant", Fault::UnsupportedGrant),
    ("unauthorized_client", Fault::UnauthorizedClient),
    ("server_error", Fault::ServerError),
    ("unknown_error", Fault::UnknownError),
    ("app_throttled", Fault::AppThrottled),
    ("api_throttled", Fault::ApiThrottled),
    ("address_not_allowed", Fault::AddressNotAllowed),
    ("ban_page", Fault::BanPage),
    ("block_page", Fault::BlockPage),
    ("punish", Fault::Punish),
    ("too_many_requests", Fault::TooManyRequests),
    ("unavailable", Fault::Unavailable),
    ("gateway_timeout", Fault::GatewayTimeout),
    ("redirect", Fault::Redirect),
    ("truncated", Fault::Truncated),
    ("oversized", Fault::Oversized),
    ("gzip", Fault::Gzip),
    ("empty", Fault::Empty),
    ("wrong_types", Fault::WrongTypes),
    ("hang", Fault::Hang),
    ("reset", Fault::Reset),
    ("close_mid_body", Fault::CloseMidBody),
    ("trickle", Fault::Trickle),
];

impl Fault {
    /// Every fault that needs nothing but its name.
    pub fn all_named() -> impl Iterator<Item = (&'static str, Fault)> {
        NAMED.iter().map(|(name, fault)| (*name, fault.clone()))
    }

    /// The fault of this name.
    pub fn named(name: &str) -> Option<Self> {
        NAMED.iter().find(|(known, _)| *known == name).map(|(_, fault)| fault.clone())
    }

    /// The name, as in [`super::LoggedCall::outcome`].
    pub fn name(&self) -> &'static str {
        match self {
            Self::Delay(_) => "delay",
            Self::Raw(_) => "raw",
            other => NAMED.iter().find(|(_, fault)| fault == other).map_or("", |(name, _)| name),
        }
    }

    /// The answer that this fault causes. `grant` makes the right one, for faults that alter it.
    pub(super) fn answer(&self, grant: impl FnOnce() -> ScriptedAnswer) -> ScriptedAnswer {
        match self {
            Self::InvalidClient => {
                ScriptedAnswer::refusal(400, "invalid.client", "client_id or client_secret is invalid")
            }
            Self::UnsupportedGrant => {
                ScriptedAnswer::refusal(400, "unsupported.grant.type", "grant_type is not supported")
            }
            Self::UnauthorizedClient => {
                ScriptedAnswer::refusal(400, "unauthorized.client", "the app is not authorised")
            }
            Self::ServerError => ScriptedAnswer::refusal(500, "server.error", "internal error"),
            Self::UnknownError => ScriptedAnswer::refusal(500, "unknownError", "unknown error"),
            Self::AppThrottled => ScriptedAnswer::app_throttled(),
            Self::ApiThrottled => {
                ScriptedAnswer::refusal(403, "Forbidden.AccessDenied.QpsLimitForApi", "the API is too busy")
            }
            Self::AddressNotAllowed => ScriptedAnswer::refusal(
                403,
                "Forbidden.AccessDenied.IpNotInWhiteList",
                "the ip is not in the white list, request ip=203.0.113.7.",
            ),
            Self::BanPage => ScriptedAnswer::html(200, "<!DOCTYPE html><html><body>punished</body></html>"),
            Self::BlockPage => ScriptedAnswer::html(403, "<!DOCTYPE html><html><body>forbidden</body></html>"),
            Self::Punish => ScriptedAnswer::json(403, r#"{"status":1111,"wait":5,"punish":"deny"}"#),
            Self::TooManyRequests => ScriptedAnswer::json(429, "{}").with_header("retry-after", "7"),
            Self::Unavailable => ScriptedAnswer::html(503, "<html>busy</html>").with_header("retry-after", "7"),
            Self::GatewayTimeout => ScriptedAnswer::html(504, "<html>gateway timeout</html>"),
            Self::Redirect => ScriptedAnswer::json(302, "").with_header("location", "https://elsewhere.example/"),
            Self::Truncated => grant().map_body(|body| body.truncate(body.len() / 2)),
            Self::Oversized => grant().map_body(|body| {
                let padding = " ".repeat(65 * 1024);
                body.splice(1..1, padding.into_bytes());
            }),
            Self::Gzip => grant().with_header("content-encoding", "gzip"),
            Self::Empty => ScriptedAnswer::json(200, ""),
            Self::WrongTypes => ScriptedAnswer::json(200, r#"{"access_token":7200,"expires_in":"7200"}"#),
            Self::Delay(delay) => grant().delayed(*delay),
            Self::Hang => ScriptedAnswer::json(200, "").in_manner(Manner::Hang),
            Self::Reset => ScriptedAnswer::json(200, "").in_manner(Manner::Reset),
            Self::CloseMidBody => grant().in_manner(Manner::CloseMidBody),
            Self::Trickle => grant().in_manner(Manner::Trickle),
            Self::Raw(raw) => raw.clone().into(),
        }
    }
}

/// The calls that a fault applies to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Only this app's; `None`: every app's.
    pub client_id: Option<String>,
    /// Only those for this organisation; `None`: for every one.
    pub corp_id: Option<String>,
}

impl Scope {
    /// Every call.
    pub fn everyone() -> Self {
        Self::default()
    }

    /// The calls of one app.
    pub fn app(client_id: &str) -> Self {
        Self { client_id: Some(client_id.to_owned()), corp_id: None }
    }

    /// The calls for one organisation.
    pub fn corp(corp_id: &str) -> Self {
        Self { client_id: None, corp_id: Some(corp_id.to_owned()) }
    }

    fn covers(&self, client_id: &str, corp_id: &str) -> bool {
        self.client_id.as_deref().is_none_or(|wanted| wanted == client_id)
            && self.corp_id.as_deref().is_none_or(|wanted| wanted == corp_id)
    }
}

/// How often a fault applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// The next so many calls in its scope.
    Next(u32),
    /// Until the faults are cleared.
    UntilCleared,
}

/// The injected faults. They are searched from the last to the first for each call, so hundreds are cheap and hundreds of thousands
/// are not.
#[derive(Default)]
pub(super) struct Faults(Vec<(Scope, Fault, Times)>);

impl Faults {
    pub(super) fn inject(&mut self, scope: Scope, fault: Fault, times: Times) {
        if times != Times::Next(0) {
            self.0.push((scope, fault, times));
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault that applies to this call, if one does; it is counted down.
    pub(super) fn take_for(&mut self, client_id: &str, corp_id: &str) -> Option<Fault> {
        let at = self.0.iter().rposition(|(scope, _, _)| scope.covers(client_id, corp_id))?;
        let (_, fault, times) = &mut self.0[at];
        let fault = fault.clone();
        if let Times::Next(left) = times {
            *left -= 1;
            if *left == 0 {
                self.0.remove(at);
            }
        }
        Some(fault)
    }

    /// One line for each, for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let whose = |name: &Option<String>| name.as_deref().unwrap_or("*").to_owned();
        let line = |(scope, fault, times): &(Scope, Fault, Times)| {
            let (client, corp) = (whose(&scope.client_id), whose(&scope.corp_id));
            match times {
                Times::Next(left) => format!("{} client_id={client} corp_id={corp} times={left}", fault.name()),
                Times::UntilCleared => format!("{} client_id={client} corp_id={corp}", fault.name()),
            }
        };
        self.0.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_fault_in_scope_applies_as_often_as_requested() {
        let mut faults = Faults::default();
        faults.inject(Scope::everyone(), Fault::Hang, Times::UntilCleared);
        faults.inject(Scope::corp("c1"), Fault::Reset, Times::Next(2));
        let struck: Vec<_> = (0..3).map(|_| faults.take_for("a", "c1")).collect();
        assert_eq!(struck, [Some(Fault::Reset), Some(Fault::Reset), Some(Fault::Hang)]);
        assert_eq!(faults.take_for("a", "c2"), Some(Fault::Hang));
        faults.clear();
        assert_eq!(faults.take_for("a", "c1"), None);
    }

    #[test]
    fn every_named_fault_is_found_by_its_name() {
        for (name, fault) in Fault::all_named() {
            assert_eq!(Fault::named(name).as_ref().map(Fault::name), Some(name));
            assert_eq!(fault.name(), name);
        }
    }
}
