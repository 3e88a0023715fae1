//! TLS: whom the client trusts, and what it says when it does not.

use std::time::Duration;

use corptokend::api::TokenClient;
use corptokend::domain::FailureKind;
use corptokend::sandbox::{self, Options, Transport};

use crate::fixture::{self, Fixture};

async fn refusal(options: Options, ca_file: Option<&str>) -> String {
    let fixture = Fixture::with(options, |connection| {
        if let Some(path) = ca_file {
            connection.ca_file = Some(path.into());
        }
    })
    .await;
    let failure = fixture.ask("corp1").await.outcome.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable, "{failure}");
    assert_eq!(fixture.sandbox.totals().calls, 0);
    failure.to_string()
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_said_to_be_expired() {
    let said = refusal(Options { transport: Transport::TlsExpired, ..Options::default() }, None).await;
    assert!(said.contains("the server's certificate has expired"), "{said}");
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused() {
    let said = refusal(Options { transport: Transport::TlsWrongHost, ..Options::default() }, None).await;
    assert!(said.contains("the server's certificate is for another host"), "{said}");
}

#[tokio::test]
async fn an_unknown_authority_is_refused_with_a_hint_at_ca_file() {
    let other = fixture::ca_file(&sandbox::Authority::new().unwrap().pem());
    let path = other.path().to_str().unwrap();
    let said = refusal(Options::default(), Some(path)).await;
    assert!(said.contains("is not trusted"), "{said}");
    assert!(said.contains(&format!("ca_file {path} does not hold its issuer")), "{said}");
}

#[tokio::test]
async fn the_systems_roots_do_not_trust_a_throw_away_authority() {
    if !std::path::Path::new("/etc/ssl/certs/ca-certificates.crt").exists() {
        assert!(std::env::var_os("CORPTOKEND_REQUIRE_SYSTEM").is_none(), "the package ca-certificates is missing");
        eprintln!("SKIPPED: this machine has no CA certificates (package ca-certificates)");
        return;
    }
    let sandbox = sandbox::start(Options::default()).await.unwrap();
    let client = TokenClient::new(fixture::connection(&sandbox.endpoint())).unwrap();
    let said = fixture::ask(&client, "corp1").await.outcome.unwrap_err().to_string();
    assert!(said.contains("the system does not trust its issuer") && said.contains("`ca_file`"), "{said}");
}

#[tokio::test]
async fn a_server_without_tls_is_refused() {
    let sandbox = sandbox::start(Options { transport: Transport::Plain, ..Options::default() }).await.unwrap();
    let ca_file = fixture::ca_file(&sandbox.ca_pem());
    let mut connection = fixture::connection(&sandbox.endpoint().replace("http://", "https://"));
    connection.ca_file = Some(ca_file.path().to_owned());
    let failure = fixture::ask(&TokenClient::new(connection).unwrap(), "corp1").await.outcome.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(failure.detail.contains("does not speak TLS"), "{failure}");
}

#[test]
fn a_ca_file_that_cannot_be_used_is_an_error_with_its_path_and_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let pem = sandbox::Authority::new().unwrap().pem();
    let middle = pem.len() / 2;
    for (name, bytes, told) in [
        ("empty", &b""[..], "holds no certificate; it needs at least one block"),
        ("text", b"hello", "holds no certificate"),
        ("der", b"\x30\x82\x01\x00", "is in DER, not PEM; convert it: openssl x509"),
        ("torn", &pem.as_bytes()[..middle], "a PEM block that is broken"),
        ("other", b"-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n", "not a certificate"),
        ("key", b"-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----\n", "holds no certificate"),
    ] {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let said = error(Some(path.clone()));
        assert!(said.contains(told) && said.contains(path.to_str().unwrap()), "{name}: {said}");
    }
    let missing = directory.path().join("missing");
    assert!(error(Some(missing)).contains("cannot be read: No such file"));
}

fn error(ca_file: Option<std::path::PathBuf>) -> String {
    let mut connection = fixture::connection("https://localhost:1");
    connection.ca_file = ca_file;
    connection.timeout = Duration::from_secs(1);
    TokenClient::new(connection).unwrap_err().to_string()
}
