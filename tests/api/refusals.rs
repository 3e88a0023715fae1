//! Whatever the endpoint answers, it ends in a token or in a typed refusal, and no text shows a secret.

use std::time::Duration;

use corptokend::api::Answer;
use corptokend::domain::FailureKind::*;
use corptokend::sandbox::{Fault, Options, Protocols, RawAnswer, Scope, Times};

use crate::fixture::{Fixture, SECRET};
use crate::taxonomy::{Case, broken, malformed, taxonomy};

async fn each_ends_as_it_should(cases: Vec<Case>, protocols: Protocols) {
    let options = Options { protocols, ..Options::default() };
    let fixture = Fixture::with(options, |connection| connection.timeout = Duration::from_millis(700)).await;
    let mut wrong = Vec::new();
    for (name, fault, kind, told) in cases {
        fixture.sandbox.inject(Scope::corp("corp1"), fault, Times::Next(1));
        let answer = fixture.ask("corp1").await;
        let shown = shown(&answer);
        let ended = answer.outcome.as_ref().err().map(|failure| failure.kind);
        let shows_a_secret =
            shown.contains("canary") || fixture.sandbox.issued("corp1").iter().any(|i| shown.contains(&i.token));
        if ended != Some(kind) || !shown.contains(told) || shows_a_secret {
            wrong.push(format!("{name}: {shown}\n   not {kind} with {told:?}"));
        }
        assert!(fixture.ask("corp2").await.outcome.is_ok(), "after {name}, the next call fails");
    }
    assert!(wrong.is_empty(), "{protocols:?}\n{}", wrong.join("\n"));
}

/// Everything that a log could show of an answer.
fn shown(answer: &Answer) -> String {
    let display = answer.outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
    format!("{answer:?} {display}")
}

#[tokio::test]
async fn every_error_of_the_taxonomy_ends_in_its_typed_refusal() {
    each_ends_as_it_should(taxonomy(), Protocols::Both).await;
}

#[tokio::test]
async fn every_malformed_answer_is_refused_over_http_2() {
    each_ends_as_it_should(malformed(SECRET), Protocols::Http2).await;
}

#[tokio::test]
async fn every_malformed_answer_is_refused_over_http_1() {
    each_ends_as_it_should(malformed(SECRET), Protocols::Http1).await;
}

#[tokio::test]
async fn an_answer_that_never_comes_whole_is_refused_over_http_2() {
    each_ends_as_it_should(broken(), Protocols::Http2).await;
}

#[tokio::test]
async fn an_answer_that_never_comes_whole_is_refused_over_http_1() {
    each_ends_as_it_should(broken(), Protocols::Http1).await;
}

#[tokio::test]
async fn what_is_odd_but_right_is_accepted() {
    let fixture = Fixture::new(Options::default()).await;
    for (name, body) in [
        ("unknown keys", r#"{"access_token":"t","expires_in":7200,"extra":{"deep":[[[1]]]}}"#),
        ("escapes", r#"{"access_token":"a\/b","expires_in":7200}"#),
        ("blanks", " {\n\"expires_in\" : 1 ,\t\"access_token\" : \"t\" }\r\n"),
        ("an unknown code beside a token", r#"{"code":"0","access_token":"t","expires_in":31622400}"#),
    ] {
        fixture.sandbox.inject(Scope::everyone(), Fault::Raw(RawAnswer::json(200, body)), Times::Next(1));
        let answer = fixture.ask("corp1").await;
        assert!(answer.outcome.is_ok(), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn what_the_endpoint_says_of_itself_is_kept() {
    let fixture = Fixture::new(Options { date_skew_s: 3600, ..Options::default() }).await;
    fixture.sandbox.inject(Scope::everyone(), Fault::TooManyRequests, Times::Next(1));
    assert_eq!(fixture.ask("corp1").await.outcome.unwrap_err().retry_after_s, Some(7));
    fixture.sandbox.inject(Scope::everyone(), Fault::Punish, Times::Next(1));
    assert_eq!(fixture.ask("corp1").await.outcome.unwrap_err().retry_after_s, Some(5));

    fixture.sandbox.inject(Scope::everyone(), Fault::InvalidClient, Times::Next(1));
    let answer = fixture.ask("corp1").await;
    let failure = answer.outcome.unwrap_err();
    assert_eq!(failure.code.as_deref(), Some("invalid.client"));
    assert_eq!(failure.request_id.as_deref(), Some("5A4D7E2C-0000-7C1B-9A55-5A4DB0C00001"));
    #[expect(clippy::disallowed_methods, reason = "the test compares with the machine's clock")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let skew = answer.server_date.unwrap().seconds().abs_diff(now + 3600);
    assert!(skew <= 3, "{skew} s off");
}

#[tokio::test]
async fn the_secret_is_what_the_endpoint_judges() {
    let apps = [("ding1".to_owned(), "another".to_owned())].into();
    let known = Some(["corp1".to_owned()].into());
    let fixture = Fixture::new(Options { apps, known_corps: known, ..Options::default() }).await;
    assert_eq!(fixture.ask("corp1").await.outcome.unwrap_err().kind, WrongCredentials);
    fixture.sandbox.set_secret("ding1", SECRET);
    assert!(fixture.ask("corp1").await.outcome.is_ok());
    assert_eq!(fixture.ask("corp9").await.outcome.unwrap_err().kind, SuspectCorp);
}

#[tokio::test]
async fn over_its_limit_an_app_is_throttled() {
    let fixture = Fixture::new(Options { per_app_limit: Some(5), ..Options::default() }).await;
    let refused = fixture.ask_many(8, 8).await;
    assert_eq!(refused.len(), 3, "{refused:?}");
    assert!(refused.iter().all(|answer| answer.outcome.as_ref().unwrap_err().kind == AppThrottled));
    assert_eq!(fixture.sandbox.totals().busiest_second["ding1"], 8);
}
