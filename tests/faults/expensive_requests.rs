//! Many clients that ask for very much.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use corptokend::sandbox::Options;

use crate::support::{Machine, corp_ids};

const CLIENTS: usize = 8;
const TENANTS: usize = 8_000;

/// Reads a listing of all tenants to its end.
fn list(socket: &Path) -> std::io::Result<usize> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"GET /v1/tenants HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)
}

#[test]
fn clients_that_list_all_tenants_again_and_again_cost_the_others_nothing() {
    let machine = Machine::with(Options { lifetime_s: 6, ..Options::default() });
    let mut machine = machine.app("crm", &["ding1"], "").app("hr", &corp_ids(TENANTS), "enabled = false");
    machine.start();
    let socket = machine.path("run/control.sock");
    let (done, listed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let before = machine.status_json()["longest_turn_ms"].as_u64().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let length = list(&socket).unwrap();
                    assert!(length > TENANTS * 100, "{length} bytes are not all of it");
                    listed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let issued = machine.sandbox.issued("ding1").len();
        let renewed = || machine.sandbox.issued("ding1").len() >= issued + 2;
        // The clients must end whatever happens, so the outcome is asserted later.
        let deadline = std::time::Instant::now() + crate::support::PATIENCE;
        while !(renewed() && listed.load(Ordering::Relaxed) >= CLIENTS) && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let answered = machine.run(&["status", "crm/ding1"]).status.code();
        done.store(true, Ordering::Relaxed);
        assert!(renewed(), "the token was not renewed");
        assert_eq!(answered, Some(0), "the one tenant is fresh and status answers");
    });
    let listed = listed.into_inner();
    assert!(listed >= CLIENTS, "{listed} listings");
    // A turn answers few questions, of a thousand rows each, however many wait. That is milliseconds on a quiet machine.
    let longest = machine.status_json()["longest_turn_ms"].as_u64().unwrap();
    assert!(longest <= before.max(1_000), "{longest} ms, and {before} ms before; {listed} listings");
    eprintln!("{listed} listings of {TENANTS} tenants; longest turn {longest} ms, {before} ms before");
    assert!(machine.stop().success());
}
