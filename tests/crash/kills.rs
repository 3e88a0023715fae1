//! `kill -9` in the midst of rotation.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use corptokend::sandbox::Options;

use crate::repetition::{Dice, repetitions};
use crate::support::readers::{FileAttributes, Readers, Seen};
use crate::support::reliability;
use crate::support::{Machine, corp_ids};

const TENANTS: usize = 200;
const LIFETIME_S: u32 = 4;
/// A token is due after 0.7 ± 0.05 of its life, rounded down to a second: 1.6 s. On a busy machine, the first of two calls
/// reaches the sandbox later than the second.
const NOT_DUE_BEFORE_MS: u64 = 1_200;

/// When the daemon was killed, on the sandbox's clock, give or take its start.
struct Kills {
    born: Instant,
    at: Vec<Instant>,
}

impl Kills {
    /// Whether the daemon was killed within this time. The sandbox's clock began a moment before `born`.
    fn any_within(&self, from_ms: u64, to_ms: u64) -> bool {
        let ms = |at: &Instant| u64::try_from(at.duration_since(self.born).as_millis()).unwrap();
        self.at.iter().map(ms).any(|at| from_ms <= at + 500 && at <= to_ms + 500)
    }
}

/// 200 tenants; as root, with an owner that the temporary files do not have.
fn machine() -> (Machine, FileAttributes) {
    let options = Options { lifetime_s: LIFETIME_S, issue_log: 100_000, ..Options::default() };
    let machine = Machine::with(options);
    let sink = machine.path("tokens/crm/{corp_id}").display().to_string();
    let root = rustix::process::geteuid().is_root();
    let (owner, look) = if root {
        ("owner = 65534\ngroup = 65534", FileAttributes { mode: 0o640, uid: 65534, gid: 65534 })
    } else {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        ("", FileAttributes { mode: 0o640, uid, gid })
    };
    let sink = format!("[[app.crm.sink]]\nfile = \"{sink}\"\nmode = \"0640\"\n{owner}");
    (machine.app("crm", &corp_ids(TENANTS), &sink), look)
}

#[test]
fn no_kill_shows_a_reader_anything_but_a_whole_token() {
    let kills = repetitions("CORPTOKEND_KILLS", 60);
    let (mut machine, look) = machine();
    let mut killed = Kills { born: Instant::now(), at: Vec::new() };
    let paths: Vec<PathBuf> =
        corp_ids(TENANTS).iter().map(|corp_id| machine.path(&format!("tokens/crm/{corp_id}"))).collect();
    let readers = Readers::watch(2, &paths, look);
    let mut dice = Dice(u64::from(std::process::id()));
    // A busy machine takes longer to come to where things happen.
    let began = Instant::now();
    machine.start();
    let pace = usize::try_from(began.elapsed().as_millis() / 500).unwrap().clamp(1, 10);
    machine.kill();
    killed.at.push(Instant::now());
    for round in 0..kills {
        machine.launch();
        // Some die at their start, most while they publish.
        std::thread::sleep(Duration::from_millis(u64::try_from(dice.below(600 * pace)).unwrap()));
        assert!(machine.is_running(), "the daemon ended by itself in round {round}:\n{}", machine.log());
        machine.kill();
        killed.at.push(Instant::now());
    }
    machine.launch();
    machine.wait_until("every tenant has its file", |machine| machine.token_files().len() >= TENANTS);
    std::thread::sleep(Duration::from_secs(LIFETIME_S.into()));
    assert!(machine.stop().success());
    let seen = readers.finish();
    seen.assert_flawless(&machine.sandbox);
    assert_eq!(machine.token_files(), sorted_files(), "litter, or a file that is not there");
    assert_eq!(machine.names_in("state"), ["state.redb"]);
    assert_eq!(machine.names_in("run"), [""; 0]);
    for event in ["state_set_aside", "state_unwritable", "state_rotten", "state_rot"] {
        assert!(machine.events(event).is_empty(), "{:?}", machine.events(event));
    }
    let (calls, lost) = assert_only_what_was_due(&machine, &killed, &seen, &paths);
    let rotations: usize = seen.tokens.values().map(Vec::len).sum();
    // A test in which little happened proves little.
    assert!(rotations > TENANTS * 2 && seen.reads > 20_000, "{rotations} rotations, {} reads", seen.reads);
    reliability::leave(
        "no_kill_shows_a_reader_anything_but_a_whole_token",
        "`kill -9` at random moments while 200 tenants rotate",
        "never a torn, empty, missing, older, wrongly owned or foreign token; the state opens; only what was due is asked for; no litter",
        &format!(
            "{kills} kills, {} reads, {rotations} rotations seen: 0 faults; {calls} calls, {lost} of them again because \
             the kill came before the commit",
            seen.reads
        ),
    );
}

/// Every call was due, or its predecessor's token died with the daemon before it was committed, and so before anybody saw
/// it. Answers with the calls and how many of these there were.
fn assert_only_what_was_due(machine: &Machine, killed: &Kills, seen: &Seen, paths: &[PathBuf]) -> (usize, usize) {
    let (mut calls, mut lost) = (0, 0);
    for (corp_id, path) in corp_ids(TENANTS).iter().zip(paths) {
        let issued = machine.sandbox.issued(corp_id);
        calls += issued.len();
        for pair in issued.windows(2) {
            let [before, after] = pair else { unreachable!("windows of two") };
            if after.at_ms - before.at_ms < NOT_DUE_BEFORE_MS {
                lost += 1;
                let gap = format!("{corp_id}: called at {} ms and {} ms", before.at_ms, after.at_ms);
                assert!(killed.any_within(before.at_ms, after.at_ms), "{gap}, and nobody was killed");
                assert!(!seen.saw(path, &before.token), "{gap}, though the token had been published");
            }
        }
    }
    (calls, lost)
}

fn sorted_files() -> Vec<String> {
    let mut names: Vec<String> = corp_ids(TENANTS).iter().map(|corp_id| format!("crm/{corp_id}")).collect();
    names.sort();
    names
}
