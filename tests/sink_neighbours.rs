//! What somebody does in the directory of one sink, who may write there, and what that means for the others of its lane.
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod publishing;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use corptokend::domain::{SinkFailureKind, SinkSpec, Wrote};
use corptokend::sink::Report;
use publishing::{Desk, file_at, publication};
use tempfile::tempdir;

const PATIENCE: Duration = Duration::from_secs(30);

/// Somebody who writes to two files of a directory, in turns, without end.
struct Flooder {
    ends: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flooder {
    fn begin(directory: &Path) -> Self {
        let (ends, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (end, count) = (Arc::clone(&ends), Arc::clone(&writes));
        let open = |name: &str| OpenOptions::new().create(true).append(true).open(directory.join(name)).unwrap();
        let mut files = ["a", "b"].map(open);
        let body = move || {
            while !end.load(Ordering::Relaxed) {
                files.iter_mut().for_each(|file| file.write_all(b"x").unwrap());
                if count.fetch_add(2, Ordering::Relaxed) % (1 << 20) == 0 {
                    files.iter().for_each(|file| file.set_len(0).unwrap());
                }
            }
        };
        let thread = std::thread::Builder::new().name("flooder".to_owned()).spawn(body).unwrap();
        Self { ends, writes, thread: Some(thread) }
    }

    fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }
}

impl Drop for Flooder {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The clock ticks of CPU time that this process' thread of that name has used: proc_pid_stat(5).
fn ticks_of(thread: &str) -> u64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten().map(|task| task.path());
    let is_it = |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim_end() == thread);
    let task = tasks.into_iter().find(is_it).unwrap_or_else(|| panic!("there is a thread {thread}"));
    let stat = fs::read_to_string(task.join("stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// Waits for the report that a place was touched; floods are reported as well.
fn touched_slot(desk: &mut Desk) -> u32 {
    loop {
        match desk.next(PATIENCE).expect("a report in time") {
            Report::Touched { ticket, .. } => return ticket.slot.0,
            Report::FloodBegins { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

fn publish_as(desk: &mut Desk, slot: u32, spec: &SinkSpec, corp_id: &str) -> Wrote {
    desk.lane.send(vec![publication(slot, spec, corp_id, "t-1")]);
    desk.outcome().unwrap()
}

#[test]
fn a_flood_of_writes_delays_no_neighbours_repair_and_is_not_read_for_long() {
    let directory = tempdir().unwrap();
    let [loud, quiet] = ["loud", "quiet"].map(|name| directory.path().join(name));
    fs::create_dir(&loud).unwrap();
    fs::create_dir(&quiet).unwrap();
    let [of_loud, of_quiet] = [&loud, &quiet].map(|root| file_at(root.join("{app}/{corp_id}"), |_| {}));
    let mut desk = Desk::named("flooded");
    publish_as(&mut desk, 0, &of_loud, "ding1");
    publish_as(&mut desk, 1, &of_quiet, "ding1");

    let flooder = Flooder::begin(&loud.join("crm"));
    while flooder.writes() < 500_000 {
        std::thread::yield_now();
    }
    let before = ["flooded", "flooder"].map(ticks_of);
    let (begun, mut longest, mut repairs) = (Instant::now(), Duration::ZERO, 0);
    while begun.elapsed() < Duration::from_secs(5) {
        fs::remove_file(quiet.join("crm/ding1")).unwrap();
        let removed = Instant::now();
        assert_eq!(touched_slot(&mut desk), 1);
        assert_eq!(publish_as(&mut desk, 1, &of_quiet, "ding1"), Wrote::Replaced);
        // The same place is reported once a second at most, so the first is the one that counts.
        longest = longest.max(if repairs == 0 { removed.elapsed() } else { Duration::ZERO });
        repairs += 1;
    }
    let after = ["flooded", "flooder"].map(ticks_of);
    let [ours, its] = [after[0] - before[0], after[1] - before[1]];
    println!(
        "{} writes; repaired after {longest:?}; {ours} ticks of ours for {its} of the flooder's",
        flooder.writes()
    );
    assert!(longest < Duration::from_secs(1), "a neighbour's file was repaired after {longest:?}");
    assert!(repairs >= 2, "{repairs} repairs");
    assert!(ours * 5 < its.max(100), "the lane used {ours} ticks, the flooder {its}");
    assert_eq!(desk.floods, std::slice::from_ref(&loud), "said once");

    // What is altered below it is set right all the same, once it is looked at.
    fs::remove_file(loud.join("crm/ding1")).unwrap();
    drop(flooder);
    assert_eq!(touched_slot(&mut desk), 0);
    assert_eq!(publish_as(&mut desk, 0, &of_loud, "ding1"), Wrote::Replaced);
}

#[test]
fn files_in_a_directory_that_is_flooded_are_repaired_soon_all_the_while() {
    let directory = tempdir().unwrap();
    let spec = file_at(directory.path().join("{app}/{corp_id}"), |_| {});
    let mut desk = Desk::files();
    publish_as(&mut desk, 0, &spec, "ding1");
    let _flooder = Flooder::begin(&directory.path().join("crm"));
    let (mut longest, begun) = (Duration::ZERO, Instant::now());
    while desk.floods.is_empty() || begun.elapsed() < Duration::from_secs(9) {
        fs::remove_file(directory.path().join("crm/ding1")).unwrap();
        let removed = Instant::now();
        assert_eq!(touched_slot(&mut desk), 0);
        longest = longest.max(removed.elapsed());
        assert_eq!(publish_as(&mut desk, 0, &spec, "ding1"), Wrote::Replaced);
    }
    // Pauses take a second, two, four and eight.
    assert!(longest < Duration::from_secs(3), "repaired after {longest:?}");
}

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
    let mut desk = Desk::files();
    for round in 0..150 {
        let root = directory.path().join(round.to_string());
        fs::create_dir(&root).unwrap();
        let spec = file_at(root.join("{corp_id}"), |_| {});
        let forger = forge(root.clone());
        publish_as(&mut desk, round, &spec, "ding1");
        forger.join().unwrap();
        assert_eq!(touched_slot(&mut desk), round);
        publish_as(&mut desk, round, &spec, "ding1");
        assert_eq!(fs::read_to_string(root.join("ding1")).unwrap(), "t-1", "round {round}");
    }
}

#[test]
fn a_directory_at_the_temporary_name_is_in_nobodys_way() {
    let directory = tempdir().unwrap();
    let spec = file_at(directory.path().join("{app}/{corp_id}"), |_| {});
    let mut desk = Desk::files();
    // For the directory that is to be made, then for the file.
    fs::create_dir_all(directory.path().join(".crm.corptokend-tmp/full")).unwrap();
    assert_eq!(desk.publish(&spec, "ding1", "t-1"), Ok(Wrote::Replaced));
    let app = directory.path().join("crm");
    fs::create_dir_all(app.join(".ding1.corptokend-tmp/full")).unwrap();
    // And what a killed predecessor left under the next name.
    fs::write(app.join(".ding1.corptokend-tmp1"), "litter").unwrap();
    assert_eq!(desk.publish(&spec, "ding1", "t-2"), Ok(Wrote::Replaced));
    assert_eq!(fs::read_to_string(app.join("ding1")).unwrap(), "t-2");
    let mut names: Vec<_> = fs::read_dir(&app).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [".ding1.corptokend-tmp", "ding1"], "only the foreign directory is left");
    // An empty one is as good as none.
    fs::remove_dir(app.join(".ding1.corptokend-tmp/full")).unwrap();
    assert_eq!(desk.publish(&spec, "ding1", "t-3"), Ok(Wrote::Replaced));
    assert_eq!(fs::read_dir(&app).unwrap().count(), 1);
}

#[test]
fn a_place_of_which_all_temporary_names_are_taken_says_so_and_others_do_not() {
    let directory = tempdir().unwrap();
    let spec = file_at(directory.path().join("{corp_id}"), |_| {});
    let mut desk = Desk::files();
    for number in ["", "1", "2", "3"] {
        fs::create_dir_all(directory.path().join(format!(".ding1.corptokend-tmp{number}/full"))).unwrap();
    }
    let failure = desk.publish(&spec, "ding1", "t-1").unwrap_err();
    assert_eq!(failure.kind, SinkFailureKind::Unsafe);
    assert!(failure.detail.contains("remove ") && failure.detail.contains(".ding1.corptokend-tmp"), "{failure}");
    assert_eq!(desk.publish(&spec, "ding2", "t-1"), Ok(Wrote::Replaced));
    fs::remove_dir_all(directory.path().join(".ding1.corptokend-tmp2")).unwrap();
    assert_eq!(desk.publish(&spec, "ding1", "t-1"), Ok(Wrote::Replaced));
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
        assert_eq!(Desk::files().publish(&spec, "ding1", "t-1"), Ok(expected));
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
    let mut desk = Desk::files();
    let failures: Vec<_> = (0..2000).filter_map(|n| desk.publish(&spec, "ding1", &format!("t-{n}")).err()).collect();
    ends.store(true, Ordering::Relaxed);
    let removed = vandal.join().unwrap();
    assert!(removed > 20, "removed only {removed} times");
    assert!(failures.is_empty(), "{} failures: {}", failures.len(), failures[0]);
}
