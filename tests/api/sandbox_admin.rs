//! The sandbox from outside: `curl` makes an outage, and a thread of its own serves callers without a runtime.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use corptokend::sandbox::{Options, Sandbox, Transport};

/// Status and body, over plain HTTP/1.1.
fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn ask(address: SocketAddr, corp_id: &str) -> (u16, String) {
    let body = r#"{"client_id":"ding1","client_secret":"s3cr3t","grant_type":"client_credentials"}"#;
    http(address, "POST", &format!("/v1.0/oauth2/{corp_id}/token"), body)
}

#[test]
fn faults_are_made_listed_and_taken_away_over_http() {
    let sandbox = Sandbox::spawn_thread(Options { transport: Transport::Plain, ..Options::default() }).unwrap();
    let at = sandbox.address;
    assert_eq!(ask(at, "corp1").0, 200);

    assert_eq!(http(at, "POST", "/_sandbox/fault?kind=server_error&corp_id=corp1&times=1", "").0, 200);
    assert_eq!(http(at, "GET", "/_sandbox/fault", "").1, "server_error client_id=* corp_id=corp1 times=1\n");
    assert_eq!(ask(at, "corp2").0, 200);
    assert_eq!(ask(at, "corp1").0, 500);
    assert_eq!(ask(at, "corp1").0, 200);

    http(at, "POST", "/_sandbox/fault?kind=raw&status=418&content_type=text/plain", "teapot");
    assert_eq!(ask(at, "corp1"), (418, "teapot".to_owned()));
    assert_eq!(http(at, "DELETE", "/_sandbox/fault", ""), (200, "no faults\n".to_owned()));
    assert_eq!(ask(at, "corp1").0, 200);
}

#[test]
fn what_cannot_be_done_is_said_with_what_can() {
    let sandbox = Sandbox::spawn_thread(Options { transport: Transport::Plain, ..Options::default() }).unwrap();
    let (status, said) = http(sandbox.address, "POST", "/_sandbox/fault?kind=earthquake", "");
    assert_eq!(status, 400);
    assert!(said.contains("there is no fault \"earthquake\"") && said.contains("close_mid_body"), "{said}");
    assert_eq!(http(sandbox.address, "POST", "/_sandbox/fault?kind=hang&times=many", "").0, 400);
    assert_eq!(http(sandbox.address, "GET", "/_sandbox/nowhere", "").0, 404);
    assert_eq!(http(sandbox.address, "GET", "/v1.0/oauth2/corp1/token", "").0, 405);
    assert_eq!(http(sandbox.address, "POST", "/gettoken", "").0, 404);
    assert_eq!(ask(sandbox.address, "corp1").0, 200);
}

#[test]
fn the_record_of_calls_holds_neither_secrets_nor_tokens() {
    let sandbox = Sandbox::spawn_thread(Options { transport: Transport::Plain, ..Options::default() }).unwrap();
    ask(sandbox.address, "corp1");
    let (_, record) = http(sandbox.address, "GET", "/_sandbox/calls", "");
    let json: serde_json::Value = serde_json::from_str(&record).unwrap();
    assert_eq!(json["calls"][0]["corp_id"], "corp1");
    assert_eq!(json["calls"][0]["outcome"], "granted");
    assert_eq!(json["totals"]["busiest_second"]["ding1"], 1);
    let token = &sandbox.issued("corp1")[0].token;
    assert!(!record.contains("s3cr3t") && !record.contains(token), "{record}");
}

#[test]
fn a_sandbox_is_gone_when_it_is_dropped() {
    let sandbox = Sandbox::spawn_thread(Options::default()).unwrap();
    let address = sandbox.address;
    assert!(TcpStream::connect(address).is_ok());
    drop(sandbox);
    assert!(TcpStream::connect(address).is_err());
}
