//! `docs/reliability.md` says of what hangs what the cells do, and nothing else.

use crate::cases;
use crate::support::reliability as table;

const HEAD: [&str; 6] =
    ["what hangs", "who waits", "for how long", "what `status` says", "what comes back by itself", "seen"];

#[test]
fn the_matrix_of_hangs_is_the_one_that_is_acted_out() {
    let rows: Vec<Vec<&str>> = cases::all()
        .map(|cell| vec![cell.hangs, cell.who_waits, cell.how_long, cell.status_says, cell.comes_back])
        .collect();
    table::assert_has("hangs", &HEAD, &rows);
}
