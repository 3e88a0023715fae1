//! `docs/reliability.md` says what the tests do, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::figures as row;

const BEGIN: &str = "<!-- rows -->\n";
const END: &str = "<!-- end of rows -->\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn document_path() -> PathBuf {
    root().join("docs/reliability.md")
}

/// The sources below a directory of `tests`.
fn sources(below: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(below).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            all += &sources(&entry);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            all += &fs::read_to_string(entry).unwrap();
        }
    }
    all
}

/// The names of the test functions in a source.
fn tests_of(source: &str) -> BTreeSet<String> {
    let after = source.split("#[test]\n").skip(1);
    let name = |text: &str| Some(text.split_once("fn ")?.1.split_once('(')?.0.to_owned());
    after.filter_map(name).collect()
}

/// The cells of each row between the marks, less the table's head.
fn rows(document: &str) -> Vec<Vec<String>> {
    let (_, rest) = document.split_once(BEGIN).expect("the document has a mark where its rows begin");
    let (rows, _) = rest.split_once(END).expect("the document has a mark where its rows end");
    let cells = |row: &str| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    rows.lines().skip(2).map(cells).collect()
}

/// Puts the rows that the tests left in the place of those in the document.
fn write(document: &str) {
    let (head, rest) = document.split_once(BEGIN).unwrap();
    let (_, tail) = rest.split_once(END).unwrap();
    let mut left: Vec<PathBuf> = fs::read_dir(row::directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    left.sort();
    let rows: String = left.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let table = format!("| fault | expected | test | figures |\n|---|---|---|---|\n{rows}");
    fs::write(document_path(), format!("{head}{BEGIN}{table}{END}{tail}")).unwrap();
}

#[test]
fn the_document_names_every_test_and_says_what_it_says() {
    if std::env::var_os(row::VARIABLE).is_some_and(|value| value == "write") {
        write(&fs::read_to_string(document_path()).unwrap());
    }
    let document = fs::read_to_string(document_path()).unwrap();
    let own = ["crash", "syscalls", "time"].map(|name| sources(&root().join("tests").join(name))).concat();
    let everywhere = tests_of(&sources(&root().join("tests")));
    let mut named = BTreeSet::new();
    for row in rows(&document) {
        let [fault, expected, test, figures] = row.as_slice() else { panic!("a row of {} cells: {row:?}", row.len()) };
        let test = test.trim_matches('`').to_owned();
        assert!(own.contains(&format!("\"{fault}\"")), "no test is about: {fault}");
        assert!(own.contains(&format!("\"{expected}\"")), "no test expects: {expected}");
        assert!(figures.chars().any(|c| c.is_ascii_digit()), "{test}: figures without a number: {figures}");
        assert!(named.insert(test.clone()), "{test} has two rows");
    }
    let mut own = tests_of(&own);
    own.remove("the_document_names_every_test_and_says_what_it_says");
    assert_eq!(named, own, "rows and tests; docs/reliability.md says how it is brought up to date");

    // Tests that live elsewhere are named in code marks of their own list.
    let (_, elsewhere) = document.split_once("## Tested elsewhere\n").expect("the document has such a list");
    let listed: Vec<&str> = elsewhere.lines().filter_map(|line| line.strip_prefix("- `")?.split('`').next()).collect();
    assert!(!listed.is_empty());
    for test in listed {
        assert!(everywhere.contains(test), "there is no test {test}");
    }
}
