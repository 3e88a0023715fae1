//! Others who may write in the directory of a sink.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use corptokend::domain::{SinkFailureKind, Wrote};
use tempfile::tempdir;

use crate::fixture::{TestLane, file_at, publish_as};

/// Puts a file of its own in place of the published one as soon as that is there.
fn forge(directory: PathBuf) -> JoinHandle<()> {
    let ready = Arc::new(AtomicBool::new(false));
    let signal = Arc::clone(&ready);
    let thread = std::thread::spawn(move || {
        let (forged, place) = (directory.join("forged"), directory.join("ding1"));
        fs::write(&forged, "forged").unwrap();
        signal.store(true, Ordering::Release);
        while !place.exists() {
            std::hint::spin_loop();
        }
        fs::rename(forged, place).unwrap();
    });
    while !ready.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    thread
}

#[test]
fn no_file_that_is_forged_right_after_the_first_publication_to_its_directory_stays() {
    let directory = tempdir().unwrap();
    let mut lane = TestLane::files();
    for round in 0..150 {
        let root = directory.path().join(round.to_string());
        fs::create_dir(&root).unwrap();
        let spec = file_at(root.join("{corp_id}"), |_| {});
        let forger = forge(root.clone());
        publish_as(&mut lane, round, &spec, "ding1");
        forger.join().unwrap();
        assert_eq!(lane.drifted(Duration::from_secs(30)), Some(round));
        publish_as(&mut lane, round, &spec, "ding1");
        assert_eq!(fs::read_to_string(root.join("ding1")).unwrap(), "t-1", "round {round}");
    }
}

#[test]
fn a_directory_at_the_temporary_name_is_in_nobodys_way() {
    let directory = tempdir().unwrap();
    let spec = file_at(directory.path().join("{app}/{corp_id}"), |_| {});
    let mut lane = TestLane::files();
    // For the directory that is to be made, then for the file.
    fs::create_dir_all(directory.path().join(".crm.corptokend-tmp/full")).unwrap();
    assert_eq!(lane.publish(&spec, "ding1", "t-1"), Ok(Wrote::Replaced));
    let app = directory.path().join("crm");
    fs::create_dir_all(app.join(".ding1.corptokend-tmp/full")).unwrap();
    // And what a killed predecessor left under the next name.
    fs::write(app.join(".ding1.corptokend-tmp1"), "litter").unwrap();
    assert_eq!(lane.publish(&spec, "ding1", "t-2"), Ok(Wrote::Replaced));
    assert_eq!(fs::read_to_string(app.join("ding1")).unwrap(), "t-2");
    let mut names: Vec<_> = fs::read_dir(&app).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [".ding1.corptokend-tmp", "ding1"], "only the foreign directory is left");
    // An empty one is as good as none.
    fs::remove_dir(app.join(".ding1.corptokend-tmp/full")).unwrap();
    assert_eq!(lane.publish(&spec, "ding1", "t-3"), Ok(Wrote::Replaced));
    assert_eq!(fs::read_dir(&app).unwrap().count(), 1);
}

#[test]
fn a_place_of_which_all_temporary_names_are_taken_says_so_and_others_do_not() {
    let directory = tempdir().unwrap();
    let spec = file_at(directory.path().join("{corp_id}"), |_| {});
    let mut lane = TestLane::files();
    for number in ["", "1", "2", "3"] {
        fs::create_dir_all(directory.path().join(format!(".ding1.corptokend-tmp{number}/full"))).unwrap();
    }
    let failure = lane.publish(&spec, "ding1", "t-1").unwrap_err();
    assert_eq!(failure.kind, SinkFailureKind::Unsafe);
    assert!(failure.detail.contains("remove ") && failure.detail.contains(".ding1.corptokend-tmp"), "{failure}");
    assert_eq!(lane.publish(&spec, "ding2", "t-1"), Ok(Wrote::Replaced));
    fs::remove_dir_all(directory.path().join(".ding1.corptokend-tmp2")).unwrap();
    assert_eq!(lane.publish(&spec, "ding1", "t-1"), Ok(Wrote::Replaced));
}

#[test]
fn what_a_killed_predecessor_left_under_any_temporary_name_goes() {
    let directory = tempdir().unwrap();
    let spec = file_at(directory.path().join("{corp_id}"), |_| {});
    for round in 0..2 {
        // Beside a file that has to be written, and beside one that is right.
        for number in ["", "1", "2", "3"] {
            fs::write(directory.path().join(format!(".ding1.corptokend-tmp{number}")), "litter").unwrap();
        }
        let expected = if round == 0 { Wrote::Replaced } else { Wrote::Unchanged };
        assert_eq!(TestLane::files().publish(&spec, "ding1", "t-1"), Ok(expected));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_directory_that_goes_while_a_file_is_published_there_is_made_again_and_nothing_fails() {
    // Where a sync takes no time: else the directory is gone again before each rename.
    let directory = tempfile::Builder::new().tempdir_in("/dev/shm").unwrap();
    let spec = file_at(directory.path().join("{app}/{corp_id}"), |_| {});
    let app = directory.path().join("crm");
    let ends = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ends);
    let vandal = std::thread::spawn(move || {
        let mut removed = 0;
        while !end.load(Ordering::Relaxed) {
            removed += u32::from(fs::remove_dir_all(&app).is_ok());
            std::thread::sleep(Duration::from_millis(2));
        }
        removed
    });
    let mut lane = TestLane::files();
    let failures: Vec<_> = (0..2000).filter_map(|n| lane.publish(&spec, "ding1", &format!("t-{n}")).err()).collect();
    ends.store(true, Ordering::Relaxed);
    let removed = vandal.join().unwrap();
    assert!(removed > 20, "removed only {removed} times");
    assert!(failures.is_empty(), "{} failures: {}", failures.len(), failures[0]);
}
