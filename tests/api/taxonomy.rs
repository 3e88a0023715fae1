//! Every way in which the endpoint can answer and bring no token, with the typed refusal in which it must end. Shared by the
//! tests of the client and those of the whole daemon.

use std::time::Duration;

use corptokend::domain::{FailureKind, FailureKind::*};
use corptokend::sandbox::{Fault, RawAnswer};

/// A name, what the endpoint does, how the call ends, and a part of what people are told.
pub(crate) type Case = (&'static str, Fault, FailureKind, &'static str);

/// Every row of the taxonomy.
pub(crate) fn taxonomy() -> Vec<Case> {
    let json = |status, body: &str| Fault::Raw(RawAnswer::json(status, body));
    let html = |status| Fault::Raw(RawAnswer::html(status, "<!DOCTYPE html><html>t0k3n-canary</html>"));
    vec![
        ("wrong credentials", Fault::InvalidClient, WrongCredentials, "client_id or client_secret is wrong"),
        ("unsupported grant", Fault::UnsupportedGrant, UnsupportedGrant, "grant type"),
        ("unauthorised, 400", Fault::UnauthorizedClient, Unauthorized, "not authorised"),
        ("unauthorised, 401", json(401, r#"{"code":"unauthorized.client"}"#), Unauthorized, "not authorised"),
        ("a code wins over its status", json(200, r#"{"code":"invalid.client"}"#), WrongCredentials, "wrong"),
        ("server error", Fault::ServerError, ServerError, "error of its own"),
        ("a wrong corp_id", Fault::UnknownError, SuspectCorp, "wrong corp_id"),
        ("the app is throttled", Fault::AppThrottled, AppThrottled, "too many calls for this app"),
        ("everybody is throttled", Fault::ApiThrottled, ApiThrottled, "too busy"),
        ("not on the allow-list", Fault::AddressNotAllowed, AddressNotAllowed, "address 203.0.113.7 is not on"),
        ("a page of HTML, 200", Fault::BanPage, HtmlPage, "a page of HTML instead of a token"),
        ("a page of HTML, 403", html(403), Blocked, "status 403 with a page of HTML"),
        ("a page of HTML that forbids", Fault::BlockPage, Blocked, "banned, or something on the way"),
        ("a ban, as JSON, 403", Fault::Punish, Banned, "banned"),
        ("a ban, as JSON, 200", json(200, r#"{"status":1111,"wait":5,"punish":"deny"}"#), Banned, "banned"),
        ("the gateway gives up", Fault::GatewayTimeout, ServerError, "504"),
        ("429", Fault::TooManyRequests, AppThrottled, "429"),
        ("503", Fault::Unavailable, ServerError, "503"),
        ("an HTML 502", html(502), ServerError, "status 502 with an HTML page"),
        ("an HTML 404", html(404), Malformed, "status 404 with an HTML page"),
        ("an unknown code", json(400, r#"{"code":"what.is.this"}"#), Malformed, "a code that is not documented"),
        ("an empty 500", json(500, ""), ServerError, "status 500"),
    ]
}

/// Answers that are none.
pub(crate) fn malformed(secret: &str) -> Vec<Case> {
    let raw = |body: &[u8]| Fault::Raw(RawAnswer::json(200, body));
    let life =
        |expires_in: &str| raw(format!(r#"{{"access_token":"t0k3n-canary","expires_in":{expires_in}}}"#).as_bytes());
    let token = |token: &str| raw(format!(r#"{{"access_token":{token},"expires_in":7200}}"#).as_bytes());
    let good = r#"{"access_token":"t0k3n-canary","expires_in":7200}"#;
    let headers = |bytes: usize| Fault::Raw(RawAnswer::json(200, good).with_header("x-padding", vec![b'x'; bytes]));
    vec![
        ("truncated", Fault::Truncated, Malformed, "breaks off"),
        ("oversized", Fault::Oversized, Malformed, "larger than 65536 bytes"),
        ("gzip", Fault::Gzip, Malformed, "compressed"),
        ("empty", Fault::Empty, Malformed, "is empty"),
        ("wrong types", Fault::WrongTypes, Malformed, "access_token is a number"),
        ("a redirect", Fault::Redirect, Malformed, "a redirect, which is not followed"),
        ("204", Fault::Raw(RawAnswer::json(204, "")), Malformed, "status 204"),
        ("206 with a token", Fault::Raw(RawAnswer::json(206, good)), Malformed, "status 206"),
        ("404 with a token", Fault::Raw(RawAnswer::json(404, good)), Malformed, "status 404"),
        ("plain text", raw(b"OK t0k3n-canary"), Malformed, "is not JSON"),
        ("a byte order mark", raw(format!("\u{feff}{good}").as_bytes()), Malformed, "byte order mark"),
        ("not UTF-8", raw(b"{\"access_token\":\"t\xff\xfe\",\"expires_in\":7200}"), Malformed, "not UTF-8"),
        ("UTF-16", raw(&good.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()), Malformed, "not JSON"),
        ("a list", raw(format!("[{good}]").as_bytes()), Malformed, "not a JSON object"),
        ("a string", raw(b"\"t0k3n-canary\""), Malformed, "not a JSON object"),
        ("null", raw(b"null"), Malformed, "not a JSON object"),
        ("deep nesting", raw("[".repeat(60_000).as_bytes()), Malformed, "is not"),
        ("deep nesting in a token", token(&"[".repeat(60_000)), Malformed, "is not JSON"),
        ("two answers", raw(format!("{good}{good}").as_bytes()), Malformed, "is not JSON"),
        ("a NUL after the JSON", raw(format!("{good}\0").as_bytes()), Malformed, "is not JSON"),
        (
            "the token twice",
            raw(br#"{"access_token":"t0k3n-canary","access_token":"b","expires_in":1}"#),
            Malformed,
            "twice",
        ),
        (
            "the life twice",
            raw(br#"{"access_token":"t0k3n-canary","expires_in":1,"expires_in":1}"#),
            Malformed,
            "twice",
        ),
        ("any key twice", raw(br#"{"x":1,"x":2,"access_token":"t0k3n-canary","expires_in":1}"#), Malformed, "twice"),
        ("no token", raw(br#"{"expires_in":7200}"#), Malformed, "no access_token"),
        ("another spelling", raw(br#"{"accessToken":"t0k3n-canary","expireIn":7200}"#), Malformed, "no access_token"),
        ("a code in place of the token", raw(br#"{"code":"odd"}"#), Malformed, "no access_token, and a code"),
        ("a null token", token("null"), Malformed, "access_token is null"),
        ("a token in a list", token(r#"["t0k3n-canary"]"#), Malformed, "access_token is a list"),
        ("an empty token", token(r#""""#), Malformed, "the token is empty"),
        ("a newline in the token", token(r#""t0k3n-canary\n""#), Malformed, "visible ASCII"),
        ("a raw newline in the token", token("\"t0k3n-canary\n\""), Malformed, "is not JSON"),
        ("a NUL in the token", token(r#""t0k3n-canary\u0000""#), Malformed, "visible ASCII"),
        ("a blank in the token", token(r#""t0k3n canary""#), Malformed, "visible ASCII"),
        ("an umlaut in the token", token(r#""t\u00f6k3n-canary""#), Malformed, "visible ASCII"),
        ("half a surrogate in the token", token(r#""t\ud800""#), Malformed, "is not JSON"),
        ("an endless token", token(&format!("\"{}\"", "x".repeat(4097))), Malformed, "longer than 4096"),
        ("our own secret for a token", token(&format!("\"{secret}\"")), Malformed, "repeats the client secret"),
        ("no life", raw(br#"{"access_token":"t0k3n-canary"}"#), Malformed, "no expires_in"),
        ("a life of 0", life("0"), Malformed, "expires_in is 0"),
        ("a negative life", life("-1"), Malformed, "a negative number"),
        ("a huge life", life("4294967296"), Malformed, "over 31622400"),
        ("a life beyond any number", life("99999999999999999999999"), Malformed, "expires_in is not a whole number"),
        ("a life of a year and two days", life("31708800"), Malformed, "over 31622400"),
        ("a life as text", life("\"7200\""), Malformed, "expires_in is text"),
        ("a life with a fraction", life("7200.0"), Malformed, "not a whole number"),
        ("a life with an exponent", life("7.2e3"), Malformed, "not a whole number"),
        ("a life that is true", life("true"), Malformed, "a boolean"),
        ("a life that is null", life("null"), Malformed, "expires_in is null"),
        ("a life that is NaN", life("NaN"), Malformed, "is not JSON"),
        ("20 KiB of headers", headers(20 * 1024), Malformed, ""),
        ("100 KiB of headers", headers(100 * 1024), Malformed, ""),
    ]
}

/// Answers that never come, or never come whole.
pub(crate) fn broken() -> Vec<Case> {
    vec![
        ("a reset", Fault::Reset, Unreachable, ""),
        ("a close in the middle", Fault::CloseMidBody, Unreachable, ""),
        ("a byte every 100 ms", Fault::Trickle, Timeout, "no whole answer within 700ms"),
        ("silence", Fault::Hang, Timeout, "no whole answer within 700ms"),
        ("a late answer", Fault::Delay(Duration::from_secs(2)), Timeout, "no whole answer within 700ms"),
    ]
}
