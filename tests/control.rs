//! The control socket from both ends: raw HTTP as curl speaks it, and the commands, against a daemon that is made up.
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use corptokend::cli::{Colour, Exit, reload, status};
use corptokend::control::protocol::{
    DaemonStatus, HeldBack, LastError, Page, ReloadVerdict, SinkRow, SinkState, TenantRow,
};
use corptokend::control::{AccessPolicy, ControlClient, ControlError, MAX_CONNECTIONS, Query, bind, serve, unbind};
use corptokend::domain::TenantState;
use tokio::sync::{mpsc, oneshot};

#[path = "control/crowds.rs"]
mod crowds;
#[path = "control/impostors.rs"]
mod impostors;

const SOCKET_ENV: &str = "CORPTOKEND_TEST_SOCKET";
const PART_ENV: &str = "CORPTOKEND_TEST_PART";

fn row(n: usize, state: TenantState) -> TenantRow {
    TenantRow {
        tenant: format!("crm/ding{n:05}"),
        app: "crm".into(),
        corp_id: format!("ding{n:05}"),
        name: None,
        state,
        expires_at: Some("2026-01-31T12:00:00Z".into()),
        expires_in_s: Some(if state == TenantState::Expired { -60 } else { 3600 }),
        next_refresh_at: None,
        next_refresh_in_s: Some(5),
        why: "70 % of its life is over".into(),
        last_error: None,
        fingerprint: Some("0a1b2c3d".into()),
        sinks: vec![SinkRow { place: format!("/run/t/{n}"), state: SinkState::Published, error: None }],
    }
}

fn rows(states: &[TenantState]) -> Vec<TenantRow> {
    states.iter().enumerate().map(|(n, state)| row(n, *state)).collect()
}

/// A daemon that knows these tenants and gives this verdict; without a verdict it drops the question.
#[derive(Default)]
struct Fake {
    rows: Vec<TenantRow>,
    verdict: Option<ReloadVerdict>,
    status: DaemonStatus,
}

struct Daemon {
    socket: PathBuf,
    pages: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Fake {
    fn with(states: &[TenantState]) -> Self {
        let mut fake = Self { rows: rows(states), ..Self::default() };
        fake.status.config.last_reload_successful = true;
        fake.status.state.healthy = true;
        fake.status.ready = true;
        for state in states {
            fake.status.tenants.add(*state);
        }
        fake
    }

    fn verdict(verdict: ReloadVerdict) -> Self {
        Self { verdict: Some(verdict), ..Self::with(&[]) }
    }

    fn start(self) -> Daemon {
        self.start_with(0o660)
    }

    fn start_with(self, mode: u32) -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let socket = dir.path().join("control.sock");
        let pages = Arc::new(AtomicUsize::new(0));
        let (stop, stopped) = oneshot::channel();
        let (listening, listens) = std::sync::mpsc::channel();
        let (path, counter) = (socket.clone(), Arc::clone(&pages));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = bind(&path, mode, None).unwrap();
                listening.send(()).unwrap();
                let (queries, asked) = mpsc::channel(16);
                let answers = tokio::spawn(self.answer(asked, counter));
                let shutdown = async { drop(stopped.await) };
                serve(listener, queries, AccessPolicy::of_socket(&path).unwrap(), shutdown).await;
                answers.await.unwrap();
            });
        });
        listens.recv().unwrap();
        Daemon { socket, pages, stop: Some(stop), thread: Some(thread), _dir: dir }
    }

    async fn answer(self, mut asked: mpsc::Receiver<Query>, pages: Arc<AtomicUsize>) {
        while let Some(query) = asked.recv().await {
            match query {
                Query::Status(reply) => drop(reply.send(self.status.clone())),
                Query::Page { after, limit, filter, reply } => {
                    pages.fetch_add(1, SeqCst);
                    let begin = after
                        .map_or(0, |id| self.rows.iter().position(|row| row.tenant == id.to_string()).unwrap() + 1);
                    let seen = &self.rows[begin..self.rows.len().min(begin + limit)];
                    let more = begin + seen.len() < self.rows.len();
                    let next = seen.last().filter(|_| more).map(|row| row.tenant.parse().unwrap());
                    let is_wanted = |row: &TenantRow| filter.admits_app(&row.app) && filter.admits_state(row.state);
                    let rows: Vec<_> = seen.iter().filter(|row| is_wanted(row)).cloned().collect();
                    drop(reply.send(Page { rows: Box::new(rows.into_iter()), next }));
                }
                Query::Tenant(id, reply) => {
                    drop(reply.send(self.rows.iter().find(|row| row.tenant == id.to_string()).cloned()));
                }
                Query::Reload { request, reply } => {
                    if let Some(mut verdict) = self.verdict.clone() {
                        if request.allow_mass_removal {
                            verdict.held_back = None;
                        }
                        drop(reply.send(verdict));
                    }
                }
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        assert!(std::thread::panicking() || ended.is_ok());
    }
}

impl Daemon {
    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        stream
    }

    /// What curl would print, with the status line.
    fn http(&self, request: &str, body: &str) -> String {
        let mut stream = self.connect();
        let length = body.len();
        write!(stream, "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn status(&self, args: status::StatusArgs) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = status::run(&args, &self.socket, &mut out, &mut err, Colour::Off);
        (exit.into(), String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    fn reload(&self, allow_mass_removal: bool) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = reload::run(&reload::ReloadArgs { allow_mass_removal }, &self.socket, &mut out, &mut err);
        (exit.into(), String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }
}

fn naming(tenants: &[&str]) -> status::StatusArgs {
    status::StatusArgs { tenants: tenants.iter().map(|id| id.parse().unwrap()).collect(), ..Default::default() }
}

fn json() -> status::StatusArgs {
    status::StatusArgs { json: true, ..Default::default() }
}

// ---- the wire ----

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

// ---- the socket file ----

fn bound(path: &Path) -> std::io::Result<tokio::net::UnixListener> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    bind(path, 0o640, Some(rustix::process::getgid().as_raw()))
}

#[test]
fn the_socket_has_its_mode_and_group_and_leaves_no_litter() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made/control.sock");
    // What a killed daemon may leave: its socket, and the one that it was about to put there.
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    drop(UnixListener::bind(&path).unwrap());
    drop(UnixListener::bind(path.with_file_name(".control.sock~")).unwrap());
    let listener = bound(&path).unwrap();
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.gid()), (0o640, rustix::process::getgid().as_raw()));
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    drop(listener);
    unbind(&path);
    assert!(!path.exists());
}

#[test]
fn a_second_daemon_does_not_take_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let first = UnixListener::bind(&path).unwrap();
    let error = bound(&path).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains("control.sock"), "{error}");
    unbind(&path);
    UnixStream::connect(&path).unwrap();
    assert!(first.accept().is_ok());
}

#[test]
fn what_is_no_socket_is_never_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    std::fs::write(&path, "precious").unwrap();
    assert_eq!(bound(&path).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    unbind(&path);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_path_that_is_too_long_is_said_to_be_so() {
    let error = bound(Path::new(&format!("/tmp/{}/control.sock", "x".repeat(110)))).unwrap_err();
    assert!(error.to_string().contains("shorter"), "{error}");
}

// ---- who may ask ----

/// Runs the test `as_another_user` of this file as that user, with these groups beside its first, in the given part.
fn as_user(uid: u32, gid: u32, groups: &[u32], part: &str, socket: &Path) -> Option<Child> {
    if !rustix::process::geteuid().is_root() {
        let required = std::env::var_os("CORPTOKEND_REQUIRE_SYSTEM").is_some_and(|value| value == "1");
        assert!(!required, "becoming another user takes root, and CORPTOKEND_REQUIRE_SYSTEM=1 asks for it");
        eprintln!("SKIPPED: becoming another user takes root, so nobody can be turned away");
        return None;
    }
    // The binary itself may lie where the other user cannot go. It may go once it runs.
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let binary = dir.path().join("t");
    std::fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    let groups: Vec<String> = groups.iter().chain([&gid]).map(ToString::to_string).collect();
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={uid}"), format!("--regid={gid}"), format!("--groups={}", groups.join(","))]);
    command.arg(&binary).args(["--exact", "as_another_user", "--nocapture"]);
    command.env(SOCKET_ENV, socket).env(PART_ENV, part).env("RUST_BACKTRACE", "0");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // The test harness's own words come first.
    let mut said = Vec::new();
    while !said.ends_with(b"begins\n") {
        let mut byte = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
        said.push(byte[0]);
    }
    Some(child)
}

/// The exit code of `status` as that user.
fn status_as(uid: u32, gid: u32, groups: &[u32], socket: &Path) -> Option<i32> {
    as_user(uid, gid, groups, "status", socket)?.wait().unwrap().code()
}

/// The other user's half of the tests; does nothing when it is run by itself.
#[test]
fn as_another_user() {
    let Some(socket) = std::env::var_os(SOCKET_ENV) else { return };
    let socket = Path::new(&socket);
    println!("begins");
    let until_let_go = || drop(std::io::stdin().read_to_end(&mut Vec::new()));
    match std::env::var(PART_ENV).unwrap().as_str() {
        "status" => {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let exit = status::run(&status::StatusArgs::default(), socket, &mut out, &mut err, Colour::Off);
            std::process::exit(u8::from(exit).into());
        }
        "listen" => {
            let _listener = UnixListener::bind(socket).unwrap();
            std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666)).unwrap();
            until_let_go();
        }
        "hold" => {
            let _held: Vec<UnixStream> = (0..MAX_CONNECTIONS).map(|_| UnixStream::connect(socket).unwrap()).collect();
            println!("has them");
            until_let_go();
        }
        part => panic!("there is no {part}"),
    }
}

#[test]
fn a_stranger_is_turned_away_even_where_the_mode_is_loose() {
    for mode in [0o660, 0o666] {
        let daemon = Fake::with(&[TenantState::Fresh]).start_with(mode);
        let Some(code) = status_as(65_534, 65_534, &[], &daemon.socket) else { return };
        assert_eq!(code, 77, "mode {mode:o}");
    }
}

#[test]
fn a_member_of_the_sockets_group_may_ask() {
    let daemon = Fake::with(&[TenantState::Fresh]).start();
    let group = std::fs::metadata(&daemon.socket).unwrap().gid();
    let Some(code) = status_as(65_534, group, &[], &daemon.socket) else { return };
    assert_eq!(code, 0);
}

#[test]
fn a_process_that_has_the_group_may_ask_whatever_the_database_says_of_its_user() {
    let daemon = Fake::with(&[TenantState::Fresh]).start();
    let group = std::fs::metadata(&daemon.socket).unwrap().gid();
    // No database knows this user.
    let Some(code) = status_as(4_000_000, 4_000_000, &[group], &daemon.socket) else { return };
    assert_eq!(code, 0);
}

// ---- status ----

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

// ---- reload ----

#[test]
fn reload_tells_what_was_applied() {
    let daemon = Fake::verdict(ReloadVerdict { applied: true, added: 3, changed: 1, ..Default::default() }).start();
    assert_eq!(daemon.reload(false), (0, "applied: 3 added, 0 removed, 1 changed\n".into(), String::new()));
}

#[test]
fn a_rejected_reload_prints_the_report_and_exits_78() {
    let report = "error: unknown key `corpids`\n --> config.toml:4:1\n".to_owned();
    let (code, out, err) = Fake::verdict(ReloadVerdict { report, ..Default::default() }).start().reload(false);
    assert_eq!((code, out.as_str()), (78, ""));
    assert!(err.starts_with("error: unknown key `corpids`") && err.contains("error: the config was rejected"), "{err}");
}

#[test]
fn a_removal_that_is_held_back_is_said_until_it_is_allowed() {
    let held_back = Some(HeldBack { removed: 9 });
    let daemon = Fake::verdict(ReloadVerdict { applied: true, held_back, ..Default::default() }).start();
    let (code, _, err) = daemon.reload(false);
    assert_eq!(code, 0);
    assert!(err.contains("9 tenants is held back") && err.contains("--allow-mass-removal"), "{err}");
    let (_, _, err) = daemon.reload(true);
    assert_eq!(err, "");
}
