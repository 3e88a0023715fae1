//! Somebody writes without end in the directory of one sink. A binary of its own, since it keeps the processor busy.
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

#[path = "sink/fixture.rs"]
mod fixture;
mod support;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use corptokend::domain::Wrote;
use corptokend::sink::LaneReport;
use fixture::{TestLane, file_at, publish_as};
use tempfile::tempdir;

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

/// The time limit of a repair that nothing delays.
const SOON: Duration = Duration::from_secs(30);

/// Waits for the report that a place was touched; floods are reported as well.
fn drifted_slot(lane: &mut TestLane, within: Duration) -> u32 {
    loop {
        match lane.next(within).expect("a report in time") {
            LaneReport::Drifted { ticket, .. } => return ticket.slot.0,
            LaneReport::FloodBegins { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_flood_of_writes_delays_no_neighbours_repair_and_is_not_read_for_long() {
    let directory = tempdir().unwrap();
    let [loud, quiet] = ["loud", "quiet"].map(|name| directory.path().join(name));
    fs::create_dir(&loud).unwrap();
    fs::create_dir(&quiet).unwrap();
    let [of_loud, of_quiet] = [&loud, &quiet].map(|root| file_at(root.join("{app}/{corp_id}"), |_| {}));
    let mut lane = TestLane::named("flooded");
    publish_as(&mut lane, 0, &of_loud, "ding1");
    publish_as(&mut lane, 1, &of_quiet, "ding1");

    let flooder = Flooder::begin(&loud.join("crm"));
    while flooder.writes() < 500_000 {
        std::thread::yield_now();
    }
    let before = ["flooded", "flooder"].map(ticks_of);
    let (begun, mut longest, mut repairs) = (Instant::now(), Duration::ZERO, 0);
    while begun.elapsed() < Duration::from_secs(5) {
        fs::remove_file(quiet.join("crm/ding1")).unwrap();
        let removed = Instant::now();
        assert_eq!(drifted_slot(&mut lane, SOON), 1);
        assert_eq!(publish_as(&mut lane, 1, &of_quiet, "ding1"), Wrote::Replaced);
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
    assert_eq!(lane.floods, std::slice::from_ref(&loud), "said once");

    // What is altered below it is set right all the same, once it is looked at.
    fs::remove_file(loud.join("crm/ding1")).unwrap();
    drop(flooder);
    // Within a minute, as the log says.
    assert_eq!(drifted_slot(&mut lane, Duration::from_secs(60)), 0);
    assert_eq!(publish_as(&mut lane, 0, &of_loud, "ding1"), Wrote::Replaced);
}

#[test]
fn files_in_a_directory_that_is_flooded_are_repaired_soon_all_the_while() {
    let directory = tempdir().unwrap();
    let spec = file_at(directory.path().join("{app}/{corp_id}"), |_| {});
    let mut lane = TestLane::files();
    publish_as(&mut lane, 0, &spec, "ding1");
    let _flooder = Flooder::begin(&directory.path().join("crm"));
    let (mut longest, begun) = (Duration::ZERO, Instant::now());
    while lane.floods.is_empty() || begun.elapsed() < Duration::from_secs(9) {
        fs::remove_file(directory.path().join("crm/ding1")).unwrap();
        let removed = Instant::now();
        assert_eq!(drifted_slot(&mut lane, SOON), 0);
        longest = longest.max(removed.elapsed());
        assert_eq!(publish_as(&mut lane, 0, &spec, "ding1"), Wrote::Replaced);
    }
    // Pauses take a second, two, four and eight.
    assert!(longest < Duration::from_secs(3), "repaired after {longest:?}");
}
