use super::*;

const GOOD: &str = r#"{"access_token":"0a7-_x","expires_in":7200}"#;

fn reply(status: u16, body: &str) -> Reply<'_> {
    Reply {
        status,
        content_type: Some("application/json"),
        body: body.as_bytes(),
        secret: "s3cr3t",
        ..Reply::default()
    }
}

fn refused(reply: &Reply<'_>) -> Failure {
    classify(reply).expect_err("it should be refused")
}

#[test]
fn a_token_comes_with_200_alone() {
    let (token, lifetime_s) = classify(&reply(200, GOOD)).unwrap();
    assert_eq!((token.expose(), lifetime_s), ("0a7-_x", 7200));
    for status in [201, 202, 204, 206, 301, 400, 403, 404, 429, 500, 503, 504] {
        assert!(classify(&reply(status, GOOD)).is_err(), "{status}");
    }
}

#[test]
fn a_code_is_judged_before_its_status_and_compared_exactly() {
    use FailureKind::*;
    let kind = |status, code: &str| refused(&reply(status, &format!(r#"{{"code":"{code}"}}"#))).kind;
    for (code, expected) in [
        ("invalid.client", WrongCredentials),
        ("unsupported.grant.type", UnsupportedGrant),
        ("unauthorized.client", Unauthorized),
        ("server.error", ServerError),
        ("unknownError", SuspectCorp),
        ("Forbidden.AccessDenied.QpsLimitForAppkeyAndApi", AppThrottled),
        ("Forbidden.AccessDenied.QpsLimitForApi", ApiThrottled),
        ("Forbidden.AccessDenied.IpNotInWhiteList", AddressNotAllowed),
    ] {
        for status in [200, 400, 401, 403, 429, 500, 503] {
            assert_eq!(kind(status, code), expected, "{status} {code}");
        }
        assert_eq!(kind(504, code), ServerError, "a gateway that gave up says nothing about the app");
        assert_eq!(kind(400, &code.to_uppercase()), Malformed, "{code}");
        assert_eq!(kind(500, &format!("{code} ")), ServerError, "{code}");
    }
}

#[test]
fn a_known_code_beside_a_token_is_still_a_refusal() {
    let both = r#"{"code":"unauthorized.client","access_token":"t","expires_in":7200}"#;
    assert_eq!(refused(&reply(200, both)).kind, FailureKind::Unauthorized);
}

#[test]
fn a_ban_is_told_by_punish_at_any_status_and_by_html_with_200_or_403() {
    for status in [200, 400, 403, 429, 500, 504] {
        let failure = refused(&reply(status, r#"{"status":1111,"wait":5,"punish":"deny","code":"invalid.client"}"#));
        assert_eq!((failure.kind, failure.retry_after_s), (FailureKind::Banned, Some(5)), "{status}");
    }
    let page =
        |status, content_type, body| refused(&Reply { content_type: Some(content_type), ..reply(status, body) }).kind;
    for status in [200, 403] {
        assert_eq!(page(status, "text/html", "<html>"), FailureKind::Banned);
        assert_eq!(page(status, "Text/HTML; charset=utf-8", "punished"), FailureKind::Banned);
        assert_eq!(page(status, "application/json", " \n<!DOCTYPE html>"), FailureKind::Banned);
        assert_eq!(page(status, "text/html", ""), FailureKind::Malformed, "an empty answer is no page");
        assert_eq!(page(status, "text/html", r#"{"access_tok"#), FailureKind::Malformed, "torn JSON is no page");
    }
    assert_eq!(page(404, "text/html", "<html>"), FailureKind::Malformed);
    assert_eq!(page(429, "text/html", "<html>"), FailureKind::AppThrottled);
    assert_eq!(page(502, "text/html", "<html>"), FailureKind::ServerError);
    let mislabelled = Reply { content_type: Some("text/html"), ..reply(200, GOOD) };
    assert!(classify(&mislabelled).is_ok(), "a token is a token, whatever it is labelled");
}

#[test]
fn retry_after_is_seconds_or_a_date_and_is_bounded() {
    let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
    let asked = |status, retry_after, date| {
        refused(&Reply { retry_after: Some(retry_after), date, ..reply(status, "{}") }).retry_after_s
    };
    assert_eq!(asked(429, "7", None), Some(7));
    assert_eq!(asked(503, " 7 ", None), Some(7));
    assert_eq!(asked(429, "0", None), Some(0));
    assert_eq!(asked(429, "86400", None), Some(MAX_RETRY_AFTER_S));
    assert_eq!(asked(429, "99999999999999999999999", None), Some(MAX_RETRY_AFTER_S));
    assert_eq!(asked(429, "Sun, 06 Nov 1994 08:50:07 GMT", date), Some(30));
    assert_eq!(asked(429, "Sun, 06 Nov 1994 08:00:00 GMT", date), Some(0));
    assert_eq!(asked(429, "Sun, 06 Nov 1994 08:50:07 GMT", None), None, "from when, nobody knows");
    for nonsense in ["", "-1", "1.5", "soon"] {
        assert_eq!(asked(429, nonsense, date), None, "{nonsense:?}");
    }
    assert_eq!(asked(500, "7", None), None);
    let throttled = r#"{"code":"Forbidden.AccessDenied.QpsLimitForApi"}"#;
    assert_eq!(refused(&Reply { retry_after: Some("7"), ..reply(403, throttled) }).retry_after_s, Some(7));
    let banned = r#"{"punish":"deny","wait":5}"#;
    assert_eq!(refused(&Reply { retry_after: Some("7"), ..reply(403, banned) }).retry_after_s, Some(7));
    assert_eq!(refused(&reply(403, r#"{"punish":"deny","wait":99999999999}"#)).retry_after_s, Some(MAX_RETRY_AFTER_S));
}

#[test]
fn codes_and_request_ids_are_kept_only_when_they_are_short_visible_and_hold_no_secret() {
    let long = "x".repeat(129);
    for (text, kept) in [
        ("ok-1.2_3", true),
        ("", false),
        ("a b", false),
        (r"a\nb", false),
        ("\u{fc}", false),
        (long.as_str(), false),
        ("s3cr3t", false),
        ("x-s3cr3t-y", false),
        ("the-t0k3n", false),
    ] {
        let body = format!(r#"{{"code":"{text}","requestid":"{text}","message":"{text}","access_token":"t0k3n"}}"#);
        let failure = refused(&reply(400, &body));
        let shown = format!("{failure} {failure:?}");
        assert_eq!(failure.code.is_some(), kept, "{text}");
        assert_eq!(failure.request_id.is_some(), kept, "{text}");
        assert!(!shown.contains("s3cr3t") && !shown.contains("t0k3n"), "{shown}");
    }
    let numbers = refused(&reply(400, r#"{"code":88,"requestid":null}"#));
    assert_eq!((numbers.code, numbers.request_id), (None, None));
}

#[test]
fn the_address_that_is_not_allowed_is_shown_if_it_is_one() {
    for (message, shown) in [
        ("the ip is not in the white list, request ip=203.0.113.7.", "address 203.0.113.7 is not"),
        ("white list 10.0.0.1; request ip: 2001:db8::1", "address 2001:db8::1 is not"),
        ("Request IP 198.51.100.1", "address 198.51.100.1 is not"),
        ("198.51.100.9 is unknown", "address 198.51.100.9 is not"),
        ("request ip=s3cr3t", "machine's address is not"),
        ("request ip=999.1.1.1", "machine's address is not"),
        ("", "machine's address is not"),
    ] {
        let body = serde_json::json!({ "code": "Forbidden.AccessDenied.IpNotInWhiteList", "message": message });
        let body = body.to_string();
        let detail = refused(&reply(403, &body)).detail;
        assert!(detail.contains(shown), "{message}: {detail}");
    }
}

#[test]
fn a_compressed_answer_is_refused_unread() {
    let encoded = |status, encoding| classify(&Reply { content_encoding: Some(encoding), ..reply(status, GOOD) });
    for encoding in ["gzip", "br", "zstd", "deflate", "identity, gzip", ""] {
        assert_eq!(encoded(200, encoding).unwrap_err().kind, FailureKind::Malformed, "{encoding}");
    }
    assert!(encoded(200, "identity").is_ok());
    assert_eq!(encoded(502, "gzip").unwrap_err().kind, FailureKind::ServerError);
}

#[test]
fn no_body_however_torn_panics_or_is_taken_for_a_token() {
    for cut in 0..GOOD.len() {
        let failure = refused(&reply(200, &GOOD[..cut]));
        assert_eq!(failure.kind, FailureKind::Malformed, "{cut}");
    }
    for at in 0..GOOD.len() {
        for bit in 0..8 {
            let mut body = GOOD.as_bytes().to_vec();
            body[at] ^= 1 << bit;
            let reply = Reply { body: &body, ..reply(200, "") };
            // A flip inside the token or the number can go unnoticed; nothing but a whole answer may.
            if let Ok((token, lifetime_s)) = classify(&reply) {
                assert!(token.expose().len() == 6 && lifetime_s > 0, "{:?}", String::from_utf8_lossy(&body));
            }
        }
    }
}
