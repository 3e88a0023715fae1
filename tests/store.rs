//! The store as the daemon meets it: over restarts, damage, a second daemon and a full disk.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use corptokend::domain::{BootMs, Fingerprint, Now, Record, Slot, TenantId, Ticket, Token, WallMs};
use corptokend::store::{Applied, Kept, Lookup, OpenError, Opened, Reply, Request, open};
use rustix::time::{ClockId, clock_gettime};
use zeroize::Zeroizing;

/// Longer than any wait in here can take on a busy machine.
const SOON: Duration = Duration::from_secs(120);
const STATE_ENV: &str = "CORPTOKEND_TEST_STATE";

fn now() -> Now {
    let ms = |id| {
        let t = clock_gettime(id);
        u64::try_from(t.tv_sec).unwrap() * 1000 + u64::try_from(t.tv_nsec).unwrap() / 1_000_000
    };
    Now { boot: BootMs(ms(ClockId::Boottime)), wall: WallMs(ms(ClockId::Realtime)) }
}

fn id(n: u32) -> TenantId {
    format!("crm/ding{n}").parse().unwrap()
}

fn ticket(n: u32) -> Ticket {
    Ticket { slot: Slot(n), seq: 1 }
}

fn token_text(n: u32) -> String {
    format!("token-of-tenant-{n}-{}", "x".repeat(32))
}

fn kept(n: u32) -> Kept {
    kept_as(n, &token_text(n))
}

fn kept_as(n: u32, text: &str) -> Kept {
    let token = Token::new(Zeroizing::new(text.to_owned())).unwrap();
    let record = Record {
        asked: WallMs(u64::from(n)),
        expires: WallMs(u64::from(n) + 7_200_000),
        fingerprint: token.fingerprint(),
    };
    Kept { ticket: ticket(n), id: id(n), record, token }
}

/// A store and what it says.
struct Running {
    opened: Opened,
    replies: Receiver<Reply>,
}

fn try_start(path: &Path) -> Result<Running, OpenError> {
    let (sender, replies) = channel();
    let reply = move |batch: Vec<Reply>| batch.into_iter().for_each(|reply| drop(sender.send(reply)));
    open(path, reply, now).map(|opened| Running { opened, replies })
}

fn start(path: &Path) -> Running {
    try_start(path).unwrap()
}

impl Running {
    fn send(&self, request: Request) {
        self.opened.store.send(request);
    }

    fn next(&self) -> Reply {
        self.replies.recv_timeout(SOON).expect("the store answers")
    }

    /// Keeps these and waits until they are on disk.
    fn keep(&self, tenants: impl Iterator<Item = u32>) {
        let batch: Vec<Kept> = tenants.map(kept).collect();
        let count = batch.len();
        self.send(Request::Keep(batch));
        match self.next() {
            Reply::Kept(tickets) => assert_eq!(tickets.len(), count),
            other => panic!("{other:?}"),
        }
    }

    fn load(&self, tenants: impl Iterator<Item = u32>) -> Vec<Option<String>> {
        self.send(Request::Load(tenants.map(|n| (ticket(n), id(n))).collect()));
        loop {
            if let Reply::Loaded(loaded) = self.next() {
                return loaded.into_iter().map(|(_, found)| Some(found.found()?.1.expose().into())).collect();
            }
        }
    }

    /// The same of one tenant, as it is told.
    fn look_up(&self, tenant: u32) -> Lookup {
        self.send(Request::Load(vec![(ticket(tenant), id(tenant))]));
        loop {
            if let Reply::Loaded(loaded) = self.next() {
                return loaded.into_iter().next().unwrap().1;
            }
        }
    }

    fn stop(self) {
        self.opened.store.stop(SOON);
    }
}

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/state.redb");
    (dir, path)
}

fn applied(texts: Vec<(PathBuf, String)>) -> Request {
    Request::Applied(Applied { texts, secrets: Vec::new() })
}

#[test]
fn a_restart_finds_every_token_and_the_config_that_ran() {
    let (_dir, path) = scratch();
    let first = start(&path);
    let seed = first.opened.seed;
    let config = vec![(PathBuf::from("/etc/c.toml"), "a = 1".to_owned()), ("/etc/c.d/a.toml".into(), "b = 2".into())];
    let secrets = vec![("crm".parse().unwrap(), Fingerprint(7))];
    first.send(Request::Applied(Applied { texts: config.clone(), secrets: secrets.clone() }));
    first.keep(0..100);
    first.send(Request::Forget(vec![id(7)]));
    first.stop();

    let second = start(&path);
    assert_eq!(second.opened.restored.len(), 99);
    assert_eq!(second.opened.restored.get(&id(42)), Some(kept(42).record));
    assert_eq!(second.opened.restored.get(&id(7)), None);
    assert_eq!(second.opened.applied, Applied { texts: config, secrets });
    assert_eq!(second.opened.seed, seed);
    assert!(second.opened.last_commit.is_some_and(|moment| now().wall.since(moment) < 60_000));
    assert_eq!(second.opened.set_aside, None);
    assert_eq!(second.load([42, 7].into_iter()), [Some(token_text(42)), None]);
    second.stop();
}

#[test]
fn a_config_that_lost_a_file_is_remembered_without_it() {
    let (_dir, path) = scratch();
    let store = start(&path);
    let file = |name: &str| (PathBuf::from(name), "x".to_owned());
    store.send(applied(vec![file("/b"), file("/a")]));
    store.send(applied(vec![file("/b")]));
    store.stop();
    assert_eq!(start(&path).opened.applied.texts, [file("/b")]);
}

#[test]
fn the_newest_change_of_a_tenant_wins() {
    let (_dir, path) = scratch();
    let store = start(&path);
    store.send(Request::Keep(vec![kept(1), kept(2)]));
    store.send(Request::Forget(vec![id(1)]));
    store.send(Request::Forget(vec![id(2)]));
    store.send(Request::Keep(vec![kept_as(2, "newer"), kept_as(2, "newest")]));
    assert_eq!(store.load([1, 2].into_iter()), [None, Some("newest".to_owned())]);
    store.stop();
}

#[test]
fn every_ticket_is_answered_even_when_something_newer_replaced_it() {
    let (_dir, path) = scratch();
    let store = start(&path);
    store.send(Request::Keep(vec![kept(1)]));
    let mut second = kept_as(1, "newer");
    second.ticket.seq = 2;
    store.send(Request::Keep(vec![second]));
    let mut sequence = Vec::new();
    while sequence.len() < 2 {
        let Reply::Kept(tickets) = store.next() else { panic!() };
        sequence.extend(tickets.iter().map(|ticket| ticket.seq));
    }
    assert_eq!(sequence, [1, 2]);
    store.stop();
}

#[test]
fn what_is_pending_is_committed_when_the_store_stops() {
    let (_dir, path) = scratch();
    let store = start(&path);
    store.keep(0..1);
    // The last commit was a moment ago, so this waits for the next.
    store.send(Request::Keep(vec![kept(1)]));
    store.stop();
    assert_eq!(start(&path).opened.restored.len(), 2);
}

#[test]
fn the_file_is_private_even_when_it_was_not() {
    let (_dir, path) = scratch();
    start(&path).stop();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    start(&path).stop();
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn a_symbolic_link_is_not_followed_and_does_not_stop_the_daemon() {
    let (dir, path) = scratch();
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let target = dir.path().join("precious");
    std::fs::write(&target, "precious").unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    let store = start(&path);
    assert!(store.opened.unusable.as_ref().unwrap().contains("symbolic link"));
    assert!(matches!(store.next(), Reply::Health(Some(_))));
    store.send(Request::Keep(vec![kept(1)]));
    assert!(matches!(store.next(), Reply::NotKept(_)));
    assert_eq!(store.load(1..2), [Some(token_text(1))]);
    store.stop();
    assert_eq!(std::fs::read(&target).unwrap(), b"precious");
}

#[test]
fn a_second_daemon_on_the_same_state_is_told_so() {
    let (_dir, path) = scratch();
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "another_process_holds_the_state", "--nocapture"])
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
            .args(["--exact", "another_process_keeps_tokens", "--nocapture"])
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
        store.send(Request::Keep((n * 500..n * 500 + 500).map(kept).collect()));
        let Reply::Kept(tickets) = store.next() else { panic!() };
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
    assert_eq!(start(&path).opened.restored.len(), 1);
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
    for (id, record) in store.opened.restored.iter() {
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

#[test]
fn many_tokens_share_few_commits() {
    let (_dir, path) = scratch();
    let store = start(&path);
    let begun = now().boot;
    for n in 0..1000 {
        store.send(Request::Keep(vec![kept(n)]));
        std::thread::sleep(Duration::from_micros(500));
    }
    let (mut commits, mut tokens) = (0, 0);
    while tokens < 1000 {
        let Reply::Kept(tickets) = store.next() else { panic!() };
        commits += 1;
        tokens += tickets.len();
    }
    let windows = now().boot.since(begun) / 200 + 2;
    assert!(commits <= windows, "{commits} commits in {windows} windows of 200 ms");
    store.stop();
}

/// A tmpfs that is unmounted in the end; `None`, loudly, where that is not possible.
struct Small(PathBuf);

impl Small {
    fn mount(dir: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size},mode=700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir).stderr(Stdio::null());
        let mounted = mount.status().is_ok_and(|status| status.success());
        if !mounted {
            let required = std::env::var_os("CORPTOKEND_REQUIRE_SYSTEM").is_some_and(|value| value == "1");
            assert!(!required, "a tmpfs cannot be mounted here, and CORPTOKEND_REQUIRE_SYSTEM=1 asks for it");
            eprintln!("SKIPPED: a tmpfs cannot be mounted here (it takes root), so no disk can be filled");
            return None;
        }
        Some(Self(dir.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_loses_nothing_and_is_used_again_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = Small::mount(dir.path(), "8m") else { return };
    let path = dir.path().join("state.redb");
    let store = start(&path);
    store.keep(0..10);
    let ballast = dir.path().join("ballast");
    let written = std::fs::write(&ballast, vec![1_u8; 16 << 20]);
    assert!(written.is_err(), "the disk is full now");

    // More than the file has room for, so that it has to grow.
    let long = |n: u32| kept_as(n, &format!("{n:04}{}", "y".repeat(4000)));
    store.send(Request::Keep((10..1000).map(long).collect()));
    let Reply::NotKept(tickets) = store.next() else { panic!("it was kept on a full disk") };
    assert_eq!(tickets.len(), 990);
    let Reply::Health(Some(reason)) = store.next() else { panic!() };
    assert!(reason.contains("No space left"), "{reason}");
    assert_eq!(store.load([999].into_iter())[0].as_ref().map(|text| &text[..4]), Some("0999"));

    std::fs::remove_file(&ballast).unwrap();
    assert!(matches!(store.next(), Reply::Health(None)));
    let Reply::Kept(tickets) = store.next() else { panic!() };
    assert_eq!(tickets.len(), 990);
    store.stop();
    assert_eq!(start(&path).opened.restored.len(), 1000);
}

#[test]
fn what_was_kept_can_be_read_while_nothing_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = Small::mount(dir.path(), "8m") else { return };
    let path = dir.path().join("state.redb");
    let store = start(&path);
    store.keep(0..10);
    assert!(std::fs::write(dir.path().join("ballast"), vec![1_u8; 16 << 20]).is_err(), "the disk is full now");
    let long = |n: u32| kept_as(n, &format!("{n:04}{}", "y".repeat(4000)));
    store.send(Request::Keep((10..1000).map(long).collect()));
    assert!(matches!(store.next(), Reply::NotKept(_)));
    assert!(matches!(store.next(), Reply::Health(Some(_))));
    // It is opened to be read in a moment, and again after each attempt to write; nobody says that there is no token.
    let (mut read, mut unread) = (0, 0);
    while read < 100 {
        match store.look_up(3) {
            Lookup::Found(_, token) => assert_eq!(token.expose(), token_text(3)),
            Lookup::Missing => panic!("it is there"),
            Lookup::Unavailable(reason) => {
                unread += 1;
                assert!(unread < 300, "{reason}");
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
        }
        read += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(unread < read, "it could not be read {unread} times, and could {read} times");
    assert!(matches!(store.look_up(5000), Lookup::Missing), "what is not there is not there");
    store.stop();
    // A start on the full disk knows it too, and so does a start on one that may not be written at all.
    let store = start(&path);
    assert_eq!(store.opened.restored.len(), 10);
    assert_eq!(store.load(0..1), [Some(token_text(0))]);
    store.stop();
}

#[test]
fn a_state_on_a_read_only_disk_is_read_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = Small::mount(dir.path(), "8m") else { return };
    let path = dir.path().join("state.redb");
    let store = start(&path);
    store.keep(0..10);
    store.stop();
    let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(dir.path()).status();
    assert!(remount.unwrap().success());
    let store = start(&path);
    assert!(store.opened.unusable.as_ref().unwrap().contains("ead-only"), "{:?}", store.opened.unusable);
    assert_eq!(store.opened.restored.len(), 10);
    assert_eq!(store.load([7].into_iter()), [Some(token_text(7))]);
    store.send(Request::Keep(vec![kept(10)]));
    assert!(matches!(store.next(), Reply::Health(Some(_)) | Reply::NotKept(_)));
    assert!(Command::new("mount").args(["-o", "remount,rw"]).arg(dir.path()).status().unwrap().success());
    while !matches!(store.next(), Reply::Health(None)) {}
    store.stop();
    assert_eq!(start(&path).opened.restored.len(), 11);
}

#[test]
fn a_state_that_is_lost_while_it_runs_is_begun_anew_and_that_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = Small::mount(dir.path(), "8m") else { return };
    let (path, ballast) = (dir.path().join("state.redb"), dir.path().join("ballast"));
    let store = start(&path);
    store.keep(0..10);
    assert!(std::fs::write(&ballast, vec![1_u8; 16 << 20]).is_err(), "the disk is full now");
    let long = |n: u32| kept_as(n, &format!("{n:04}{}", "y".repeat(4000)));
    store.send(Request::Keep((10..1000).map(long).collect()));
    while !matches!(store.next(), Reply::Health(Some(_))) {}
    std::fs::remove_file(&ballast).unwrap();
    std::fs::write(&path, vec![0xa5; 1 << 20]).unwrap();
    assert!(matches!(store.next(), Reply::Begun));
    assert!(matches!(store.next(), Reply::Health(None)));
    let Reply::Kept(tickets) = store.next() else { panic!("what waited is in the new one") };
    assert_eq!(tickets.len(), 990);
    assert!(matches!(store.look_up(3), Lookup::Missing), "what was only there is lost");
    store.stop();
    assert_eq!(start(&path).opened.restored.len(), 990);
}
