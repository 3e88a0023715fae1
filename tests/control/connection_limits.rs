//! Many connections, slow ones and malformed ones: each costs its own user alone.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};

use corptokend::control::CONNECTIONS_A_USER;
use corptokend::domain::TenantState;

use crate::access::{as_user, status_as};
use crate::fake_daemon::{Daemon, Fake};

/// A user's process that holds more connections than are served, until it is let go.
fn crowd(daemon: &Daemon, uid: u32) -> Option<Child> {
    let group = std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(&daemon.socket).unwrap());
    let mut child = as_user(uid, group, &[], "hold", &daemon.socket)?;
    // It says so once it has them.
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 8]).unwrap();
    Some(child)
}

fn let_go(mut child: Child) {
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn users_who_hold_all_the_connections_they_get_lock_neither_root_nor_others_out() {
    let daemon = Fake::with(&[TenantState::Fresh]).start();
    let group = std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(&daemon.socket).unwrap());
    let Some(first) = crowd(&daemon, 65_534) else { return };
    assert_eq!(status_as(65_533, group, &[], &daemon.socket), Some(0), "another user is served");
    assert_eq!(
        status_as(65_534, group, &[], &daemon.socket),
        Some(75),
        "the same user is told that the daemon is busy"
    );
    let others: Vec<Child> = (65_000..65_010).filter_map(|uid| crowd(&daemon, uid)).collect();
    assert_eq!(others.len(), 10);
    let (code, _, err) = daemon.status(Default::default());
    assert_eq!((code, err.as_str()), (0, ""), "root is served");
    assert_eq!(status_as(65_533, group, &[], &daemon.socket), Some(0), "nor does anybody lose his first connection");
    others.into_iter().for_each(let_go);
    let_go(first);
    let served = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        status_as(65_534, group, &[], &daemon.socket) == Some(0)
    });
    assert!(served, "room is used again");
}

#[test]
fn one_connection_too_many_of_a_user_is_told_so() {
    let daemon = Fake::with(&[]).start();
    let held: Vec<UnixStream> = (0..CONNECTIONS_A_USER).map(|_| daemon.connect()).collect();
    let crowded = daemon.http("GET /v1/status", "");
    assert!(crowded.starts_with("HTTP/1.1 429") && crowded.contains("16 connections already"), "{crowded}");
    let (code, _, err) = daemon.status(Default::default());
    assert_eq!(code, 75, "{err}");
    assert!(err.contains("is busy") && !err.contains("no daemon"), "{err}");
    // More than are told so are closed without a word, and a command says so too.
    let silent: Vec<UnixStream> = (0..8).map(|_| daemon.connect()).collect();
    let (code, _, err) = daemon.status(Default::default());
    assert_eq!(code, 75, "{err}");
    drop((held, silent));
    let served = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        daemon.http("GET /v1/status", "").starts_with("HTTP/1.1 200")
    });
    assert!(served);
}

#[test]
fn a_request_that_does_not_come_to_an_end_is_left_in_time() {
    let daemon = Fake::with(&[TenantState::Fresh]).start();
    let began = Instant::now();
    let halves = [
        "GET /v1/status HTTP/1.1\r\nhost:",
        "POST /v1/reload HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
        "GET /v1/status HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
        "",
    ];
    let mut streams = halves.map(|half| {
        let mut stream = daemon.connect();
        stream.write_all(half.as_bytes()).unwrap();
        stream
    });
    for (stream, half) in streams.iter_mut().zip(halves) {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap_or_else(|e| panic!("{half:?}: {e}"));
        let answered = answer.is_empty() || answer.starts_with("HTTP/1.1 408") || answer.starts_with("HTTP/1.1 200");
        assert!(answered, "{half:?}: {answer}");
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn a_head_that_is_too_long_is_refused() {
    let daemon = Fake::with(&[TenantState::Fresh]).start();
    for long in [format!("x: {}", "y".repeat(64 << 10)), "x: y\r\n".repeat(5_000)] {
        let mut stream = daemon.connect();
        // The daemon may close before it is all there.
        let _ = write!(stream, "GET /v1/status HTTP/1.1\r\nhost: x\r\n{long}\r\n\r\n");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    }
    assert!(daemon.http("GET /v1/status", "").starts_with("HTTP/1.1 200"));
}
