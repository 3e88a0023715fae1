//! `status`, and a list of tenants that breaks off.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use corptokend::cli::{Colour, Exit, reload, status};
use corptokend::control::protocol::{HeldBack, LastError};
use corptokend::control::{ControlClient, ControlError};
use corptokend::domain::TenantState;

use crate::fake_daemon::{Fake, json, naming};

#[test]
fn status_shows_the_worst_first_and_exits_accordingly() {
    let mut fake = Fake::with(&[TenantState::Fresh, TenantState::Failing, TenantState::Expired]);
    fake.rows[1].last_error = Some(LastError {
        kind: "unreachable".into(),
        code: None,
        requestid: Some("r-1".into()),
        detail: "connection refused".into(),
        at: None,
    });
    let (code, out, err) = fake.start().status(status::StatusArgs::default());
    assert_eq!((code, err.as_str()), (2, ""));
    assert!(out.starts_with("3 tenants: 1 expired, 1 failing, 1 fresh"), "{out}");
    let at = |word: &str| out.find(word).unwrap_or_else(|| panic!("no {word} in {out}"));
    assert!(at("crm/ding00002") < at("crm/ding00001") && at("crm/ding00001") < at("crm/ding00000"), "{out}");
    assert!(
        out.contains("1m ago") && out.contains("in 1h") && out.contains("unreachable: connection refused"),
        "{out}"
    );
    assert!(!out.contains('\x1b'));
}

#[test]
fn status_says_what_an_operator_must_know() {
    let mut fake = Fake::with(&[TenantState::Fresh]);
    fake.status.config.last_reload_successful = false;
    fake.status.config.problems = vec!["config.toml:3:1: error: what is this".into()];
    fake.status.config.held_back = Some(HeldBack { removed: 7 });
    fake.status.state.healthy = false;
    fake.status.state.reason = Some("No space left".into());
    fake.status.api_paused_until = Some("2026-01-31T12:00:00Z".into());
    fake.status.warnings = vec!["the clock is off".into()];
    let (code, out, _) = fake.start().status(status::StatusArgs::default());
    assert_eq!(code, 1);
    for text in ["config.toml:3:1", "7 tenants is held back", "No space left", "until 2026-01-31", "the clock is off"] {
        assert!(out.contains(text), "no {text} in {out}");
    }
}

#[test]
fn status_of_very_many_shows_the_worst_fifty_and_says_so() {
    let mut states = vec![TenantState::Fresh; 3_000];
    states[100..160].fill(TenantState::Due);
    states[2_500] = TenantState::Refused;
    let daemon = Fake::with(&states).start();
    let (code, out, _) = daemon.status(status::StatusArgs::default());
    assert_eq!(code, 1);
    assert_eq!(out.matches("crm/ding").count(), 50);
    assert!(out.find("crm/ding02500") < out.find("crm/ding00100"), "{out}");
    assert!(out.contains("the worst 50 are shown; 2950 more"), "{out}");
    let (_, out, _) = daemon.status(status::StatusArgs { all: true, ..Default::default() });
    assert_eq!(out.matches("crm/ding").count(), 3_000);
}

#[test]
fn status_of_very_many_fresh_tenants_asks_for_none_of_them() {
    let daemon = Fake::with(&vec![TenantState::Fresh; 3_000]).start();
    let (code, out, _) = daemon.status(status::StatusArgs::default());
    assert_eq!(code, 0);
    assert!(out.starts_with("3000 tenants: 3000 fresh"), "{out}");
    assert_eq!(daemon.pages.load(SeqCst), 0);
}

#[test]
fn status_of_one_tenant_shows_where_it_is_published() {
    let daemon = Fake::with(&[TenantState::Fresh, TenantState::Expired]).start();
    let (code, out, err) = daemon.status(naming(&["crm/ding00000"]));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("/run/t/0 published") && !out.contains("ding00001"), "{out}");
    let (code, _, err) = daemon.status(naming(&["crm/ding00000", "crm/nobody"]));
    assert_eq!(code, 1);
    assert!(err.contains("there is no tenant crm/nobody"), "{err}");
}

#[test]
fn json_holds_every_tenant_in_one_object() {
    let mut states = vec![TenantState::Fresh; 2_500];
    states[7] = TenantState::Due;
    let daemon = Fake::with(&states).start();
    let (code, out, _) = daemon.status(json());
    assert_eq!(code, 1);
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["tenants"].as_array().unwrap().len(), 2_500);
    assert_eq!(value["status"]["tenants"]["fresh"], 2_499);
    assert_eq!(value["tenants"][7]["state"], "due");
    assert_eq!(daemon.pages.load(SeqCst), 3);
    let (_, one, _) = daemon.status(status::StatusArgs { json: true, ..naming(&["crm/ding00007"]) });
    let one: serde_json::Value = serde_json::from_str(&one).unwrap();
    assert_eq!(one["tenants"], serde_json::json!([value["tenants"][7]]));
}

/// A terminal that is closed after some screens.
struct Closing {
    screens: usize,
    shown: Vec<u8>,
}

impl Write for Closing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.screens == 0 {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        self.shown.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.screens -= 1;
        Ok(())
    }
}

#[test]
fn watching_goes_on_through_a_restart_and_ends_with_the_terminal() {
    let daemon = Fake::with(&[TenantState::Due]).start();
    let mut out = Closing { screens: 2, shown: Vec::new() };
    let args = status::StatusArgs { watch: true, ..Default::default() };
    let socket = daemon.socket.clone();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        drop(daemon);
    });
    let code = status::run(&args, &socket, &mut out, &mut Vec::new(), Colour::Off);
    stopper.join().unwrap();
    let shown = String::from_utf8(out.shown).unwrap();
    assert!(shown.contains("1 tenant: 1 due") && shown.contains("error: no daemon listens"), "{shown}");
    assert_eq!(code, Exit::NoDaemon);
}

#[test]
fn an_empty_daemon_is_fine() {
    let daemon = Fake::with(&[]).start();
    let (code, out, _) = daemon.status(status::StatusArgs::default());
    assert_eq!(code, 0);
    assert!(out.starts_with("0 tenants - corptokend"), "{out}");
    let (_, out, _) = daemon.status(json());
    assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap()["tenants"], serde_json::json!([]));
}

#[test]
fn without_a_daemon_status_exits_3_and_reload_1() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent");
    let stale = dir.path().join("stale");
    drop(UnixListener::bind(&stale).unwrap());
    for path in [absent, stale] {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = status::run(&status::StatusArgs::default(), &path, &mut out, &mut err, Colour::Off);
        assert_eq!(code, Exit::NoDaemon);
        assert!(String::from_utf8_lossy(&err).starts_with("error: no daemon listens on"));
        let args = reload::ReloadArgs { allow_mass_removal: false };
        assert_eq!(reload::run(&args, &path, &mut out, &mut err), Exit::Failed);
        assert_eq!(out, b"");
    }
}

#[test]
fn a_list_that_breaks_off_is_not_taken_for_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let body = "{\"tenants\":[\n";
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    });
    let listed = ControlClient::connect(&path).unwrap().tenants(&[], |_| std::ops::ControlFlow::Continue(()));
    assert!(matches!(listed, Err(ControlError::Other { .. })), "{listed:?}");
    server.join().unwrap();
}
