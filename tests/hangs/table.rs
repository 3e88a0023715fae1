//! `docs/reliability.md` says of what hangs what the cases do, and nothing else.

use crate::cases;
use crate::support::reliability;

const HEAD: [&str; 6] =
    ["what hangs", "who waits", "for how long", "what `status` says", "what comes back by itself", "seen"];

#[test]
fn the_matrix_of_hangs_is_the_one_that_is_tested() {
    let rows: Vec<Vec<&str>> = cases::all()
        .map(|case| vec![case.hangs, case.who_waits, case.how_long, case.status_says, case.comes_back])
        .collect();
    reliability::assert_has("hangs", &HEAD, &rows);
}
