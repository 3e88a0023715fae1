//! What becomes of places that somebody else touches, once and again, and what is told of lanes that do not move.

use corptokend::domain::*;
use corptokend::engine::{Event, Notice, SinkRow};

use crate::scenarios_calls::{HOUR, add, outlet, shell, tenant};
use crate::shell::{Shell, lane_of, place};

const SINK: SinkId = SinkId(0);

fn slot(shell: &Shell, n: usize) -> Slot {
    shell.engine.slot(&tenant(n)).unwrap()
}

fn repairs(shell: &Shell) -> u64 {
    shell.engine.summary(shell.now).apps[0].repairs
}

fn said(shell: &Shell, chosen: impl Fn(&Notice) -> bool) -> usize {
    shell.notices.iter().filter(|(_, notice)| chosen(notice)).count()
}

/// Somebody deletes the tenant's file whenever it is there, looking for it every 1.1 s.
fn fight(shell: &mut Shell, n: usize, for_ms: u64) {
    let until = shell.now.boot + for_ms;
    while shell.now.boot < until {
        let slot = slot(shell, n);
        shell.vandalise(slot, SINK);
        shell.run_ms(1_100);
    }
}

fn is_there(shell: &Shell, n: usize) -> bool {
    shell.places.contains_key(&place(&outlet(0), &tenant(n)))
}

#[test]
fn a_repair_counts_once_and_only_if_something_was_mended() {
    let mut shell = shell();
    add(&mut shell, 0..2);
    shell.run_ms(1_000);
    assert_eq!(repairs(&shell), 0, "a first publication is no repair");
    let first = slot(&shell, 0);
    shell.vandalise(first, SINK);
    shell.run_ms(1_000);
    assert_eq!((repairs(&shell), said(&shell, |n| matches!(n, Notice::SinkRepaired { .. }))), (1, 1));
    shell.disk = Box::new(|_, _, _| (1, Ok(Wrote::Unchanged)));
    let second = slot(&shell, 1);
    shell.vandalise(second, SINK);
    shell.run_ms(1_000);
    assert_eq!(repairs(&shell), 1, "nothing had to be mended");
    shell.disk = Box::new(|_, _, _| (1, Ok(Wrote::Replaced)));
    shell.run_ms(2 * HOUR);
    assert_eq!(repairs(&shell), 1, "a new token is no repair");
}

#[test]
fn a_repair_that_fails_at_first_counts_when_it_succeeds() {
    let mut shell = shell();
    add(&mut shell, 0..1);
    shell.run_ms(1_000);
    shell.disk = Box::new(|_, _, _| (1, Err(SinkFailure { kind: SinkFailureKind::Full, detail: "no space".into() })));
    let first = slot(&shell, 0);
    shell.vandalise(first, SINK);
    shell.run_ms(5_000);
    assert_eq!(repairs(&shell), 0);
    shell.disk = Box::new(|_, _, _| (1, Ok(Wrote::Replaced)));
    shell.run_ms(31_000);
    assert_eq!(repairs(&shell), 1);
}

#[test]
fn a_fight_is_given_less_and_less_and_ends_right() {
    let mut shell = shell();
    add(&mut shell, 0..2);
    shell.run_ms(1_000);
    fight(&mut shell, 0, 10_000);
    assert!((5..=8).contains(&repairs(&shell)), "{} repairs in ten seconds", repairs(&shell));
    fight(&mut shell, 0, HOUR / 6);
    assert!((12..=25).contains(&repairs(&shell)), "{} repairs in ten minutes", repairs(&shell));
    assert_eq!(said(&shell, |n| matches!(n, Notice::SinkContested { .. })), 1);
    assert_eq!(shell.engine.contested().collect::<Vec<_>>(), [(RootId(0), 1)]);
    assert!(!is_there(&shell, 0), "it waits for its turn");
    assert_eq!(shell.engine.row(shell.now, slot(&shell, 0)).sinks, [SinkRow::Pending]);

    // A neighbour has nothing to do with it.
    let neighbour = slot(&shell, 1);
    shell.vandalise(neighbour, SINK);
    shell.run_ms(100);
    assert!(is_there(&shell, 1));

    shell.run_ms(60_000);
    assert!(is_there(&shell, 0), "a minute after the fight it is right");
    shell.run_ms(61_000);
    assert_eq!(said(&shell, |n| matches!(n, Notice::SinkUncontested { .. })), 1);
    assert_eq!(shell.engine.contested().count(), 0);
    let (before, again) = (repairs(&shell), slot(&shell, 0));
    shell.vandalise(again, SINK);
    shell.run_ms(100);
    assert_eq!(repairs(&shell), before + 1, "and what is touched then is mended at once");
}

#[test]
fn a_new_token_does_not_wait_for_the_end_of_a_fight() {
    let mut shell = shell();
    shell.endpoint = Box::new(crate::scenarios_calls::new_tokens(100));
    add(&mut shell, 0..1);
    fight(&mut shell, 0, 60_000);
    let calls = shell.calls.len();
    while shell.calls.len() == calls {
        shell.run_ms(10);
    }
    shell.run_ms(500);
    assert!(is_there(&shell, 0));
}

#[test]
fn touches_that_change_nothing_are_no_fight() {
    let mut shell = shell();
    add(&mut shell, 0..1);
    shell.run_ms(1_000);
    shell.disk = Box::new(|_, _, _| (1, Ok(Wrote::Unchanged)));
    fight(&mut shell, 0, 60_000);
    assert_eq!((repairs(&shell), said(&shell, |n| matches!(n, Notice::SinkContested { .. }))), (0, 0));
    assert!(is_there(&shell, 0), "each is looked at, at once");
}

#[test]
fn a_fight_ends_with_its_tenant() {
    let mut shell = shell();
    add(&mut shell, 0..2);
    shell.run_ms(1_000);
    fight(&mut shell, 0, 60_000);
    shell.change(Change::Removed { id: tenant(0), withdraw: Vec::new() });
    assert_eq!(shell.engine.contested().count(), 0);
    assert_eq!(said(&shell, |n| matches!(n, Notice::SinkUncontested { .. })), 1);
    shell.run_ms(60_000);
    let wakes = shell.wakes;
    shell.run_ms(HOUR / 2);
    assert_eq!(shell.wakes, wakes, "nothing is left to wait for");
}

#[test]
fn many_repairs_at_once_are_counted_not_listed() {
    let mut shell = shell();
    add(&mut shell, 0..100);
    shell.run_ms(30_000);
    for n in 0..100 {
        let touched = slot(&shell, n);
        shell.vandalise(touched, SINK);
    }
    shell.run_ms(1_000);
    assert_eq!((shell.places.len(), repairs(&shell)), (100, 100));
    assert_eq!(said(&shell, |n| matches!(n, Notice::SinkRepaired { .. })), 10);
    shell.run_ms(60_000);
    assert_eq!(said(&shell, |n| matches!(n, Notice::SinksRepaired { repairs: 90, .. })), 1);
}

#[test]
fn a_lane_that_hangs_is_told_of_once_and_shown_until_it_moves() {
    let mut shell = shell();
    shell.disk = Box::new(|_, _, _| (60_000, Ok(Wrote::Replaced)));
    add(&mut shell, 0..1);
    shell.run_ms(15_000);
    let lane = lane_of(RootId(0));
    let hangs = || SinkFailure { kind: SinkFailureKind::Hangs, detail: "it hangs".into() };
    shell.tell(Event::LaneHangs(lane, hangs()));
    shell.tell(Event::LaneHangs(lane, hangs()));
    let row = shell.engine.row(shell.now, slot(&shell, 0));
    assert_eq!(row.sinks, [SinkRow::Failing(Some(hangs()))]);
    shell.run_ms(60_000);
    shell.tell(Event::LaneMoves(lane));
    shell.tell(Event::LaneMoves(lane));
    assert_eq!(shell.engine.row(shell.now, slot(&shell, 0)).sinks, [SinkRow::Published]);
    let told = |n: &Notice| matches!(n, Notice::LaneHangs { .. } | Notice::LaneMoves { .. });
    assert_eq!(said(&shell, told), 2);
}
