//! Where the control socket's path is taken.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;

use crate::ends_when_told_to;
use crate::support::{Machine, shown};

#[test]
fn a_file_in_its_place_is_reported_and_left_alone() {
    let machine = Machine::new().app("crm", &["ding1"], "");
    machine.write("run/control.sock", "mine");
    let output = machine.run(&["run"]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let text = shown(&output);
    assert!(text.contains("error: cannot open the control socket ") && text.contains("not a socket"), "{text}");
    assert_eq!(machine.read("run/control.sock").as_deref(), Some("mine"));
    assert!(machine.sandbox.calls().is_empty(), "nobody is called by a daemon that does not start");
}

#[test]
fn a_socket_that_a_killed_daemon_left_is_replaced() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    machine.start();
    machine.kill();
    let left = machine.path("run/control.sock").symlink_metadata().unwrap();
    assert!(left.file_type().is_socket(), "a killed daemon leaves its socket");
    machine.start();
    assert_eq!(machine.run(&["status"]).status.code(), Some(0));
    ends_when_told_to(&mut machine);
}

#[test]
fn a_socket_where_another_listens_is_not_taken() {
    let machine = Machine::new().app("crm", &["ding1"], "");
    let other = UnixListener::bind(machine.path("run/control.sock")).unwrap();
    let output = machine.run(&["run"]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(shown(&output).contains("another daemon listens there"), "{}", shown(&output));
    assert!(std::os::unix::net::UnixStream::connect(machine.path("run/control.sock")).is_ok(), "it listens on");
    drop(other);
}

#[test]
fn a_second_daemon_does_not_harm_the_first() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    machine.start();
    let second = machine.run(&["run"]);
    assert_eq!(second.status.code(), Some(1), "{}", shown(&second));
    assert_eq!(machine.run(&["status"]).status.code(), Some(0));
    assert_eq!(machine.sandbox.calls().len(), 1);
    ends_when_told_to(&mut machine);
}

/// Under the unit's `UMask=0077` a missing directory came out as 0700, where no member of the socket's group gets through.
#[test]
fn a_directory_made_for_the_socket_lets_its_group_through_whatever_the_umask() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    let socket = machine.path("run/control.sock");
    let elsewhere = machine.path("deep/down/control.sock");
    machine.edit(socket.to_str().unwrap(), elsewhere.to_str().unwrap());
    machine.env("CORPTOKEND_SOCKET", elsewhere.to_str().unwrap());
    machine.launch_under(&["sh", "-c", "umask 0077; exec \"$@\"", "sh"]);
    machine.wait_until_ready();
    for (path, mode) in [("deep", 0o755), ("deep/down", 0o755), ("deep/down/control.sock", 0o660)] {
        let is = machine.path(path).symlink_metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(is, mode, "{path}: {is:o}");
    }
    assert!(machine.stop().success());
}
