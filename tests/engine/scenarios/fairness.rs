//! Who could be kept waiting for ever, or for longer than the trouble lasts: behind a backlog, in a crowd, by a wait that was
//! asked for, by what is heard of a way that is no longer gone.

use corptokend::domain::*;

use super::fixture::*;
use crate::model::Daemon;

use super::isolation::{SICK_FROM, add, beside, daemon, fast, fresh, hangs, latest, name};

fn limit_all(daemon: &mut Daemon, rate: Rate) {
    daemon.set_total(rate);
}

fn expired(daemon: &Daemon, app: &str) -> u64 {
    let summary = daemon.engine.summary(daemon.now());
    summary.apps.iter().find(|summary| summary.name == name(app)).unwrap().counts.of(TenantState::Expired)
}

#[test]
fn an_outage_ends_as_soon_while_newcomers_of_others_use_up_the_limit_on_all_calls() {
    for b in [way(2), way(1)] {
        let mut daemon = daemon(&[("a1", way(1), fast(), 3), ("a2", way(1), fast(), 3), ("b", b, fast(), 3)]);
        beside(&mut daemon, 60, SICK_FROM, || fails(FailureKind::Unreachable));
        daemon.run_ms(SICK_FROM - 1_000);
        limit_all(&mut daemon, Rate::per_second(10));
        add(&mut daemon, "b", 3..8_000);
        daemon.run_ms(90_000);
        assert_eq!(expired(&daemon, "a1") + expired(&daemon, "a2"), 6);
        daemon.endpoint.respond_with(new_tokens(60));
        daemon.run_ms(17_000);
        assert_eq!(expired(&daemon, "a1") + expired(&daemon, "a2"), 0, "{b:?}");
    }
}

#[test]
fn an_app_whose_calls_hang_leaves_slots_to_others_on_its_route_beside_a_third() {
    let slow = Rate::per_second(15);
    let mut daemon =
        daemon(&[("a", way(1), Rate::per_second(200), 2_000), ("b", way(1), slow, 300), ("c", way(3), slow, 5)]);
    beside(&mut daemon, 40, SICK_FROM, hangs);
    daemon.run_ms(SICK_FROM + 200_000);
    assert!(latest(&daemon, "b", 40) <= 1_000, "{} ms", latest(&daemon, "b", 40));
}

#[test]
fn with_one_slot_a_new_app_gets_its_turn_beside_one_that_always_has_work() {
    let mut daemon = daemon(&[("b", way(1), fast(), 3_000)]);
    (daemon.capacity.calls, daemon.capacity.max_calls) = (1, 1);
    daemon.endpoint.respond_with(new_tokens(30));
    daemon.run_ms(120_000);
    let policy = AppPolicy { rate: fast(), ..policy() };
    daemon.change(Change::App { name: name("c"), policy, path: way(2), freshness: Freshness::Current });
    add(&mut daemon, "c", 0..3);
    daemon.run_ms(120_000);
    assert!(daemon.seen.calls.iter().any(|(_, id)| id.app == name("c")), "it was never called");
}

#[test]
fn who_is_answered_again_leaves_the_crowd_of_those_who_are_not() {
    let names: Vec<String> = (0..200).map(|n| format!("a{n}")).collect();
    let mut apps: Vec<_> = names.iter().map(|app| (app.as_str(), way(0), fast(), 50)).collect();
    for (n, app) in apps.iter_mut().enumerate() {
        app.1 = way(100 + n as u64);
    }
    apps.push(("b", way(1), Rate::per_second(15), 200));
    let mut daemon = daemon(&apps);
    let mut good = new_tokens(40);
    daemon.endpoint.respond_with(move |now, id| match id.app.as_str().starts_with('a') {
        true => hangs(),
        // Once, an answer takes its time.
        false if (120_000..121_500).contains(&(now.boot.0 - BOOT)) => (121_500 - (now.boot.0 - BOOT), good(now, id).1),
        false => good(now, id),
    });
    daemon.run_ms(300_000);
    let from = BOOT + 80_000;
    daemon.seen.calls.retain(|(at, _)| *at >= from);
    assert!(latest(&daemon, "b", 40) <= 3_000, "{} ms", latest(&daemon, "b", 40));
}

#[test]
fn an_outage_during_a_wait_that_was_asked_for_ends_as_soon_as_any() {
    let mut daemon = daemon(&[("a", way(1), fast(), 50)]);
    let asks = || {
        let mut failure = Failure::new(FailureKind::AppThrottled, "as the test wants it");
        failure.retry_after_s = Some(3_600);
        (20, Err(failure))
    };
    let mut good = new_tokens(60);
    daemon.endpoint.respond_with(move |now, id| match now.boot.0 - BOOT {
        80_000..95_000 => asks(),
        95_000..1_200_000 => fails(FailureKind::Unreachable),
        _ => good(now, id),
    });
    daemon.run_ms(1_200_000);
    assert!(expired(&daemon, "a") > 0);
    daemon.run_ms(17_000 + 2_000);
    assert!(expired(&daemon, "a") == 0, "{} are not back", expired(&daemon, "a"));
}

#[test]
fn a_late_answer_over_another_way_bans_and_slows_nobody_on_the_new_one() {
    for kind in [FailureKind::Banned, FailureKind::ApiThrottled] {
        let mut daemon = daemon(&[("a", way(1), fast(), 50), ("b", way(2), fast(), 50)]);
        let mut good = new_tokens(600);
        daemon.endpoint.respond_with(move |now, id| match now.boot.0 < BOOT + 2_000 && id.app.as_str() == "a" {
            true => (5_000, fails(kind).1),
            false => good(now, id),
        });
        daemon.run_ms(2_500);
        let policy = AppPolicy { rate: fast(), ..policy() };
        daemon.change(Change::App { name: name("a"), policy, path: way(2), freshness: Freshness::Current });
        daemon.run_ms(10_000);
        assert!(
            daemon.engine.held_calls(daemon.now()).is_empty(),
            "{kind}: {:?}",
            daemon.engine.held_calls(daemon.now())
        );
        assert_eq!((fresh(&daemon, "a"), fresh(&daemon, "b")), (50, 50), "{kind}");
    }
}

#[test]
fn once_does_not_wait_for_probes_that_hang_longer_than_they_are_apart() {
    let mut daemon = daemon(&[("a", way(1), fast(), 50)]);
    daemon.endpoint.respond_with(|_, _| (60_000, hangs().1));
    let from = daemon.now().boot.0;
    while daemon.engine.summary(daemon.now()).calls_are_wanted {
        daemon.run_ms(500);
        assert!(daemon.now().boot.0 - from < HOUR / 2, "it waits for ever");
    }
}

#[test]
fn an_outage_after_a_time_of_many_failures_ends_as_soon_as_any() {
    let mut daemon = daemon(&[("a", way(1), fast(), 50)]);
    let (mut good, mut number) = (new_tokens(30), 0_u64);
    daemon.endpoint.respond_with(move |now, id| {
        number += 1;
        match now.boot.0 - BOOT {
            60_000..660_000 if number % 10 != 0 => fails(FailureKind::ServerError),
            660_000..4_260_000 => fails(FailureKind::ServerError),
            _ => good(now, id),
        }
    });
    daemon.run_ms(4_260_000);
    daemon.run_ms(17_000 + 4_000);
    assert_eq!(expired(&daemon, "a"), 0);
}

#[test]
fn few_slots_are_shared_with_ten_routes_once_it_is_known_that_they_hang() {
    let names: Vec<String> = (0..10).map(|n| format!("a{n}")).collect();
    let mut apps: Vec<_> = names.iter().map(|app| (app.as_str(), way(0), Rate::per_second(20), 20)).collect();
    for (n, app) in apps.iter_mut().enumerate() {
        app.1 = way(100 + n as u64);
    }
    apps.push(("b", way(1), Rate::per_second(15), 20));
    for most in [2, 3, 4] {
        let mut daemon = daemon(&apps);
        (daemon.capacity.calls, daemon.capacity.max_calls) = (most, most);
        beside(&mut daemon, 40, SICK_FROM, hangs);
        daemon.run_ms(SICK_FROM + 200_000);
        // Before that, each holds a slot until its first call is given up.
        let from = BOOT + SICK_FROM + 10 * 10_000 / most as u64;
        daemon.seen.calls.retain(|(at, _)| *at >= from);
        assert!(latest(&daemon, "b", 40) <= 1_000, "{most} slots: {} ms", latest(&daemon, "b", 40));
    }
}

#[test]
fn probes_of_what_is_down_and_calls_to_what_is_new_do_not_take_both_of_two_slots() {
    let down = ["a0", "a1", "a2", "a3"];
    let mut apps: Vec<_> = (100..).zip(down).map(|(n, app)| (app, way(n), fast(), 10)).collect();
    apps.push(("b", way(1), Rate::per_second(15), 20));
    let mut daemon = daemon(&apps);
    (daemon.capacity.calls, daemon.capacity.max_calls) = (2, 2);
    beside(&mut daemon, 40, 0, hangs);
    daemon.run_ms(400_000);
    daemon.seen.calls.clear();
    for n in 10..30 {
        let (app, path) = (name(&format!("a{n}")), way(100 + n));
        let policy = AppPolicy { rate: fast(), ..policy() };
        daemon.change(Change::App { name: app, policy, path, freshness: Freshness::Current });
        add(&mut daemon, &format!("a{n}"), 0..2);
    }
    daemon.run_ms(200_000);
    assert!(latest(&daemon, "b", 40) <= 1_000, "{} ms", latest(&daemon, "b", 40));
}

#[test]
fn an_app_that_was_served_last_and_fails_for_ever_keeps_no_breaker_open_and_no_ban() {
    for (kind, most_ms) in [(FailureKind::ServerError, 35_000), (FailureKind::Banned, 11 * 60_000)] {
        let names = ["a1", "a2", "a3", "x"];
        let mut daemon = daemon(&names.map(|app| (app, way(1), fast(), 5)));
        let mut good = new_tokens(60);
        daemon.endpoint.respond_with(move |now, id| match now.boot.0 - BOOT {
            60_000..360_000 => fails(kind),
            // The last to be served before is the only one that is not served afterwards.
            360_000.. if id.app.as_str() == "x" => fails(kind),
            50_000..60_000 if id.app.as_str() != "x" => fails(kind),
            _ => good(now, id),
        });
        daemon.run_ms(360_000);
        assert!(expired(&daemon, "a1") > 0, "{kind}");
        daemon.run_ms(most_ms);
        let is_served = |(at, id): &(u64, TenantId)| *at > BOOT + 360_000 && id.app.as_str() != "x";
        assert!(daemon.seen.calls.iter().any(is_served), "{kind}: the others are not called");
        let left = ["a1", "a2", "a3"].map(|app| expired(&daemon, app));
        assert!(left == [0; 3] || kind == FailureKind::Banned, "{kind}: {left:?}, and nobody is banned");
    }
}
