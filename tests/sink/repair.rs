//! What others do to published files is noticed, at once, and what the lane itself does is not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::fixture::{AnyLane, TestLane, file_at, publication, publish_as};
use crate::support::{is_root, system_allows};
use corptokend::domain::Wrote;
use corptokend::sink::{Lane, LaneReport};
use tempfile::tempdir;

/// Within this a touched file is restored; noticing it is a part of that.
const SECOND: Duration = Duration::from_secs(1);

/// Long enough for events to have come, had there been any.
const QUIET: Duration = Duration::from_millis(300);

/// Publishes, lets `vandal` loose on the path, and expects that to be noticed and mended.
fn is_noticed(vandal: impl FnOnce(&Path)) {
    let directory = tempdir().unwrap();
    let path = directory.path().join("crm/ding1");
    let spec = file_at(directory.path().join("{app}/{corp_id}"), |_| {});
    let mut lane = TestLane::files();
    publish_as(&mut lane, 7, &spec, "ding1");
    publish_as(&mut lane, 8, &spec, "ding2");
    vandal(&path);
    let mut slots: Vec<u32> = lane.drifted(SECOND).into_iter().collect();
    slots.extend(std::iter::from_fn(|| lane.drifted(QUIET)));
    slots.sort_unstable();
    let others_too = !path.with_file_name("ding2").exists();
    assert_eq!(slots, if others_too { vec![7, 8] } else { vec![7] }, "each place is reported once");
    assert_ne!(publish_as(&mut lane, 7, &spec, "ding1"), Wrote::Unchanged);
    assert_eq!(fs::read_to_string(&path).unwrap(), "t-1");
}

#[test]
fn a_deleted_file_is_noticed() {
    is_noticed(|path| fs::remove_file(path).unwrap());
}

#[test]
fn a_file_that_was_written_to_is_noticed() {
    is_noticed(|path| fs::write(path, "t-2").unwrap());
}

#[test]
fn a_file_of_other_permissions_is_noticed() {
    is_noticed(|path| fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap());
}

#[test]
fn a_file_that_was_replaced_or_moved_away_is_noticed() {
    is_noticed(|path| {
        let other = path.with_file_name("other");
        fs::write(&other, "t-2").unwrap();
        fs::rename(other, path).unwrap();
    });
    is_noticed(|path| fs::rename(path, path.with_file_name("other")).unwrap());
}

#[test]
fn a_directory_that_was_removed_or_replaced_is_noticed() {
    is_noticed(|path| fs::remove_dir_all(path.parent().unwrap()).unwrap());
    is_noticed(|path| {
        let app = path.parent().unwrap();
        fs::rename(app, app.with_file_name("old")).unwrap();
        fs::create_dir(app).unwrap();
    });
}

#[test]
fn a_directory_on_the_way_that_was_moved_or_removed_is_noticed() {
    let directory = tempdir().unwrap();
    let fixed = directory.path().join("tokens");
    fs::create_dir(&fixed).unwrap();
    let spec = file_at(fixed.join("{app}/{corp_id}/token"), |_| {});
    let mut lane = TestLane::files();
    let vandals: [&dyn Fn(); 3] = [
        &|| fs::rename(fixed.join("crm"), fixed.join("old")).unwrap(),
        &|| fs::remove_dir_all(&fixed).unwrap(),
        &|| fs::rename(&fixed, directory.path().join("old")).unwrap(),
    ];
    for (slot, vandal) in (0..).zip(vandals) {
        publish_as(&mut lane, slot, &spec, "ding1");
        vandal();
        assert_eq!(lane.drifted(SECOND), Some(slot));
        assert_eq!(publish_as(&mut lane, slot, &spec, "ding1"), Wrote::Replaced);
    }
    assert_eq!(fs::read_to_string(fixed.join("crm/ding1/token")).unwrap(), "t-1");
}

#[test]
fn a_link_in_place_of_a_directory_is_noticed() {
    let directory = tempdir().unwrap();
    let elsewhere = tempdir().unwrap();
    let spec = file_at(directory.path().join("{app}/{corp_id}"), |_| {});
    let mut lane = TestLane::files();
    publish_as(&mut lane, 0, &spec, "ding1");
    fs::rename(directory.path().join("crm"), elsewhere.path().join("crm")).unwrap();
    symlink(elsewhere.path().join("crm"), directory.path().join("crm")).unwrap();
    assert_eq!(lane.drifted(SECOND), Some(0));
}

#[test]
fn a_second_alteration_is_noticed_as_well() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("ding1");
    let spec = file_at(&path, |_| {});
    let mut lane = TestLane::files();
    for _ in 0..3 {
        publish_as(&mut lane, 0, &spec, "ding1");
        fs::write(&path, "t-2").unwrap();
        assert_eq!(lane.drifted(SECOND + QUIET), Some(0));
    }
}

#[test]
fn what_the_lane_itself_does_and_what_readers_do_is_not_reported() {
    let directory = tempdir().unwrap();
    let spec = file_at(directory.path().join("{app}/{corp_id}/token"), |_| {});
    let mut lane = TestLane::files();
    for round in 0..3 {
        lane.inner.send((0..2000).map(|n| publication(n, &spec, &format!("d{n}"), &format!("t-{round}"))).collect());
        for _ in 0..2000 {
            assert_eq!(lane.outcome(), Ok(Wrote::Replaced));
        }
    }
    for n in 0..2000 {
        fs::read(directory.path().join(format!("crm/d{n}/token"))).unwrap();
    }
    fs::write(directory.path().join("crm/neighbour"), "x").unwrap();
    for n in 0..100 {
        lane.withdraw(&spec, &format!("d{n}")).unwrap();
    }
    assert_eq!(lane.drifted(QUIET), None);
}

#[test]
fn a_fight_with_another_writer_is_bounded_and_its_end_is_not_missed() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("ding1");
    let spec = file_at(&path, |_| {});
    let mut lane = TestLane::files();
    publish_as(&mut lane, 0, &spec, "ding1");
    let mut repairs = 0;
    let mut fight = |lane: &mut TestLane, lasting: Duration| {
        let begun = Instant::now();
        while begun.elapsed() < lasting {
            let _ = fs::remove_file(&path);
            if let Some(slot) = lane.drifted(Duration::from_millis(2)) {
                assert_eq!(publish_as(lane, slot, &spec, "ding1"), Wrote::Replaced);
                repairs += 1;
            }
        }
    };
    fight(&mut lane, Duration::from_millis(2_500));
    while let Some(slot) = lane.drifted(SECOND + QUIET) {
        publish_as(&mut lane, slot, &spec, "ding1");
        repairs += 1;
    }
    assert!((2..=8).contains(&repairs), "{repairs} repairs");
    assert_eq!(fs::read_to_string(&path).unwrap(), "t-1");
}

#[test]
fn when_events_are_lost_everything_is_looked_at() {
    let directory = tempdir().unwrap();
    let spec = file_at(directory.path().join("{corp_id}/token"), |_| {});
    let (reports, inbox) = channel();
    let (gate, opened) = channel::<()>();
    let lane = Lane::files("files", Arc::default(), move |batch| {
        reports.send(batch).unwrap();
        // The lane looks at nothing until the gate opens.
        let _ = opened.recv();
    })
    .map(AnyLane::Files)
    .unwrap();
    lane.send((0..3).map(|n| publication(n, &spec, &format!("d{n}"), "t")).collect());
    assert_eq!(inbox.recv().unwrap().len(), 3);
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    let [a, b] = ["d0/a", "d0/b"].map(|name| directory.path().join(name));
    fs::write(&a, "").unwrap();
    for _ in 0..limit {
        fs::rename(&a, &b).unwrap();
        fs::rename(&b, &a).unwrap();
    }
    ["d0/token", "d1/token"].iter().for_each(|name| fs::remove_file(directory.path().join(name)).unwrap());
    drop(gate);
    let (mut slots, mut floods) = (Vec::new(), 0);
    while slots.len() < 2 {
        for report in inbox.recv_timeout(10 * SECOND).unwrap() {
            match report {
                LaneReport::Drifted { ticket, .. } => slots.push(ticket.slot.0),
                LaneReport::FloodBegins { directory: flooded, .. } => {
                    assert_eq!(flooded, directory.path().join("d0"));
                    floods += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    // A machine may be too busy for a flood: then nobody is told to wait.
    if floods == 0 {
        slots.sort_by(|a, b| b.cmp(a));
    }
    slots.sort_unstable();
    assert_eq!(slots, [0, 1], "in the directory of the flood as well, when it is looked at again");
}

/// Runs `body` where the kernel gives one watch and no more, in a user namespace of its own. `test` is the calling test.
fn with_one_watch(test: &str, body: impl FnOnce()) {
    const MARK: &str = "CORPTOKEND_TEST_WITH_ONE_WATCH";
    if std::env::var_os(MARK).is_some() {
        return body();
    }
    if !system_allows("root, to lower the limit of watches", is_root()) {
        return;
    }
    let script = "echo 1 > /proc/sys/user/max_inotify_watches && exec \"$@\"";
    let ran = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(MARK, "1")
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn directories_that_cannot_be_watched_are_swept_until_they_can() {
    with_one_watch("repair::directories_that_cannot_be_watched_are_swept_until_they_can", || {
        let directory = tempdir().unwrap();
        let spec = file_at(directory.path().join("{app}/{corp_id}/token"), |_| {});
        let path = |n: u32| directory.path().join(format!("crm/d{n}/token"));
        let mut lane = TestLane::files();
        for n in 0..3 {
            publish_as(&mut lane, n, &spec, &format!("d{n}"));
        }
        assert!(lane.inner.unwatched() >= 3, "{}", lane.inner.unwatched());
        fs::write(path(1), "t-2").unwrap();
        fs::remove_file(path(2)).unwrap();
        let mut found = [lane.drifted(10 * SECOND), lane.drifted(10 * SECOND)];
        found.sort();
        assert_eq!(found, [Some(1), Some(2)]);

        fs::write("/proc/sys/user/max_inotify_watches", "1000").unwrap();
        for _ in 0..60 {
            if let Some(slot) = lane.drifted(SECOND) {
                publish_as(&mut lane, slot, &spec, &format!("d{slot}"));
            }
            if lane.inner.unwatched() == 0 {
                break;
            }
        }
        assert_eq!(lane.inner.unwatched(), 0, "once there are watches again, they are used");
        for slot in 0..3 {
            publish_as(&mut lane, slot, &spec, &format!("d{slot}"));
        }
        while lane.drifted(SECOND + QUIET).is_some() {}
        fs::remove_file(path(0)).unwrap();
        assert_eq!(lane.drifted(SECOND), Some(0));
    });
}

#[test]
fn unwatched_directories_are_counted_once_and_forgotten_when_they_go() {
    with_one_watch("repair::unwatched_directories_are_counted_once_and_forgotten_when_they_go", || {
        let directory = tempdir().unwrap();
        let spec = file_at(directory.path().join("{app}/{corp_id}/token"), |_| {});
        let mut lane = TestLane::files();
        for _ in 0..2 {
            for n in 0..100 {
                publish_as(&mut lane, n, &spec, &format!("d{n}"));
            }
        }
        assert!((100..=102).contains(&lane.inner.unwatched()), "{}", lane.inner.unwatched());
        for n in 0..100 {
            lane.withdraw(&spec, &format!("d{n}")).unwrap();
        }
        for _ in 0..70 {
            assert_eq!(lane.drifted(SECOND), None, "what was withdrawn is not missed");
            if lane.inner.unwatched() <= 2 {
                return;
            }
        }
        panic!("{} directories are still swept", lane.inner.unwatched());
    });
}
