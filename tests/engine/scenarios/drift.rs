//! What becomes of places that somebody else touches, once and again, and what is told of lanes that do not move.

use corptokend::domain::*;
use corptokend::engine::{Event, Notice, SinkStatus};

use super::fixture::*;
use crate::model::Daemon;

const SINK: SinkId = SinkId(0);

fn slot(daemon: &Daemon, n: usize) -> Slot {
    daemon.engine.slot(&tenant(n)).unwrap()
}

fn repairs(daemon: &Daemon) -> u64 {
    daemon.engine.summary(daemon.now()).apps[0].repairs
}

fn said(daemon: &Daemon, chosen: impl Fn(&Notice) -> bool) -> usize {
    daemon.seen.notices.iter().filter(|(_, notice)| chosen(notice)).count()
}

/// Somebody deletes the tenant's file whenever it is there, looking for it every 1.1 s.
fn fight(daemon: &mut Daemon, n: usize, for_ms: u64) {
    let until = daemon.now().boot + for_ms;
    while daemon.now().boot < until {
        let slot = slot(daemon, n);
        daemon.tamper(slot, SINK);
        daemon.run_ms(1_100);
    }
}

fn is_there(daemon: &Daemon, n: usize) -> bool {
    daemon.places().contains_key(&place(&outlet(0), &tenant(n)))
}

#[test]
fn a_repair_counts_once_and_only_if_something_was_mended() {
    let mut daemon = daemon();
    add(&mut daemon, 0..2);
    daemon.run_ms(1_000);
    assert_eq!(repairs(&daemon), 0, "a first publication is no repair");
    let first = slot(&daemon, 0);
    daemon.tamper(first, SINK);
    daemon.run_ms(1_000);
    assert_eq!((repairs(&daemon), said(&daemon, |n| matches!(n, Notice::SinkRepaired { .. }))), (1, 1));
    daemon.sinks.attempt_with(|_, _, _| (1, Ok(Wrote::Unchanged)));
    let second = slot(&daemon, 1);
    daemon.tamper(second, SINK);
    daemon.run_ms(1_000);
    assert_eq!(repairs(&daemon), 1, "nothing had to be mended");
    daemon.sinks.attempt_with(|_, _, _| (1, Ok(Wrote::Replaced)));
    daemon.run_ms(2 * HOUR);
    assert_eq!(repairs(&daemon), 1, "a new token is no repair");
}

#[test]
fn a_repair_that_fails_at_first_counts_when_it_succeeds() {
    let mut daemon = daemon();
    add(&mut daemon, 0..1);
    daemon.run_ms(1_000);
    daemon
        .sinks
        .attempt_with(|_, _, _| (1, Err(SinkFailure { kind: SinkFailureKind::Full, detail: "no space".into() })));
    let first = slot(&daemon, 0);
    daemon.tamper(first, SINK);
    daemon.run_ms(5_000);
    assert_eq!(repairs(&daemon), 0);
    daemon.sinks.attempt_with(|_, _, _| (1, Ok(Wrote::Replaced)));
    daemon.run_ms(31_000);
    assert_eq!(repairs(&daemon), 1);
}

#[test]
fn a_fight_is_given_less_and_less_and_ends_right() {
    let mut daemon = daemon();
    add(&mut daemon, 0..2);
    daemon.run_ms(1_000);
    fight(&mut daemon, 0, 10_000);
    assert!((5..=8).contains(&repairs(&daemon)), "{} repairs in ten seconds", repairs(&daemon));
    fight(&mut daemon, 0, HOUR / 6);
    assert!((12..=25).contains(&repairs(&daemon)), "{} repairs in ten minutes", repairs(&daemon));
    assert_eq!(said(&daemon, |n| matches!(n, Notice::SinkContested { .. })), 1);
    assert_eq!(daemon.engine.contested().collect::<Vec<_>>(), [(RootId(0), 1)]);
    assert!(!is_there(&daemon, 0), "it waits for its turn");
    assert_eq!(daemon.engine.row(daemon.now(), slot(&daemon, 0)).sinks, [SinkStatus::Pending]);

    // A neighbour has nothing to do with it.
    let neighbour = slot(&daemon, 1);
    daemon.tamper(neighbour, SINK);
    daemon.run_ms(100);
    assert!(is_there(&daemon, 1));

    daemon.run_ms(60_000);
    assert!(is_there(&daemon, 0), "a minute after the fight it is right");
    daemon.run_ms(61_000);
    assert_eq!(said(&daemon, |n| matches!(n, Notice::SinkUncontested { .. })), 1);
    assert_eq!(daemon.engine.contested().count(), 0);
    let (before, again) = (repairs(&daemon), slot(&daemon, 0));
    daemon.tamper(again, SINK);
    daemon.run_ms(100);
    assert_eq!(repairs(&daemon), before + 1, "and what is touched then is mended at once");
}

#[test]
fn a_new_token_does_not_wait_for_the_end_of_a_fight() {
    let mut daemon = daemon();
    daemon.endpoint.respond_with(new_tokens(100));
    add(&mut daemon, 0..1);
    fight(&mut daemon, 0, 60_000);
    let calls = daemon.seen.calls.len();
    while daemon.seen.calls.len() == calls {
        daemon.run_ms(10);
    }
    daemon.run_ms(500);
    assert!(is_there(&daemon, 0));
}

#[test]
fn touches_that_change_nothing_are_no_fight() {
    let mut daemon = daemon();
    add(&mut daemon, 0..1);
    daemon.run_ms(1_000);
    daemon.sinks.attempt_with(|_, _, _| (1, Ok(Wrote::Unchanged)));
    fight(&mut daemon, 0, 60_000);
    assert_eq!((repairs(&daemon), said(&daemon, |n| matches!(n, Notice::SinkContested { .. }))), (0, 0));
    assert!(is_there(&daemon, 0), "each is looked at, at once");
}

#[test]
fn a_fight_ends_with_its_tenant() {
    let mut daemon = daemon();
    add(&mut daemon, 0..2);
    daemon.run_ms(1_000);
    fight(&mut daemon, 0, 60_000);
    daemon.change(Change::Removed { id: tenant(0), withdraw: Vec::new() });
    assert_eq!(daemon.engine.contested().count(), 0);
    assert_eq!(said(&daemon, |n| matches!(n, Notice::SinkUncontested { .. })), 1);
    daemon.run_ms(60_000);
    let wakes = daemon.seen.wakes;
    daemon.run_ms(HOUR / 2);
    assert_eq!(daemon.seen.wakes, wakes, "nothing is left to wait for");
}

#[test]
fn many_repairs_at_once_are_counted_not_listed() {
    let mut daemon = daemon();
    add(&mut daemon, 0..100);
    daemon.run_ms(30_000);
    for n in 0..100 {
        let touched = slot(&daemon, n);
        daemon.tamper(touched, SINK);
    }
    daemon.run_ms(1_000);
    assert_eq!((daemon.places().len(), repairs(&daemon)), (100, 100));
    assert_eq!(said(&daemon, |n| matches!(n, Notice::SinkRepaired { .. })), 10);
    daemon.run_ms(60_000);
    assert_eq!(said(&daemon, |n| matches!(n, Notice::SinksRepaired { repairs: 90, .. })), 1);
}

#[test]
fn a_lane_that_hangs_is_told_of_once_and_shown_until_it_moves() {
    let mut daemon = daemon();
    daemon.sinks.attempt_with(|_, _, _| (60_000, Ok(Wrote::Replaced)));
    add(&mut daemon, 0..1);
    daemon.run_ms(15_000);
    let lane = lane_of(RootId(0));
    let hangs = || SinkFailure { kind: SinkFailureKind::Hangs, detail: "it hangs".into() };
    daemon.tell(Event::LaneStalled(lane, hangs()));
    daemon.tell(Event::LaneStalled(lane, hangs()));
    let row = daemon.engine.row(daemon.now(), slot(&daemon, 0));
    assert_eq!(row.sinks, [SinkStatus::Failing(Some(hangs()))]);
    daemon.run_ms(60_000);
    daemon.tell(Event::LaneResumed(lane));
    daemon.tell(Event::LaneResumed(lane));
    assert_eq!(daemon.engine.row(daemon.now(), slot(&daemon, 0)).sinks, [SinkStatus::Published]);
    let told = |n: &Notice| matches!(n, Notice::LaneStalled { .. } | Notice::LaneResumed { .. });
    assert_eq!(said(&daemon, told), 2);
}
