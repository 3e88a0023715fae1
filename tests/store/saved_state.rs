//! What the store remembers besides the tokens, and how their times are told anew: over restarts, damage and a full disk.

use corptokend::domain::{
    Failing, Failure, FailureKind, Fingerprint, OriginId, Record, SavedKey, SavedState, Slot, Ticket, Token, Wait,
    WallMs,
};
use corptokend::store::{Kept, StoreReply, StoreRequest};
use redb::{ReadableDatabase, ReadableTable, TableHandle};
use zeroize::Zeroizing;

use crate::fixture::{Running, SOON, id, scratch, start};

const MEMORIES: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("memories");

fn wait(ms: u64) -> Wait {
    Wait { told: WallMs(1_000_000), until: WallMs(1_000_000 + ms) }
}

fn failing(n: u32) -> (SavedKey, SavedState) {
    let failure =
        Failure { code: Some("no".into()), ..Failure::new(FailureKind::Unauthorized, format!("refused {n}")) };
    let (since, at) = (WallMs(999_000), WallMs(1_000_000));
    let next = wait(900_000);
    (
        SavedKey::Tenant(id(n)),
        SavedState::Failing(Failing { failure, since, at, failures: 3, unknown: 0, refused: true, next }),
    )
}

fn all() -> Vec<(SavedKey, SavedState)> {
    let app = || "crm".parse().unwrap();
    let broken = SavedState::Broken { kind: FailureKind::WrongCredentials, probes: 2, probe: wait(60_000) };
    let mut all = vec![
        (SavedKey::Ban(OriginId(5)), SavedState::Paused(wait(300_000))),
        (SavedKey::Pace(OriginId(5)), SavedState::Slowed { share: 512, hold: wait(1_000) }),
        (SavedKey::Breaker(app()), broken),
        (SavedKey::Rate(app()), SavedState::Slowed { share: 64, hold: wait(0) }),
        (SavedKey::Tenant(id(99)), SavedState::Unextended(Fingerprint(7))),
    ];
    all.extend((0..20).map(failing));
    all
}

fn record(n: u32, asked: u64) -> Record {
    Record { requested_at: WallMs(asked), expires_at: WallMs(asked + 7_200_000), fingerprint: token(n).fingerprint() }
}

fn token(n: u32) -> Token {
    Token::new(Zeroizing::new(format!("token-of-tenant-{n}"))).unwrap()
}

fn kept(n: u32, asked: u64) -> Kept {
    Kept { ticket: Ticket { slot: Slot(n), seq: 1 }, id: id(n), record: record(n, asked), token: token(n) }
}

impl Running {
    fn remember(&self, memories: Vec<(SavedKey, SavedState)>) {
        self.send(StoreRequest::Remember(
            memories.into_iter().map(|(subject, memory)| (subject, Some(memory))).collect(),
        ));
    }

    fn keep_one(&self, kept: Kept) {
        self.send(StoreRequest::Keep(vec![kept]));
        assert!(matches!(self.replies.recv_timeout(SOON), Ok(StoreReply::Kept(_))));
    }

    /// What was remembered, in the order of the subjects.
    fn memories(&self) -> Vec<(SavedKey, SavedState)> {
        sorted(self.opened.contents.saved.clone())
    }
}

fn sorted(mut memories: Vec<(SavedKey, SavedState)>) -> Vec<(SavedKey, SavedState)> {
    memories.sort_by(|(a, _), (b, _)| a.cmp(b));
    memories
}

#[test]
fn a_restart_finds_what_was_remembered_and_not_what_was_forgotten() {
    let (_dir, path) = scratch();
    let first = start(&path);
    first.remember(all());
    first.stop();
    let second = start(&path);
    assert_eq!(second.memories(), sorted(all()));
    second.send(StoreRequest::Remember(vec![(SavedKey::Ban(OriginId(5)), None), (failing(3).0, None)]));
    second.send(StoreRequest::Forget(vec![id(4)]));
    second.stop();
    let gone = [SavedKey::Ban(OriginId(5)), failing(3).0, failing(4).0];
    let left: Vec<_> = all().into_iter().filter(|(subject, _)| !gone.contains(subject)).collect();
    assert_eq!(start(&path).memories(), sorted(left));
}

#[test]
fn a_damaged_memory_is_skipped_counted_once_and_harms_nothing_else() {
    let (_dir, path) = scratch();
    let store = start(&path);
    store.remember(all());
    store.keep_one(kept(1, 1_000));
    store.stop();
    let database = redb::Database::open(&path).unwrap();
    let txn = database.begin_write().unwrap();
    {
        let mut table = txn.open_table(MEMORIES).unwrap();
        for key in ["crm/ding1", "!ban!0000000000000005"] {
            let mut value = table.get(key).unwrap().unwrap().value().to_vec();
            value[5] ^= 4;
            table.insert(key, value.as_slice()).unwrap();
        }
        table.insert("nobody/knows/this", [1_u8, 2, 3].as_slice()).unwrap();
    }
    txn.commit().unwrap();
    drop(database);
    let store = start(&path);
    assert_eq!((store.opened.rotten, &store.opened.set_aside), (3, &None));
    assert_eq!(store.opened.contents.saved.len(), all().len() - 2);
    assert_eq!(store.opened.contents.snapshot.get(&id(1)), Some(record(1, 1_000)));
    store.stop();
    let store = start(&path);
    assert_eq!((store.opened.rotten, store.opened.contents.saved.len()), (0, all().len() - 2));
}

#[test]
fn a_state_of_the_first_release_opens_and_so_does_one_that_went_back_to_it() {
    let (_dir, path) = scratch();
    let store = start(&path);
    store.keep_one(kept(1, 1_000));
    store.stop();
    let names = |database: &redb::Database| -> Vec<String> {
        let txn = database.begin_read().unwrap();
        txn.list_tables().unwrap().map(|table| table.name().to_owned()).collect()
    };
    let database = redb::Database::open(&path).unwrap();
    // The first release made these four, and looks at no other.
    assert_eq!(names(&database), ["applied", "meta", "secrets", "tokens"]);
    drop(database);
    let store = start(&path);
    assert_eq!(store.opened.contents.saved, []);
    store.remember(all());
    store.stop();
    let database = redb::Database::open(&path).unwrap();
    let format = database.begin_read().unwrap().open_table(redb::TableDefinition::<&str, u64>::new("meta")).unwrap();
    assert_eq!(format.get("format").unwrap().unwrap().value(), 1, "what it checks is as it was");
}

#[test]
fn times_are_told_anew_of_the_same_token_alone() {
    let (_dir, path) = scratch();
    let store = start(&path);
    store.keep_one(kept(1, 1_000));
    store.keep_one(kept(2, 1_000));
    store.keep_one(kept(3, 1_000));
    store.send(StoreRequest::Forget(vec![id(3)]));
    // Of the second, another token is kept by now; the third is gone; of the fourth there is none.
    let told = |n| (id(n), record(n, 50_000));
    store.send(StoreRequest::Amend(vec![told(1), (id(2), record(7, 50_000)), told(3), told(4)]));
    store.stop();
    let store = start(&path);
    assert_eq!(store.opened.contents.snapshot.len(), 2);
    assert_eq!(store.opened.contents.snapshot.get(&id(1)), Some(record(1, 50_000)));
    assert_eq!(store.opened.contents.snapshot.get(&id(2)), Some(record(2, 1_000)));
    // The token is still whole.
    store.send(StoreRequest::Load(vec![(Ticket { slot: Slot(1), seq: 1 }, id(1))]));
    let Ok(StoreReply::Loaded(loaded)) = store.replies.recv_timeout(SOON) else { panic!("it is read") };
    let (_, found) = loaded.into_iter().next().unwrap();
    assert_eq!(found.found().unwrap().1.expose(), "token-of-tenant-1");
}

#[test]
fn a_token_that_waits_for_its_commit_is_told_anew_too_and_a_newer_one_wins() {
    let (_dir, path) = scratch();
    let store = start(&path);
    // The last commit was a moment ago, so what follows waits for the next.
    store.keep_one(kept(9, 1_000));
    store.send(StoreRequest::Keep(vec![kept(1, 1_000), kept(2, 1_000)]));
    store.send(StoreRequest::Amend(vec![(id(1), record(1, 50_000)), (id(2), record(2, 50_000))]));
    store.send(StoreRequest::Keep(vec![kept(2, 90_000)]));
    store.stop();
    let store = start(&path);
    assert_eq!(store.opened.contents.snapshot.get(&id(1)), Some(record(1, 50_000)));
    assert_eq!(store.opened.contents.snapshot.get(&id(2)), Some(record(2, 90_000)));
}

#[test]
fn what_cannot_be_written_waits_until_it_can() {
    let (_dir, path) = scratch();
    let store = start(&path);
    store.keep_one(kept(1, 1_000));
    store.stop();
    let (real, hidden) = (path.clone(), path.with_extension("hidden"));
    std::fs::rename(&real, &hidden).unwrap();
    std::fs::create_dir(&real).unwrap();
    let store = start(&path);
    assert!(store.opened.unusable.is_some());
    assert!(matches!(store.replies.recv_timeout(SOON), Ok(StoreReply::Health(Some(_)))));
    store.remember(all());
    store.send(StoreRequest::Amend(vec![(id(1), record(1, 50_000))]));
    std::fs::remove_dir(&real).unwrap();
    std::fs::rename(&hidden, &real).unwrap();
    // Nobody knew what was in it.
    let Ok(StoreReply::Found(found)) = store.replies.recv_timeout(SOON) else { panic!("it is told") };
    assert_eq!(found.snapshot.len(), 1);
    assert!(matches!(store.replies.recv_timeout(SOON), Ok(StoreReply::Health(None))));
    store.stop();
    let store = start(&path);
    assert_eq!(store.memories(), sorted(all()));
    assert_eq!(store.opened.contents.snapshot.get(&id(1)), Some(record(1, 50_000)));
}
