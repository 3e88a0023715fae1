//! What failing calls lead to: who is called again, when, and what the operator hears.

use std::cell::Cell;
use std::rc::Rc;

use corptokend::domain::*;
use corptokend::engine::{Notice, Scope, State};

use crate::scenarios_calls::{BOOT, HOUR, add, app, calls_of, fails, new_tokens, policy, set_policy, shell, state};
use crate::shell::{Reply, Shell};

/// An endpoint whose answers the test can change while it runs.
fn switchable(shell: &mut Shell, first: FailureKind) -> Rc<Cell<Option<FailureKind>>> {
    let failure = Rc::new(Cell::new(Some(first)));
    let (switch, mut good) = (Rc::clone(&failure), new_tokens(7200));
    shell.endpoint = Box::new(move |now, id| match switch.get() {
        Some(kind) => fails(kind),
        None => good(now, id),
    });
    failure
}

fn throttled(after_s: u32) -> Reply {
    let failure = Failure { retry_after_s: Some(after_s), ..Failure::new(FailureKind::AppThrottled, "slow down") };
    (20, Err(failure))
}

fn said(shell: &Shell, chosen: impl Fn(&Notice) -> bool) -> Vec<u64> {
    shell.notices.iter().filter(|(_, said)| chosen(said)).map(|(at, _)| at - BOOT).collect()
}

#[test]
fn a_wrong_secret_is_probed_by_one_tenant_of_ten_thousand() {
    let mut shell = shell();
    switchable(&mut shell, FailureKind::WrongCredentials);
    add(&mut shell, 0..10_000);
    shell.run_ms(2 * HOUR);
    assert!((8..=14).contains(&shell.calls.len()), "{} calls in two hours", shell.calls.len());
    let summary = shell.engine.summary(shell.now);
    assert_eq!(summary.counts.of(State::Refused), 10_000);
    assert!(summary.every_tenant_had_an_outcome);
    assert_eq!(said(&shell, |n| matches!(n, Notice::AppBroken { .. })).len(), 2, "at the start and after an hour");
}

#[test]
fn all_tenants_resume_when_the_secret_is_right_again() {
    let mut shell = shell();
    let failure = switchable(&mut shell, FailureKind::WrongCredentials);
    add(&mut shell, 0..100);
    shell.run_ms(HOUR);
    failure.set(None);
    shell.run_ms(HOUR / 4 + 10_000);
    assert_eq!(shell.engine.summary(shell.now).counts.of(State::Fresh), 100);
    assert_eq!(said(&shell, |n| matches!(n, Notice::AppMended { .. })).len(), 1);
}

#[test]
fn all_tenants_resume_at_once_when_the_secret_changes() {
    let mut shell = shell();
    let failure = switchable(&mut shell, FailureKind::WrongCredentials);
    add(&mut shell, 0..100);
    shell.run_ms(HOUR);
    failure.set(None);
    set_policy(&mut shell, policy(), Freshness::Stale);
    shell.run_ms(8_000);
    assert_eq!(shell.engine.summary(shell.now).counts.of(State::Fresh), 100);
}

#[test]
fn an_answer_older_than_the_breaker_does_not_close_it() {
    let mut shell = shell();
    let calls = Cell::new(0);
    shell.endpoint = Box::new(move |_, _| {
        calls.set(calls.get() + 1);
        match calls.get() {
            1 => (2_000, Ok(Grant { lifetime_s: 7200, fingerprint: Fingerprint(1) })),
            _ => fails(FailureKind::WrongCredentials),
        }
    });
    add(&mut shell, 0..100);
    shell.run_ms(20_000);
    assert_eq!(shell.calls.len(), 2);
    assert!(shell.engine.summary(shell.now).apps[0].broken.is_some());
}

#[test]
fn a_breaker_whose_probe_left_the_config_probes_with_another() {
    let mut shell = shell();
    let failure = switchable(&mut shell, FailureKind::WrongCredentials);
    add(&mut shell, 0..2);
    shell.run_ms(1_000);
    failure.set(None);
    shell.run_ms(30_000 - 900);
    let probed = shell.calls.last().unwrap().1.clone();
    shell.change(Change::Removed { id: probed, withdraw: Vec::new() });
    shell.run_ms(5_000);
    assert_eq!(shell.engine.summary(shell.now).counts.of(State::Fresh), 1);
}

#[test]
fn a_new_tenant_with_four_unknown_errors_is_suspect_and_tried_every_quarter_of_an_hour() {
    let mut shell = shell();
    switchable(&mut shell, FailureKind::SuspectCorp);
    add(&mut shell, 0..1);
    shell.run_ms(2 * HOUR);
    let calls = calls_of(&shell, 0);
    assert!(calls[3] < 60_000, "{calls:?}");
    assert!(calls.windows(2).skip(3).all(|pair| pair[1] - pair[0] >= 900_000), "{calls:?}");
    assert_eq!((calls.len(), state(&shell, 0)), (11, State::Refused));
}

#[test]
fn one_unknown_error_after_an_outage_makes_nobody_suspect() {
    let mut shell = shell();
    let failure = switchable(&mut shell, FailureKind::Timeout);
    add(&mut shell, 0..1);
    shell.run_ms(HOUR);
    failure.set(Some(FailureKind::SuspectCorp));
    let before = shell.calls.len();
    while shell.calls.len() == before {
        shell.run_ms(500);
    }
    shell.run_ms(500);
    assert_eq!(state(&shell, 0), State::Failing);
}

#[test]
fn a_tenant_that_worked_before_is_never_suspect() {
    let mut shell = shell();
    add(&mut shell, 0..1);
    shell.run_ms(1_000);
    switchable(&mut shell, FailureKind::SuspectCorp);
    shell.run_ms(2 * HOUR - 60_000);
    assert_eq!(state(&shell, 0), State::Failing);
    assert!(shell.calls.len() > 8, "{}", shell.calls.len());
}

#[test]
fn an_unauthorised_tenant_is_tried_every_quarter_of_an_hour_and_stops_nobody_else() {
    let mut shell = shell();
    let mut good = new_tokens(7200);
    shell.endpoint = Box::new(move |now, id| match id.corp_id.as_str() {
        "ding0" => fails(FailureKind::Unauthorized),
        _ => good(now, id),
    });
    add(&mut shell, 0..10);
    shell.run_ms(HOUR);
    assert_eq!(calls_of(&shell, 0).len(), 4);
    assert_eq!(state(&shell, 0), State::Refused);
    assert_eq!(shell.engine.summary(shell.now).counts.of(State::Fresh), 9);
}

#[test]
fn throttling_halves_the_rate_which_then_recovers() {
    let mut shell = shell();
    let mut good = new_tokens(7200);
    shell.endpoint = Box::new(move |now, id| match now.boot.0 - BOOT {
        10_000..10_100 => throttled(0),
        _ => good(now, id),
    });
    add(&mut shell, 0..3_000);
    shell.run_ms(200_000);
    let during = |from: u64, to: u64| shell.calls.iter().filter(|(at, _)| (from..to).contains(&(at - BOOT))).count();
    assert!(during(10_150, 11_000) == 0, "a pause of a second");
    assert!((65..=75).contains(&during(11_000, 21_000)), "{} in ten seconds", during(11_000, 21_000));
    assert!(during(120_000, 130_000) >= 145, "{} in ten seconds", during(120_000, 130_000));
    assert_eq!(said(&shell, |n| matches!(n, Notice::SlowedDown { percent: 50, .. })).len(), 1);
}

#[test]
fn a_throttled_tenant_is_still_called_when_its_refresh_point_moves_away() {
    let mut shell = shell();
    let refresh = |at| AppPolicy { refresh: Refresh { at, jitter: 0.0 }, ..policy() };
    set_policy(&mut shell, refresh(0.1), Freshness::Current);
    add(&mut shell, 0..1);
    shell.run_ms(HOUR / 5 - 10_000);
    shell.endpoint = Box::new(|_, _| throttled(30));
    shell.run_ms(13_000);
    assert_eq!(state(&shell, 0), State::Failing);
    shell.endpoint = Box::new(new_tokens(7200));
    set_policy(&mut shell, refresh(0.9), Freshness::Current);
    set_policy(&mut shell, AppPolicy { enabled: false, ..refresh(0.9) }, Freshness::Current);
    set_policy(&mut shell, refresh(0.8), Freshness::Current);
    shell.run_ms(60_000);
    assert_eq!(state(&shell, 0), State::Fresh);
}

#[test]
fn retry_after_is_honoured_but_for_minutes_at_most() {
    for (asked_s, waits_ms) in [(60, 60_000), (u32::MAX, 300_000)] {
        let mut shell = shell();
        let mut good = new_tokens(7200);
        let mut calls = 0;
        shell.endpoint = Box::new(move |now, id| {
            calls += 1;
            if calls == 1 { throttled(asked_s) } else { good(now, id) }
        });
        add(&mut shell, 0..1);
        shell.run_ms(2 * HOUR);
        let waited = shell.calls[1].0 - shell.calls[0].0;
        assert!((waits_ms..waits_ms + 1_100).contains(&waited), "{asked_s}: {waited}");
    }
}

#[test]
fn one_tenant_that_is_asked_to_wait_for_an_hour_stops_none_of_its_apps_forty_others() {
    let mut shell = shell();
    let mut good = new_tokens(7200);
    shell.endpoint = Box::new(move |now, id| match id.corp_id.as_str() {
        "ding0" => throttled(3600),
        _ => good(now, id),
    });
    add(&mut shell, 0..41);
    shell.run_ms(12_000);
    assert_eq!(shell.engine.summary(shell.now).counts.of(State::Fresh), 40);
    assert!(shell.engine.holds(shell.now).is_empty(), "nobody is held but the tenant itself");
    shell.run_ms(HOUR);
    assert!((12..=14).contains(&calls_of(&shell, 0).len()), "every five minutes: {:?}", calls_of(&shell, 0));
}

#[test]
fn an_app_that_is_asked_to_wait_is_probed_ever_less_often_and_shows_why() {
    let mut shell = shell();
    shell.endpoint = Box::new(|_, _| throttled(3600));
    add(&mut shell, 0..200);
    shell.run_ms(10_000);
    let [hold] = &shell.engine.holds(shell.now)[..] else { panic!("one hold") };
    assert_eq!((&hold.scope, hold.failure.kind), (&Scope::App(app()), FailureKind::AppThrottled));
    shell.run_ms(HOUR);
    assert!((15..=40).contains(&shell.calls.len()), "{} calls in an hour", shell.calls.len());
    assert_eq!(said(&shell, |n| matches!(n, Notice::CallsHeld { .. })).len(), 1);
}

#[test]
fn a_ban_stops_everything_for_five_minutes() {
    let mut shell = shell();
    let mut good = new_tokens(7200);
    shell.endpoint = Box::new(move |now, id| match now.boot.0 - BOOT {
        0..1_000 => fails(FailureKind::Banned),
        _ => good(now, id),
    });
    add(&mut shell, 0..50);
    shell.run_ms(1_000);
    let before = shell.calls.len();
    assert!(shell.engine.summary(shell.now).paused_until.is_some());
    shell.run_ms(HOUR / 4);
    let next = shell.calls[before].0 - shell.calls[0].0;
    assert!((300_000..301_000).contains(&next), "{next}");
    assert_eq!(said(&shell, |n| matches!(n, Notice::Paused { .. })).len(), 1);
    assert_eq!(shell.engine.summary(shell.now).counts.of(State::Fresh), 50);
}

#[test]
fn a_ban_is_heeded_even_if_the_tenant_that_met_it_has_left() {
    let mut shell = shell();
    shell.endpoint = Box::new(|_, _| (5_000, Err(Failure::new(FailureKind::Banned, "banned"))));
    add(&mut shell, 0..1);
    shell.run_ms(1_000);
    shell.change(Change::Removed { id: shell.calls[0].1.clone(), withdraw: Vec::new() });
    shell.room.calls = 0;
    add(&mut shell, 1..2);
    shell.run_ms(200_000);
    assert_eq!(shell.calls.len(), 1);
}

#[test]
fn a_failure_is_said_when_it_starts_when_its_kind_changes_once_an_hour_and_when_it_ends() {
    let mut shell = shell();
    let failure = switchable(&mut shell, FailureKind::Timeout);
    add(&mut shell, 0..1);
    let failing = |shell: &Shell| said(shell, |n| matches!(n, Notice::Failing { .. })).len();
    shell.run_ms(HOUR / 2);
    assert_eq!(failing(&shell), 1);
    failure.set(Some(FailureKind::ServerError));
    shell.run_ms(HOUR / 2);
    assert_eq!(failing(&shell), 2);
    shell.run_ms(HOUR);
    assert_eq!(failing(&shell), 3);
    failure.set(None);
    shell.run_ms(HOUR / 4);
    assert_eq!(said(&shell, |n| matches!(n, Notice::Mended { .. })).len(), 1);
    assert_eq!(state(&shell, 0), State::Fresh);
}
