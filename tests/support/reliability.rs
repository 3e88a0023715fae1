//! The tables of `docs/reliability.md` whose rows are acted out: a row's words are those of the code, its figures are what
//! was seen. `CORPTOKEND_RELIABILITY=measure` leaves rows, `write` brings the document up to date with them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const VARIABLE: &str = "CORPTOKEND_RELIABILITY";

/// Leaves a row for a table, when that was asked for. The last cell holds the figures, the first the row's name.
pub fn leave(table: &str, cells: &[&str]) {
    if asked_for("measure") {
        fs::create_dir_all(rows_of(table)).unwrap();
        let file = cells[0].replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        fs::write(rows_of(table).join(file), row(cells)).unwrap();
    }
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
        let file = wanted[0].replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let left = fs::read_to_string(rows_of(table).join(file)).unwrap_or_default();
        let mut written = left.lines().chain(old.lines()).map(cells);
        let found = written.find(|cells| cells.first() == wanted.first());
        let figures = found.and_then(|cells| cells.last().copied()).unwrap_or("not acted out yet");
        text += &row(&[wanted.as_slice(), &[figures]].concat());
    }
    let after = &document_text[before.len() + old.len()..];
    fs::write(document(), format!("{before}{text}{after}")).unwrap();
}
