//! What goes over the socket, as curl sees it.

use std::io::{Read, Write};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use corptokend::domain::TenantState;

use crate::fake_daemon::Fake;

#[test]
fn curl_gets_json_from_every_path() {
    let daemon = Fake::with(&[TenantState::Fresh, TenantState::Due]).start();
    let body = |answer: String| -> serde_json::Value {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("content-type: application/json"), "{answer}");
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    assert_eq!(body(daemon.http("GET /v1/status", ""))["tenants"]["due"], 1);
    assert_eq!(body(daemon.http("GET /v1/tenants/crm/ding00001", ""))["state"], "due");
}

#[test]
fn what_cannot_be_answered_says_why_as_json() {
    let daemon = Fake::with(&[TenantState::Fresh]).start();
    let oversized = "x".repeat(5000);
    for (request, body, status, word) in [
        ("GET /", "", 404, "/v1/status"),
        ("GET /v1/tenants/crm/ding9", "", 404, "there is no tenant crm/ding9"),
        ("GET /v1/tenants/crm/..%2f", "", 400, "corp_id"),
        ("GET /v1/tenants?state=sleepy", "", 400, "sleepy"),
        ("DELETE /v1/status", "", 405, "GET"),
        ("GET /v1/reload", "", 405, "POST"),
        ("POST /v1/reload", "{", 400, "body"),
        ("POST /v1/reload", r#"{"allow_mass_removals":true}"#, 400, "allow_mass_removals"),
        ("POST /v1/reload", &oversized, 413, "4096"),
        // The fake drops this question, as a daemon does that is stopping.
        ("POST /v1/reload", "", 503, "stopping"),
    ] {
        let answer = daemon.http(request, body);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert!(body["error"].as_str().unwrap().contains(word), "{request}: {answer}");
    }
    assert!(daemon.http("POST /v1/status", "").to_ascii_lowercase().contains("allow: get"));
}

#[test]
fn a_reader_that_stops_costs_a_few_pages_and_holds_nobody_up() {
    let daemon = Fake::with(&vec![TenantState::Fresh; 50_000]).start();
    let mut stuck = daemon.connect();
    stuck.write_all(b"GET /v1/tenants HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let asked = daemon.pages.load(SeqCst);
    assert!((1..10).contains(&asked), "{asked} of 50 pages were asked for");
    assert!(daemon.http("GET /v1/status", "").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_daemon_that_stops_does_not_wait_for_idle_clients() {
    let mut daemon = Fake::with(&[]).start();
    let mut idle = daemon.connect();
    idle.write_all(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert_ne!(idle.read(&mut [0; 64]).unwrap(), 0);
    let _silent = daemon.connect();
    drop(daemon.stop.take());
    let thread = daemon.thread.take().unwrap();
    let ended = (0..300).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        thread.is_finished()
    });
    daemon.thread = Some(thread);
    assert!(ended, "it has not ended after 3 s");
}
