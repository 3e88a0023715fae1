use super::*;

const GOOD: &str = r#"{"access_token":"0a7-_x","expires_in":7200}"#;

fn answer(status: u16, body: &str) -> HttpAnswer<'_> {
    HttpAnswer {
        status,
        content_type: Some("application/json"),
        body: body.as_bytes(),
        secret: "s3cr3t",
        ..HttpAnswer::default()
    }
}

fn refused(answer: &HttpAnswer<'_>) -> Failure {
    classify(answer).expect_err("it should be refused")
}

#[test]
fn a_token_comes_with_200_alone() {
    let (token, lifetime_s) = classify(&answer(200, GOOD)).unwrap();
    assert_eq!((token.expose(), lifetime_s), ("0a7-_x", 7200));
    for status in [201, 202, 204, 206, 301, 400, 403, 404, 429, 500, 503, 504] {
        assert!(classify(&answer(status, GOOD)).is_err(), "{status}");
    }
}

#[test]
fn a_code_is_judged_before_its_status_and_compared_exactly() {
    use FailureKind::*;
    let kind = |status, code: &str| refused(&answer(status, &format!(r#"{{"code":"{code}"}}"#))).kind;
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
    assert_eq!(refused(&answer(200, both)).kind, FailureKind::Unauthorized);
}

#[test]
fn a_ban_is_told_by_punish_at_any_status_and_a_page_of_html_is_no_proof_of_it() {
    for status in [200, 400, 403, 429, 500, 504] {
        let failure = refused(&answer(status, r#"{"status":1111,"wait":5,"punish":"deny","code":"invalid.client"}"#));
        assert_eq!((failure.kind, failure.retry_after_s), (FailureKind::Banned, Some(5)), "{status}");
    }
    let page = |status, content_type, body| {
        refused(&HttpAnswer { content_type: Some(content_type), ..answer(status, body) }).kind
    };
    for (status, kind) in [(200, FailureKind::HtmlPage), (403, FailureKind::Blocked)] {
        assert_eq!(page(status, "text/html", "<html>"), kind);
        assert_eq!(page(status, "Text/HTML; charset=utf-8", "punished"), kind);
        assert_eq!(page(status, "application/json", " \n<!DOCTYPE html>"), kind);
        assert_eq!(page(status, "text/html", ""), FailureKind::Malformed, "an empty answer is no page");
        assert_eq!(page(status, "text/html", r#"{"access_tok"#), FailureKind::Malformed, "torn JSON is no page");
    }
    assert_eq!(page(404, "text/html", "<html>"), FailureKind::Malformed);
    assert_eq!(page(429, "text/html", "<html>"), FailureKind::AppThrottled);
    assert_eq!(page(502, "text/html", "<html>"), FailureKind::ServerError);
    let mislabelled = HttpAnswer { content_type: Some("text/html"), ..answer(200, GOOD) };
    assert!(classify(&mislabelled).is_ok(), "a token is a token, whatever it is labelled");
}

#[test]
fn retry_after_is_seconds_or_a_date_and_is_bounded() {
    let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
    let asked = |status, retry_after, date| {
        refused(&HttpAnswer { retry_after: Some(retry_after), date, ..answer(status, "{}") }).retry_after_s
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
    assert_eq!(refused(&HttpAnswer { retry_after: Some("7"), ..answer(403, throttled) }).retry_after_s, Some(7));
    let banned = r#"{"punish":"deny","wait":5}"#;
    assert_eq!(refused(&HttpAnswer { retry_after: Some("7"), ..answer(403, banned) }).retry_after_s, Some(7));
    assert_eq!(refused(&answer(403, r#"{"punish":"deny","wait":99999999999}"#)).retry_after_s, Some(MAX_RETRY_AFTER_S));
}

#[test]
fn a_code_is_quoted_if_it_is_known_and_a_request_id_if_it_is_a_uuid() {
    let id = "5A4D7E2C-18c1-7C1B-9A55-0123456789ab";
    let body = format!(r#"{{"code":"unauthorized.client","requestid":"{id}"}}"#);
    let failure = refused(&answer(400, &body));
    assert_eq!((failure.code.as_deref(), failure.request_id.as_deref()), (Some("unauthorized.client"), Some(id)));
    let failure = refused(&answer(400, r#"{"code":"brand.new.code","requestid":"r-1"}"#));
    assert_eq!((&failure.code, &failure.request_id), (&None, &None));
    assert!(failure.detail.contains("(14 bytes, SHA-256 e2f95d88)"), "{failure}");
    let numbers = refused(&answer(400, r#"{"code":88,"requestid":null}"#));
    assert_eq!((numbers.code, numbers.request_id), (None, None));
}

/// What an endpoint could make of a secret that it repeats.
fn disguises(secret: &str) -> Vec<String> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let backwards: String = secret.chars().rev().collect();
    let digits: String =
        secret.chars().filter(char::is_ascii_hexdigit).chain("0123456789abcdef".repeat(2).chars()).collect();
    let dashed =
        |digits: &str| [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..32]].join("-");
    vec![
        base64(secret.as_bytes()),
        base64(secret.as_bytes()).trim_end_matches('=').replace('+', "-").replace('/', "_"),
        secret[1..].to_owned(),
        secret[..secret.len() - 1].to_owned(),
        secret[..secret.len() / 2].to_owned(),
        secret[secret.len() / 2..].to_owned(),
        format!("{}.{}", &secret[..5], &secret[5..]),
        secret.to_uppercase(),
        dashed(&digits),
        dashed(&hex),
        dashed(&hex).to_uppercase(),
        dashed(&hex.chars().rev().collect::<String>()),
        backwards,
        hex,
        secret.to_owned(),
    ]
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = bytes.chunks(3).flat_map(|chunk| {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | usize::from(*chunk.get(at).unwrap_or(&0)));
        (0..4).map(move |at| if at > chunk.len() { '=' } else { char::from(DIGITS[bits >> (18 - 6 * at) & 63]) })
    });
    digits.collect()
}

#[test]
fn no_disguise_of_token_or_secret_is_quoted_from_any_part_of_an_answer() {
    let secret = "9f1d3bC4-canary_0a7e5522";
    let token = "4c1d0b9a8877665544332211ffeeddcc";
    for hidden in disguises(secret).into_iter().chain(disguises(token)) {
        for field in ["code", "message", "requestid", "request ip=", "punish", "wait", "access_token", "other"] {
            for status in [200, 400, 403, 429, 500, 504] {
                let mut fields =
                    serde_json::json!({ "access_token": token, "code": "Forbidden.AccessDenied.IpNotInWhiteList" });
                match field {
                    "request ip=" => fields["message"] = format!("request ip={hidden}").into(),
                    field => fields[field] = hidden.as_str().into(),
                }
                let body = fields.to_string();
                let header = Some(hidden.as_str());
                for headers in [false, true] {
                    let (content_type, retry_after, date) = match headers {
                        true => (header, header, header),
                        false => (None, None, None),
                    };
                    let answer = HttpAnswer {
                        status,
                        content_type,
                        retry_after,
                        date,
                        body: body.as_bytes(),
                        secret,
                        ..HttpAnswer::default()
                    };
                    let failure = refused(&answer);
                    let shown = format!("{failure} {failure:?}").to_lowercase();
                    assert!(!shown.contains(&hidden.to_lowercase()), "{field} {status}: {hidden:?} in {shown}");
                    assert!(failure.request_id.is_none(), "{field} {status}: {hidden:?}");
                }
            }
        }
    }
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
        let detail = refused(&answer(403, &body)).detail;
        assert!(detail.contains(shown), "{message}: {detail}");
    }
}

#[test]
fn a_compressed_answer_is_refused_unread() {
    let encoded = |status, encoding| classify(&HttpAnswer { content_encoding: Some(encoding), ..answer(status, GOOD) });
    for encoding in ["gzip", "br", "zstd", "deflate", "identity, gzip", ""] {
        assert_eq!(encoded(200, encoding).unwrap_err().kind, FailureKind::Malformed, "{encoding}");
    }
    assert!(encoded(200, "identity").is_ok());
    assert_eq!(encoded(502, "gzip").unwrap_err().kind, FailureKind::ServerError);
}

#[test]
fn no_body_however_torn_panics_or_is_taken_for_a_token() {
    for cut in 0..GOOD.len() {
        let failure = refused(&answer(200, &GOOD[..cut]));
        assert_eq!(failure.kind, FailureKind::Malformed, "{cut}");
    }
    for at in 0..GOOD.len() {
        for bit in 0..8 {
            let mut body = GOOD.as_bytes().to_vec();
            body[at] ^= 1 << bit;
            let answer = HttpAnswer { body: &body, ..answer(200, "") };
            // A flip inside the token or the number can go unnoticed; nothing but a whole answer may.
            if let Ok((token, lifetime_s)) = classify(&answer) {
                assert!(token.expose().len() == 6 && lifetime_s > 0, "{:?}", String::from_utf8_lossy(&body));
            }
        }
    }
}
