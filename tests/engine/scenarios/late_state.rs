//! A state that cannot be read for now, that can be read late, and that is begun anew.

use corptokend::domain::*;
use corptokend::engine::{Event, Notice};

use super::fixture::*;
use crate::model::Daemon;

fn record_from(daemon: &Daemon, n: usize, age_s: u64) -> Record {
    let asked = daemon.now().wall - age_s * 1000;
    Record { requested_at: asked, expires_at: asked + 7_200_000, fingerprint: Fingerprint(1_000_000 + n as u64) }
}

/// The state turns out to hold a token that was asked for so long ago.
fn find(daemon: &mut Daemon, n: usize, age_s: u64, freshness: Freshness) {
    let record = record_from(daemon, n, age_s);
    daemon.store_token(&tenant(n), record);
    daemon.tell(Event::TokensFound(vec![(tenant(n), record)], freshness));
}

fn shows(daemon: &Daemon, n: usize) -> Option<Fingerprint> {
    daemon.places().get(&place(&outlet(0), &tenant(n))).map(|content| content.fingerprint)
}

#[test]
fn a_token_that_is_found_late_serves_a_tenant_that_could_not_be_called_for() {
    let mut daemon = daemon();
    daemon.endpoint.respond_with(|_, _| fails(FailureKind::ServerError));
    add(&mut daemon, 0..1);
    daemon.run_ms(10_000);
    assert_eq!((shows(&daemon, 0), state(&daemon, 0)), (None, TenantState::Failing));
    find(&mut daemon, 0, 60, Freshness::Current);
    daemon.run_ms(1_000);
    assert_eq!(shows(&daemon, 0), Some(Fingerprint(1_000_000)));
    let calls = daemon.seen.calls.len();
    daemon.endpoint.respond_with(new_tokens(7200));
    daemon.run_ms(HOUR);
    assert_eq!(daemon.seen.calls.len(), calls, "it is not due yet");
    daemon.run_ms(HOUR);
    assert_eq!((daemon.seen.calls.len(), state(&daemon, 0)), (calls + 1, TenantState::Fresh));
}

#[test]
fn a_token_that_is_found_late_does_not_replace_a_newer_one_nor_one_that_is_being_asked_for() {
    let mut daemon = daemon();
    add(&mut daemon, 0..1);
    daemon.run_ms(1_000);
    let newer = shows(&daemon, 0);
    daemon.tell(Event::TokensFound(vec![(tenant(0), record_from(&daemon, 0, 60))], Freshness::Current));
    daemon.run_ms(1_000);
    assert_eq!(shows(&daemon, 0), newer);
    // A call that is under way brings a newer one, too.
    let (mut slow, mut answers) = (daemon, new_tokens(7200));
    let _ = answers(slow.now(), &tenant(0)); // the one that it has
    slow.endpoint.respond_with(move |now, id| (5_000, answers(now, id).1));
    add(&mut slow, 1..2);
    slow.run_ms(1_000);
    find(&mut slow, 1, 60, Freshness::Current);
    slow.run_ms(1_000);
    assert_eq!(shows(&slow, 1), Some(Fingerprint(1_000_001)), "until then there is the old one");
    slow.run_ms(10_000);
    assert!(shows(&slow, 1).is_some_and(|shown| shown != Fingerprint(1_000_001)));
    assert_eq!(calls_of(&slow, 1).len(), 1);
}

#[test]
fn a_token_of_other_credentials_is_published_and_fetched_anew_at_once() {
    let mut daemon = daemon();
    daemon.endpoint.respond_with(|_, _| fails(FailureKind::ServerError));
    add(&mut daemon, 0..1);
    daemon.run_ms(10_000);
    daemon.endpoint.respond_with(new_tokens(7200));
    find(&mut daemon, 0, 60, Freshness::Stale);
    daemon.run_ms(HOUR / 2);
    assert!(shows(&daemon, 0).is_some_and(|shown| shown != Fingerprint(1_000_000)));
    assert_eq!(state(&daemon, 0), TenantState::Fresh);
}

#[test]
fn what_cannot_be_read_for_now_is_tried_again_and_not_called_for() {
    let mut daemon = daemon();
    let unreadable = || SinkFailure { kind: SinkFailureKind::State, detail: "it does not answer".into() };
    daemon.sinks.attempt_with(move |_, _, _| (1, Err(unreadable())));
    restore(&mut daemon, 0, 60);
    daemon.run_ms(60_000);
    assert_eq!((daemon.seen.calls.len(), state(&daemon, 0)), (0, TenantState::Unpublished));
    daemon.sinks.attempt_with(|_, _, _| (1, Ok(Wrote::Replaced)));
    daemon.run_ms(60_000);
    assert_eq!((daemon.seen.calls.len(), state(&daemon, 0)), (0, TenantState::Fresh));
    assert_eq!(shows(&daemon, 0), Some(Fingerprint(1_000_000)));
}

#[test]
fn a_token_that_is_lost_while_its_tenant_waits_for_its_turn_holds_nobody_up() {
    let mut daemon = daemon();
    add(&mut daemon, 0..1);
    daemon.run_ms(400);
    assert_eq!(daemon.seen.calls.len(), 1);
    // Another app, whose token expires later. Both are to be fetched anew, and there is no room for a call.
    let other = AppName::new("hr").unwrap();
    let another = |freshness| Change::App { name: other.clone(), policy: policy(), path: way(1), freshness };
    let id = TenantId { app: other.clone(), corp_id: CorpId::new("ding0").unwrap() };
    let record = Record { expires_at: daemon.now().wall + 7_300_000, ..record_from(&daemon, 0, 0) };
    daemon.store_token(&id, record);
    daemon.change(another(Freshness::Current));
    daemon.change(Change::Added { id: id.clone(), sinks: SinkSetId(0), record: Some(record) });
    daemon.capacity.calls = 0;
    set_policy(&mut daemon, policy(), Freshness::Stale);
    daemon.change(another(Freshness::Stale));
    daemon.run_ms(200);
    let slot = daemon.engine.slot(&tenant(0)).unwrap();
    let ticket = daemon.engine.ticket(slot).unwrap();
    daemon.tell(Event::TokenLost(ticket));
    // The one whose token is lost was called a moment ago, and must wait for a second; the other need not.
    daemon.capacity.calls = 64;
    daemon.run_ms(100);
    assert_eq!(daemon.seen.calls.last().map(|(_, called)| called), Some(&id));
    daemon.run_ms(5_000);
    assert_eq!(daemon.seen.calls.last().map(|(_, called)| called), Some(&tenant(0)));
}

#[test]
fn a_state_that_was_begun_anew_is_told_all_that_the_last_one_knew() {
    let mut daemon = daemon();
    daemon.endpoint.respond_with(|_, id| match id.corp_id.as_str().ends_with('0') {
        true => fails(FailureKind::Unauthorized),
        false => fails(FailureKind::ServerError),
    });
    add(&mut daemon, 0..3);
    daemon.run_ms(60_000);
    let before = daemon.store.saved.clone();
    assert_eq!(before.len(), 3, "{before:?}");
    daemon.store.saved.clear();
    daemon.tell(Event::SavedStateLost);
    daemon.run_ms(200);
    assert_eq!(daemon.store.saved.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
}

/// The state turns out to hold a ban, which began so long ago and lasts for so long from now, in milliseconds.
fn find_ban(daemon: &mut Daemon, key: SavedKey, ago: u64, left: i64) {
    let now = daemon.now().wall;
    let saved = SavedState::Paused(Wait { told: now - ago, until: WallMs(now.0.wrapping_add_signed(left)) });
    daemon.store.saved.insert(key.clone(), saved.clone());
    daemon.tell(Event::Restored(vec![(key, saved)]));
}

/// A daemon that has called for nobody before the state could be read.
fn idle_daemon() -> Daemon {
    let mut daemon = daemon();
    daemon.capacity.calls = 0;
    add(&mut daemon, 0..3);
    daemon.run_ms(1_000);
    daemon
}

#[test]
fn a_ban_that_is_found_late_is_kept_and_reported() {
    for key in [SavedKey::Ban(way(1).origin), SavedKey::EveryBan] {
        let mut daemon = idle_daemon();
        find_ban(&mut daemon, key.clone(), 60_000, 240_000);
        let is_report = |notice: &Notice| matches!(notice, Notice::Banned { for_ms: 240_000, .. });
        assert_eq!(daemon.seen.notices.iter().filter(|(_, notice)| is_report(notice)).count(), 1, "{key:?}");
        daemon.capacity.calls = 64;
        daemon.run_ms(1_000);
        assert_eq!(daemon.store.saved.keys().collect::<Vec<_>>(), [&SavedKey::Ban(way(1).origin)]);
        daemon.run_ms(238_000);
        assert_eq!(daemon.seen.calls, [], "{key:?}");
        daemon.run_ms(10_000);
        assert_eq!(daemon.engine.summary(daemon.now()).counts.of(TenantState::Fresh), 3);
    }
}

#[test]
fn a_pace_of_all_origins_that_is_found_late_slows_each_of_them() {
    let mut daemon = idle_daemon();
    let now = daemon.now().wall;
    let slowed = SavedState::Slowed { share: 512, hold: Wait { told: now, until: now } };
    daemon.store.saved.insert(SavedKey::EveryPace, slowed.clone());
    daemon.tell(Event::Restored(vec![(SavedKey::EveryPace, slowed)]));
    daemon.run_ms(1_000);
    assert_eq!(daemon.store.saved.keys().collect::<Vec<_>>(), [&SavedKey::Pace(way(1).origin)]);
}

#[test]
fn a_request_id_that_is_the_token_which_was_found_during_the_call_is_not_kept() {
    let mut daemon = daemon();
    let id = "5a4d7e2c-18c1-7c1b-9a55-0123456789ab";
    let failure = Failure { request_id: Some(id.into()), ..Failure::new(FailureKind::ServerError, "no") };
    daemon.endpoint.respond_with(move |_, _| (5_000, Err(failure.clone())));
    add(&mut daemon, 0..2);
    daemon.run_ms(1_000);
    let fingerprint = Fingerprint::of(id.replace('-', "").as_bytes());
    let record = Record { fingerprint, ..record_from(&daemon, 0, 60) };
    daemon.store_token(&tenant(0), record);
    daemon.tell(Event::TokensFound(vec![(tenant(0), record)], Freshness::Current));
    daemon.run_ms(6_000);
    let shown = |n: usize| {
        let row = daemon.engine.row(daemon.now(), daemon.engine.slot(&tenant(n)).unwrap());
        row.failure.expect("its call failed").failure.request_id
    };
    assert_eq!((shown(0), shown(1).as_deref()), (None, Some(id)));
}

#[test]
fn a_ban_that_is_over_when_it_is_found_stops_nobody() {
    let mut daemon = idle_daemon();
    find_ban(&mut daemon, SavedKey::Ban(way(1).origin), 600_000, -300_000);
    assert_eq!(daemon.engine.summary(daemon.now()).paused_until, None);
    daemon.run_ms(1_000);
    assert_eq!(daemon.store.saved.len(), 0, "nor at the next start");
}

#[test]
fn a_ban_that_is_found_late_does_not_stop_calls_that_are_answered() {
    let mut daemon = daemon();
    add(&mut daemon, 0..3);
    daemon.run_ms(10_000);
    assert_eq!(calls_of(&daemon, 2).len(), 1);
    find_ban(&mut daemon, SavedKey::Ban(way(1).origin), 60_000, 240_000);
    assert_eq!(daemon.engine.summary(daemon.now()).paused_until, None);
    add(&mut daemon, 3..4);
    daemon.run_ms(10_000);
    assert_eq!(calls_of(&daemon, 3).len(), 1);
    assert_eq!(daemon.store.saved.len(), 0, "nor at the next start");
}

#[test]
fn a_state_that_was_begun_anew_is_given_the_tokens_that_still_wait_for_a_sink() {
    let mut daemon = daemon();
    let lanes = std::mem::replace(&mut daemon.capacity.lanes, vec![0; 4]);
    add(&mut daemon, 0..1);
    daemon.run_ms(1_000);
    assert!(daemon.stored(&tenant(0)).is_some() && daemon.places().is_empty());
    daemon.store.begin_anew();
    daemon.tell(Event::RecordsLost);
    daemon.run_ms(1_000);
    assert!(daemon.stored(&tenant(0)).is_some(), "it is committed again");
    daemon.capacity.lanes = lanes;
    daemon.run_ms(1_000);
    assert_eq!((daemon.places().len(), daemon.store.in_memory.len()), (1, 0));
    assert!(daemon.engine.every_sink_had_an_attempt());
    daemon.store.begin_anew();
    daemon.tell(Event::RecordsLost);
    daemon.run_ms(1_000);
    assert!(daemon.stored(&tenant(0)).is_none(), "a token that was released is in its sinks alone");
}
