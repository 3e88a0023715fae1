//! What readers find in the places, and what becomes of places that fail.

use std::cell::Cell;
use std::rc::Rc;

use corptokend::domain::*;
use corptokend::engine::{Event, Notice, SinkStatus};

use super::fixture::*;
use crate::model::{Daemon, Reply};

const RAW: u32 = 0;
const JSON: u32 = 1;

/// As [`daemon`], with tenants that are published raw and as JSON.
fn two_formats() -> Daemon {
    let mut daemon = daemon();
    daemon.change(sink_set(0, &[outlet(RAW), SinkPolicy { shows_expiry: true, ..outlet(JSON) }]));
    daemon
}

/// An endpoint that renews the same token.
fn one_token(lifetime_s: u32) -> impl FnMut(Now, &TenantId) -> Reply {
    move |_, _| (20, Ok(Grant { lifetime_s, fingerprint: Fingerprint(1) }))
}

fn attempts(daemon: &Daemon, root: u32, n: usize) -> usize {
    let place = place(&outlet(root), &tenant(n));
    daemon.seen.attempts.iter().filter(|(_, at)| *at == place).count()
}

/// Attempts below a root fail as long as the switch is on.
fn breakable(daemon: &mut Daemon, root: u32) -> Rc<Cell<bool>> {
    let broken = Rc::new(Cell::new(true));
    let switch = Rc::clone(&broken);
    let full = || SinkFailure { kind: SinkFailureKind::Full, detail: "no space".into() };
    daemon.sinks.attempt_with(move |_, at, _| match at == RootId(root) && switch.get() {
        true => (1, Err(full())),
        false => (1, Ok(Wrote::Replaced)),
    });
    broken
}

fn count(daemon: &Daemon, chosen: impl Fn(&Notice) -> bool) -> usize {
    daemon.seen.notices.iter().filter(|(_, said)| chosen(said)).count()
}

#[test]
fn a_renewal_touches_only_sinks_that_show_the_expiry() {
    let mut daemon = two_formats();
    daemon.endpoint.respond_with(one_token(7200));
    add(&mut daemon, 0..1);
    daemon.run_ms(2 * HOUR);
    assert_eq!((attempts(&daemon, RAW, 0), attempts(&daemon, JSON, 0)), (1, 2));
    assert_eq!(count(&daemon, |n| matches!(n, Notice::Renewed { .. })), 1);
    assert_eq!(count(&daemon, |n| matches!(n, Notice::Rotated { .. })), 1);
}

#[test]
fn a_file_that_is_deleted_is_restored_even_after_a_renewal() {
    let mut daemon = two_formats();
    daemon.endpoint.respond_with(one_token(7200));
    add(&mut daemon, 0..1);
    daemon.run_ms(2 * HOUR);
    let slot = daemon.engine.slot(&tenant(0)).unwrap();
    for sink in [SinkId(0), SinkId(1)] {
        daemon.tamper(slot, sink);
        assert_eq!(daemon.places().len(), 1);
        daemon.run_ms(100);
        assert_eq!(daemon.places().len(), 2);
    }
}

#[test]
fn nothing_is_published_before_it_is_kept() {
    let mut daemon = two_formats();
    add(&mut daemon, 0..1);
    daemon.run_ms(1_000);
    daemon.store.commit_ms = 60_000;
    set_policy(&mut daemon, policy(), Freshness::Stale);
    daemon.run_ms(1_000);
    let slot = daemon.engine.slot(&tenant(0)).unwrap();
    daemon.tamper(slot, SinkId(0));
    daemon.run_ms(50_000);
    assert_eq!(daemon.seen.attempts.len(), 2);
    assert!(!daemon.engine.summary(daemon.now()).every_sink_had_an_attempt);
    daemon.run_ms(10_000);
    assert_eq!((daemon.seen.attempts.len(), daemon.places().len()), (4, 2));
    assert!(daemon.places().values().all(|content| content.fingerprint == Fingerprint(2)));
    assert!(daemon.engine.summary(daemon.now()).every_sink_had_an_attempt);
}

#[test]
fn a_failing_sink_is_retried_alone_with_backoff_and_without_calls() {
    let mut daemon = two_formats();
    let broken = breakable(&mut daemon, RAW);
    add(&mut daemon, 0..20);
    daemon.run_ms(HOUR / 2);
    assert_eq!(daemon.seen.calls.len(), 20);
    assert_eq!(daemon.places().len(), 20, "the other sink is not held up");
    assert_eq!(attempts(&daemon, JSON, 0), 1);
    let tries = attempts(&daemon, RAW, 0);
    assert!((60..200).contains(&tries), "{tries} tries in half an hour");
    let row = daemon.engine.row(daemon.now(), daemon.engine.slot(&tenant(0)).unwrap());
    assert!(matches!(&row.sinks[..], [SinkStatus::Failing(Some(_)), SinkStatus::Published]), "{row:?}");
    broken.set(false);
    daemon.run_ms(31_000);
    assert_eq!((daemon.places().len(), daemon.seen.calls.len()), (40, 20));
}

#[test]
fn a_failing_root_is_said_at_the_start_once_an_hour_and_at_the_end() {
    let mut daemon = two_formats();
    let broken = breakable(&mut daemon, RAW);
    add(&mut daemon, 0..400);
    daemon.run_ms(2 * HOUR - 60_000);
    assert_eq!(count(&daemon, |n| matches!(n, Notice::SinkFailing { .. })), 2);
    broken.set(false);
    daemon.run_ms(31_000);
    assert_eq!(count(&daemon, |n| matches!(n, Notice::SinkRecovered { .. })), 1);
    assert_eq!(daemon.places().len(), 800);
}

#[test]
fn a_root_whose_failing_tenants_left_fails_no_more() {
    let mut daemon = two_formats();
    let broken = breakable(&mut daemon, RAW);
    add(&mut daemon, 0..400);
    daemon.run_ms(60_000);
    (0..399).for_each(|n| daemon.change(Change::Removed { id: tenant(n), withdraw: Vec::new() }));
    broken.set(false);
    daemon.run_ms(31_000);
    assert!(daemon.places().contains_key(&place(&outlet(RAW), &tenant(399))), "the last one is not forgotten");
    assert_eq!(count(&daemon, |n| matches!(n, Notice::SinkRecovered { .. })), 1);

    broken.set(true);
    daemon.change(Change::Added { id: tenant(400), sinks: SinkSetId(0), record: None });
    daemon.run_ms(5_000);
    daemon.change(Change::Removed { id: tenant(400), withdraw: Vec::new() });
    assert_eq!(count(&daemon, |n| matches!(n, Notice::SinkRecovered { .. })), 2);
    daemon.run_ms(1_000);
    let wakes = daemon.seen.wakes;
    daemon.run_ms(HOUR / 2);
    assert_eq!(daemon.seen.wakes, wakes, "nothing is retried");
}

#[test]
fn one_place_that_fails_for_ever_does_not_unsettle_its_root() {
    let mut daemon = two_formats();
    daemon.sinks.attempt_with(|_, root, id| match root == RootId(RAW) && *id == tenant(3) {
        true => (1, Err(SinkFailure { kind: SinkFailureKind::Unsafe, detail: "a link".into() })),
        false => (1, Ok(Wrote::Replaced)),
    });
    add(&mut daemon, 0..10);
    daemon.run_ms(HOUR / 2);
    assert_eq!(daemon.places().len(), 19);
    assert_eq!(count(&daemon, |n| matches!(n, Notice::SinkFailing { .. } | Notice::SinkRecovered { .. })), 1);
}

#[test]
fn an_expired_token_goes_where_on_expiry_says_so_and_stays_elsewhere() {
    let mut daemon = daemon();
    daemon.change(sink_set(0, &[outlet(RAW), SinkPolicy { on_expiry: OnExpiry::Delete, ..outlet(JSON) }]));
    restore(&mut daemon, 0, 7_100);
    daemon.endpoint.respond_with(|_, _| fails(FailureKind::Timeout));
    daemon.run_ms(10_000);
    assert_eq!(daemon.places().len(), 2);
    daemon.run_ms(100_000);
    assert_eq!(daemon.places().keys().collect::<Vec<_>>(), [&place(&outlet(RAW), &tenant(0))]);
    assert_eq!(count(&daemon, |n| matches!(n, Notice::Expired { .. })), 1);
    daemon.endpoint.respond_with(new_tokens(7200));
    daemon.run_ms(301_000);
    assert_eq!(daemon.places().len(), 2);
}

#[test]
fn a_token_that_expired_and_is_then_renewed_comes_back_where_it_was_deleted() {
    let mut daemon = daemon();
    daemon.change(sink_set(0, &[SinkPolicy { on_expiry: OnExpiry::Delete, ..outlet(RAW) }]));
    let down = Rc::new(Cell::new(false));
    let (switch, mut same) = (Rc::clone(&down), one_token(60));
    daemon.endpoint.respond_with(move |now, id| match switch.get() {
        true => fails(FailureKind::Timeout),
        false => same(now, id),
    });
    add(&mut daemon, 0..1);
    daemon.run_ms(1_000);
    down.set(true);
    daemon.run_ms(120_000);
    assert_eq!(daemon.places().len(), 0);
    down.set(false);
    daemon.run_ms(301_000);
    assert_eq!(daemon.places().len(), 1);
}

#[test]
fn changed_sinks_are_published_without_a_call_and_left_places_are_emptied() {
    let mut daemon = daemon();
    daemon.change(sink_set(1, &[outlet(2)]));
    add(&mut daemon, 0..1);
    daemon.run_ms(1_000);
    daemon.change(Change::SinksChanged { id: tenant(0), sinks: SinkSetId(1), withdraw: left(0, 0) });
    daemon.run_ms(1_000);
    assert_eq!(daemon.places().keys().collect::<Vec<_>>(), [&place(&outlet(2), &tenant(0))]);
    assert_eq!(daemon.seen.calls.len(), 1);
}

#[test]
fn a_place_is_emptied_after_a_publication_to_it_that_was_under_way() {
    let mut daemon = daemon();
    daemon.sinks.attempt_with(|_, _, _| (10_000, Ok(Wrote::Replaced)));
    add(&mut daemon, 0..1);
    daemon.run_ms(1_000);
    assert_eq!((daemon.seen.attempts.len(), daemon.places().len()), (1, 0));
    daemon.change(Change::Removed { id: tenant(0), withdraw: left(0, 0) });
    assert_eq!(daemon.seen.attempts.len(), 1);
    daemon.run_ms(60_000);
    assert_eq!((daemon.seen.attempts.len(), daemon.places().len()), (2, 0));
    assert_eq!(daemon.engine.withdrawing().count(), 0);
}

#[test]
fn a_hanging_sink_holds_up_neither_another_nor_its_withdrawal() {
    let mut daemon = two_formats();
    daemon.sinks.attempt_with(|_, root, _| (if root == RootId(RAW) { 10 * HOUR } else { 1 }, Ok(Wrote::Replaced)));
    add(&mut daemon, 0..5);
    daemon.run_ms(5_000);
    assert_eq!(daemon.places().len(), 5);
    daemon.change(Change::Removed { id: tenant(0), withdraw: left(JSON, 0) });
    daemon.run_ms(1_000);
    assert_eq!(daemon.places().len(), 4);
}

#[test]
fn a_withdrawal_that_fails_is_tried_again_until_its_place_is_somebodys() {
    let mut daemon = daemon();
    add(&mut daemon, 0..2);
    daemon.run_ms(1_000);
    breakable(&mut daemon, 0);
    daemon.change(Change::Removed { id: tenant(0), withdraw: left(0, 0) });
    daemon.change(Change::Removed { id: tenant(1), withdraw: left(0, 1) });
    daemon.run_ms(60_000);
    assert_eq!(daemon.engine.withdrawing().count(), 2);
    daemon.sinks.attempt_with(|_, _, _| (1, Ok(Wrote::Replaced)));
    daemon.capacity.calls = 0;
    add(&mut daemon, 0..1);
    daemon.run_ms(31_000);
    assert_eq!(daemon.engine.withdrawing().count(), 0);
    assert_eq!(daemon.places().keys().collect::<Vec<_>>(), [&place(&outlet(0), &tenant(0))]);
}

#[test]
fn a_clock_step_moves_the_expiry_that_is_shown_and_calls_nobody() {
    let mut daemon = two_formats();
    add(&mut daemon, 0..10);
    daemon.run_ms(10_000);
    daemon.step_clock(-86_400_000);
    daemon.run_ms(1_000);
    assert_eq!((attempts(&daemon, RAW, 0), attempts(&daemon, JSON, 0)), (1, 2));
    let shown = daemon.places()[&place(&outlet(JSON), &tenant(0))].expires_at;
    let left = shown.since(daemon.now().wall);
    assert!((7_180_000..7_200_000).contains(&left), "{left}");
    assert_eq!(daemon.seen.calls.len(), 10);
    assert_eq!(daemon.engine.summary(daemon.now()).counts.of(TenantState::Fresh), 10);
}

#[test]
fn an_app_that_left_and_came_back_starts_anew() {
    let mut daemon = daemon();
    add(&mut daemon, 0..3);
    daemon.run_ms(1_000);
    (0..3).for_each(|n| daemon.change(Change::Removed { id: tenant(n), withdraw: Vec::new() }));
    daemon.change(Change::AppGone { name: app() });
    assert_eq!(daemon.engine.summary(daemon.now()).apps, []);
    set_policy(&mut daemon, policy(), Freshness::Current);
    add(&mut daemon, 0..3);
    daemon.run_ms(1_000);
    assert_eq!(daemon.seen.calls.len(), 6);
    assert!(daemon.seen.calls.iter().all(|(at, _)| *at > BOOT));
}

#[test]
fn a_commit_for_a_tenant_that_left_publishes_nothing_of_its_successors() {
    let mut daemon = daemon();
    daemon.store.commit_ms = 10_000;
    add(&mut daemon, 0..1);
    daemon.run_ms(1_000);
    daemon.change(Change::Removed { id: tenant(0), withdraw: Vec::new() });
    add(&mut daemon, 1..2);
    assert_eq!(daemon.engine.slot(&tenant(1)), Some(Slot(0)), "the slot is used again");
    daemon.run_ms(15_000);
    assert_eq!(daemon.seen.attempts.len(), 0);
    daemon.run_ms(10_000);
    assert_eq!(daemon.places().len(), 1);
}

#[test]
fn a_failing_place_is_tried_again_even_if_all_those_before_it_left() {
    for last in (0..400).step_by(50) {
        let mut daemon = two_formats();
        breakable(&mut daemon, RAW);
        add(&mut daemon, 0..400);
        daemon.run_ms(60_000);
        daemon.capacity.lanes[0] = 0; // the next round waits in the lane's queue
        daemon.run_ms(31_000);
        (0..400).filter(|n| *n != last).for_each(|n| {
            daemon.change(Change::Removed { id: tenant(n), withdraw: Vec::new() });
        });
        daemon.sinks.attempt_with(|_, _, _| (1, Ok(Wrote::Replaced)));
        daemon.capacity.lanes[0] = 8;
        daemon.run_ms(120_000);
        assert!(daemon.places().contains_key(&place(&outlet(RAW), &tenant(last))), "{last}");
    }
}

fn state(daemon: &Daemon, n: usize) -> TenantState {
    let slot = daemon.engine.slot(&tenant(n)).unwrap();
    let state = daemon.engine.row(daemon.now(), slot).state;
    assert_eq!(daemon.engine.summary(daemon.now()).counts.of(state), 1, "the counts are kept up to date");
    state
}

#[test]
fn a_token_that_a_sink_refuses_is_not_fresh_and_once_its_predecessor_expired_it_is_as_if_it_were_itself() {
    let mut daemon = two_formats();
    add(&mut daemon, 0..1);
    daemon.run_ms(1_000);
    assert_eq!(state(&daemon, 0), TenantState::Fresh);
    let expires = daemon.engine.row(daemon.now(), daemon.engine.slot(&tenant(0)).unwrap()).expires_at.unwrap();
    let broken = breakable(&mut daemon, RAW);
    set_policy(&mut daemon, policy(), Freshness::Stale);
    daemon.run_ms(1_000);
    assert_eq!(state(&daemon, 0), TenantState::Unpublished, "one attempt is enough");
    // It is renewed on and on, and readers have the first one all the while.
    daemon.run_ms(expires.since(daemon.now().wall) - 1_000);
    assert_eq!(state(&daemon, 0), TenantState::Unpublished);
    daemon.run_ms(60_000);
    assert_eq!(state(&daemon, 0), TenantState::Expired);
    assert_eq!(count(&daemon, |n| matches!(n, Notice::Expired { .. })), 0, "the tenant's own did not expire");
    broken.set(false);
    daemon.run_ms(60_000);
    assert_eq!(state(&daemon, 0), TenantState::Fresh);
}

#[test]
fn a_token_that_takes_long_on_its_way_is_not_fresh_meanwhile() {
    let mut daemon = two_formats();
    add(&mut daemon, 0..1);
    daemon.run_ms(1_000);
    daemon.sinks.attempt_with(|_, _, _| (60_000, Ok(Wrote::Replaced)));
    set_policy(&mut daemon, policy(), Freshness::Stale);
    daemon.run_ms(4_000);
    assert_eq!(state(&daemon, 0), TenantState::Fresh, "a moment on its way is no matter");
    daemon.run_ms(4_000);
    daemon.tell(Event::ClockStepped); // whatever wakes it
    daemon.run_ms(6_000);
    daemon.tell(Event::ClockStepped);
    assert_eq!(state(&daemon, 0), TenantState::Unpublished);
    daemon.sinks.attempt_with(|_, _, _| (1, Ok(Wrote::Replaced)));
    daemon.run_ms(240_000);
    assert_eq!(state(&daemon, 0), TenantState::Fresh);
}

#[test]
fn a_token_that_is_renewed_every_few_seconds_is_not_fresh_while_none_comes_through() {
    let mut daemon = two_formats();
    daemon.endpoint.respond_with(new_tokens(6));
    add(&mut daemon, 0..1);
    daemon.run_ms(1_000);
    assert_eq!(state(&daemon, 0), TenantState::Fresh);
    daemon.sinks.attempt_with(|_, _, _| (600_000, Ok(Wrote::Replaced)));
    daemon.run_ms(20_000);
    assert_eq!(state(&daemon, 0), TenantState::Expired, "its readers have the first one");
    daemon.sinks.attempt_with(|_, _, _| (1, Ok(Wrote::Replaced)));
    daemon.run_ms(600_000);
    assert_eq!(state(&daemon, 0), TenantState::Fresh);
}

#[test]
fn a_tenant_that_leaves_unpublished_is_counted_no_more() {
    let mut daemon = two_formats();
    let _broken = breakable(&mut daemon, RAW);
    add(&mut daemon, 0..1);
    daemon.run_ms(1_000);
    assert_eq!(state(&daemon, 0), TenantState::Unpublished);
    daemon.change(Change::Removed { id: tenant(0), withdraw: Vec::new() });
    daemon.run_ms(60_000);
    assert_eq!(daemon.engine.summary(daemon.now()).counts.total(), 0);
}

#[test]
fn many_publications_of_one_app_do_not_delay_the_single_one_of_another() {
    let mut daemon = daemon();
    let other = AppName::new("hr").unwrap();
    daemon.change(Change::App { name: other.clone(), policy: policy(), path: way(1), freshness: Freshness::Current });
    daemon.capacity.lanes[0] = 0;
    (0..3000).for_each(|n| restore(&mut daemon, n, 60));
    let id = TenantId { app: other, corp_id: CorpId::new("ding1").unwrap() };
    let record = Record {
        requested_at: daemon.now().wall,
        expires_at: daemon.now().wall + 7_200_000,
        fingerprint: Fingerprint(1),
    };
    daemon.store_token(&id, record);
    daemon.change(Change::Added { id: id.clone(), sinks: SinkSetId(0), record: Some(record) });
    daemon.capacity.lanes[0] = 8;
    daemon.run_ms(10_000);
    assert_eq!(daemon.seen.attempts.len(), 3001, "all are published in the end");
    let its = place(&outlet(0), &id);
    let before = daemon.seen.attempts.iter().take_while(|(_, at)| *at != its).count();
    assert!(before <= 32, "{before} publications of the other app went first");
}

#[test]
fn a_failing_root_is_tried_again_in_time_while_others_keep_its_lane_busy() {
    let mut daemon = daemon();
    daemon.change(sink_set(0, &[outlet(0)]));
    daemon.change(sink_set(1, &[outlet(4)])); // another root of the same lane
    let broken = breakable(&mut daemon, 4);
    daemon.change(Change::Added { id: tenant(9999), sinks: SinkSetId(1), record: None });
    daemon.run_ms(60_000);
    broken.set(false);
    daemon.capacity.lanes[0] = 0;
    (0..2000).for_each(|n| restore(&mut daemon, n, 60));
    daemon.run_ms(31_000); // its next try is due while the lane has no room
    daemon.capacity.lanes[0] = 1;
    daemon.run_ms(100);
    let its = place(&outlet(4), &tenant(9999));
    assert!(daemon.places().contains_key(&its), "after {} others", daemon.places().len());
}

#[test]
fn each_failing_place_shows_what_went_wrong_there_and_not_elsewhere() {
    let mut daemon = two_formats();
    let full = |id: &TenantId| SinkFailure { kind: SinkFailureKind::Full, detail: format!("no space for {id}").into() };
    daemon.sinks.attempt_with(move |_, root, id| match root {
        RootId(RAW) if *id == tenant(3) => {
            (5, Err(SinkFailure { kind: SinkFailureKind::Unsafe, detail: "a directory".into() }))
        }
        RootId(RAW) => (1, Err(full(id))),
        _ => (1, Ok(Wrote::Replaced)),
    });
    add(&mut daemon, 0..1500);
    daemon.run_ms(200_000);
    for n in 0..1500 {
        let row = daemon.engine.row(daemon.now(), daemon.engine.slot(&tenant(n)).unwrap());
        let SinkStatus::Failing(Some(failure)) = &row.sinks[0] else { panic!("{row:?}") };
        let kind = if n == 3 { SinkFailureKind::Unsafe } else { SinkFailureKind::Full };
        assert_eq!(failure.kind, kind, "{n}: {failure}");
        // Of a great many only the kind is remembered.
        let own = format!("no space for {}", tenant(n));
        assert!(n >= 500 || n == 3 || *failure.detail == *own, "{n}: {failure}");
    }
}

#[test]
fn what_waits_for_a_lane_that_hangs_goes_on_in_another_that_serves_it_from_then_on() {
    let mut daemon = daemon();
    let broken = breakable(&mut daemon, 0);
    add(&mut daemon, 0..10);
    daemon.run_ms(5_000); // they fail, and wait for another try
    daemon.capacity.lanes[0] = 0;
    (10..20).for_each(|n| restore(&mut daemon, n, 60));
    daemon.run_ms(31_000); // all of them wait for the lane
    assert_eq!(daemon.places().len(), 0);
    broken.set(false);
    daemon.change(sink_set(0, &[SinkPolicy { lane: LaneId(1), ..outlet(0) }]));
    daemon.run_ms(31_000);
    assert_eq!(daemon.places().len(), 20);
    assert_eq!(count(&daemon, |n| matches!(n, Notice::SinkRecovered { .. })), 1);
}
