//! An endpoint that is away, for everybody or for one: who calls meanwhile, and when all are back.

use std::cell::Cell;
use std::rc::Rc;

use corptokend::domain::*;
use corptokend::engine::{CallScope, Notice};

use super::fixture::*;
use crate::model::{Daemon, Reply};

/// What an endpoint that is away does to calls.
const OUTAGES: [FailureKind; 7] = [
    FailureKind::Unreachable,
    FailureKind::Timeout,
    FailureKind::ServerError,
    FailureKind::Malformed,
    FailureKind::HtmlPage,
    FailureKind::SuspectCorp,
    FailureKind::Blocked,
];

/// A call that is not answered is given up after ten seconds.
fn fails_in_its_time(kind: FailureKind) -> Reply {
    let (after, outcome) = fails(kind);
    (if kind == FailureKind::Timeout { 10_000 } else { after }, outcome)
}

/// An endpoint that is away whenever the test says so.
fn outage(daemon: &mut Daemon, lifetime_s: u32) -> Rc<Cell<Option<FailureKind>>> {
    let failure = Rc::new(Cell::new(None));
    let (switch, mut good) = (Rc::clone(&failure), new_tokens(lifetime_s));
    daemon.endpoint.respond_with(move |now, id| match switch.get() {
        Some(kind) => fails_in_its_time(kind),
        None => good(now, id),
    });
    failure
}

fn expired(daemon: &Daemon) -> u64 {
    let counts = daemon.engine.summary(daemon.now()).counts;
    counts.of(TenantState::Expired) + counts.of(TenantState::Pending)
}

/// Lives on until nobody is without a token; returns for how long, in milliseconds.
fn until_all_are_back(daemon: &mut Daemon) -> u64 {
    let from = daemon.now().boot.0;
    while expired(daemon) > 0 {
        daemon.run_ms(100);
        assert!(daemon.now().boot.0 - from < HOUR, "{} are not back after an hour", expired(daemon));
    }
    daemon.now().boot.0 - from
}

#[test]
fn after_an_outage_of_any_kind_all_are_back_in_what_the_limits_allow_and_sixteen_seconds() {
    for kind in OUTAGES.into_iter().filter(|kind| *kind != FailureKind::Blocked) {
        for (tenants, away_ms) in
            [(1, 110_000), (2, 45_000), (50, 3_000), (50, 110_000), (50, 3 * HOUR), (200, 610_000)]
        {
            let mut daemon = daemon();
            let away = outage(&mut daemon, 30);
            add(&mut daemon, 0..tenants);
            daemon.run_ms(60_000);
            away.set(Some(kind));
            let before = daemon.seen.calls.len();
            daemon.run_ms(away_ms);
            let in_vain = (daemon.seen.calls.len() - before) as u64;
            away.set(None);
            let took = until_all_are_back(&mut daemon);
            let allowed = tenants as u64 * 1000 / 15 + 16_000 + 1_000;
            assert!(took <= allowed, "{kind}, {tenants} tenants, {away_ms} ms: all back after {took} ms");
            // Those that were on their way when it began, and then one a second.
            assert!(in_vain <= 20 + away_ms / 1000, "{kind}, {tenants} tenants: {in_vain} calls in {away_ms} ms");
        }
    }
}

#[test]
fn a_long_outage_costs_four_calls_a_minute_once_everybody_has_been_tried() {
    let mut daemon = daemon();
    let away = outage(&mut daemon, 30);
    add(&mut daemon, 0..50);
    daemon.run_ms(60_000);
    away.set(Some(FailureKind::Unreachable));
    daemon.run_ms(5 * 60_000);
    let before = daemon.seen.calls.len();
    daemon.run_ms(HOUR);
    let each = daemon.seen.calls.len() - before;
    assert!((230..=242).contains(&each), "{each} calls in an hour");
}

#[test]
fn an_outage_and_its_end_are_said_once_and_once_an_hour() {
    let mut daemon = daemon();
    let away = outage(&mut daemon, 30);
    add(&mut daemon, 0..50);
    daemon.run_ms(60_000);
    let beginning = daemon.now().boot.0;
    away.set(Some(FailureKind::Unreachable));
    daemon.run_ms(2 * HOUR + HOUR / 2);
    away.set(None);
    daemon.run_ms(60_000);
    let count = |chosen: fn(&Notice) -> bool| {
        daemon.seen.notices.iter().filter(|(at, said)| *at >= beginning && chosen(said)).count()
    };
    assert_eq!(count(|said| matches!(said, Notice::BreakerOpened { scope: CallScope::App(_), .. })), 3);
    assert_eq!(count(|said| matches!(said, Notice::BreakerClosed { .. })), 1);
    assert!(count(|said| matches!(said, Notice::Failing { .. })) <= 3, "those that met it first");
}

#[test]
fn while_an_endpoint_is_away_its_tenants_have_had_an_outcome_and_show_when_it_is_probed() {
    let mut daemon = daemon();
    outage(&mut daemon, 30).set(Some(FailureKind::Unreachable));
    add(&mut daemon, 0..50);
    daemon.run_ms(20_000);
    let summary = daemon.engine.summary(daemon.now());
    assert!(summary.every_tenant_had_an_outcome, "READY does not wait for it");
    assert!(!summary.calls_are_wanted, "`once` does not wait for it");
    assert_eq!(summary.counts.of(TenantState::Failing), 50);
    let row = daemon.engine.row(daemon.now(), daemon.engine.slot(&tenant(40)).unwrap());
    let hold = row.hold.expect("it waits for the endpoint");
    assert_eq!((hold.scope, hold.failure.kind), (CallScope::App(app()), FailureKind::Unreachable));
    let in_ms = hold.next_probe.expect("a probe").since(daemon.now().wall);
    assert!(in_ms <= 15_000, "{in_ms}");
    assert_eq!(daemon.engine.held_calls(daemon.now()).len(), 1);
}

#[test]
fn once_waits_for_a_few_probes_before_it_gives_up() {
    let mut daemon = daemon();
    outage(&mut daemon, 30).set(Some(FailureKind::Unreachable));
    add(&mut daemon, 0..50);
    while daemon.engine.summary(daemon.now()).calls_are_wanted {
        daemon.run_ms(100);
    }
    assert!((5..=8).contains(&daemon.seen.calls.len()), "{} calls", daemon.seen.calls.len());
    assert!(daemon.now().boot.0 - BOOT < 10_000);
}

#[test]
fn one_tenant_whose_calls_fail_alone_is_backed_off_from_and_moves_nobody_else() {
    for kind in OUTAGES {
        let mut daemon = daemon();
        let mut good = new_tokens(600);
        daemon.endpoint.respond_with(move |now, id| match id.corp_id.as_str() {
            "ding0" => fails_in_its_time(kind),
            _ => good(now, id),
        });
        add(&mut daemon, 0..40);
        daemon.run_ms(2 * HOUR);
        let calls = calls_of(&daemon, 0).len();
        assert!(calls < 110, "{kind}: {calls} calls in two hours");
        assert_eq!(daemon.engine.summary(daemon.now()).counts.of(TenantState::Fresh), 39, "{kind}");
        assert_late(&daemon, 600, 1_000, |id| *id != tenant(0), kind);
        assert!(daemon.engine.held_calls(daemon.now()).is_empty(), "{kind}");
    }
}

#[test]
fn many_tenants_whose_calls_fail_for_reasons_of_their_own_move_nobody_else() {
    for kind in [FailureKind::ServerError, FailureKind::Timeout, FailureKind::HtmlPage] {
        let mut daemon = daemon();
        let mut good = new_tokens(600);
        let number = |id: &TenantId| id.corp_id.as_str()[4..].parse::<usize>().unwrap();
        daemon.endpoint.respond_with(move |now, id| match number(id) {
            n if n % 2 == 0 && now.boot.0 > BOOT + 120_000 => fails_in_its_time(kind),
            _ => good(now, id),
        });
        // Their retries shall not use up the rate: this is about breakers.
        set_policy(&mut daemon, AppPolicy { rate: Rate::per_second(100), ..policy() }, Freshness::Current);
        add(&mut daemon, 0..600);
        daemon.run_ms(2 * HOUR);
        let fresh = daemon.engine.summary(daemon.now()).counts.of(TenantState::Fresh);
        assert!((295..=300).contains(&fresh), "{kind}: {fresh} are fresh, or due at this moment");
        // Calls that hang are not told from others before their time is up, so three hundred at once cost time.
        let most_ms = if kind == FailureKind::Timeout { 300_000 } else { 5_000 };
        assert_late(&daemon, 600, most_ms, |id| number(id) % 2 == 1, kind);
        let in_vain = daemon.seen.calls.iter().filter(|(at, id)| *at > BOOT + HOUR && number(id) % 2 == 0).count();
        assert!(in_vain < 300 * 40, "{kind}: {in_vain} calls in an hour");
    }
}

/// Nobody of the chosen was called later than so long after its latest refresh point.
fn assert_late(daemon: &Daemon, lifetime_s: u64, most_ms: u64, chosen: impl Fn(&TenantId) -> bool, kind: FailureKind) {
    let mut last = std::collections::BTreeMap::new();
    for (at, id) in daemon.seen.calls.iter().filter(|(_, id)| chosen(id)) {
        if let Some(before) = last.insert(id.clone(), *at) {
            let due = lifetime_s * 1000 * 3 / 4;
            assert!(
                at - before <= due + most_ms,
                "{kind}: {id} was called {} ms after its refresh point",
                at - before - due
            );
        }
    }
}

#[test]
fn a_new_way_to_the_endpoint_is_tried_at_once() {
    let mut daemon = daemon();
    let away = outage(&mut daemon, 30);
    add(&mut daemon, 0..50);
    away.set(Some(FailureKind::Unreachable));
    daemon.run_ms(HOUR);
    away.set(None);
    let path = way(2);
    daemon.change(Change::App { name: app(), policy: policy(), path, freshness: Freshness::Current });
    daemon.run_ms(5_000);
    assert_eq!(daemon.engine.summary(daemon.now()).counts.of(TenantState::Fresh), 50);
    assert!(daemon.engine.held_calls(daemon.now()).is_empty());
}

#[test]
fn with_a_single_slot_an_outage_ends_as_soon() {
    let mut daemon = daemon();
    (daemon.capacity.calls, daemon.capacity.max_calls) = (1, 1);
    let away = outage(&mut daemon, 30);
    add(&mut daemon, 0..20);
    daemon.run_ms(60_000);
    away.set(Some(FailureKind::Timeout));
    daemon.run_ms(110_000);
    away.set(None);
    assert!(until_all_are_back(&mut daemon) <= 10_000 + 16_000 + 20 * 80);
}

#[test]
fn a_refresh_while_a_disabled_apps_endpoint_is_away_is_not_wanted() {
    let mut daemon = daemon();
    outage(&mut daemon, 30).set(Some(FailureKind::Unreachable));
    add(&mut daemon, 0..5);
    daemon.run_ms(10_000);
    set_policy(&mut daemon, AppPolicy { enabled: false, ..policy() }, Freshness::Current);
    let before = daemon.seen.calls.len();
    daemon.run_ms(HOUR);
    assert_eq!((daemon.seen.calls.len(), state(&daemon, 0)), (before, TenantState::Disabled));
    assert!(daemon.engine.held_calls(daemon.now()).is_empty(), "nobody waits there");
}
