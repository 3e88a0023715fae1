//! Who may ask.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use corptokend::cli::{Colour, status};
use corptokend::control::MAX_CONNECTIONS;
use corptokend::domain::TenantState;

use crate::fake_daemon::Fake;

const SOCKET_ENV: &str = "CORPTOKEND_TEST_SOCKET";
const PART_ENV: &str = "CORPTOKEND_TEST_PART";

/// Runs the test `as_another_user` of this file as that user, with these groups beside its first, in the given part.
pub(crate) fn as_user(uid: u32, gid: u32, groups: &[u32], part: &str, socket: &Path) -> Option<Child> {
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
    command.arg(&binary).args(["--exact", "access::as_another_user", "--nocapture"]);
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
pub(crate) fn status_as(uid: u32, gid: u32, groups: &[u32], socket: &Path) -> Option<i32> {
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
