//! Kills, damage, files that are no state, and a second daemon.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use corptokend::store::{OpenError, StoreReply, StoreRequest};

use crate::fixture::{applied, kept, scratch, start, token_text, try_start};

const STATE_ENV: &str = "CORPTOKEND_TEST_STATE";

#[test]
fn a_second_daemon_on_the_same_state_is_told_so() {
    let (_dir, path) = scratch();
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "damage::another_process_holds_the_state", "--nocapture"])
        .env(STATE_ENV, &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("it is held")));
    let Err(OpenError::InUse { path: named }) = try_start(&path) else { panic!("it opened") };
    assert_eq!(named, path);
    drop(other.stdin.take());
    lines.for_each(drop);
    assert!(other.wait().unwrap().success());
    start(&path).stop();
}

/// The other process of the test above; does nothing when it is run by itself.
#[test]
fn another_process_holds_the_state() {
    let Some(path) = std::env::var_os(STATE_ENV) else { return };
    let store = start(Path::new(&path));
    println!("it is held");
    std::io::stdin().lines().for_each(drop);
    store.stop();
}

#[test]
fn what_was_said_to_be_kept_is_there_after_a_kill() {
    let (_dir, path) = scratch();
    for round in 1..=3 {
        let mut other = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "damage::another_process_keeps_tokens", "--nocapture"])
            .env(STATE_ENV, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = Vec::new();
        for line in BufReader::new(other.stdout.take().unwrap()).lines() {
            said.extend(line.unwrap().strip_prefix("kept ").map(|n| n.parse::<u32>().unwrap()));
            if said.len() >= round * 700 {
                other.kill().unwrap();
            }
        }
        other.wait().unwrap();
        let store = start(&path);
        assert_eq!(store.opened.set_aside, None);
        assert_eq!(store.opened.rotten, 0);
        for (n, found) in said.iter().zip(store.load(said.iter().copied())) {
            assert_eq!(found, Some(token_text(*n)), "round {round}");
        }
        store.stop();
    }
}

/// The other process of the test above; does nothing when it is run by itself.
#[test]
fn another_process_keeps_tokens() {
    let Some(path) = std::env::var_os(STATE_ENV) else { return };
    let store = start(Path::new(&path));
    for n in 0.. {
        store.send(StoreRequest::Keep((n * 500..n * 500 + 500).map(kept).collect()));
        let StoreReply::Kept(tickets) = store.next() else { panic!() };
        tickets.iter().for_each(|ticket| println!("kept {}", ticket.slot.0));
    }
}

#[test]
fn a_file_that_is_no_state_is_set_aside_once() {
    let (_dir, path) = scratch();
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let aside = path.with_file_name("state.redb.corrupt");
    for text in ["not a database", "nor is this"] {
        std::fs::write(&path, text).unwrap();
        let store = start(&path);
        let set_aside = store.opened.set_aside.as_ref().unwrap();
        assert_eq!(set_aside.to, aside);
        store.keep(0..1);
        store.stop();
        assert_eq!(std::fs::read_to_string(&aside).unwrap(), text);
        assert_eq!(std::fs::metadata(&aside).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(start(&path).opened.contents.snapshot.len(), 1);
}

#[test]
fn a_state_of_a_newer_version_is_set_aside_with_its_number() {
    let (_dir, path) = scratch();
    start(&path).stop();
    let db = redb::Database::open(&path).unwrap();
    let txn = db.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    txn.open_table(meta).unwrap().insert("format", 99).unwrap();
    txn.commit().unwrap();
    drop(db);
    let reason = start(&path).opened.set_aside.unwrap().reason;
    assert!(reason.contains("99") && reason.contains("newer"), "{reason}");
}

#[test]
fn another_programs_database_is_set_aside() {
    let (_dir, path) = scratch();
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let db = redb::Database::create(&path).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(redb::TableDefinition::<&str, &str>::new("tokens")).unwrap().insert("a", "b").unwrap();
    txn.commit().unwrap();
    drop(db);
    assert!(start(&path).opened.set_aside.unwrap().reason.contains("not a state of corptokend"));
}

/// Opens `bytes` as a state and checks that each tenant has its own token or none.
fn never_wrong(path: &Path, bytes: &[u8], what: &str) -> usize {
    std::fs::write(path, bytes).unwrap();
    let store = start(path);
    for (id, record) in store.opened.contents.snapshot.iter() {
        let n: u32 = id.corp_id.as_str().trim_start_matches("ding").parse().unwrap();
        assert_eq!(record, kept(n).record, "{what}");
    }
    let loaded = store.load(0..50);
    for (n, found) in (0..).zip(&loaded) {
        assert!(found.as_ref().is_none_or(|text| *text == token_text(n)), "{what}: tenant {n}");
    }
    // Whatever was found, it can be used from here on.
    store.keep(100..101);
    store.stop();
    loaded.iter().flatten().count()
}

#[test]
fn no_damage_makes_a_wrong_token_or_a_crash() {
    let (_dir, path) = scratch();
    let store = start(&path);
    store.send(applied(vec![("/etc/c.toml".into(), "x".repeat(5000))]));
    (0..5).for_each(|part| store.keep(part * 10..part * 10 + 10));
    store.stop();
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(never_wrong(&path, &whole, "undamaged"), 50);

    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |limit: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % limit
    };
    let rounds = std::env::var("CORPTOKEND_DAMAGES").map_or(200, |text| text.parse().unwrap());
    for round in 0..rounds {
        // Half of the flips hit the first pages, where the structure is.
        let at = below(if round % 2 == 0 { used } else { 8192.min(used) });
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << below(8);
        never_wrong(&path, &flipped, &format!("a bit flipped in byte {at}"));
    }
    for _ in 0..rounds {
        let length = below(whole.len());
        never_wrong(&path, &whole[..length], &format!("truncated to {length} bytes"));
    }
}
