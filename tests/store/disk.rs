//! Permissions, links, and disks that are full or read-only.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use corptokend::store::{Lookup, StoreReply, StoreRequest};

use crate::fixture::{kept, kept_as, scratch, start, token_text};

#[test]
fn the_file_is_private_even_when_it_was_not() {
    let (_dir, path) = scratch();
    start(&path).stop();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    start(&path).stop();
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn a_symbolic_link_is_not_followed_and_does_not_stop_the_daemon() {
    let (dir, path) = scratch();
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let target = dir.path().join("precious");
    std::fs::write(&target, "precious").unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    let store = start(&path);
    assert!(store.opened.unusable.as_ref().unwrap().contains("symbolic link"));
    assert!(matches!(store.next(), StoreReply::Health(Some(_))));
    store.send(StoreRequest::Keep(vec![kept(1)]));
    assert!(matches!(store.next(), StoreReply::NotKept(_)));
    assert_eq!(store.load(1..2), [Some(token_text(1))]);
    store.stop();
    assert_eq!(std::fs::read(&target).unwrap(), b"precious");
}

/// A tmpfs that is unmounted in the end; `None`, loudly, where that is not possible.
struct Small(PathBuf);

impl Small {
    fn mount(dir: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size},mode=700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir).stderr(Stdio::null());
        let mounted = mount.status().is_ok_and(|status| status.success());
        if !mounted {
            let required = std::env::var_os("CORPTOKEND_REQUIRE_SYSTEM").is_some_and(|value| value == "1");
            assert!(!required, "a tmpfs cannot be mounted here, and CORPTOKEND_REQUIRE_SYSTEM=1 asks for it");
            eprintln!("SKIPPED: a tmpfs cannot be mounted here (it takes root), so no disk can be filled");
            return None;
        }
        Some(Self(dir.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_loses_nothing_and_is_used_again_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = Small::mount(dir.path(), "8m") else { return };
    let path = dir.path().join("state.redb");
    let store = start(&path);
    store.keep(0..10);
    let ballast = dir.path().join("ballast");
    let written = std::fs::write(&ballast, vec![1_u8; 16 << 20]);
    assert!(written.is_err(), "the disk is full now");

    // More than the file has room for, so that it has to grow.
    let long = |n: u32| kept_as(n, &format!("{n:04}{}", "y".repeat(4000)));
    store.send(StoreRequest::Keep((10..1000).map(long).collect()));
    let StoreReply::NotKept(tickets) = store.next() else { panic!("it was kept on a full disk") };
    assert_eq!(tickets.len(), 990);
    let StoreReply::Health(Some(reason)) = store.next() else { panic!() };
    assert!(reason.contains("No space left"), "{reason}");
    assert_eq!(store.load([999].into_iter())[0].as_ref().map(|text| &text[..4]), Some("0999"));

    std::fs::remove_file(&ballast).unwrap();
    assert!(matches!(store.next(), StoreReply::Health(None)));
    let StoreReply::Kept(tickets) = store.next() else { panic!() };
    assert_eq!(tickets.len(), 990);
    store.stop();
    assert_eq!(start(&path).opened.contents.snapshot.len(), 1000);
}

#[test]
fn what_was_kept_can_be_read_while_nothing_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = Small::mount(dir.path(), "8m") else { return };
    let path = dir.path().join("state.redb");
    let store = start(&path);
    store.keep(0..10);
    assert!(std::fs::write(dir.path().join("ballast"), vec![1_u8; 16 << 20]).is_err(), "the disk is full now");
    let long = |n: u32| kept_as(n, &format!("{n:04}{}", "y".repeat(4000)));
    store.send(StoreRequest::Keep((10..1000).map(long).collect()));
    assert!(matches!(store.next(), StoreReply::NotKept(_)));
    assert!(matches!(store.next(), StoreReply::Health(Some(_))));
    // It is opened to be read in a moment, and again after each attempt to write; nobody says that there is no token.
    let (mut read, mut unread) = (0, 0);
    while read < 100 {
        match store.look_up(3) {
            Lookup::Found(_, token) => assert_eq!(token.expose(), token_text(3)),
            Lookup::Missing => panic!("it is there"),
            Lookup::Unavailable(reason) => {
                unread += 1;
                assert!(unread < 300, "{reason}");
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
        }
        read += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(unread < read, "it could not be read {unread} times, and could {read} times");
    assert!(matches!(store.look_up(5000), Lookup::Missing), "what is not there is not there");
    store.stop();
    // A start on the full disk knows it too, and so does a start on one that may not be written at all.
    let store = start(&path);
    assert_eq!(store.opened.contents.snapshot.len(), 10);
    assert_eq!(store.load(0..1), [Some(token_text(0))]);
    store.stop();
}

#[test]
fn a_state_on_a_read_only_disk_is_read_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = Small::mount(dir.path(), "8m") else { return };
    let path = dir.path().join("state.redb");
    let store = start(&path);
    store.keep(0..10);
    store.stop();
    let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(dir.path()).status();
    assert!(remount.unwrap().success());
    let store = start(&path);
    assert!(store.opened.unusable.as_ref().unwrap().contains("ead-only"), "{:?}", store.opened.unusable);
    assert_eq!(store.opened.contents.snapshot.len(), 10);
    assert_eq!(store.load([7].into_iter()), [Some(token_text(7))]);
    store.send(StoreRequest::Keep(vec![kept(10)]));
    assert!(matches!(store.next(), StoreReply::Health(Some(_)) | StoreReply::NotKept(_)));
    assert!(Command::new("mount").args(["-o", "remount,rw"]).arg(dir.path()).status().unwrap().success());
    while !matches!(store.next(), StoreReply::Health(None)) {}
    store.stop();
    assert_eq!(start(&path).opened.contents.snapshot.len(), 11);
}

#[test]
fn a_state_that_is_lost_while_it_runs_is_begun_anew_and_that_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = Small::mount(dir.path(), "8m") else { return };
    let (path, ballast) = (dir.path().join("state.redb"), dir.path().join("ballast"));
    let store = start(&path);
    store.keep(0..10);
    assert!(std::fs::write(&ballast, vec![1_u8; 16 << 20]).is_err(), "the disk is full now");
    let long = |n: u32| kept_as(n, &format!("{n:04}{}", "y".repeat(4000)));
    store.send(StoreRequest::Keep((10..1000).map(long).collect()));
    while !matches!(store.next(), StoreReply::Health(Some(_))) {}
    std::fs::remove_file(&ballast).unwrap();
    std::fs::write(&path, vec![0xa5; 1 << 20]).unwrap();
    assert!(matches!(store.next(), StoreReply::Begun));
    assert!(matches!(store.next(), StoreReply::Health(None)));
    let StoreReply::Kept(tickets) = store.next() else { panic!("what waited is in the new one") };
    assert_eq!(tickets.len(), 990);
    assert!(matches!(store.look_up(3), Lookup::Missing), "what was only there is lost");
    store.stop();
    assert_eq!(start(&path).opened.contents.snapshot.len(), 990);
}
