//! The reader's guarantee of file sinks, on real file systems.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::fixture::{TestLane, as_nobody, file_at, probe, publication};
use crate::support::system::disk::Tmpfs;
use crate::support::{is_root, system_allows};
use corptokend::domain::{Format, Placeholder, SinkFailureKind, SinkSpec, Template, Wrote};
use corptokend::sink::{Stopped, file_system_of};
use tempfile::tempdir;

fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn in_format(format: Format) -> impl Fn(&Path) -> SinkSpec {
    move |directory| file_at(directory.join("{corp_id}"), |file| file.format = format.clone())
}

#[test]
fn every_format_is_published_byte_for_byte() {
    let directory = tempdir().unwrap();
    let mut lane = TestLane::files();
    let template = Template::parse("TOKEN={token}\n", Placeholder::IN_CONTENT).unwrap();
    let json = "{\"access_token\":\"t-1\",\"expires_at\":\"2096-10-02T07:06:40Z\",\"expires_at_unix\":4000000000,\
                \"app\":\"crm\",\"corp_id\":\"ding1\"}\n";
    for (format, bytes) in [
        (Format::Raw, "t-1"),
        (Format::Line, "t-1\n"),
        (Format::Json, json),
        (Format::Env, "ACCESS_TOKEN=t-1\nEXPIRES_AT=4000000000\n"),
        (Format::Template(template), "TOKEN=t-1\n"),
    ] {
        let spec = in_format(format)(directory.path());
        assert_eq!(lane.publish(&spec, "ding1", "t-1"), Ok(Wrote::Replaced));
        assert_eq!(fs::read_to_string(directory.path().join("ding1")).unwrap(), bytes);
    }
    assert_eq!(names_in(directory.path()), ["ding1"]);
}

#[test]
fn a_reader_never_sees_a_torn_empty_or_missing_file_or_a_wrong_mode() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("ding1");
    let (group, owner) = if is_root() { (Some(7), Some(8)) } else { (None, None) };
    let spec = file_at(&path, |file| (file.mode, file.group, file.owner) = (0o604, group, owner));
    let mut lane = TestLane::files();
    let token = |n: usize| format!("{n}-{}-{n}", "x".repeat(n % 3000));
    lane.publish(&spec, "ding1", &token(0)).unwrap();

    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (done, path) = (Arc::clone(&done), path.clone());
        std::thread::spawn(move || {
            let (mut looks, mut last) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                let file = fs::File::open(&path).expect("the file is never missing");
                let facts = file.metadata().unwrap();
                assert_eq!(facts.mode() & 0o7777, 0o604);
                assert!(group.is_none_or(|group| facts.gid() == group));
                assert!(owner.is_none_or(|owner| facts.uid() == owner));
                let text = std::io::read_to_string(file).unwrap();
                let n: usize = text.split('-').next().unwrap().parse().expect("a whole token");
                assert_eq!(text, token(n), "a whole token");
                assert!(n >= last, "an older token after a newer one");
                (looks, last) = (looks + 1, n);
            }
            looks
        })
    };
    for batch in 0..100 {
        lane.inner.send((0..100).map(|n| publication(0, &spec, "ding1", &token(1 + batch * 100 + n))).collect());
    }
    for _ in 0..10_000 {
        assert_eq!(lane.outcome(), Ok(Wrote::Replaced));
    }
    done.store(true, Ordering::Relaxed);
    assert!(reader.join().unwrap() > 100);
    assert_eq!(names_in(directory.path()), ["ding1"]);
    assert_eq!(lane.stop(), Stopped::Ended);
}

#[test]
fn mode_group_and_owner_are_as_the_sink_says_whatever_the_umask() {
    if !system_allows("root, to give files away", is_root()) {
        return;
    }
    let directory = tempdir().unwrap();
    let spec = file_at(directory.path().join("{app}/{corp_id}"), |file| {
        (file.mode, file.dir_mode, file.owner, file.group) = (0o666, 0o777, Some(12), Some(34));
        file.trust_dir = true;
    });
    TestLane::files().publish(&spec, "ding1", "t").unwrap();
    let file = directory.path().join("crm/ding1").metadata().unwrap();
    assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o666, 12, 34));
    let made = directory.path().join("crm").metadata().unwrap();
    assert_eq!((made.mode() & 0o7777, made.uid(), made.gid()), (0o777, 0, 34));
}

#[test]
fn without_a_group_the_setgid_directory_decides() {
    if !system_allows("root, to give directories away", is_root()) {
        return;
    }
    let directory = tempdir().unwrap();
    rustix::fs::chown(directory.path(), None, Some(rustix::process::Gid::from_raw(34))).unwrap();
    chmod(directory.path(), 0o2770);
    let spec = file_at(directory.path().join("{app}/{corp_id}"), |_| {});
    let mut lane = TestLane::files();
    lane.publish(&spec, "ding1", "t").unwrap();
    assert_eq!(directory.path().join("crm/ding1").metadata().unwrap().gid(), 34);
    assert_eq!(mode_of(&directory.path().join("crm")), 0o2750);
    assert_eq!(lane.publish(&spec, "ding1", "t"), Ok(Wrote::Unchanged));
}

#[test]
fn equal_bytes_are_not_written_again() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("ding1");
    let spec = file_at(&path, |_| {});
    let mut lane = TestLane::files();
    lane.publish(&spec, "ding1", "t-1").unwrap();
    let before = path.metadata().unwrap();
    let identity = |facts: &fs::Metadata| (facts.ino(), facts.mtime(), facts.mtime_nsec(), facts.ctime_nsec());
    assert_eq!(lane.publish(&spec, "ding1", "t-1"), Ok(Wrote::Unchanged));
    assert_eq!(identity(&before), identity(&path.metadata().unwrap()));
    assert_eq!(lane.publish(&spec, "ding1", "t-2"), Ok(Wrote::Replaced), "the same length, other bytes");
    assert_eq!(fs::read_to_string(&path).unwrap(), "t-2");
}

#[test]
fn a_wrong_mode_is_mended_and_what_others_could_write_is_replaced() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("ding1");
    let spec = file_at(&path, |_| {});
    let mut lane = TestLane::files();
    lane.publish(&spec, "ding1", "t").unwrap();
    let inode = path.metadata().unwrap().ino();
    chmod(&path, 0o400);
    assert_eq!(lane.publish(&spec, "ding1", "t"), Ok(Wrote::Repaired));
    assert_eq!((mode_of(&path), path.metadata().unwrap().ino()), (0o640, inode), "in place");
    chmod(&path, 0o666);
    assert_eq!(lane.publish(&spec, "ding1", "t"), Ok(Wrote::Repaired));
    assert_eq!(mode_of(&path), 0o640);
    assert_ne!(
        path.metadata().unwrap().ino(),
        inode,
        "a writer that still has the old file open cannot alter this one"
    );
    fs::hard_link(&path, directory.path().join("other name")).unwrap();
    assert_eq!(lane.publish(&spec, "ding1", "t"), Ok(Wrote::Repaired));
    assert_eq!(path.metadata().unwrap().nlink(), 1);
}

#[test]
fn a_wrong_owner_or_group_is_mended() {
    if !system_allows("root, to give files away", is_root()) {
        return;
    }
    let directory = tempdir().unwrap();
    let path = directory.path().join("ding1");
    let spec = file_at(&path, |file| file.group = Some(34));
    let mut lane = TestLane::files();
    lane.publish(&spec, "ding1", "t").unwrap();
    std::os::unix::fs::chown(&path, Some(12), Some(12)).unwrap();
    assert_eq!(lane.publish(&spec, "ding1", "t"), Ok(Wrote::Repaired));
    let facts = path.metadata().unwrap();
    assert_eq!((facts.uid(), facts.gid(), facts.mode() & 0o7777), (0, 34, 0o640));
}

#[test]
fn a_link_or_a_pipe_at_the_place_gives_way_and_its_target_is_not_touched() {
    let directory = tempdir().unwrap();
    let [path, victim] = ["ding1", "victim"].map(|name| directory.path().join(name));
    let spec = file_at(&path, |_| {});
    let mut lane = TestLane::files();
    fs::write(&victim, "t").unwrap();
    chmod(&victim, 0o600);
    symlink(&victim, &path).unwrap();
    assert_eq!(lane.publish(&spec, "ding1", "t"), Ok(Wrote::Replaced));
    assert!(path.symlink_metadata().unwrap().is_file());
    assert_eq!((fs::read_to_string(&victim).unwrap(), mode_of(&victim)), ("t".into(), 0o600));

    fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert!(path.symlink_metadata().unwrap().file_type().is_fifo());
    assert_eq!(lane.publish(&spec, "ding1", "t"), Ok(Wrote::Replaced));
    assert!(path.symlink_metadata().unwrap().is_file());
}

#[test]
fn a_directory_at_the_place_is_left_alone_and_said() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("ding1");
    fs::create_dir(&path).unwrap();
    let failure = TestLane::files().publish(&file_at(&path, |_| {}), "ding1", "t").unwrap_err();
    assert_eq!(failure.kind, SinkFailureKind::Unsafe);
    assert!(failure.detail.contains("ding1 is a directory"), "{failure}");
    assert_eq!(names_in(directory.path()), ["ding1"]);
}

#[test]
fn a_link_in_place_of_the_temporary_file_is_not_written_through() {
    let directory = tempdir().unwrap();
    let victim = directory.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, directory.path().join(".ding1.corptokend-tmp")).unwrap();
    let spec = file_at(directory.path().join("ding1"), |_| {});
    assert_eq!(TestLane::files().publish(&spec, "ding1", "t"), Ok(Wrote::Replaced));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(names_in(directory.path()), ["ding1", "victim"]);
}

#[test]
fn what_a_killed_predecessor_left_is_taken_away() {
    let directory = tempdir().unwrap();
    let litter = directory.path().join(".ding1.corptokend-tmp");
    let spec = file_at(directory.path().join("{corp_id}"), |_| {});
    let mut lane = TestLane::files();
    for expected in [Wrote::Replaced, Wrote::Unchanged] {
        fs::write(&litter, "half a tok").unwrap();
        assert_eq!(lane.publish(&spec, "ding1", "t"), Ok(expected));
        assert_eq!(names_in(directory.path()), ["ding1"]);
    }
    fs::write(&litter, "half a tok").unwrap();
    lane.withdraw(&spec, "ding1").unwrap();
    assert!(names_in(directory.path()).is_empty());
}

#[test]
fn what_a_killed_predecessor_left_is_found_among_many_files_that_are_right() {
    let directory = tempdir().unwrap();
    let spec = file_at(directory.path().join("{corp_id}"), |_| {});
    let ids: Vec<String> = (0..30).map(|n| format!("ding{n:02}")).collect();
    let mut lane = TestLane::files();
    for id in &ids {
        assert_eq!(lane.publish(&spec, id, "t"), Ok(Wrote::Replaced));
    }
    let strangers = ".ding99.somebody-else's";
    for name in [
        ".ding00.corptokend-tmp",
        ".ding07.corptokend-tmp",
        ".ding08.corptokend-tmp",
        ".ding29.corptokend-tmp",
        strangers,
    ] {
        fs::write(directory.path().join(name), "half a tok").unwrap();
    }
    let mut successor = TestLane::files();
    for id in &ids {
        assert_eq!(successor.publish(&spec, id, "t"), Ok(Wrote::Unchanged));
    }
    let left: Vec<String> = names_in(directory.path()).into_iter().filter(|name| name != strangers).collect();
    assert_eq!(left, ids);
}

#[test]
fn missing_directories_below_the_fixed_part_are_made_and_removed_with_the_last_file() {
    let directory = tempdir().unwrap();
    fs::create_dir(directory.path().join("crm")).unwrap();
    fs::write(directory.path().join("crm/keep"), "").unwrap();
    let spec = file_at(directory.path().join("{app}/{corp_id}/{client_id}/token"), |_| {});
    let mut lane = TestLane::files();
    lane.publish(&spec, "ding1", "t").unwrap();
    let made = directory.path().join("crm/ding1/c1");
    assert_eq!((names_in(&made), mode_of(&made)), (vec!["token".to_owned()], 0o750));
    lane.withdraw(&spec, "ding1").unwrap();
    assert_eq!(names_in(&directory.path().join("crm")), ["keep"]);
    assert_eq!(lane.withdraw(&spec, "ding1"), Ok(()), "what is gone is gone");
    fs::remove_file(directory.path().join("crm/keep")).unwrap();
    lane.publish(&spec, "ding1", "t").unwrap();
    lane.withdraw(&spec, "ding1").unwrap();
    assert!(directory.path().exists() && names_in(directory.path()).is_empty(), "the fixed part stays");
}

#[test]
fn a_withdrawal_removes_nothing_but_files_and_links() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("ding1");
    let spec = file_at(&path, |_| {});
    let mut lane = TestLane::files();
    fs::create_dir(&path).unwrap();
    lane.withdraw(&spec, "ding1").unwrap();
    assert!(path.is_dir());
    fs::remove_dir(&path).unwrap();
    symlink("/etc/passwd", &path).unwrap();
    lane.withdraw(&spec, "ding1").unwrap();
    assert!(path.symlink_metadata().is_err() && Path::new("/etc/passwd").exists());
}

#[test]
fn below_the_fixed_part_no_link_is_followed_not_even_one_that_appears_later() {
    let directory = tempdir().unwrap();
    let elsewhere = tempdir().unwrap();
    let spec = file_at(directory.path().join("{app}/{corp_id}"), |_| {});
    let mut lane = TestLane::files();
    lane.publish(&spec, "ding1", "t-1").unwrap();
    let app = directory.path().join("crm");
    fs::rename(&app, directory.path().join("old")).unwrap();
    symlink(elsewhere.path(), &app).unwrap();
    let failure = lane.publish(&spec, "ding1", "t-2").unwrap_err();
    assert_eq!(failure.kind, SinkFailureKind::Unsafe);
    assert!(failure.detail.contains("crm is a symbolic link"), "{failure}");
    assert!(names_in(elsewhere.path()).is_empty());
    fs::remove_file(&app).unwrap();
    assert_eq!(lane.publish(&spec, "ding1", "t-2"), Ok(Wrote::Replaced), "it recovers when the fault goes");
    assert_eq!(fs::read_to_string(directory.path().join("old/ding1")).unwrap(), "t-1");
}

#[test]
fn in_the_fixed_part_links_of_root_are_followed_and_others_are_not() {
    if !system_allows("root, to give links away", is_root()) {
        return;
    }
    let directory = tempdir().unwrap();
    fs::create_dir(directory.path().join("real")).unwrap();
    let link = directory.path().join("link");
    symlink("real", &link).unwrap();
    let spec = file_at(link.join("{corp_id}"), |_| {});
    TestLane::files().publish(&spec, "ding1", "t").unwrap();
    assert_eq!(names_in(&directory.path().join("real")), ["ding1"]);
    std::os::unix::fs::lchown(&link, Some(12), None).unwrap();
    let failure = TestLane::files().publish(&spec, "ding1", "t").unwrap_err();
    assert_eq!(failure.kind, SinkFailureKind::Unsafe);
    assert!(failure.detail.contains("link is a symbolic link of user 12"), "{failure}");
    assert_eq!(probe(&spec).unwrap_err(), failure);
}

#[test]
fn a_directory_that_others_can_write_is_refused_unless_trusted() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("shared");
    fs::create_dir(&path).unwrap();
    for mode in [0o777, 0o1777, 0o757] {
        chmod(&path, mode);
        let spec = file_at(path.join("{corp_id}"), |_| {});
        let failure = TestLane::files().publish(&spec, "ding1", "t").unwrap_err();
        assert_eq!(failure.kind, SinkFailureKind::Unsafe);
        assert!(failure.detail.contains(&format!("chmod o-w {}", path.display())), "{failure}");
        assert_eq!(probe(&spec).unwrap_err(), failure);
        assert!(names_in(&path).is_empty());
        let trusted = file_at(path.join("{corp_id}"), |file| file.trust_dir = true);
        assert_eq!(TestLane::files().publish(&trusted, "ding1", "t"), Ok(Wrote::Replaced));
        fs::remove_file(path.join("ding1")).unwrap();
    }
    let below = file_at(path.join("{app}/{corp_id}"), |_| {});
    chmod(&path, 0o757);
    assert_eq!(TestLane::files().publish(&below, "ding1", "t").unwrap_err().kind, SinkFailureKind::Unsafe);
    chmod(&path, 0o1777);
    assert_eq!(
        TestLane::files().publish(&below, "ding1", "t"),
        Ok(Wrote::Replaced),
        "a sticky directory can be passed"
    );
}

#[test]
fn the_sinks_group_and_owner_may_write_its_directory_and_strangers_may_not() {
    if !system_allows("root, to give directories away", is_root()) {
        return;
    }
    let directory = tempdir().unwrap();
    let path = directory.path().join("d");
    fs::create_dir(&path).unwrap();
    std::os::unix::fs::chown(&path, Some(12), Some(34)).unwrap();
    chmod(&path, 0o770);
    let refusal = |change: &dyn Fn(&mut corptokend::domain::FileSink)| {
        TestLane::files()
            .publish(&file_at(path.join("{corp_id}"), change), "ding1", "t")
            .err()
            .map(|failure| failure.detail)
    };
    assert_eq!(refusal(&|file| (file.owner, file.group) = (Some(12), Some(34))), None);
    assert!(refusal(&|file| file.group = Some(34)).unwrap().contains("belongs to user 12"));
    assert!(refusal(&|file| file.owner = Some(12)).unwrap().contains("can be written by group 34"));
}

#[test]
fn a_directory_that_was_replaced_is_found_anew() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("tokens");
    fs::create_dir(&path).unwrap();
    let spec = file_at(path.join("{app}/{corp_id}"), |_| {});
    let mut lane = TestLane::files();
    lane.publish(&spec, "ding1", "t").unwrap();
    fs::rename(&path, directory.path().join("old")).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(lane.publish(&spec, "ding1", "t"), Ok(Wrote::Replaced));
    fs::remove_dir_all(&path).unwrap();
    assert_eq!(lane.publish(&spec, "ding1", "t"), Ok(Wrote::Replaced), "root or its owner makes the fixed part too");
    assert_eq!(fs::read_to_string(path.join("crm/ding1")).unwrap(), "t");
}

#[test]
fn many_directories_do_not_run_out_of_descriptors() {
    let directory = tempdir().unwrap();
    let spec = file_at(directory.path().join("{app}/{corp_id}/token"), |_| {});
    let mut lane = TestLane::files();
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for round in 0..2 {
        lane.inner.send((0..500).map(|n| publication(n, &spec, &format!("d{n}"), &format!("{round}"))).collect());
        for _ in 0..500 {
            assert_eq!(lane.outcome(), Ok(Wrote::Replaced));
        }
    }
    assert!(open() < before + 200, "{} descriptors", open());
}

#[test]
fn a_full_file_system_leaves_the_old_file_and_no_litter() {
    let Some(mount) = Tmpfs::temporary("size=64k,mode=0755") else { return };
    let spec = file_at(mount.path().join("{corp_id}"), |_| {});
    let mut lane = TestLane::files();
    lane.publish(&spec, "ding1", "old").unwrap();
    let ballast = mount.path().join("ballast");
    let _ = fs::write(&ballast, vec![0; 128 << 10]);
    let failure = lane.publish(&spec, "ding1", "new").unwrap_err();
    assert_eq!(failure.kind, SinkFailureKind::Full);
    assert!(failure.detail.contains("df -h"), "{failure}");
    assert_eq!(fs::read_to_string(mount.path().join("ding1")).unwrap(), "old");
    assert_eq!(names_in(mount.path()), ["ballast", "ding1"]);
    fs::remove_file(ballast).unwrap();
    assert_eq!(lane.publish(&spec, "ding1", "new"), Ok(Wrote::Replaced));
}

#[test]
fn a_read_only_file_system_is_said_and_recovers() {
    let Some(mount) = Tmpfs::temporary("mode=0755") else { return };
    let spec = file_at(mount.path().join("{corp_id}"), |_| {});
    let mut lane = TestLane::files();
    lane.publish(&spec, "ding1", "old").unwrap();
    mount.remount("ro");
    let failure = lane.publish(&spec, "ding1", "new").unwrap_err();
    assert_eq!(failure.kind, SinkFailureKind::Unwritable);
    assert!(failure.detail.contains("ReadWritePaths="), "{failure}");
    assert_eq!(lane.publish(&spec, "ding1", "old"), Ok(Wrote::Unchanged), "what is right needs no writing");
    mount.remount("rw");
    assert_eq!(lane.publish(&spec, "ding1", "new"), Ok(Wrote::Replaced));
}

#[test]
fn a_bind_mounted_file_is_refused_with_the_remedy() {
    let Some(mount) = Tmpfs::temporary("mode=0755") else { return };
    let path: PathBuf = mount.path().join("ding1");
    fs::write(&path, "old").unwrap();
    assert!(Command::new("mount").arg("--bind").args([&path, &path]).status().unwrap().success());
    let failure = TestLane::files().publish(&file_at(&path, |_| {}), "ding1", "new").unwrap_err();
    assert!(failure.detail.contains("mount its directory instead"), "{failure}");
    assert_eq!(names_in(mount.path()), ["ding1"]);
    assert!(Command::new("umount").arg(&path).status().unwrap().success());
}

#[test]
fn each_file_system_has_its_own_number() {
    let Some(mount) = Tmpfs::temporary("mode=0755") else { return };
    let number = |path: &Path| file_system_of(path).unwrap();
    assert_eq!(number(&mount.path().join("not/yet/there")), number(mount.path()));
    assert_ne!(number(mount.path()), number(Path::new("/proc")));
}

#[test]
fn an_unprivileged_daemon_says_what_it_lacks() {
    as_nobody("file::an_unprivileged_daemon_says_what_it_lacks", || {
        let refusal = |spec: &SinkSpec| {
            let failure = TestLane::files().publish(spec, "ding1", "t").unwrap_err();
            assert_eq!(probe(spec).unwrap_err().kind, failure.kind);
            assert_eq!(failure.kind, SinkFailureKind::Denied, "{failure}");
            failure.detail
        };
        assert!(refusal(&file_at("/usr/{corp_id}", |_| {})).contains("let user 65534 write there"));
        let own = tempdir().unwrap();
        let given = file_at(own.path().join("{corp_id}"), |file| file.owner = Some(12));
        assert!(refusal(&given).contains("CAP_CHOWN"));
        let grouped = file_at(own.path().join("{corp_id}"), |file| file.group = Some(34));
        assert!(refusal(&grouped).contains("a member of group 34"));
        assert!(names_in(own.path()).is_empty());
        // Where a directory of somebody else's is missing, nobody makes it.
        let spec = file_at("/usr/missing/{corp_id}", |_| {});
        let failure = TestLane::files().publish(&spec, "ding1", "t").unwrap_err();
        assert!(failure.detail.contains("install -d -o 65534 /usr/missing"), "{failure}");
        assert_eq!(probe(&spec).unwrap_err(), failure);
        // Its own runtime directory is completed.
        let spec = file_at(own.path().join("tokens/{corp_id}"), |_| {});
        assert_eq!(probe(&spec), Ok(()));
        assert!(names_in(own.path()).is_empty(), "a probe makes nothing");
        assert_eq!(TestLane::files().publish(&spec, "ding1", "t"), Ok(Wrote::Replaced));
        assert_eq!(probe(&spec), Ok(()));
        assert_eq!(names_in(&own.path().join("tokens")), ["ding1"]);
    });
}

#[test]
fn a_stopped_lane_ends_between_two_publications() {
    let directory = tempdir().unwrap();
    let spec = file_at(directory.path().join("{corp_id}"), |_| {});
    let lane = TestLane::files();
    lane.inner.send((0..20_000).map(|n| publication(n, &spec, &format!("d{n}"), "t")).collect());
    assert_eq!(lane.stop(), Stopped::Ended);
    let written = names_in(directory.path());
    assert!(written.len() < 20_000 && written.iter().all(|name| name.starts_with('d')), "{} files", written.len());
}

#[test]
fn every_job_is_reported() {
    let directory = tempdir().unwrap();
    let spec = file_at(directory.path().join("{corp_id}"), |_| {});
    let mut lane = TestLane::files();
    lane.inner.send((0..300).map(|n| publication(n, &spec, &format!("d{n}"), "t")).collect());
    for _ in 0..300 {
        lane.outcome().unwrap();
    }
    assert!(lane.next(Duration::ZERO).is_none(), "once");
    assert!(lane.inner.is_alive());
}
