//! One app's trouble beside another that is well: by endpoint, by the slots for calls, by a ban.

use std::collections::BTreeMap;

use corptokend::domain::*;
use corptokend::engine::CallScope;

use super::fixture::*;
use crate::model::{Daemon, Reply};

pub(crate) fn name(app: &str) -> AppName {
    AppName::new(app).unwrap()
}

pub(crate) fn tenant(app: &str, n: usize) -> TenantId {
    TenantId { app: name(app), corp_id: CorpId::new(&format!("ding{n}")).unwrap() }
}

/// A daemon with apps, each with its way, its rate and its tenants.
pub(crate) fn daemon(apps: &[(&str, CallPath, Rate, usize)]) -> Daemon {
    let mut daemon = empty_daemon(BOOT);
    daemon.change(sink_set(0, &[outlet(0)]));
    for &(app, path, rate, tenants) in apps {
        let policy = AppPolicy { rate, ..policy() };
        daemon.change(Change::App { name: name(app), policy, path, freshness: Freshness::Current });
        add(&mut daemon, app, 0..tenants);
    }
    daemon
}

pub(crate) fn add(daemon: &mut Daemon, app: &str, tenants: std::ops::Range<usize>) {
    tenants.for_each(|n| daemon.change(Change::Added { id: tenant(app, n), sinks: SinkSetId(0), record: None }));
}

pub(crate) fn fast() -> Rate {
    Rate::per_second(100)
}

/// Nothing is heard of the call before it is given up.
pub(crate) fn hangs() -> Reply {
    (10_000, Err(Failure::new(FailureKind::Timeout, "no whole answer within 10 s")))
}

/// From when on `sick` apps have their trouble, in milliseconds after the start.
pub(crate) const SICK_FROM: u64 = 60_000;

/// Tokens of so many seconds for all, but `trouble` for the apps whose names begin with `a`, once that begins.
pub(crate) fn beside(daemon: &mut Daemon, lifetime_s: u32, from: u64, mut trouble: impl FnMut() -> Reply + 'static) {
    let mut good = new_tokens(lifetime_s);
    daemon.endpoint.respond_with(move |now, id| match id.app.as_str().starts_with('a') && now.boot.0 >= BOOT + from {
        true => trouble(),
        false => good(now, id),
    });
}

/// By how much the calls for an app's tenants came later than at their latest refresh points at worst, in milliseconds.
pub(crate) fn latest(daemon: &Daemon, app: &str, lifetime_s: u64) -> u64 {
    let mut last: BTreeMap<&TenantId, u64> = BTreeMap::new();
    let mut worst = 0;
    for (at, id) in daemon.seen.calls.iter().filter(|(_, id)| id.app.as_str() == app) {
        if let Some(before) = last.insert(id, *at) {
            worst = worst.max((at - before).saturating_sub(lifetime_s * 1000 * 3 / 4));
        }
    }
    let end = daemon.now().boot.0;
    last.values().map(|before| (end - before).saturating_sub(lifetime_s * 1000 * 3 / 4)).fold(worst, u64::max)
}

pub(crate) fn fresh(daemon: &Daemon, app: &str) -> u64 {
    let summary = daemon.engine.summary(daemon.now());
    summary.apps.iter().find(|summary| summary.name == name(app)).unwrap().counts.of(TenantState::Fresh)
}

#[test]
fn an_app_whose_calls_hang_delays_none_of_another() {
    for (what, path) in [("an endpoint of its own", way(2)), ("the same endpoint", way(1))] {
        let mut daemon = daemon(&[("a", path, fast(), 2_000), ("b", way(1), Rate::per_second(15), 300)]);
        beside(&mut daemon, 40, SICK_FROM, hangs);
        daemon.run_ms(SICK_FROM + 300_000);
        let late = latest(&daemon, "b", 40);
        assert!(late <= 1_000, "{what}: b was {late} ms late");
        let before = fresh(&daemon, "b");
        add(&mut daemon, "b", 300..330);
        daemon.run_ms(40_000);
        assert!(fresh(&daemon, "b") > before, "{what}: newcomers are served");
    }
}

#[test]
fn an_app_that_never_answered_delays_none_of_another() {
    for path in [way(2), way(1)] {
        let mut daemon = daemon(&[("a", path, fast(), 2_000), ("b", way(1), Rate::per_second(15), 100)]);
        beside(&mut daemon, 40, 0, hangs);
        daemon.run_ms(100 * 1000 / 15 * 102 / 100 + 1_500);
        assert!(fresh(&daemon, "b") + 5 >= 100 * 95 / 100, "{} of 100", fresh(&daemon, "b"));
        daemon.run_ms(200_000);
        assert!(latest(&daemon, "b", 40) <= 1_000, "{path:?}: {} ms", latest(&daemon, "b", 40));
    }
}

#[test]
fn a_hundred_routes_that_hang_from_the_start_leave_slots_for_one_that_answers() {
    let names: Vec<String> = (0..100).map(|n| format!("a{n}")).collect();
    let mut apps: Vec<_> = names.iter().map(|app| (app.as_str(), way(100), fast(), 50)).collect();
    for (n, app) in apps.iter_mut().enumerate() {
        app.1 = way(100 + n as u64);
    }
    apps.push(("b", way(1), Rate::per_second(15), 100));
    let mut daemon = daemon(&apps);
    beside(&mut daemon, 40, 0, hangs);
    daemon.run_ms(60_000);
    assert_eq!(
        daemon.engine.summary(daemon.now()).apps.iter().filter(|app| app.counts.of(TenantState::Fresh) > 0).count(),
        1
    );
    daemon.run_ms(120_000);
    let from = BOOT + 60_000;
    daemon.seen.calls.retain(|(at, _)| *at >= from);
    assert!(latest(&daemon, "b", 40) <= 1_000, "{} ms", latest(&daemon, "b", 40));
}

#[test]
fn ten_routes_that_stop_answering_leave_slots_for_one_that_does() {
    let names: Vec<String> = (0..10).map(|n| format!("a{n}")).collect();
    let mut apps: Vec<_> = names.iter().map(|app| (app.as_str(), way(0), Rate::per_second(20), 200)).collect();
    for (n, app) in apps.iter_mut().enumerate() {
        app.1 = way(100 + n as u64);
    }
    apps.push(("b", way(1), Rate::per_second(15), 200));
    let mut daemon = daemon(&apps);
    beside(&mut daemon, 40, SICK_FROM, hangs);
    daemon.run_ms(SICK_FROM + 200_000);
    assert!(latest(&daemon, "b", 40) <= 1_000, "{} ms", latest(&daemon, "b", 40));
}

#[test]
fn few_slots_are_shared_too() {
    for most in [2, 3, 4, 8] {
        let mut daemon = daemon(&[("a", way(2), fast(), 500), ("b", way(1), Rate::per_second(15), 60)]);
        (daemon.capacity.calls, daemon.capacity.max_calls) = (most, most);
        beside(&mut daemon, 40, SICK_FROM, hangs);
        daemon.run_ms(SICK_FROM + 200_000);
        assert!(latest(&daemon, "b", 40) <= 1_000, "{most} slots: {} ms", latest(&daemon, "b", 40));
    }
}

#[test]
fn with_one_slot_a_call_that_hangs_delays_others_by_its_time_limit_and_not_for_ever() {
    let mut daemon = daemon(&[("a", way(2), fast(), 500), ("b", way(1), Rate::per_second(15), 60)]);
    (daemon.capacity.calls, daemon.capacity.max_calls) = (1, 1);
    beside(&mut daemon, 120, SICK_FROM, hangs);
    daemon.run_ms(SICK_FROM + 600_000);
    assert!(latest(&daemon, "b", 120) <= 35_000, "{} ms", latest(&daemon, "b", 120));
}

#[test]
fn expired_tokens_of_one_app_do_not_starve_those_of_another() {
    // Everybody together may make 40 calls a second, and one app alone has work for 100.
    let mut daemon = daemon(&[("a", way(1), fast(), 3_000), ("b", way(1), Rate::per_second(15), 300)]);
    daemon.set_total(Rate::per_second(40));
    daemon.endpoint.respond_with(new_tokens(60));
    daemon.run_ms(400_000);
    assert!(fresh(&daemon, "b") >= 285, "{} of 300", fresh(&daemon, "b"));
    let from = BOOT + 60_000;
    daemon.seen.calls.retain(|(at, _)| *at >= from);
    assert!(latest(&daemon, "b", 60) <= 1_000, "{} ms", latest(&daemon, "b", 60));
}

#[test]
fn a_page_of_html_for_one_tenant_stops_nobody_else() {
    for kind in [FailureKind::HtmlPage, FailureKind::Blocked] {
        let mut daemon = daemon(&[("a", way(1), fast(), 1), ("b", way(1), fast(), 30)]);
        beside(&mut daemon, 7200, 0, move || fails(kind));
        daemon.run_ms(60_000);
        assert_eq!(fresh(&daemon, "b"), 30, "{kind}");
        assert_eq!(daemon.engine.summary(daemon.now()).paused_until, None, "{kind}");
    }
}

#[test]
fn a_page_that_forbids_for_several_tenants_at_once_is_a_ban() {
    let mut daemon = daemon(&[("a", way(1), fast(), 30)]);
    daemon.endpoint.respond_with(|_, _| fails(FailureKind::Blocked));
    daemon.run_ms(30_000);
    assert!(daemon.engine.summary(daemon.now()).paused_until.is_some());
    let before = daemon.seen.calls.len();
    daemon.run_ms(240_000);
    assert_eq!(daemon.seen.calls.len(), before, "five minutes of silence");
}

#[test]
fn a_ban_stops_those_alone_that_call_the_same_host_from_the_same_address() {
    let same_host = CallPath { route: RouteId(9), origin: OriginId(2) };
    let mut daemon = daemon(&[("a", way(2), fast(), 50), ("b", way(1), fast(), 50), ("c", same_host, fast(), 50)]);
    beside(&mut daemon, 60, SICK_FROM, || fails(FailureKind::Banned));
    daemon.run_ms(SICK_FROM + 250_000);
    assert!(latest(&daemon, "b", 60) <= 1_000, "b calls another host");
    assert_eq!(fresh(&daemon, "c"), 0, "c calls the host that banned a");
    let holds = daemon.engine.held_calls(daemon.now());
    assert!(holds.iter().any(|hold| hold.scope == CallScope::Origin(OriginId(2))), "{holds:?}");
    assert_eq!(daemon.engine.summary(daemon.now()).paused_until, None, "not everybody is paused");
}

#[test]
fn a_ban_ends_with_one_probe_of_a_tenant_that_was_served_before() {
    let mut daemon = daemon(&[("a", way(1), fast(), 50)]);
    let mut good = new_tokens(600);
    let banned = |now: Now| (BOOT + 60_000..BOOT + 500_000).contains(&now.boot.0);
    // Newcomers are banned for ever; whoever was served before is again.
    daemon.endpoint.respond_with(move |now, id| match id.corp_id.as_str().len() {
        _ if banned(now) => fails(FailureKind::Banned),
        7.. => fails(FailureKind::Banned),
        _ => good(now, id),
    });
    daemon.run_ms(10_000);
    add(&mut daemon, "a", 100..101);
    daemon.run_ms(50_000);
    let first = daemon.seen.calls.len();
    daemon.run_ms(840_000);
    let later: Vec<u64> = daemon.seen.calls[first..].iter().map(|(at, _)| at - BOOT).collect();
    let in_ban = later.iter().filter(|at| **at < 500_000).count();
    assert!(in_ban <= 4, "the one that met it, and a probe each five minutes: {:?}", &later[..8.min(later.len())]);
    assert!(fresh(&daemon, "a") == 0 || later.len() > in_ban, "it ended");
}

#[test]
fn a_busy_endpoint_slows_down_those_alone_that_call_it() {
    let mut daemon = daemon(&[("a", way(2), fast(), 50), ("b", way(1), fast(), 500)]);
    beside(&mut daemon, 60, SICK_FROM, || fails(FailureKind::ApiThrottled));
    daemon.run_ms(SICK_FROM + 200_000);
    assert!(latest(&daemon, "b", 60) <= 1_000, "{} ms", latest(&daemon, "b", 60));
}

#[test]
fn several_apps_that_fail_open_the_breaker_of_their_route_and_one_probe_stands_for_all() {
    let names: Vec<String> = (0..20).map(|n| format!("a{n}")).collect();
    let apps: Vec<_> = names.iter().map(|app| (app.as_str(), way(1), Rate::per_second(15), 20)).collect();
    let mut daemon = daemon(&apps);
    beside(&mut daemon, 60, SICK_FROM, || fails(FailureKind::Unreachable));
    daemon.run_ms(SICK_FROM + 60_000);
    let holds = daemon.engine.held_calls(daemon.now());
    assert!(holds.iter().any(|hold| hold.scope == CallScope::Route(RouteId(1))), "{holds:?}");
    let before = daemon.seen.calls.len();
    daemon.run_ms(HOUR / 2);
    let in_vain = daemon.seen.calls.len() - before;
    assert!(in_vain <= 122, "{in_vain} calls in half an hour, of 20 apps");
    daemon.endpoint.respond_with(new_tokens(60));
    daemon.run_ms(16_000 + 20 * 1000 / 15 + 1_000);
    let expired = daemon.engine.summary(daemon.now()).counts.of(TenantState::Expired);
    assert_eq!(expired, 0);
}

#[test]
fn an_app_beside_two_that_fail_is_not_delayed_by_their_breaker() {
    let three = [("a1", 40), ("a2", 40), ("a3", 40)].map(|(app, n)| (app, way(1), Rate::per_second(15), n));
    let mut daemon = daemon(&[three[0], three[1], three[2], ("b", way(1), Rate::per_second(15), 3)]);
    beside(&mut daemon, 60, SICK_FROM, || fails(FailureKind::ServerError));
    daemon.run_ms(SICK_FROM + HOUR / 2);
    assert!(latest(&daemon, "b", 60) <= 1_000, "{} ms", latest(&daemon, "b", 60));
}

#[test]
fn an_app_beside_twenty_five_that_fail_is_not_delayed_by_their_breaker() {
    let names: Vec<String> = (0..25).map(|n| format!("a{n}")).collect();
    let mut apps: Vec<_> = names.iter().map(|app| (app.as_str(), way(1), Rate::per_second(15), 1)).collect();
    apps.push(("b", way(1), Rate::per_second(15), 3));
    let mut daemon = daemon(&apps);
    beside(&mut daemon, 60, SICK_FROM, || fails(FailureKind::Malformed));
    daemon.run_ms(SICK_FROM + HOUR);
    // They fail within the same few seconds, which only an endpoint that is away explains, until somebody is served.
    assert!(latest(&daemon, "b", 60) <= 4_000, "{} ms", latest(&daemon, "b", 60));
}
