//! What others do to published keys is noticed within about a second, and what the lane itself does is not.

use std::time::Duration;

use corptokend::domain::{OnExpiry, Wrote};

use crate::fixture::{EXPIRES, TestLane, publish_as};
use crate::keyring::{key_sink, seconds_before_expiry};
use crate::support::system::keyring::{TestKeyring, keyctl, timeout_of};

/// Within this a touched key is noticed, unless the machine is very busy.
const SOON: Duration = Duration::from_secs(2);
/// Long enough for two looks at each key.
const QUIET: Duration = Duration::from_millis(1800);

/// Set in the process of a test that runs alone.
const MARK: &str = "CORPTOKEND_TEST_ALONE";

/// A keyctl command on the published key, or on a keyring.
type Vandal = (&'static str, &'static [&'static str]);

const ON_THE_KEY: [Vandal; 6] = [
    ("unlink", &[]),
    ("revoke", &[]),
    ("invalidate", &[]),
    ("update", &["t-2"]),
    ("setperm", &["0x3f3f0000"]),
    ("setperm", &["0"]),
];

#[test]
fn whatever_is_done_to_a_key_is_noticed_and_mended() {
    let Some(ring) = TestKeyring::named("sink") else { return };
    let mut lane = TestLane::keys(seconds_before_expiry(600));
    let spec = key_sink(&ring, OnExpiry::Delete);
    publish_as(&mut lane, 8, &spec, "ding2");
    for (verb, arguments) in ON_THE_KEY {
        publish_as(&mut lane, 7, &spec, "ding1");
        let key = ring.find("user", "ding1").unwrap();
        keyctl(&[&[verb, key.as_str()], arguments].concat()).unwrap();
        assert_eq!(lane.drifted(SOON), Some(7), "{verb} {arguments:?}");
        let wrote = publish_as(&mut lane, 7, &spec, "ding1");
        assert_ne!(wrote, Wrote::Unchanged, "{verb} {arguments:?}");
        let key = ring.find("user", "ding1").unwrap();
        assert_eq!(keyctl(&["print", &key]).unwrap(), "t-1");
        assert!(keyctl(&["rdescribe", &key]).unwrap().contains(";3f0b0000;"));
    }
    assert_eq!(lane.drifted(QUIET), None, "each is reported once, and the other not at all");
}

#[test]
fn a_keyring_that_is_cleared_or_taken_away_is_noticed_for_all_its_keys() {
    let Some(ring) = TestKeyring::named("sink") else { return };
    let mut lane = TestLane::keys(seconds_before_expiry(600));
    let spec = key_sink(&ring, OnExpiry::Delete);
    let vandals: [&dyn Fn(); 4] = [
        &|| drop(keyctl(&["clear", &ring.find("keyring", "crm").unwrap()]).unwrap()),
        &|| drop(keyctl(&["revoke", &ring.find("keyring", "crm").unwrap()]).unwrap()),
        &|| {
            let above = keyctl(&["search", "@u", "keyring", &ring.0]).unwrap();
            keyctl(&["unlink", &ring.find("keyring", "crm").unwrap(), &above]).unwrap();
        },
        &|| drop(keyctl(&["unlink", &keyctl(&["search", "@u", "keyring", &ring.0]).unwrap(), "@u"]).unwrap()),
    ];
    for vandal in vandals {
        publish_as(&mut lane, 0, &spec, "ding0");
        publish_as(&mut lane, 1, &spec, "ding1");
        vandal();
        let mut slots = [lane.drifted(SOON), lane.drifted(SOON)];
        slots.sort();
        assert_eq!(slots, [Some(0), Some(1)]);
        assert_eq!(publish_as(&mut lane, 0, &spec, "ding0"), Wrote::Replaced);
    }
    assert!(ring.find("user", "ding0").is_some());
}

#[test]
fn another_timeout_is_put_right_without_further_words() {
    let Some(ring) = TestKeyring::named("sink") else { return };
    let mut lane = TestLane::keys(seconds_before_expiry(55));
    for (on_expiry, timeout, right) in
        [(OnExpiry::Delete, "0", "s"), (OnExpiry::Delete, "9999", "s"), (OnExpiry::Keep, "9999", "perm")]
    {
        publish_as(&mut lane, 0, &key_sink(&ring, on_expiry), "ding1");
        let key = ring.find("user", "ding1").unwrap();
        keyctl(&["timeout", &key, timeout]).unwrap();
        assert!(!timeout_of(&key).unwrap().ends_with(right));
        assert_eq!(lane.drifted(QUIET), None);
        assert!(timeout_of(&key).unwrap().ends_with(right), "{}", timeout_of(&key).unwrap());
    }
}

#[test]
fn what_the_lane_the_kernel_and_readers_do_is_not_reported() {
    let Some(ring) = TestKeyring::named("sink") else { return };
    let mut lane = TestLane::keys(seconds_before_expiry(2));
    let spec = key_sink(&ring, OnExpiry::Delete);
    publish_as(&mut lane, 0, &spec, "ding1");
    lane.publish_until(&spec, "ding1", "t-2", EXPIRES).unwrap();
    publish_as(&mut lane, 1, &spec, "ding2");
    lane.withdraw(&spec, "ding2").unwrap();
    let key = ring.find("user", "ding1").unwrap();
    keyctl(&["print", &key]).unwrap();
    // The clock of the lane stands still, so to it the key is alive: the kernel is only given two seconds at a time.
    assert_eq!(lane.drifted(2 * QUIET), None);
    let mut lane = TestLane::keys(seconds_before_expiry(0));
    publish_as(&mut lane, 0, &spec, "ding3");
    assert_eq!(lane.drifted(3 * QUIET), None, "its time was over");
    assert_eq!(ring.find("user", "ding3"), None);
}

/// The CPU time of the lane's threads, as the scheduler counts it.
fn lane_cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten().map(|task| task.path());
    let lanes =
        tasks.filter(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "keyring"));
    let spent = |task: std::path::PathBuf| {
        let schedstat = std::fs::read_to_string(task.join("schedstat")).ok()?;
        schedstat.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(lanes.filter_map(spent).sum())
}

#[test]
fn looking_at_the_keys_costs_next_to_nothing() {
    const KEYS: u32 = 150;
    const WHILE: Duration = Duration::from_secs(4);
    let Some(ring) = TestKeyring::named("sink") else { return };
    // Alone in its process: the lanes of other tests have threads of the same name.
    if std::env::var_os(MARK).is_none() {
        let test = "keyring_repair::looking_at_the_keys_costs_next_to_nothing";
        let ran = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(MARK, "1")
            .status();
        assert!(ran.unwrap().success());
        return;
    }
    let mut lane = TestLane::keys(seconds_before_expiry(600));
    for slot in 0..KEYS {
        publish_as(&mut lane, slot, &key_sink(&ring, OnExpiry::Delete), &format!("ding{slot}"));
    }
    let before = lane_cpu();
    assert_eq!(lane.drifted(WHILE), None);
    let spent = lane_cpu() - before;
    eprintln!("{KEYS} keys: {spent:?} of CPU in {WHILE:?}");
    assert!(spent < WHILE / 100, "{spent:?} in {WHILE:?}");
}

#[test]
fn of_many_keys_none_is_forgotten() {
    const KEYS: u32 = 1000;
    let Some(ring) = TestKeyring::named("sink") else { return };
    let limit = std::fs::read_to_string("/proc/sys/kernel/keys/root_maxkeys").unwrap_or_default();
    let enough = crate::support::is_root() && limit.trim().parse().is_ok_and(|keys: u32| keys > 2 * KEYS);
    if !crate::support::system_allows("root, who may have many keys", enough) {
        return;
    }
    let mut lane = TestLane::keys(seconds_before_expiry(600));
    let spec = key_sink(&ring, OnExpiry::Delete);
    for slot in 0..KEYS {
        publish_as(&mut lane, slot, &spec, &format!("ding{slot}"));
    }
    for slot in [0, 499, 999] {
        keyctl(&["unlink", &ring.find("user", &format!("ding{slot}")).unwrap(), &ring.find("keyring", "crm").unwrap()])
            .unwrap();
    }
    let mut slots = [0; 3].map(|_| lane.drifted(5 * SOON).expect("each is noticed"));
    slots.sort_unstable();
    assert_eq!(slots, [0, 499, 999]);
    assert_eq!(lane.drifted(QUIET), None);
}
