//! When calls are made, and in which order, as the endpoint sees it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use corptokend::domain::*;
use corptokend::engine::Notice;

use super::fixture::*;

#[test]
fn every_new_tenant_is_served_in_the_time_that_the_rate_allows() {
    let mut daemon = daemon();
    add(&mut daemon, 0..300);
    daemon.run_ms(300 * 1000 / 15 * 102 / 100 + 500);
    assert_eq!(daemon.engine.summary(daemon.now()).counts.of(TenantState::Fresh), 300);
    assert_eq!((daemon.seen.calls.len(), daemon.places().len()), (300, 300));
}

#[test]
fn jitter_spreads_a_herd() {
    let mut daemon = daemon();
    let fast = AppPolicy { rate: Rate::per_second(1000), ..policy() };
    set_policy(&mut daemon, fast, Freshness::Current);
    add(&mut daemon, 0..1000);
    daemon.run_ms(5 * HOUR / 3);
    let due: Vec<u64> = daemon.seen.calls[1000..].iter().map(|(at, _)| at - BOOT).collect();
    assert_eq!(due.len(), 1000);
    // A thousandth of a life early, for company's sake.
    assert!(due[0] >= 4_680_000 - 7_000 && due[999] <= 5_410_000, "{} to {}", due[0], due[999]);
    let mut minutes = BTreeMap::new();
    due.iter().for_each(|at| *minutes.entry(at / 60_000).or_insert(0) += 1);
    assert!(minutes.values().all(|calls| *calls < 130), "{minutes:?}");
}

#[test]
fn neighbours_are_refreshed_together() {
    let mut daemon = daemon();
    let fast = AppPolicy { rate: Rate::per_second(1000), ..policy() };
    set_policy(&mut daemon, fast, Freshness::Current);
    (0..1000).for_each(|n| restore(&mut daemon, n, 3 * n as u64));
    daemon.run_ms(5 * HOUR / 3);
    let mut due: Vec<u64> = daemon.seen.calls.iter().map(|(at, _)| at - BOOT).collect();
    assert_eq!(due.len(), 1000);
    let span_s = (due[999] - due[0]) / 1000;
    assert!(span_s > 3000, "{span_s} s");
    due.dedup_by_key(|at| *at / 1000);
    assert!(due.len() as u64 <= span_s / 7 + 1, "{} moments in {span_s} s", due.len());
}

#[test]
fn a_restored_valid_token_is_not_called_for_and_is_published_once() {
    let mut daemon = daemon();
    (0..50).for_each(|n| restore(&mut daemon, n, 60));
    daemon.run_ms(HOUR);
    assert_eq!(daemon.seen.calls, []);
    assert_eq!((daemon.seen.attempts.len(), daemon.places().len()), (50, 50));
    assert_eq!(daemon.engine.summary(daemon.now()).counts.of(TenantState::Fresh), 50);
}

#[test]
fn a_token_from_before_the_boot_is_renewed_in_time() {
    let mut daemon = empty_daemon(30_000);
    daemon.change(sink_set(0, &[outlet(0)]));
    set_policy(&mut daemon, policy(), Freshness::Current);
    daemon.endpoint.respond_with(new_tokens(7200));
    restore(&mut daemon, 0, 3600);
    daemon.run_ms(HOUR);
    assert!(!daemon.seen.notices.iter().any(|(_, said)| matches!(said, Notice::Expired { .. })));
    let due = daemon.seen.calls[0].0 / 1000;
    assert!((1_000..1_900).contains(&due), "half an hour after the boot, but {due} s");
}

#[test]
fn a_token_that_was_recorded_in_the_future_is_asked_for_at_once() {
    let mut daemon = daemon();
    let start = daemon.now().boot.0;
    daemon.clock.set_wall(WallMs(0)); // no battery: it is 1970
    let asked = WallMs(1_700_000_000_000);
    let record = Record { requested_at: asked, expires_at: asked + 7_200_000, fingerprint: Fingerprint(5) };
    daemon.store_token(&tenant(0), record);
    daemon.change(Change::Added { id: tenant(0), sinks: SinkSetId(0), record: Some(record) });
    daemon.run_ms(HOUR);
    // How much of its life is left cannot be told.
    assert_eq!(daemon.seen.calls.len(), 1);
    assert!(daemon.seen.calls[0].0 < start + 5_000, "{} ms after the start", daemon.seen.calls[0].0 - start);
}

#[test]
fn a_crowd_of_new_tenants_lets_no_old_token_expire() {
    let mut daemon = daemon();
    (0..200).for_each(|n| restore(&mut daemon, n, 4_000 + n as u64));
    add(&mut daemon, 1_000..6_000); // five and a half minutes of the app's rate, with 200 renewals due in between
    daemon.run_ms(2 * HOUR);
    let expired = daemon.seen.notices.iter().filter(|(_, said)| matches!(said, Notice::Expired { .. })).count();
    assert_eq!(expired, 0);
    assert_eq!(daemon.engine.summary(daemon.now()).counts.of(TenantState::Pending), 0);
}

#[test]
fn an_expired_token_goes_before_tenants_that_never_had_one() {
    let mut daemon = daemon();
    daemon.capacity.calls = 0;
    add(&mut daemon, 1..100);
    restore(&mut daemon, 0, 7_199);
    daemon.run_ms(5_000);
    assert_eq!(state(&daemon, 0), TenantState::Expired);
    daemon.capacity.calls = 64;
    daemon.run_ms(10);
    assert_eq!(daemon.seen.calls[0].1, tenant(0));
}

#[test]
fn an_endpoint_that_answers_the_remaining_life_gets_three_calls_a_lifetime() {
    let mut daemon = daemon();
    let (mut token, mut expires) = (0, 0);
    daemon.endpoint.respond_with(move |now, _| {
        if now.boot.0 + 1000 > expires {
            (token, expires) = (token + 1, now.boot.0 + 7_200_000);
        }
        let lifetime_s = ((expires - now.boot.0) / 1000) as u32;
        (200, Ok(Grant { lifetime_s, fingerprint: Fingerprint(token) }))
    });
    add(&mut daemon, 0..1);
    daemon.run_ms(20 * HOUR);
    assert!((20..=31).contains(&daemon.seen.calls.len()), "{} calls in ten lifetimes", daemon.seen.calls.len());
    assert_eq!(state(&daemon, 0), TenantState::Fresh);
}

#[test]
fn a_lifetime_of_a_second_makes_one_call_a_second() {
    let mut daemon = daemon();
    daemon.endpoint.respond_with(new_tokens(1));
    add(&mut daemon, 0..1);
    daemon.run_ms(60_000);
    assert!((58..=61).contains(&daemon.seen.calls.len()), "{}", daemon.seen.calls.len());
}

#[test]
fn a_token_for_a_year_is_renewed_after_seven_tenths_of_it() {
    let mut daemon = daemon();
    daemon.endpoint.respond_with(new_tokens(MAX_LIFETIME_S));
    add(&mut daemon, 0..1);
    daemon.run_ms(280 * 24 * HOUR);
    assert_eq!(calls_of(&daemon, 0).len(), 2);
    assert!(daemon.seen.wakes < 10_000, "{} wakes", daemon.seen.wakes);
}

#[test]
fn a_token_from_a_clock_that_was_fast_is_fetched_as_soon_as_its_app_is_enabled() {
    let mut daemon = daemon();
    set_policy(&mut daemon, AppPolicy { enabled: false, ..policy() }, Freshness::Current);
    let requested_at = daemon.now().wall + 6 * HOUR;
    let record = Record { requested_at, expires_at: requested_at + 7_200_000, fingerprint: Fingerprint(1_000_000) };
    daemon.store_token(&tenant(0), record);
    daemon.change(Change::Added { id: tenant(0), sinks: SinkSetId(0), record: Some(record) });
    daemon.run_ms(60_000);
    set_policy(&mut daemon, policy(), Freshness::Current);
    daemon.run_ms(1_000);
    assert_eq!(daemon.seen.calls.len(), 1);
}

#[test]
fn a_suspend_of_days_is_made_up_for_at_once() {
    let mut daemon = daemon();
    add(&mut daemon, 0..30);
    daemon.run_ms(60_000);
    daemon.pass(3 * 24 * HOUR);
    daemon.run_ms(3_000);
    assert_eq!(daemon.engine.summary(daemon.now()).counts.of(TenantState::Fresh), 30);
}

#[test]
fn a_disabled_app_is_left_alone_and_comes_back() {
    let mut daemon = daemon();
    add(&mut daemon, 0..10);
    daemon.run_ms(10_000);
    set_policy(&mut daemon, AppPolicy { enabled: false, ..policy() }, Freshness::Current);
    daemon.run_ms(3 * HOUR);
    assert_eq!((daemon.seen.calls.len(), daemon.places().len()), (10, 10));
    assert_eq!(daemon.engine.summary(daemon.now()).counts.of(TenantState::Disabled), 10);
    set_policy(&mut daemon, policy(), Freshness::Current);
    daemon.run_ms(10_000);
    assert_eq!(daemon.engine.summary(daemon.now()).counts.of(TenantState::Fresh), 10);
}

#[test]
fn credentials_that_change_while_an_app_is_disabled_are_used_when_it_is_enabled() {
    let mut daemon = daemon();
    add(&mut daemon, 0..1);
    daemon.run_ms(10_000);
    let disabled = AppPolicy { enabled: false, ..policy() };
    set_policy(&mut daemon, disabled, Freshness::Current);
    set_policy(&mut daemon, disabled, Freshness::Stale);
    daemon.run_ms(10_000);
    set_policy(&mut daemon, policy(), Freshness::Current);
    daemon.run_ms(10_000);
    assert_eq!(daemon.seen.calls.len(), 2);
}

#[test]
fn changed_credentials_fetch_anew_and_keep_the_old_token_until_that_succeeds() {
    let mut daemon = daemon();
    add(&mut daemon, 0..20);
    daemon.run_ms(10_000);
    daemon.endpoint.respond_with(|_, _| fails(FailureKind::ServerError));
    set_policy(&mut daemon, policy(), Freshness::Stale);
    daemon.run_ms(3_000);
    assert!(daemon.seen.calls.len() > 20, "somebody is fetched anew, in vain");
    assert_eq!(daemon.places().len(), 20);
    let mut tokens = new_tokens(7200);
    daemon.endpoint.respond_with(move |now, id| {
        let (after, outcome) = tokens(now, id);
        (after, outcome.map(|grant| Grant { fingerprint: Fingerprint(grant.fingerprint.0 + 500), ..grant }))
    });
    daemon.run_ms(HOUR / 2);
    assert!(daemon.places().values().all(|content| content.fingerprint.0 > 500));
}

#[test]
fn a_higher_rate_takes_effect_at_once() {
    let mut daemon = daemon();
    set_policy(&mut daemon, AppPolicy { rate: Rate::per_minute(1), ..policy() }, Freshness::Current);
    add(&mut daemon, 0..10);
    daemon.run_ms(61_500);
    assert_eq!(daemon.seen.calls.len(), 2);
    set_policy(&mut daemon, policy(), Freshness::Current);
    daemon.run_ms(1_000);
    assert_eq!(daemon.seen.calls.len(), 10);
}

#[test]
fn the_answer_to_a_call_from_a_former_life_is_dropped() {
    let mut daemon = daemon();
    let calls = Rc::new(Cell::new(0));
    let count = Rc::clone(&calls);
    daemon.endpoint.respond_with(move |_, _| {
        count.set(count.get() + 1);
        (5_000, Ok(Grant { lifetime_s: 7200, fingerprint: Fingerprint(count.get()) }))
    });
    add(&mut daemon, 0..1);
    daemon.run_ms(1_000);
    daemon.change(Change::Removed { id: tenant(0), withdraw: Vec::new() });
    add(&mut daemon, 0..1);
    daemon.run_ms(6_000);
    assert_eq!((calls.get(), daemon.places().len()), (2, 0));
    daemon.run_ms(6_000);
    assert!(daemon.places().values().all(|content| content.fingerprint == Fingerprint(2)));
    assert_eq!((calls.get(), daemon.places().len()), (2, 1));
}

#[test]
fn the_queue_entry_of_a_tenant_that_left_is_not_its_successors() {
    let mut daemon = daemon();
    daemon.capacity.calls = 0;
    restore(&mut daemon, 0, 7_000);
    restore(&mut daemon, 1, 7_100);
    add(&mut daemon, 2..3);
    daemon.run_ms(1_000);
    daemon.change(Change::Removed { id: tenant(0), withdraw: Vec::new() });
    add(&mut daemon, 3..4);
    assert_eq!(daemon.engine.slot(&tenant(3)), Some(Slot(0)), "the slot is used again");
    daemon.capacity.calls = 64;
    daemon.run_ms(1_000);
    let order: Vec<&TenantId> = daemon.seen.calls.iter().map(|(_, id)| id).collect();
    assert_eq!(order, [&tenant(1), &tenant(2), &tenant(3)]);
}
