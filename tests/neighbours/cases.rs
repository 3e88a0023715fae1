//! Each fault of the taxonomy, and each way to hang.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use corptokend::domain::FailureKind;

use crate::faults::{AppFault, FaultyEndpoint, Group, groups};
use crate::fixture::Fixture;
use crate::support::reliability;

/// A whole life each, so that everybody is due in it.
const ALONE: Duration = Duration::from_secs(8);
const BESIDE: Duration = Duration::from_secs(12);
/// How long a new tenant may wait, counted from the reload.
const NEWCOMER: Duration = Duration::from_secs(2);

fn run(group: &str) {
    let only = std::env::var("CORPTOKEND_NEIGHBOURS").unwrap_or_default();
    let Group { faults, words, row, .. } =
        groups().into_iter().find(|known| known.name == group).expect("the group is known");
    let faults: Vec<AppFault> = faults.into_iter().filter(|fault| fault.name.contains(&only)).collect();
    if faults.is_empty() {
        return;
    }
    let mut fixture = Fixture::new();
    let alone = fixture.watch(ALONE);
    let place = |(number, fault): (usize, AppFault)| {
        let place = fault.start(u8::try_from(number).unwrap() + 1, fixture.machine.sandbox.authority());
        (fault, place)
    };
    let faults: Vec<(AppFault, FaultyEndpoint)> = faults.into_iter().enumerate().map(place).collect();
    let (waited, stalled) = fixture.add_apps(&faults);
    let watched = Instant::now();
    let beside = fixture.watch(BESIDE);
    let kinds = fixture.kinds();
    eprintln!("{group}: alone {alone:?}; new tenants waited {waited:?}; beside {beside:?}; {kinds:?}");
    for (app, (fault, _)) in faults.iter().enumerate() {
        let met = |kind: &&str| kinds.get(&format!("a{app}")).is_some_and(|kinds| kinds.contains(*kind));
        assert!(fault.kind.as_ref().is_none_or(met), "{}: nobody met it; {kinds:?}", fault.name);
    }
    let limit = Fixture::limit(alone, beside);
    assert!(
        beside.longest <= limit,
        "{group}: a token was in use for {:?}, {limit:?} at most\n{}",
        beside.longest,
        fixture.story_of_late_tokens(watched, limit)
    );
    assert!(waited <= NEWCOMER + stalled, "{group}: new tenants waited for {waited:?}");
    fixture.wait_until_each_held_the_newest();
    assert!(fixture.machine.stop().success());
    let figures = format!(
        "300 neighbours: a token was in use for {} ms at most, alone {} ms; new ones had theirs within {} ms",
        beside.longest.as_millis(),
        alone.longest.as_millis(),
        waited.as_millis()
    );
    let [who_waits, how_long, status_says, comes_back] = words;
    reliability::leave_row("neighbours", &[&row, who_waits, how_long, status_says, comes_back, &figures]);
}

#[test]
fn apps_that_are_refused_delay_nobody_else() {
    run("refused");
}

#[test]
fn apps_that_are_throttled_or_banned_delay_nobody_else() {
    run("throttled or banned");
}

#[test]
fn apps_whose_endpoint_is_broken_delay_nobody_else() {
    run("broken");
}

#[test]
fn apps_whose_endpoint_talks_nonsense_delay_nobody_else() {
    run("malformed or wrong");
}

#[test]
fn apps_whose_endpoint_hangs_delay_nobody_else() {
    run("hanging");
}

#[test]
fn every_kind_of_failure_is_tested() {
    let played: BTreeSet<&str> =
        groups().iter().flat_map(|group| &group.faults).filter_map(|fault| fault.kind).collect();
    let all: BTreeSet<&str> = FailureKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(played, all);
}
