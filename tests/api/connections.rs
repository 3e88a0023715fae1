//! How the endpoint is reached: HTTP/2 and HTTP/1.1, connections, proxies, local addresses.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use corptokend::api::TokenClient;
use corptokend::domain::{Endpoint, FailureKind, Proxy};
use corptokend::sandbox::{self, Fault, Options, Protocol, Protocols, Scope, Times, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use crate::fixture::{self, Fixture, SECRET};
use crate::proxies::{ConnectProxy, Relay};

fn speaking(protocols: Protocols) -> Options {
    Options { protocols, ..Options::default() }
}

#[tokio::test]
async fn over_http_2_a_thousand_calls_share_two_connections() {
    let fixture = Fixture::new(speaking(Protocols::Both)).await;
    let refused = fixture.ask_many(2000, 64).await;
    assert!(refused.is_empty(), "{refused:?}");
    assert!(fixture.sandbox.calls().iter().all(|call| call.protocol == Protocol::Http2));
    assert_eq!(fixture.sandbox.totals().calls, 2000);
    assert!(fixture.sandbox.totals().connections <= 2, "{:?}", fixture.sandbox.totals());
}

#[tokio::test]
async fn the_first_call_alone_finds_out_what_the_server_speaks() {
    let fixture = Fixture::new(Options { latency: Duration::from_millis(200), ..speaking(Protocols::Both) }).await;
    assert!(fixture.ask_many(64, 64).await.is_empty());
    assert_eq!(fixture.sandbox.totals().connections, 2, "one to find out, one for the other 63");
}

#[tokio::test]
async fn a_first_call_that_hangs_does_not_hold_up_the_others() {
    let fixture = Fixture::new(speaking(Protocols::Both)).await;
    fixture.sandbox.inject(Scope::corp("stuck"), Fault::Hang, Times::UntilCleared);
    let stuck = tokio::spawn({
        let client = fixture.client.clone();
        async move { fixture::ask(&client, "stuck").await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let others = tokio::time::timeout(Duration::from_secs(3), fixture.ask_many(8, 8)).await;
    assert!(others.expect("they waited for the one that hangs").is_empty());
    assert!(!stuck.is_finished());
}

#[tokio::test]
async fn over_http_1_connections_are_kept_and_used_again() {
    let fixture = Fixture::new(speaking(Protocols::Http1)).await;
    assert!(fixture.ask_many(500, 8).await.is_empty());
    assert!(fixture.sandbox.calls().iter().all(|call| call.protocol == Protocol::Http1));
    assert!(fixture.sandbox.totals().connections <= 16, "{:?}", fixture.sandbox.totals());
}

#[tokio::test]
async fn plain_http_to_loopback_works() {
    let fixture = Fixture::new(Options { transport: Transport::Plain, ..speaking(Protocols::Both) }).await;
    assert!(fixture.ask_many(10, 2).await.is_empty());
    assert!(fixture.sandbox.calls().iter().all(|call| call.protocol == Protocol::Http1));
}

#[tokio::test]
async fn a_server_that_closes_its_connections_loses_no_call() {
    for protocols in [Protocols::Http2, Protocols::Http1] {
        let fixture = Fixture::new(Options { requests_per_connection: Some(50), ..speaking(protocols) }).await;
        let refused = fixture.ask_many(2000, 64).await;
        assert!(refused.is_empty(), "{protocols:?}: {} lost, first {:?}", refused.len(), refused[0]);
        assert_eq!(fixture.sandbox.totals().outcomes["granted"], 2000, "{protocols:?}");
        // Calls that are under way when a connection is closed still end there, so it carries up to 50 + 64.
        assert!(fixture.sandbox.totals().connections >= 2000 / (50 + 64), "{:?}", fixture.sandbox.totals());
    }
}

#[tokio::test]
async fn a_server_that_changes_its_protocol_is_followed() {
    let authority = Arc::new(sandbox::Authority::new().unwrap());
    let fixture = Fixture::new(Options { authority: Some(authority.clone()), ..speaking(Protocols::Http2) }).await;
    assert!(fixture.ask_many(4, 1).await.is_empty());
    let Fixture { sandbox, client, connection: _, ca_file: _trusted } = fixture;
    let address = sandbox.address;
    sandbox.stop().await;
    let again = async |protocols| {
        let options = Options { address, authority: Some(authority.clone()), ..speaking(protocols) };
        sandbox::start(options).await.unwrap()
    };

    let http1 = again(Protocols::Http1).await;
    assert!(
        fixture::ask(&client, "corp1").await.outcome.is_ok(),
        "HTTP/2 was turned away, so the call goes by HTTP/1.1"
    );
    assert_eq!(http1.calls()[0].protocol, Protocol::Http1);
    http1.stop().await;

    let http2 = again(Protocols::Http2).await;
    for _ in 0..3 {
        fixture::ask(&client, "corp1").await.outcome.unwrap();
    }
    assert!(http2.calls().iter().all(|call| call.protocol == Protocol::Http2));
    http2.stop().await;

    let _http1 = again(Protocols::Http1WithoutAlpn).await;
    let failure = fixture::ask(&client, "corp1").await.outcome.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable, "such a server hangs up on HTTP/2: {failure}");
    fixture::ask(&client, "corp1").await.outcome.expect("what the server speaks is found out anew");
}

#[tokio::test]
async fn a_connection_that_went_silent_is_given_up_within_one_calls_time() {
    let fixture =
        Fixture::with(speaking(Protocols::Http2), |connection| connection.timeout = Duration::from_secs(3)).await;
    let relay = Relay::to(fixture.sandbox.address).await;
    let mut connection = fixture.connection.clone();
    connection.endpoint = Endpoint::new(&format!("https://localhost:{}", relay.address.port())).unwrap();
    let client = TokenClient::new(connection).unwrap();
    for _ in 0..2 {
        fixture::ask(&client, "corp1").await.outcome.unwrap();
    }
    relay.freeze();
    let lost = fixture::ask(&client, "corp1").await.outcome.unwrap_err();
    assert!(matches!(lost.kind, FailureKind::Timeout | FailureKind::Unreachable), "{lost}");
    relay.thaw_for_new_connections();
    fixture::ask(&client, "corp1").await.outcome.expect("a new connection is made in place of the silent one");
}

#[tokio::test]
async fn a_configured_proxy_is_asked_to_connect_even_to_loopback() {
    let fixture = Fixture::new(speaking(Protocols::Both)).await;
    let proxy = ConnectProxy::to(fixture.sandbox.address, "407 Proxy Authentication Required").await;
    let client = |url: String| {
        let mut connection = fixture.connection.clone();
        connection.proxy = Some(Proxy::new(Zeroizing::new(url)).unwrap());
        TokenClient::new(connection).unwrap()
    };
    let port = proxy.address.port();

    let through = client(format!("http://user:{SECRET}@127.0.0.1:{port}"));
    for _ in 0..3 {
        fixture::ask(&through, "corp1").await.outcome.unwrap();
    }
    let seen = proxy.seen.lock().unwrap().clone();
    let target = format!("CONNECT {} HTTP/1.1", fixture.sandbox.address);
    assert!(seen.len() <= 2 && seen.iter().all(|line| *line == target), "{seen:?}");
    assert!(fixture.sandbox.calls().iter().all(|call| call.protocol == Protocol::Http2));

    let failure = fixture::ask(&client(format!("http://127.0.0.1:{port}")), "corp1").await.outcome.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(failure.detail.contains("the proxy wants a user and a password"), "{failure}");
    let failure =
        fixture::ask(&client(format!("http://user:{SECRET}@127.0.0.1:1")), "corp1").await.outcome.unwrap_err();
    assert!(failure.detail.contains("through http://127.0.0.1:1: connection refused"), "{failure}");
    assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
}

#[tokio::test]
async fn a_local_address_is_what_the_server_sees() {
    let address: IpAddr = "127.0.0.2".parse().unwrap();
    let fixture = Fixture::with(speaking(Protocols::Both), |connection| connection.local_address = Some(address)).await;
    fixture.ask("corp1").await.outcome.unwrap();
    assert_eq!(fixture.sandbox.calls()[0].peer.ip(), address);
}

#[tokio::test]
async fn a_local_address_of_another_machine_is_named_in_the_refusal() {
    let address = "192.0.2.10".parse().unwrap();
    let fixture = Fixture::with(speaking(Protocols::Both), |connection| connection.local_address = Some(address)).await;
    let failure = fixture.ask("corp1").await.outcome.unwrap_err();
    assert!(failure.detail.contains("local_address 192.0.2.10 is not an address of this machine"), "{failure}");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_said_to() {
    let client = TokenClient::new(fixture::connection("https://no-such-host.invalid")).unwrap();
    let failure = fixture::ask(&client, "corp1").await.outcome.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(failure.detail.contains("the name cannot be resolved"), "{failure}");
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_malformed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
        }
    });
    let client = TokenClient::new(fixture::connection(&format!("http://{address}"))).unwrap();
    let failure = fixture::ask(&client, "corp1").await.outcome.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Malformed, "{failure}");
}

/// The environment's proxy is used for an endpoint elsewhere, and never for one on this machine. The environment cannot be
/// changed safely in here, so this test runs itself again.
#[tokio::test]
async fn the_environments_proxy_is_used_for_endpoints_elsewhere() {
    let fixture = Fixture::new(speaking(Protocols::Both)).await;
    if std::env::var_os("HTTPS_PROXY").is_some() {
        fixture.ask("corp1").await.outcome.expect("no proxy for loopback");
        let mut connection = fixture.connection.clone();
        connection.endpoint = Endpoint::new("https://api.example.invalid").unwrap();
        let failure = fixture::ask(&TokenClient::new(connection).unwrap(), "corp1").await.outcome.unwrap_err();
        assert!(failure.detail.contains("is not trusted"), "the proxy leads to another sandbox: {failure}");
        return;
    }
    let proxy = ConnectProxy::to(fixture.sandbox.address, "200 OK").await;
    let url = format!("http://127.0.0.1:{}", proxy.address.port());
    let mut itself = std::process::Command::new(std::env::current_exe().unwrap());
    itself.args(["--exact", "connections::the_environments_proxy_is_used_for_endpoints_elsewhere"]);
    itself.env("HTTPS_PROXY", &url).env("HTTP_PROXY", &url).env_remove("NO_PROXY").env_remove("no_proxy");
    let status = tokio::task::spawn_blocking(move || itself.status()).await.unwrap().unwrap();
    assert!(status.success());
    let seen = proxy.seen.lock().unwrap().clone();
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|line| line == "CONNECT api.example.invalid:443 HTTP/1.1"), "{seen:?}");
}
