//! The socket's file: mode, group, and what it replaces.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use corptokend::control::{bind, unbind};

pub(crate) fn bound(path: &Path) -> std::io::Result<tokio::net::UnixListener> {
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
