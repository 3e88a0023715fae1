//! What an answer means. Pure: status, headers and body go in, a token or a typed failure comes out.
//!
//! The table is DingTalk's, as far as it is documented or was observed. The first rule that matches an answer decides:
//!
//! 1. `"punish":"deny"`, whatever the status: banned.
//! 2. 504, whatever the body: the gateway timed out, which is transient.
//! 3. A known `code`, compared exactly, whatever the status: the same code has been documented with two.
//! 4. HTML instead of JSON. With 403 it is the page that a banned address gets, or a middlebox's; with 200 it is rather a
//!    middlebox's, or `endpoint` is wrong. Neither proves a ban by itself (`docs/decisions/0033-bans.md`).
//! 5. 200: a token, if all its fields are as documented.
//! 6. 429: throttled. Other 5xx: a server error.
//! 7. Anything else, also an unknown `code` with 4xx, is not documented: [`FailureKind::Malformed`], which is retried like any
//!    transient failure.

mod fields;
mod redact;

use std::net::IpAddr;
use std::time::SystemTime;

use crate::domain::{Failure, FailureKind, MAX_LIFETIME_S, Token};

use fields::{AnswerFields, FieldValue};

pub use redact::redact_failure;

/// The longest `Retry-After` that is obeyed, in seconds. Days would stop an app for good.
pub(super) const MAX_RETRY_AFTER_S: u32 = 3600;

/// The parts of an HTTP answer that decide what it means.
#[derive(Default)]
pub(super) struct HttpAnswer<'a> {
    pub(super) status: u16,
    pub(super) content_type: Option<&'a str>,
    pub(super) content_encoding: Option<&'a str>,
    pub(super) retry_after: Option<&'a str>,
    pub(super) date: Option<&'a str>,
    pub(super) body: &'a [u8],
    /// The secret that was sent. An answer that repeats it is neither quoted nor accepted.
    pub(super) secret: &'a str,
}

/// The token and its lifetime in seconds.
///
/// # Errors
/// The typed failure. Its texts quote nothing of the body but a known code, a request id that is a UUID, or an IP address.
pub(super) fn classify(answer: &HttpAnswer<'_>) -> Result<(Token, u32), Failure> {
    if answer.content_encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(answer.failure(by_status(answer.status), "the answer is compressed, which was not asked for"));
    }
    match fields::read(answer.body) {
        Ok(fields) => answer.classify_object(fields),
        Err(flaw) => Err(answer.classify_other(&flaw)),
    }
}

impl HttpAnswer<'_> {
    /// Classifies a JSON object.
    fn classify_object(&self, fields: AnswerFields) -> Result<(Token, u32), Failure> {
        if fields.punish.text() == Some("deny") {
            let mut failure = self.named(FailureKind::Banned, BANNED, &fields);
            let wait = if let FieldValue::Whole(wait) = fields.wait { Some(bounded(wait)) } else { None };
            failure.retry_after_s = failure.retry_after_s.max(wait);
            return Err(failure);
        }
        if self.status == 504 {
            return Err(self.named(FailureKind::ServerError, GATEWAY, &fields));
        }
        if let Some((kind, detail)) = fields.code.text().and_then(known) {
            let mut failure = self.named(kind, detail, &fields);
            if kind == FailureKind::AddressNotAllowed {
                failure.detail = self.address_detail(&fields).into();
            }
            return Err(failure);
        }
        if self.status != 200 {
            let detail = match fields.code.text() {
                Some(code) => format!("status {} with {}", self.status, redact::unknown_code(code)),
                None => self.status_detail("JSON without a code"),
            };
            return Err(self.named(by_status(self.status), &detail, &fields));
        }
        if let (FieldValue::Absent, Some(code)) = (&fields.access_token, fields.code.text()) {
            let detail = format!("no access_token, and {}", redact::unknown_code(code));
            return Err(self.named(FailureKind::Malformed, &detail, &fields));
        }
        grant(&fields, self.secret).map_err(|detail| self.named(FailureKind::Malformed, &detail, &fields))
    }

    /// Classifies a body that is not a JSON object.
    fn classify_other(&self, flaw: &str) -> Failure {
        match self.status {
            200 if self.is_html() => self.failure(FailureKind::HtmlPage, PAGE),
            403 if self.is_html() => self.failure(FailureKind::Blocked, BLOCKED),
            504 => self.failure(FailureKind::ServerError, GATEWAY),
            200 => self.failure(FailureKind::Malformed, &format!("the answer's body {flaw}")),
            status => {
                let what = if self.is_html() { "an HTML page".to_owned() } else { format!("a body that {flaw}") };
                self.failure(by_status(status), &self.status_detail(&what))
            }
        }
    }

    fn status_detail(&self, what: &str) -> String {
        match self.status {
            300..=399 => format!("status {}: a redirect, which is not followed; check `endpoint`", self.status),
            429 => "status 429: too many calls".to_owned(),
            status => format!("status {status} with {what}"),
        }
    }

    fn is_html(&self) -> bool {
        let claims = self.content_type.is_some_and(|claimed| {
            let media_type = claimed.split(';').next().unwrap_or_default().trim();
            media_type.eq_ignore_ascii_case("text/html") || media_type.eq_ignore_ascii_case("application/xhtml+xml")
        });
        // A proxy can label anything as HTML, and a ban stops all calls. So an empty body or truncated JSON is not taken for one.
        match self.body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(self.body).trim_ascii_start().first() {
            None | Some(b'{') => false,
            Some(b'<') => true,
            Some(_) => claims,
        }
    }

    /// A failure with the code and the request id of the answer.
    fn named(&self, kind: FailureKind, detail: &str, fields: &AnswerFields) -> Failure {
        let mut failure = self.failure(kind, detail);
        let hidden = [self.secret, fields.access_token.text().unwrap_or_default()];
        failure.code = fields.code.text().and_then(redact::code);
        failure.request_id = fields.request_id.text().and_then(|id| redact::request_id(id, &hidden));
        failure
    }

    fn address_detail(&self, fields: &AnswerFields) -> String {
        let hidden = [self.secret, fields.access_token.text().unwrap_or_default()];
        // An IPv6 address has enough digits to hold a token.
        let address = fields.message.text().and_then(address_in).map(|ip| ip.to_string());
        let address = address.filter(|ip| !hidden.iter().any(|hidden| redact::repeats(ip, hidden)));
        let address = address.map_or_else(String::new, |ip| format!(" {ip}"));
        format!(
            "this machine's address{address} is not on the app's allow-list; add it, or set `local_address` or `proxy`"
        )
    }

    fn failure(&self, kind: FailureKind, detail: &str) -> Failure {
        let may_ask_for_a_pause = matches!(self.status, 429 | 503)
            || matches!(kind, FailureKind::AppThrottled | FailureKind::ApiThrottled | FailureKind::Banned);
        let mut failure = Failure::new(kind, detail);
        failure.retry_after_s = if may_ask_for_a_pause { self.retry_after_s() } else { None };
        failure
    }

    /// `Retry-After` is a number of seconds, or a date, which counts from the answer's `Date` (RFC 9110, 10.2.3).
    fn retry_after_s(&self) -> Option<u32> {
        let text = self.retry_after?.trim();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(text.parse().map_or(MAX_RETRY_AFTER_S, bounded));
        }
        let until: SystemTime = httpdate::parse_http_date(text).ok()?;
        let from = httpdate::parse_http_date(self.date?).ok()?;
        Some(bounded(until.duration_since(from).unwrap_or_default().as_secs()))
    }
}

const BANNED: &str = "this machine's address is banned for calling too often; all calls pause for some minutes";
const PAGE: &str =
    "a page of HTML instead of a token; something on the way answers for the endpoint, or `endpoint` is wrong";
const BLOCKED: &str = "status 403 with a page of HTML; this machine's address is banned, or something on the way answers for the endpoint";
const GATEWAY: &str = "the endpoint's gateway timed out (status 504)";

/// Whether a code is one of DingTalk's known ones.
pub(super) fn is_known(code: &str) -> bool {
    known(code).is_some()
}

/// DingTalk's codes.
fn known(code: &str) -> Option<(FailureKind, &'static str)> {
    use FailureKind::{
        AddressNotAllowed, ApiThrottled, AppThrottled, ServerError, SuspectCorp, Unauthorized, UnsupportedGrant,
        WrongCredentials,
    };
    Some(match code {
        "invalid.client" => (WrongCredentials, "client_id or client_secret is wrong"),
        "unsupported.grant.type" => (UnsupportedGrant, "the endpoint does not know this grant type; please report it"),
        "unauthorized.client" => (Unauthorized, "the app is not authorised for this organisation"),
        "server.error" => (ServerError, "the endpoint reports an error of its own"),
        "unknownError" => (SuspectCorp, "the endpoint reports an unknown error, as it does for a wrong corp_id"),
        "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi" => (AppThrottled, "too many calls for this app"),
        "Forbidden.AccessDenied.QpsLimitForApi" => (ApiThrottled, "the endpoint is too busy for everybody"),
        "Forbidden.AccessDenied.IpNotInWhiteList" => (AddressNotAllowed, ""),
        _ => return None,
    })
}

/// The address that the message names, after `request ip` if it holds these words.
fn address_in(message: &str) -> Option<IpAddr> {
    let lower = message.to_ascii_lowercase();
    let named = lower.find("request ip").map_or(0, |at| at + "request ip".len());
    let words = message.get(named..)?.split(|c: char| !(c.is_ascii_hexdigit() || c == '.' || c == ':'));
    words.map(|word| word.trim_matches('.')).find_map(|word| word.parse().ok())
}

fn by_status(status: u16) -> FailureKind {
    match status {
        429 => FailureKind::AppThrottled,
        500..=599 => FailureKind::ServerError,
        _ => FailureKind::Malformed,
    }
}

fn bounded(seconds: u64) -> u32 {
    u32::try_from(seconds).unwrap_or(u32::MAX).min(MAX_RETRY_AFTER_S)
}

/// The token and its lifetime, if both are as documented.
fn grant(fields: &AnswerFields, secret: &str) -> Result<(Token, u32), String> {
    if fields.duplicate {
        return Err("the answer's JSON has the same key twice".to_owned());
    }
    let text = match &fields.access_token {
        FieldValue::Text(text) => text.clone(),
        FieldValue::Absent => return Err("the answer has no access_token".to_owned()),
        FieldValue::Whole(_) => return Err("access_token is a number, not text".to_owned()),
        FieldValue::Other(what) => return Err(format!("access_token is {what}, not text")),
    };
    let token = Token::new(text).map_err(|invalid| format!("access_token is refused: {invalid}"))?;
    if !secret.is_empty() && token.expose().contains(secret) {
        return Err("access_token repeats the client secret".to_owned());
    }
    let lifetime_s = match fields.expires_in {
        FieldValue::Whole(0) => return Err("expires_in is 0".to_owned()),
        FieldValue::Whole(seconds) => u32::try_from(seconds).ok().filter(|&seconds| seconds <= MAX_LIFETIME_S),
        FieldValue::Absent => return Err("the answer has no expires_in".to_owned()),
        FieldValue::Text(_) => return Err("expires_in is text, not a number".to_owned()),
        FieldValue::Other(what) => return Err(format!("expires_in is {what}")),
    };
    let lifetime_s = lifetime_s.ok_or_else(|| format!("expires_in is over {MAX_LIFETIME_S} seconds"))?;
    Ok((token, lifetime_s))
}

#[cfg(test)]
mod tests;
