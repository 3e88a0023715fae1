//! Others who change what is published: now and then, or without end.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::support::reliability;
use crate::support::system::keyring::{TestKeyring, keyctl, timeout_of};
use crate::support::{Machine, wait_soon};

/// How long a fight lasts.
const FIGHT: Duration = Duration::from_secs(15);
/// What a repair may take here. It is a second, and tests share their cores.
const SOON: Duration = Duration::from_secs(3);

/// Overwrites, replaces and deletes a file without end. Returns how often, and the CPU time that it took.
struct CompetingWriter {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Duration)>,
}

impl CompetingWriter {
    fn at(path: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (other, mut rounds) = (path.with_file_name("other"), 0);
            while !seen.load(Ordering::Relaxed) {
                let _ = fs::write(&path, "mine");
                let _ = fs::write(&other, "mine").and_then(|()| fs::rename(&other, &path));
                let _ = fs::remove_file(&path);
                rounds += 1;
            }
            let spent = clock_gettime(ClockId::ThreadCPUTime);
            (rounds, Duration::new(spent.tv_sec.unsigned_abs(), u32::try_from(spent.tv_nsec).unwrap()))
        });
        Self { stop, thread }
    }

    fn end(self) -> (u64, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// The CPU time that a process has taken: proc_pid_stat(5), in ticks of 10 ms.
fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

fn repairs(machine: &Machine, app: &str) -> u64 {
    machine.status_json()["repairs"][app].as_u64().unwrap()
}

#[test]
fn a_fight_with_another_writer_costs_little_and_delays_nobody_else() {
    // In memory, so that nobody waits for a disk.
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let sink = format!("[[app.crm.sink]]\nfile = \"{}/{{corp_id}}\"", memory.path().display());
    let mut machine = Machine::new().app("crm", &["ding1", "ding2"], &sink);
    machine.start();
    let [fought, neighbour] = ["ding1", "ding2"].map(|id| memory.path().join(id));
    let right = [&fought, &neighbour].map(|path| fs::read_to_string(path).unwrap());
    let is_right = |path: &PathBuf, right: &String| fs::read_to_string(path).is_ok_and(|text| text == *right);
    let before = cpu_time(machine.pid());
    let writer = CompetingWriter::at(fought.clone());
    let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
    while begun.elapsed() < FIGHT {
        fs::remove_file(&neighbour).unwrap();
        slowest = slowest.max(wait_soon("the neighbour's file is restored", SOON, || is_right(&neighbour, &right[1])));
        std::thread::sleep(Duration::from_secs(4));
    }
    let (lasted, (rounds, writers)) = (begun.elapsed(), writer.end());
    let daemons = cpu_time(machine.pid()) - before;
    let over = Instant::now();
    assert_eq!(machine.events("sink_contested").len(), 1);
    let reported = machine.status_json()["warnings"].to_string();
    assert!(reported.contains("somebody else keeps changing"), "{reported}");
    machine.wait_until("the file is right", |_| is_right(&fought, &right[0]));
    let over = over.elapsed();
    // Five as they come, then after one second, two, four; and four of the neighbour's. Once a second would be 18.
    let repairs = repairs(&machine, "crm");
    assert!((6..=14).contains(&repairs), "{repairs} repairs");
    let said = machine.events("sink_repaired").len() as u64;
    assert_eq!(said, repairs.min(10), "each is said, up to ten a minute");
    // Hearing of it costs less than doing it, even in a debug build, which takes several times what the released one does.
    assert!(
        rounds > 1000 && daemons < writers,
        "{daemons:?} of the daemon's time for {writers:?} and {rounds} rounds in {lasted:?}"
    );
    assert_eq!(machine.sandbox.calls().len(), 2, "nobody is called for it");
    assert!(machine.stop().success());
    reliability::leave(
        "a_fight_with_another_writer_costs_little_and_delays_nobody_else",
        "another process overwrites, replaces and deletes a token file without end",
        "repairs become rarer, up to one a minute; reported once, in the status too; other files are restored within a second; right when it ends",
        &format!(
            "{} s, {rounds} rounds: {repairs} repairs, {} ms of CPU against the other's {}; the neighbour's file back within {} ms; right {} ms after the end",
            FIGHT.as_secs(),
            daemons.as_millis(),
            writers.as_millis(),
            slowest.as_millis(),
            over.as_millis()
        ),
    );
}

#[test]
fn keys_that_others_touch_are_restored_within_a_second_and_counted() {
    let Some(ring) = TestKeyring::named("changed") else { return };
    let sink = format!("[[app.crm.sink]]\nkeyring = \"@u/{}/{{app}}/{{corp_id}}\"", ring.0);
    let mut machine = Machine::new().app("crm", &["ding1", "ding2", "ding3", "ding4", "ding5", "ding6"], &sink);
    machine.start();
    let whole = |id: &str| machine.sandbox.issued(id).last().map(|issued| issued.token.clone());
    let key = |id: &str| ring.find("user", id).unwrap();
    let changes: [(&str, &[&str]); 5] =
        [("unlink", &[]), ("revoke", &[]), ("invalidate", &[]), ("update", &["mine"]), ("setperm", &["0x3f3f0000"])];
    let mut slowest = Duration::ZERO;
    for (number, (verb, arguments)) in (1..).zip(changes) {
        let id = format!("ding{number}");
        let serial = key(&id);
        keyctl(&[&[verb, serial.as_str()], arguments].concat()).unwrap();
        let is_right = || {
            let repaired = repairs(&machine, "crm") >= number;
            repaired
                && ring.print(&id) == whole(&id)
                && keyctl(&["rdescribe", &key(&id)]).is_ok_and(|key| key.contains(";3f0b0000;"))
        };
        slowest = slowest.max(wait_soon(&format!("{verb} is undone"), SOON, is_right));
    }
    // The kernel does not tell that one, so it is put right each time and not counted.
    keyctl(&["timeout", &key("ding6"), "0"]).unwrap();
    wait_soon("the timeout is back", SOON, || timeout_of(&key("ding6")).is_some_and(|left| left != "perm"));
    keyctl(&["unlink", &keyctl(&["search", "@u", "keyring", &ring.0]).unwrap(), "@u"]).unwrap();
    let all = ["ding1", "ding2", "ding3", "ding4", "ding5", "ding6"];
    let took =
        wait_soon("the keyring is back with its keys", SOON, || all.iter().all(|id| ring.print(id) == whole(id)));
    machine.wait_until("all are counted", |machine| repairs(machine, "crm") == 11);
    assert_eq!(machine.sandbox.calls().len(), 6, "nobody is called for it");
    assert!(machine.stop().success());
    reliability::leave(
        "keys_that_others_touch_are_restored_within_a_second_and_counted",
        "a key is unlinked, revoked, invalidated, altered or re-permissioned, its timeout cleared, its keyring taken away",
        "restored from the state within about a second, and counted once each (a timeout is not); no call",
        &format!(
            "5 ways, the slowest mended after {} ms; a keyring with 6 keys after {} ms",
            slowest.as_millis(),
            took.as_millis()
        ),
    );
}
