//! The tables of `docs/reliability.md`: the words of a row are those of its test, the figures are what a run of it saw.
//! `CORPTOKEND_RELIABILITY=measure` leaves rows, `write` brings the document up to date with them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const VARIABLE: &str = "CORPTOKEND_RELIABILITY";

/// The table of faults: a row for each test of `crash`, `syscalls` and `time`.
pub const FAULTS: &str = "rows";

/// Leaves a row for a table, when that was asked for. The last cell holds the figures, the first the row's name.
pub fn leave_row(table: &str, cells: &[&str]) {
    if asked_for("measure") {
        fs::create_dir_all(rows_of(table)).unwrap();
        fs::write(rows_of(table).join(file_name(cells[0])), row(cells)).unwrap();
    }
}

/// Leaves a test's row of the table of faults, when that was asked for. `figures` are what this run saw.
pub fn leave(test: &str, fault: &str, expected: &str, figures: &str) {
    eprintln!("{test}: {figures}");
    if asked_for("measure") {
        fs::create_dir_all(rows_of(FAULTS)).unwrap();
        let test_in_marks = format!("`{test}`");
        fs::write(rows_of(FAULTS).join(test), row(&[fault, expected, &test_in_marks, figures])).unwrap();
    }
}

/// The rows of the table of faults in the document, each with four cells. They are replaced by those that the tests left,
/// when that was asked for.
pub fn faults() -> Vec<[String; 4]> {
    let text = fs::read_to_string(document()).unwrap();
    let (before, old) = parts(&text, FAULTS);
    let mut rows = old.to_owned();
    if asked_for("write") {
        let mut left: Vec<PathBuf> =
            fs::read_dir(rows_of(FAULTS)).unwrap().map(|entry| entry.unwrap().path()).collect();
        left.sort();
        let left: String = left.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        rows = format!("{}|---|---|---|---|\n{left}", row(&["fault", "expected", "test", "figures"]));
        fs::write(document(), format!("{before}{rows}{}", &text[before.len() + old.len()..])).unwrap();
    }
    let cells_of = |row: &str| {
        let cells: Vec<String> = cells(row).into_iter().map(str::to_owned).collect();
        cells.try_into().unwrap_or_else(|cells: Vec<String>| panic!("a row of {} cells: {row}", cells.len()))
    };
    rows.lines().skip(2).map(cells_of).collect()
}

fn file_name(row: &str) -> String {
    row.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

/// The table has these rows in this order, each with figures, and no others. `head` are its columns.
#[track_caller]
pub fn assert_has(table: &str, head: &[&str], rows: &[Vec<&str>]) {
    // Several tables stand in one document.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if asked_for("write") {
        write(table, head, rows);
    }
    let document = fs::read_to_string(document()).unwrap();
    let (_, found) = parts(&document, table);
    let found: Vec<Vec<&str>> = found.lines().skip(2).map(cells).collect();
    let names: BTreeSet<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(names.len(), rows.len(), "each row has a name of its own");
    for (row, found) in rows.iter().zip(&found) {
        let (figures, words) = found.split_last().expect("a row has cells");
        assert_eq!(words, row.as_slice(), "the document and the code differ");
        assert!(figures.chars().any(|c| c.is_ascii_digit()), "{}: figures without a number: {figures}", row[0]);
    }
    assert_eq!(found.len(), rows.len(), "rows of the document, and of the code");
}

fn asked_for(what: &str) -> bool {
    std::env::var_os(VARIABLE).is_some_and(|value| value == what)
}

/// Where the rows of a table lie until they are written.
fn rows_of(table: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("table-{table}"))
}

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reliability.md")
}

fn row(cells: &[&str]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split(" | ").map(str::trim).collect()
}

/// What comes before the table, with its mark, and the table itself.
fn parts<'a>(document: &'a str, table: &str) -> (&'a str, &'a str) {
    let (begin, end) = (format!("<!-- {table} -->\n"), format!("<!-- end of {table} -->\n"));
    let at = document.find(&begin).expect("the document has a mark where the table begins") + begin.len();
    let (head, rest) = document.split_at(at);
    (head, rest.split_once(&end).expect("the document has a mark where the table ends").0)
}

/// Each row with the figures that were left for it, or else with those that it had.
fn write(table: &str, head: &[&str], rows: &[Vec<&str>]) {
    let document_text = fs::read_to_string(document()).unwrap();
    let (before, old) = parts(&document_text, table);
    let mut text = format!("{}|{}\n", row(head), "---|".repeat(head.len()));
    for wanted in rows {
        let left = fs::read_to_string(rows_of(table).join(file_name(wanted[0]))).unwrap_or_default();
        let mut written = left.lines().chain(old.lines()).map(cells);
        let found = written.find(|cells| cells.first() == wanted.first());
        let figures = found.and_then(|cells| cells.last().copied()).unwrap_or("not measured yet");
        text += &row(&[wanted.as_slice(), &[figures]].concat());
    }
    let after = &document_text[before.len() + old.len()..];
    fs::write(document(), format!("{before}{text}{after}")).unwrap();
}
