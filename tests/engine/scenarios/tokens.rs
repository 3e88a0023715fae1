//! Tokens that nobody can use, and what a change of an app costs those who are not concerned.

use std::time::Duration;

use corptokend::domain::*;
use corptokend::engine::{Capacity, Engine, Event, Notice};

use super::fixture::*;
use crate::model::Daemon;

fn number_of(id: &TenantId) -> usize {
    id.corp_id.as_str().trim_start_matches("ding").parse().unwrap()
}

#[test]
fn tokens_that_live_too_short_wait_as_after_failures_and_take_nothing_from_their_siblings() {
    let mut daemon = daemon();
    let mut new = new_tokens(0);
    daemon.endpoint.respond_with(move |now, id| {
        let (ms, grant) = new(now, id);
        let lifetime_s = if number_of(id) < 40 { 1 } else { 7200 };
        (ms, grant.map(|grant| Grant { lifetime_s, ..grant }))
    });
    add(&mut daemon, 0..80);
    daemon.run_ms(600_000);
    add(&mut daemon, 100..110);
    daemon.run_ms(2_000);
    (100..110).for_each(|n| assert_eq!(state(&daemon, n), TenantState::Fresh, "newcomer {n}"));
    daemon.run_ms(2 * HOUR);
    let expired = |said: &Notice| matches!(said, Notice::Expired { tenant } if number_of(tenant) >= 40);
    assert!(!daemon.seen.notices.iter().any(|(_, said)| expired(said)));
    for n in 40..80 {
        let calls = calls_of(&daemon, n);
        let refreshed = calls[1] - calls[0];
        assert!(refreshed <= 5_400_000 + 1_000, "sibling {n} after {refreshed} ms");
    }
    for n in 0..40 {
        let calls = calls_of(&daemon, n).len();
        assert!((20..150).contains(&calls), "{calls} calls in two hours");
        let said = |said: &Notice| matches!(said, Notice::Failing { tenant, failure, .. } if number_of(tenant) == n && failure.kind == FailureKind::ShortLived);
        let said = daemon.seen.notices.iter().filter(|(_, notice)| said(notice)).count();
        assert!((1..=3).contains(&said), "said at first and once an hour, but {said} times");
    }
    let row = daemon.engine.row(daemon.now(), daemon.engine.slot(&tenant(0)).unwrap());
    assert_eq!((row.state, row.why), (TenantState::Expired, "its tokens live too short to be kept fresh"));
    assert!(row.failure.unwrap().failure.detail.starts_with("tokens live 1 s: too short"));
}

#[test]
fn a_life_is_too_short_only_where_the_limits_do_not_allow_it_and_until_a_longer_one_comes() {
    let mut daemon = daemon();
    daemon.endpoint.respond_with(new_tokens(10));
    add(&mut daemon, 0..40);
    daemon.run_ms(600_000);
    // 40 tenants of 10 s take 6 calls a second, and 15 are allowed.
    assert_eq!(daemon.engine.summary(daemon.now()).counts.of(TenantState::Failing), 0);
    assert!(
        !daemon.seen.notices.iter().any(|(_, said)| matches!(said, Notice::Expired { .. } | Notice::Failing { .. }))
    );
    add(&mut daemon, 40..200);
    daemon.run_ms(60_000);
    assert!(
        daemon.seen.notices.iter().any(|(_, said)| matches!(said, Notice::Failing { .. })),
        "29 a second are not allowed"
    );
    daemon.endpoint.respond_with(new_tokens(7200));
    daemon.run_ms(400_000);
    assert_eq!(daemon.engine.summary(daemon.now()).counts.of(TenantState::Fresh), 200);
}

#[test]
fn a_token_that_another_organisation_has_is_refused_and_not_published() {
    let mut daemon = daemon();
    let shared = |lifetime_s| move |_: Now, _: &TenantId| (20, Ok(Grant { lifetime_s, fingerprint: Fingerprint(7) }));
    daemon.endpoint.respond_with(shared(7200));
    add(&mut daemon, 0..1);
    daemon.run_ms(1_000);
    add(&mut daemon, 1..2);
    daemon.run_ms(1_000);
    assert_eq!((state(&daemon, 0), state(&daemon, 1)), (TenantState::Fresh, TenantState::Refused));
    assert_eq!((daemon.places().len(), daemon.stored(&tenant(1))), (1, None), "only the first has one");
    let row = daemon.engine.row(daemon.now(), daemon.engine.slot(&tenant(1)).unwrap());
    let failure = row.failure.unwrap().failure;
    assert_eq!(failure.kind, FailureKind::SharedToken);
    assert!(failure.detail.contains(&tenant(0).to_string()), "{failure}");
    let said = |said: &Notice| matches!(said, Notice::Failing { tenant: who, .. } if *who == tenant(1));
    assert!(daemon.seen.notices.iter().any(|(_, notice)| said(notice)));
    // The endpoint renews its first token for the first tenant: that is its own.
    daemon.endpoint.respond_with(shared(14_400));
    daemon.run_ms(2 * HOUR);
    assert_eq!((state(&daemon, 0), state(&daemon, 1)), (TenantState::Fresh, TenantState::Refused));
    let refused = calls_of(&daemon, 1).len();
    assert!(refused <= 10, "a slow retry, but {refused} calls");
    // Once each gets one of its own, all is well.
    daemon.endpoint.respond_with(new_tokens(7200));
    daemon.run_ms(HOUR / 2);
    assert_eq!((state(&daemon, 0), state(&daemon, 1)), (TenantState::Fresh, TenantState::Fresh));
}

#[test]
fn two_apps_that_ask_for_one_organisation_may_get_one_token() {
    let mut daemon = daemon();
    daemon.endpoint.respond_with(|_, _| (20, Ok(Grant { lifetime_s: 7200, fingerprint: Fingerprint(7) })));
    let twin = TenantId { app: AppName::new("twin").unwrap(), ..tenant(0) };
    let other = TenantId { app: twin.app.clone(), ..tenant(1) };
    daemon.change(Change::App {
        name: twin.app.clone(),
        policy: policy(),
        path: way(1),
        freshness: Freshness::Current,
    });
    daemon.change(sink_set(1, &[outlet(1)]));
    add(&mut daemon, 0..1);
    for id in [&twin, &other] {
        daemon.change(Change::Added { id: id.clone(), sinks: SinkSetId(1), record: None });
    }
    daemon.run_ms(5_000);
    let state = |id| daemon.engine.row(daemon.now(), daemon.engine.slot(id).unwrap()).state;
    assert_eq!(
        (state(&tenant(0)), state(&twin), state(&other)),
        (TenantState::Fresh, TenantState::Fresh, TenantState::Refused)
    );
}

#[test]
fn a_token_that_was_kept_for_two_is_given_back_to_the_first_alone() {
    let mut daemon = daemon();
    daemon.endpoint.respond_with(|_, _| fails(FailureKind::Timeout));
    let now = daemon.now().wall;
    let record = Record { requested_at: now - 1000, expires_at: now + HOUR, fingerprint: Fingerprint(7) };
    for n in 0..2 {
        daemon.store_token(&tenant(n), record);
        daemon.change(Change::Added { id: tenant(n), sinks: SinkSetId(0), record: Some(record) });
    }
    daemon.run_ms(1_000);
    assert_eq!((state(&daemon, 0), daemon.places().len(), daemon.seen.calls.len()), (TenantState::Fresh, 1, 1));
}

#[test]
fn the_tenants_of_a_large_app_are_looked_at_in_pieces_when_its_credentials_change() {
    let mut daemon = daemon();
    let slow = AppPolicy { rate: Rate::per_minute(1), ..policy() };
    set_policy(&mut daemon, slow, Freshness::Current);
    (0..5_000).for_each(|n| restore(&mut daemon, n, 60));
    daemon.run_ms(1_000);
    set_policy(&mut daemon, slow, Freshness::Stale);
    let fresh = |daemon: &Daemon| daemon.engine.summary(daemon.now()).counts.of(TenantState::Fresh);
    assert_eq!(fresh(&daemon), 3_000, "the others have their turn");
    // Who leaves in the middle of it is not looked for.
    (2_000..3_500).for_each(|n| daemon.change(Change::Removed { id: tenant(n), withdraw: Vec::new() }));
    daemon.run_ms(100);
    assert_eq!(fresh(&daemon), 0);
    assert_eq!(daemon.engine.summary(daemon.now()).counts.total(), 3_500);
}

#[test]
fn an_answer_to_old_credentials_says_nothing_before_its_tenant_was_looked_at_either() {
    let mut daemon = daemon();
    add(&mut daemon, 0..1); // the last of whom all are looked at
    let mut first = true;
    daemon.endpoint.respond_with(move |now, _| match std::mem::take(&mut first) {
        true => (15, Err(Failure::new(FailureKind::WrongCredentials, "those of yesterday"))),
        false => (20, Ok(Grant { lifetime_s: 7200, fingerprint: Fingerprint(now.boot.0) })),
    });
    while daemon.seen.calls.is_empty() {
        daemon.run_ms(1);
    }
    daemon.run_ms(1);
    let policy = AppPolicy { rate: Rate::per_second(2), ..policy() };
    (1..3_000).for_each(|n| restore(&mut daemon, n, 60));
    set_policy(&mut daemon, policy, Freshness::Stale);
    daemon.run_ms(5_000);
    assert!(!daemon.seen.notices.iter().any(|(_, said)| matches!(said, Notice::AppBroken { .. })));
    assert_eq!(daemon.engine.summary(daemon.now()).counts.of(TenantState::Refused), 0);
}

/// How long it takes to carry a change of the app `crm` and its 100 tenants through, beside so many tenants of other apps.
fn change_beside(others: usize) -> Duration {
    let now = Now { boot: BootMs(BOOT), wall: WallMs(1_700_000_000_000) };
    let mut engine = Engine::new(now, 7, Rate::per_second(1));
    let change = |engine: &mut Engine, change| engine.handle(now, Event::Change(change));
    change(&mut engine, sink_set(0, &[]));
    for n in 0..=others / 100 {
        let name = if n == 0 { app() } else { AppName::new(&format!("app-{n}")).unwrap() };
        change(
            &mut engine,
            Change::App { name: name.clone(), policy: policy(), path: way(1), freshness: Freshness::Current },
        );
        for of_app in 0..100 {
            let id = TenantId { app: name.clone(), ..tenant(of_app) };
            change(&mut engine, Change::Added { id, sinks: SinkSetId(0), record: None });
        }
    }
    engine.handle_timeout(now);
    while engine.poll(now, &Capacity::default()).is_some() {}
    (1..=20)
        .map(|turn| {
            let now = Now { boot: now.boot + 1_000 * turn, ..now };
            engine.handle_timeout(now);
            while engine.poll(now, &Capacity::default()).is_some() {}
            #[expect(clippy::disallowed_methods, reason = "the test measures")]
            let began = std::time::Instant::now();
            let policy = AppPolicy { refresh: Refresh { at: 0.5 + turn as f64 / 100.0, jitter: 0.0 }, ..policy() };
            engine.handle(
                now,
                Event::Change(Change::App { name: app(), policy, path: way(1), freshness: Freshness::Current }),
            );
            engine.handle_timeout(now);
            while engine.poll(now, &Capacity::default()).is_some() {}
            began.elapsed()
        })
        .min()
        .unwrap()
}

#[test]
fn a_change_of_an_app_costs_as_much_as_the_app_is_large_whoever_else_is_there() {
    let (alone, beside) = (change_beside(0), change_beside(40_000));
    assert!(beside < alone * 20, "{alone:?} alone, {beside:?} beside 400 times as many");
}

#[test]
fn short_lives_are_no_trouble_while_the_rate_allows_them_and_are_forgotten_with_their_tenants() {
    let mut daemon = daemon();
    let mut new = new_tokens(0);
    daemon.endpoint.respond_with(move |now, id| {
        let (ms, grant) = new(now, id);
        let lifetime_s = if number_of(id) < 40 { 1 } else { 100 };
        (ms, grant.map(|grant| Grant { lifetime_s, ..grant }))
    });
    add(&mut daemon, 39..80);
    daemon.run_ms(60_000);
    let failing = |daemon: &Daemon| daemon.engine.summary(daemon.now()).counts.of(TenantState::Failing);
    assert!(daemon.engine.row(daemon.now(), daemon.engine.slot(&tenant(39)).unwrap()).failure.is_none(), "one may");
    add(&mut daemon, 0..39);
    daemon.run_ms(200_000);
    let in_trouble =
        |daemon: &Daemon, n| daemon.engine.row(daemon.now(), daemon.engine.slot(&tenant(n)).unwrap()).failure.is_some();
    assert!((40..80).all(|n| !in_trouble(&daemon, n)), "those that take their share alone are not to blame");
    assert!((0..40).any(|n| in_trouble(&daemon, n)));
    (0..40).for_each(|n| daemon.change(Change::Removed { id: tenant(n), withdraw: Vec::new() }));
    daemon.run_ms(1_000);
    add(&mut daemon, 0..1);
    daemon.run_ms(60_000);
    assert!(!in_trouble(&daemon, 0), "what those that left took is free again");
    assert_eq!(failing(&daemon), 0);
}

#[test]
fn who_was_called_with_the_new_credentials_before_its_turn_came_is_not_called_again() {
    let mut daemon = daemon();
    add(&mut daemon, 0..1); // the last of whom all are looked at
    (1..20_000).for_each(|n| restore(&mut daemon, n, 60));
    set_policy(&mut daemon, policy(), Freshness::Stale);
    assert!(daemon.seen.calls.is_empty());
    daemon.run_ms(1_000);
    assert_eq!(daemon.engine.summary(daemon.now()).counts.of(TenantState::Due) / 1_000, 19, "all have been looked at");
    assert_eq!((calls_of(&daemon, 0).len(), state(&daemon, 0)), (1, TenantState::Fresh));
}
