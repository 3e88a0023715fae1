//! The listening process is not the daemon, or the daemon is broken: commands end soon, take little memory, and show nothing that
//! steers a terminal.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use corptokend::cli::status;
use corptokend::control::protocol::{LastError, ReloadVerdict};
use corptokend::control::{ControlClient, ControlError};
use corptokend::domain::TenantState;

use crate::access::as_user;
use crate::fake_daemon::{Fake, json, naming, row};
use crate::socket_file::bound;

const STATUS: &str = r#"{"version":"1","pid":1,"started_at":"","tenants":{"fresh":1},"worst":null}"#;

/// Answers each connection by `answer`, with the request's path, for as long as the test runs.
fn listen(
    answer: impl Fn(&str, &mut UnixStream) -> std::io::Result<()> + Send + Copy + 'static,
) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || -> std::io::Result<()> {
                let mut request = [0; 4096];
                loop {
                    let length = stream.read(&mut request)?;
                    let text = String::from_utf8_lossy(&request[..length]).into_owned();
                    let Some(path) = text.split(' ').nth(1) else { return Ok(()) };
                    answer(path, &mut stream)?;
                }
            });
        }
    });
    (dir, path)
}

fn whole(stream: &mut UnixStream, body: &str) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A body without end, of these pieces.
fn endless(stream: &mut UnixStream, first: &str, piece: &str) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n", first.len())?;
    loop {
        write!(stream, "{:x}\r\n{piece}\r\n", piece.len())?;
    }
}

/// Runs the command with 1 GiB of address space: enough for any answer of ours, and far less than there is.
fn with_little_memory(args: &[&str], socket: &Path) -> Output {
    let line = format!("ulimit -v 1048576; exec {} \"$@\"", env!("CARGO_BIN_EXE_corptokend"));
    let mut command = Command::new("sh");
    command.args(["-c", &line, "sh"]).args(args).env("CORPTOKEND_SOCKET", socket).output().unwrap()
}

#[track_caller]
fn ends_with(output: &Output, code: i32, words: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(words), "{text}");
}

#[test]
fn a_status_without_end_is_given_up() {
    let (_dir, socket) = listen(|_, stream| endless(stream, "{\"version\":\"", &"x".repeat(1 << 16)));
    ends_with(&with_little_memory(&["status"], &socket), 3, "too long");
    ends_with(&with_little_memory(&["reload"], &socket), 1, "too long");
}

#[test]
fn a_row_without_end_is_given_up() {
    let (_dir, socket) = listen(|path, stream| match path {
        "/v1/status" => whole(stream, STATUS),
        _ => endless(stream, "{\"tenants\":[\n", &"x".repeat(1 << 16)),
    });
    ends_with(&with_little_memory(&["status"], &socket), 3, "a row is too long");
}

#[test]
fn a_list_without_end_is_given_up_and_holds_no_more_rows_than_are_shown() {
    fn rows(stream: &mut UnixStream) -> std::io::Result<()> {
        let mut row = row(1, TenantState::Expired);
        row.why = "x".repeat(400 << 10);
        endless(stream, "{\"tenants\":[\n", &(serde_json::to_string(&row).unwrap() + ",\n"))
    }
    let (_dir, socket) = listen(|path, stream| match path {
        "/v1/status" => whole(stream, STATUS),
        _ => rows(stream),
    });
    ends_with(&with_little_memory(&["status"], &socket), 3, "too long");
}

#[test]
fn counts_that_cannot_be_added_up_are_no_defect() {
    let status = format!("{{\"tenants\":{{\"fresh\":{0},\"due\":{0}}}}}", u64::MAX);
    let status: &'static str = status.leak();
    let (_dir, socket) = listen(move |path, stream| match path {
        "/v1/status" => whole(stream, status),
        _ => whole(stream, "{\"tenants\":[\n\n]}\n"),
    });
    let output = with_little_memory(&["status"], &socket);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{output:?}");
}

#[test]
fn an_answer_that_only_drips_is_given_up() {
    let (_dir, socket) = listen(|_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")?;
        loop {
            stream.write_all(b" ")?;
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    let began = Instant::now();
    let error = ControlClient::connect(&socket).unwrap().status().unwrap_err();
    assert!(matches!(error, ControlError::Silent { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

/// As many connections as may wait for somebody who does not accept them.
fn fill_up(path: &Path) -> Vec<OwnedFd> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let address = SocketAddrUnix::new(path).unwrap();
    let connection = || {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        connect(&socket, &address).is_ok().then_some(socket)
    };
    std::iter::from_fn(connection).collect()
}

#[test]
fn a_daemon_that_starts_does_not_wait_for_one_that_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let _listener = UnixListener::bind(&path).unwrap();
    let _waiting = fill_up(&path);
    let (told, tells) = std::sync::mpsc::channel();
    std::thread::spawn(move || told.send(bound(&path).map(drop)));
    let error = tells.recv_timeout(Duration::from_secs(20)).expect("it says so at once").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{error}");
}

#[test]
fn a_socket_that_nobody_accepts_on_is_said_to_be_busy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let _listener = UnixListener::bind(&path).unwrap();
    let _waiting = fill_up(&path);
    ends_with(&with_little_memory(&["status"], &path), 75, "is busy");
    ends_with(&with_little_memory(&["reload"], &path), 75, "is busy");
}

#[test]
fn another_user_who_listens_is_not_believed() {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
    let path = dir.path().join("s");
    let Some(mut child) = as_user(65_534, 65_534, &[], "listen", &path) else { return };
    let deadline = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(Instant::now() < deadline, "it listens");
        std::thread::sleep(Duration::from_millis(10));
    }
    let status = with_little_memory(&["status"], &path);
    let reload = with_little_memory(&["reload"], &path);
    drop(child.stdin.take());
    child.wait().unwrap();
    ends_with(&status, 3, "user 65534 listens on");
    ends_with(&reload, 1, "user 65534 listens on");
}

/// What a name, an error or a config may hold, and no terminal may get.
const NASTY: &str = "a\u{1b}[2J\u{1b}]0;x\u{7}b\u{9b}31mc\u{202e}d\u{2028}e\u{2066}f\nerror: g";

#[test]
fn nothing_that_the_daemon_says_steers_the_terminal() {
    let mut fake = Fake::with(&[TenantState::Failing]);
    let row = &mut fake.rows[0];
    let nasty = || NASTY.to_owned();
    (row.name, row.why, row.sinks[0].place, row.sinks[0].error) = (Some(nasty()), nasty(), nasty(), Some(nasty()));
    row.last_error = Some(LastError {
        kind: nasty(),
        code: Some(nasty()),
        requestid: Some(nasty()),
        detail: nasty(),
        at: Some(nasty()),
    });
    let status = &mut fake.status;
    (status.version, status.started_at, status.warnings) = (nasty(), nasty(), vec![nasty()]);
    (status.config.path, status.config.last_reload_at, status.config.problems) =
        (nasty(), Some(nasty()), vec![nasty()]);
    (status.config.last_reload_successful, status.state.healthy, status.state.reason) = (false, false, Some(nasty()));
    (status.api_paused_until, status.worst) = (Some(nasty()), Some(fake.rows[0].clone()));
    fake.verdict = Some(ReloadVerdict { report: nasty(), ..Default::default() });
    let daemon = fake.start();
    let seen = |c: char| c == '\n' || !corptokend::domain::is_invisible(c);
    for args in [status::StatusArgs::default(), naming(&["crm/ding00000"]), json()] {
        let (_, out, err) = daemon.status(args);
        assert!(out.chars().chain(err.chars()).all(seen), "{out:?} {err:?}");
        assert!(out.lines().all(|line| !line.starts_with("error: g")), "{out}");
    }
    let (_, out, _) = daemon.status(json());
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["tenants"][0]["name"], NASTY, "JSON says the same, escaped");
    let (_, out, err) = daemon.reload(false);
    assert!(out.chars().chain(err.chars()).all(seen), "{out:?} {err:?}");
}

#[test]
fn an_error_that_the_daemon_gives_does_not_steer_the_terminal_either() {
    let (_dir, socket) = listen(|_, stream| {
        let body = serde_json::json!({ "error": NASTY }).to_string();
        write!(stream, "HTTP/1.1 500 Oh\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    });
    let output = with_little_memory(&["status"], &socket);
    ends_with(&output, 3, "gives an invalid answer");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.trim_end().chars().all(|c| !corptokend::domain::is_invisible(c)), "{text:?}");
}
