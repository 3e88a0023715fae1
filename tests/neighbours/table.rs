//! `docs/reliability.md` says of neighbours and of recovery what is tested, and nothing else.

use crate::faults::groups;
use crate::recovery::{OUTAGES, PROMISE};
use crate::support::reliability;

#[test]
fn the_matrix_of_neighbours_is_the_one_that_is_tested() {
    let head = [
        "2,000 tenants of another app have it",
        "who waits",
        "for how long",
        "what `status` says",
        "what comes back by itself",
        "seen",
    ];
    let groups = groups();
    let rows: Vec<Vec<&str>> =
        groups.iter().map(|group| [&[group.row.as_str()], group.words.as_slice()].concat()).collect();
    reliability::assert_has("neighbours", &head, &rows);
}

#[test]
fn the_table_of_outages_is_the_one_that_is_tested() {
    let rows: Vec<Vec<&str>> = OUTAGES.iter().map(|(name, _)| vec![*name, PROMISE]).collect();
    reliability::assert_has("recovery", &["outage", "what is promised", "seen"], &rows);
}
