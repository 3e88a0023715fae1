//! What failing calls lead to: who is called again, when, and what the operator hears.

use std::cell::Cell;
use std::rc::Rc;

use corptokend::domain::*;
use corptokend::engine::{CallScope, Notice};

use super::fixture::*;
use crate::model::{Daemon, Reply};

/// An endpoint whose answers the test can change while it runs.
fn switchable(daemon: &mut Daemon, first: FailureKind) -> Rc<Cell<Option<FailureKind>>> {
    let failure = Rc::new(Cell::new(Some(first)));
    let (switch, mut good) = (Rc::clone(&failure), new_tokens(7200));
    daemon.endpoint.respond_with(move |now, id| match switch.get() {
        Some(kind) => fails(kind),
        None => good(now, id),
    });
    failure
}

fn throttled(after_s: u32) -> Reply {
    let failure = Failure { retry_after_s: Some(after_s), ..Failure::new(FailureKind::AppThrottled, "slow down") };
    (20, Err(failure))
}

fn said(daemon: &Daemon, chosen: impl Fn(&Notice) -> bool) -> Vec<u64> {
    daemon.seen.notices.iter().filter(|(_, said)| chosen(said)).map(|(at, _)| at - BOOT).collect()
}

#[test]
fn a_wrong_secret_is_probed_by_one_tenant_of_ten_thousand() {
    let mut daemon = daemon();
    switchable(&mut daemon, FailureKind::WrongCredentials);
    add(&mut daemon, 0..10_000);
    daemon.run_ms(2 * HOUR);
    assert!((8..=14).contains(&daemon.seen.calls.len()), "{} calls in two hours", daemon.seen.calls.len());
    let summary = daemon.engine.summary(daemon.now());
    assert_eq!(summary.counts.of(TenantState::Refused), 10_000);
    assert!(summary.every_tenant_had_an_outcome);
    assert_eq!(said(&daemon, |n| matches!(n, Notice::AppBroken { .. })).len(), 2, "at the start and after an hour");
}

#[test]
fn all_tenants_resume_when_the_secret_is_right_again() {
    let mut daemon = daemon();
    let failure = switchable(&mut daemon, FailureKind::WrongCredentials);
    add(&mut daemon, 0..100);
    daemon.run_ms(HOUR);
    failure.set(None);
    daemon.run_ms(HOUR / 4 + 10_000);
    assert_eq!(daemon.engine.summary(daemon.now()).counts.of(TenantState::Fresh), 100);
    assert_eq!(said(&daemon, |n| matches!(n, Notice::AppRecovered { .. })).len(), 1);
}

#[test]
fn all_tenants_resume_at_once_when_the_secret_changes() {
    let mut daemon = daemon();
    let failure = switchable(&mut daemon, FailureKind::WrongCredentials);
    add(&mut daemon, 0..100);
    daemon.run_ms(HOUR);
    failure.set(None);
    set_policy(&mut daemon, policy(), Freshness::Stale);
    daemon.run_ms(8_000);
    assert_eq!(daemon.engine.summary(daemon.now()).counts.of(TenantState::Fresh), 100);
}

#[test]
fn an_answer_older_than_the_breaker_does_not_close_it() {
    let mut daemon = daemon();
    let calls = Cell::new(0);
    daemon.endpoint.respond_with(move |_, _| {
        calls.set(calls.get() + 1);
        match calls.get() {
            1 => (2_000, Ok(Grant { lifetime_s: 7200, fingerprint: Fingerprint(1) })),
            _ => fails(FailureKind::WrongCredentials),
        }
    });
    add(&mut daemon, 0..100);
    daemon.run_ms(20_000);
    assert_eq!(daemon.seen.calls.len(), 2);
    assert!(daemon.engine.summary(daemon.now()).apps[0].broken.is_some());
}

#[test]
fn a_breaker_whose_probe_left_the_config_probes_with_another() {
    let mut daemon = daemon();
    let failure = switchable(&mut daemon, FailureKind::WrongCredentials);
    add(&mut daemon, 0..2);
    daemon.run_ms(1_000);
    failure.set(None);
    daemon.run_ms(30_000 - 900);
    let probed = daemon.seen.calls.last().unwrap().1.clone();
    daemon.change(Change::Removed { id: probed, withdraw: Vec::new() });
    daemon.run_ms(5_000);
    assert_eq!(daemon.engine.summary(daemon.now()).counts.of(TenantState::Fresh), 1);
}

#[test]
fn a_new_tenant_with_four_unknown_errors_is_suspect_and_tried_every_quarter_of_an_hour() {
    let mut daemon = daemon();
    switchable(&mut daemon, FailureKind::SuspectCorp);
    add(&mut daemon, 0..1);
    daemon.run_ms(2 * HOUR);
    let calls = calls_of(&daemon, 0);
    assert!(calls[3] < 60_000, "{calls:?}");
    assert!(calls.windows(2).skip(3).all(|pair| pair[1] - pair[0] >= 900_000), "{calls:?}");
    assert_eq!((calls.len(), state(&daemon, 0)), (11, TenantState::Refused));
}

#[test]
fn one_unknown_error_after_an_outage_makes_nobody_suspect() {
    let mut daemon = daemon();
    let failure = switchable(&mut daemon, FailureKind::Timeout);
    add(&mut daemon, 0..1);
    daemon.run_ms(HOUR);
    failure.set(Some(FailureKind::SuspectCorp));
    let before = daemon.seen.calls.len();
    while daemon.seen.calls.len() == before {
        daemon.run_ms(500);
    }
    daemon.run_ms(500);
    assert_eq!(state(&daemon, 0), TenantState::Failing);
}

#[test]
fn a_tenant_that_worked_before_is_never_suspect() {
    let mut daemon = daemon();
    add(&mut daemon, 0..1);
    daemon.run_ms(1_000);
    switchable(&mut daemon, FailureKind::SuspectCorp);
    daemon.run_ms(2 * HOUR - 60_000);
    assert_eq!(state(&daemon, 0), TenantState::Failing);
    assert!(daemon.seen.calls.len() > 8, "{}", daemon.seen.calls.len());
}

#[test]
fn an_unauthorised_tenant_is_tried_every_quarter_of_an_hour_and_stops_nobody_else() {
    let mut daemon = daemon();
    let mut good = new_tokens(7200);
    daemon.endpoint.respond_with(move |now, id| match id.corp_id.as_str() {
        "ding0" => fails(FailureKind::Unauthorized),
        _ => good(now, id),
    });
    add(&mut daemon, 0..10);
    daemon.run_ms(HOUR);
    assert_eq!(calls_of(&daemon, 0).len(), 4);
    assert_eq!(state(&daemon, 0), TenantState::Refused);
    assert_eq!(daemon.engine.summary(daemon.now()).counts.of(TenantState::Fresh), 9);
}

#[test]
fn throttling_halves_the_rate_which_then_recovers() {
    let mut daemon = daemon();
    let mut good = new_tokens(7200);
    daemon.endpoint.respond_with(move |now, id| match now.boot.0 - BOOT {
        10_000..10_100 => throttled(0),
        _ => good(now, id),
    });
    add(&mut daemon, 0..3_000);
    daemon.run_ms(200_000);
    let during =
        |from: u64, to: u64| daemon.seen.calls.iter().filter(|(at, _)| (from..to).contains(&(at - BOOT))).count();
    assert!(during(10_150, 11_000) == 0, "a pause of a second");
    assert!((65..=75).contains(&during(11_000, 21_000)), "{} in ten seconds", during(11_000, 21_000));
    assert!(during(120_000, 130_000) >= 145, "{} in ten seconds", during(120_000, 130_000));
    assert_eq!(said(&daemon, |n| matches!(n, Notice::Throttled { percent: 50, .. })).len(), 1);
}

#[test]
fn a_throttled_tenant_is_still_called_when_its_refresh_point_moves_away() {
    let mut daemon = daemon();
    let refresh = |at| AppPolicy { refresh: Refresh { at, jitter: 0.0 }, ..policy() };
    set_policy(&mut daemon, refresh(0.1), Freshness::Current);
    add(&mut daemon, 0..1);
    daemon.run_ms(HOUR / 5 - 10_000);
    daemon.endpoint.respond_with(|_, _| throttled(30));
    daemon.run_ms(13_000);
    assert_eq!(state(&daemon, 0), TenantState::Failing);
    daemon.endpoint.respond_with(new_tokens(7200));
    set_policy(&mut daemon, refresh(0.9), Freshness::Current);
    set_policy(&mut daemon, AppPolicy { enabled: false, ..refresh(0.9) }, Freshness::Current);
    set_policy(&mut daemon, refresh(0.8), Freshness::Current);
    daemon.run_ms(60_000);
    assert_eq!(state(&daemon, 0), TenantState::Fresh);
}

#[test]
fn retry_after_is_honoured_but_for_minutes_at_most() {
    for (asked_s, waits_ms) in [(60, 60_000), (u32::MAX, 300_000)] {
        let mut daemon = daemon();
        let mut good = new_tokens(7200);
        let mut calls = 0;
        daemon.endpoint.respond_with(move |now, id| {
            calls += 1;
            if calls == 1 { throttled(asked_s) } else { good(now, id) }
        });
        add(&mut daemon, 0..1);
        daemon.run_ms(2 * HOUR);
        let waited = daemon.seen.calls[1].0 - daemon.seen.calls[0].0;
        assert!((waits_ms..waits_ms + 1_100).contains(&waited), "{asked_s}: {waited}");
    }
}

#[test]
fn one_tenant_that_is_asked_to_wait_for_an_hour_stops_none_of_its_apps_forty_others() {
    let mut daemon = daemon();
    let mut good = new_tokens(7200);
    daemon.endpoint.respond_with(move |now, id| match id.corp_id.as_str() {
        "ding0" => throttled(3600),
        _ => good(now, id),
    });
    add(&mut daemon, 0..41);
    daemon.run_ms(12_000);
    assert_eq!(daemon.engine.summary(daemon.now()).counts.of(TenantState::Fresh), 40);
    assert!(daemon.engine.held_calls(daemon.now()).is_empty(), "nobody is held but the tenant itself");
    daemon.run_ms(HOUR);
    assert!((12..=14).contains(&calls_of(&daemon, 0).len()), "every five minutes: {:?}", calls_of(&daemon, 0));
}

#[test]
fn an_app_that_is_asked_to_wait_is_probed_ever_less_often_and_shows_why() {
    let mut daemon = daemon();
    daemon.endpoint.respond_with(|_, _| throttled(3600));
    add(&mut daemon, 0..200);
    daemon.run_ms(10_000);
    let [hold] = &daemon.engine.held_calls(daemon.now())[..] else { panic!("one hold") };
    assert_eq!((&hold.scope, hold.failure.kind), (&CallScope::App(app()), FailureKind::AppThrottled));
    daemon.run_ms(HOUR);
    assert!((15..=40).contains(&daemon.seen.calls.len()), "{} calls in an hour", daemon.seen.calls.len());
    assert_eq!(said(&daemon, |n| matches!(n, Notice::BreakerOpened { .. })).len(), 1);
}

#[test]
fn a_ban_stops_everything_for_five_minutes() {
    let mut daemon = daemon();
    let mut good = new_tokens(7200);
    daemon.endpoint.respond_with(move |now, id| match now.boot.0 - BOOT {
        0..1_000 => fails(FailureKind::Banned),
        _ => good(now, id),
    });
    add(&mut daemon, 0..50);
    daemon.run_ms(1_000);
    let before = daemon.seen.calls.len();
    assert!(daemon.engine.summary(daemon.now()).paused_until.is_some());
    daemon.run_ms(HOUR / 4);
    let next = daemon.seen.calls[before].0 - daemon.seen.calls[0].0;
    assert!((300_000..301_000).contains(&next), "{next}");
    assert_eq!(said(&daemon, |n| matches!(n, Notice::Banned { .. })).len(), 1);
    assert_eq!(daemon.engine.summary(daemon.now()).counts.of(TenantState::Fresh), 50);
}

#[test]
fn a_ban_is_heeded_even_if_the_tenant_that_met_it_has_left() {
    let mut daemon = daemon();
    daemon.endpoint.respond_with(|_, _| (5_000, Err(Failure::new(FailureKind::Banned, "banned"))));
    add(&mut daemon, 0..1);
    daemon.run_ms(1_000);
    daemon.change(Change::Removed { id: daemon.seen.calls[0].1.clone(), withdraw: Vec::new() });
    daemon.capacity.calls = 0;
    add(&mut daemon, 1..2);
    daemon.run_ms(200_000);
    assert_eq!(daemon.seen.calls.len(), 1);
}

#[test]
fn a_failure_is_said_when_it_starts_when_its_kind_changes_once_an_hour_and_when_it_ends() {
    let mut daemon = daemon();
    let failure = switchable(&mut daemon, FailureKind::Timeout);
    add(&mut daemon, 0..1);
    let failing = |daemon: &Daemon| said(daemon, |n| matches!(n, Notice::Failing { .. })).len();
    daemon.run_ms(HOUR / 2);
    assert_eq!(failing(&daemon), 1);
    failure.set(Some(FailureKind::ServerError));
    daemon.run_ms(HOUR / 2);
    assert_eq!(failing(&daemon), 2);
    daemon.run_ms(HOUR);
    assert_eq!(failing(&daemon), 3);
    failure.set(None);
    daemon.run_ms(HOUR / 4);
    assert_eq!(said(&daemon, |n| matches!(n, Notice::Recovered { .. })).len(), 1);
    assert_eq!(state(&daemon, 0), TenantState::Fresh);
}
