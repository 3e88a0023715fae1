//! Each trouble of the taxonomy, and each way to hang.

use std::collections::BTreeSet;
use std::time::Duration;

use corptokend::domain::FailureKind;

use crate::faults::{Group, Place, Trouble, groups};
use crate::fixture::Street;
use crate::support::reliability as table;

/// A whole life each, so that everybody is due in it.
const ALONE: Duration = Duration::from_secs(8);
const BESIDE: Duration = Duration::from_secs(12);
/// How long a new tenant may wait, counted from the reload.
const NEWCOMER: Duration = Duration::from_secs(2);

fn act(group: &str) {
    let only = std::env::var("CORPTOKEND_NEIGHBOURS").unwrap_or_default();
    let Group { troubles, words, row, .. } =
        groups().into_iter().find(|known| known.name == group).expect("the group is known");
    let troubles: Vec<Trouble> = troubles.into_iter().filter(|trouble| trouble.name.contains(&only)).collect();
    if troubles.is_empty() {
        return;
    }
    let mut street = Street::new();
    let alone = street.watch(ALONE);
    let place = |(number, trouble): (usize, Trouble)| {
        let place = trouble.place(u8::try_from(number).unwrap() + 1, street.machine.sandbox.authority());
        (trouble, place)
    };
    let troubles: Vec<(Trouble, Place)> = troubles.into_iter().enumerate().map(place).collect();
    let waited = street.move_in(&troubles);
    let beside = street.watch(BESIDE);
    let kinds = street.kinds();
    eprintln!("{group}: alone {alone:?}; new tenants waited {waited:?}; beside {beside:?}; {kinds:?}");
    for (app, (trouble, _)) in troubles.iter().enumerate() {
        let met = |kind: &&str| kinds.get(&format!("a{app}")).is_some_and(|kinds| kinds.contains(*kind));
        assert!(trouble.kind.as_ref().is_none_or(met), "{}: nobody met it; {kinds:?}", trouble.name);
    }
    let limit = Street::limit(alone, beside);
    assert!(beside.longest <= limit, "{group}: a token was in use for {:?}, {limit:?} at most", beside.longest);
    assert!(waited <= NEWCOMER + 2 * beside.stall, "{group}: new tenants waited for {waited:?}");
    street.machine.wait_until("every file holds the newest token", |_| street.all_hold_the_newest());
    assert!(street.machine.stop().success());
    let figures = format!(
        "300 neighbours: a token was in use for {} ms at most, alone {} ms; new ones had theirs within {} ms",
        beside.longest.as_millis(),
        alone.longest.as_millis(),
        waited.as_millis()
    );
    let [who_waits, how_long, status_says, comes_back] = words;
    table::leave("neighbours", &[&row, who_waits, how_long, status_says, comes_back, &figures]);
}

#[test]
fn apps_that_are_refused_delay_nobody_else() {
    act("refused");
}

#[test]
fn apps_that_are_throttled_or_banned_delay_nobody_else() {
    act("throttled or banned");
}

#[test]
fn apps_whose_endpoint_is_broken_delay_nobody_else() {
    act("broken");
}

#[test]
fn apps_whose_endpoint_talks_nonsense_delay_nobody_else() {
    act("malformed or wrong");
}

#[test]
fn apps_whose_endpoint_hangs_delay_nobody_else() {
    act("hanging");
}

#[test]
fn every_kind_of_failure_is_somebodys_trouble() {
    let acted: BTreeSet<&str> =
        groups().iter().flat_map(|group| &group.troubles).filter_map(|trouble| trouble.kind).collect();
    let all: BTreeSet<&str> = FailureKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(acted, all);
}
