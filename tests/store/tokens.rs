//! Tokens and configs, over restarts.

use std::path::PathBuf;
use std::time::Duration;

use corptokend::domain::Fingerprint;
use corptokend::store::{Applied, StoreReply, StoreRequest};
use corptokend::system::clock::now;

use crate::fixture::{applied, id, kept, kept_as, scratch, start, token_text};

#[test]
fn a_restart_finds_every_token_and_the_config_that_ran() {
    let (_dir, path) = scratch();
    let first = start(&path);
    let seed = first.opened.seed;
    let config = vec![(PathBuf::from("/etc/c.toml"), "a = 1".to_owned()), ("/etc/c.d/a.toml".into(), "b = 2".into())];
    let secrets = vec![("crm".parse().unwrap(), Fingerprint(7))];
    first.send(StoreRequest::Applied(Applied { texts: config.clone(), secrets: secrets.clone() }));
    first.keep(0..100);
    first.send(StoreRequest::Forget(vec![id(7)]));
    first.stop();

    let second = start(&path);
    assert_eq!(second.opened.contents.snapshot.len(), 99);
    assert_eq!(second.opened.contents.snapshot.get(&id(42)), Some(kept(42).record));
    assert_eq!(second.opened.contents.snapshot.get(&id(7)), None);
    assert_eq!(second.opened.contents.applied, Applied { texts: config, secrets });
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
    assert_eq!(start(&path).opened.contents.applied.texts, [file("/b")]);
}

#[test]
fn the_newest_change_of_a_tenant_wins() {
    let (_dir, path) = scratch();
    let store = start(&path);
    store.send(StoreRequest::Keep(vec![kept(1), kept(2)]));
    store.send(StoreRequest::Forget(vec![id(1)]));
    store.send(StoreRequest::Forget(vec![id(2)]));
    store.send(StoreRequest::Keep(vec![kept_as(2, "newer"), kept_as(2, "newest")]));
    assert_eq!(store.load([1, 2].into_iter()), [None, Some("newest".to_owned())]);
    store.stop();
}

#[test]
fn every_ticket_is_answered_even_when_something_newer_replaced_it() {
    let (_dir, path) = scratch();
    let store = start(&path);
    store.send(StoreRequest::Keep(vec![kept(1)]));
    let mut second = kept_as(1, "newer");
    second.ticket.seq = 2;
    store.send(StoreRequest::Keep(vec![second]));
    let mut sequence = Vec::new();
    while sequence.len() < 2 {
        let StoreReply::Kept(tickets) = store.next() else { panic!() };
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
    store.send(StoreRequest::Keep(vec![kept(1)]));
    store.stop();
    assert_eq!(start(&path).opened.contents.snapshot.len(), 2);
}

#[test]
fn many_tokens_share_few_commits() {
    let (_dir, path) = scratch();
    let store = start(&path);
    let begun = now().boot;
    for n in 0..1000 {
        store.send(StoreRequest::Keep(vec![kept(n)]));
        std::thread::sleep(Duration::from_micros(500));
    }
    let (mut commits, mut tokens) = (0, 0);
    while tokens < 1000 {
        let StoreReply::Kept(tickets) = store.next() else { panic!() };
        commits += 1;
        tokens += tickets.len();
    }
    let windows = now().boot.since(begun) / 200 + 2;
    assert!(commits <= windows, "{commits} commits in {windows} windows of 200 ms");
    store.stop();
}
