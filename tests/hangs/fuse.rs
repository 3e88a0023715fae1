//! The file system that never answers: that it is one, and that it lets go.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::support::PATIENCE;
use crate::support::system::fuse::{Fuse, Op};

/// Runs `operation` elsewhere; its end comes through the channel.
fn begin(operation: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> mpsc::Receiver<std::io::Result<()>> {
    let (ended, end) = mpsc::channel();
    // It ends with the file system at the latest, which outlives no test.
    thread::spawn(move || ended.send(operation()));
    end
}

fn use_it(op: Op, at: &Path) -> std::io::Result<()> {
    let file = at.join("below/file");
    match op {
        Op::Stat => fs::metadata(file).map(drop),
        Op::Open => fs::File::open(file).map(drop),
        Op::Read => fs::read(file).map(drop),
        Op::Write => fs::write(file, "other"),
        Op::Fsync => fs::File::open(file)?.sync_all(),
        Op::Rename => {
            fs::rename(&file, at.join("below/renamed")).and_then(|()| fs::rename(at.join("below/renamed"), file))
        }
        Op::Readdir => fs::read_dir(at.join("below"))?.try_for_each(|entry| entry.map(drop)),
    }
}

#[test]
fn a_file_system_of_ours_is_one() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("fuse");
    let Some(_fuse) = Fuse::mount(&at) else { return };
    fs::create_dir(at.join("dir")).unwrap();
    fs::set_permissions(at.join("dir"), fs::Permissions::from_mode(0o2750)).unwrap();
    std::os::unix::fs::chown(at.join("dir"), None, Some(7)).unwrap();
    let mut file = fs::File::create_new(at.join("dir/.new")).unwrap();
    file.write_all(&[b'x'; 300_000]).unwrap();
    file.sync_all().unwrap();
    assert_eq!(file.metadata().unwrap().gid(), 7, "the group is handed down");
    fs::rename(at.join("dir/.new"), at.join("dir/file")).unwrap();
    assert_eq!(fs::read(at.join("dir/file")).unwrap(), [b'x'; 300_000]);
    assert_eq!(
        fs::read_dir(at.join("dir")).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(),
        ["file"]
    );
    assert!(fs::remove_dir(at.join("dir")).is_err(), "it is not empty");
    fs::rename(at.join("dir"), at.join("moved")).unwrap();
    fs::remove_file(at.join("moved/file")).unwrap();
    fs::remove_dir(at.join("moved")).unwrap();
    assert!(fs::metadata(at.join("moved")).is_err());
}

#[test]
fn what_is_told_to_hang_hangs_until_it_is_released() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("fuse");
    let Some(fuse) = Fuse::mount(&at) else { return };
    for below in ["below", "beside"] {
        fs::create_dir(at.join(below)).unwrap();
        fs::write(at.join(below).join("file"), "text").unwrap();
    }
    for op in [Op::Stat, Op::Open, Op::Read, Op::Write, Op::Fsync, Op::Rename, Op::Readdir] {
        fuse.hang(op, "below");
        let place = at.clone();
        let end = begin(move || use_it(op, &place));
        fuse.wait_until_somebody_hangs();
        assert_eq!(fs::read(at.join("beside/file")).unwrap(), b"text", "another path hangs with it: {op:?}");
        assert!(end.recv_timeout(Duration::from_millis(20)).is_err(), "it does not hang: {op:?}");
        fuse.release();
        end.recv_timeout(PATIENCE).expect("it is released").unwrap_or_else(|error| panic!("{op:?}: {error}"));
    }
}

#[test]
fn whoever_hangs_is_let_go_with_the_file_system() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("fuse");
    let Some(fuse) = Fuse::mount(&at) else { return };
    fuse.hang_all();
    let place = at.clone();
    let end = begin(move || fs::metadata(place).map(drop));
    fuse.wait_until_somebody_hangs();
    drop(fuse);
    assert!(end.recv_timeout(PATIENCE).expect("it is let go").is_err());
    assert!(fs::metadata(&at).is_ok(), "it is unmounted");
}
