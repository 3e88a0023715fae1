//! `docs/reliability.md` says what the tests do, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::reliability;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
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

#[test]
fn the_document_names_every_test_and_says_what_it_says() {
    let own = ["crash", "syscalls", "time"].map(|name| sources(&root().join("tests").join(name))).concat();
    let everywhere = tests_of(&sources(&root().join("tests")));
    let mut named = BTreeSet::new();
    for [fault, expected, test, figures] in reliability::faults() {
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
    let document = fs::read_to_string(root().join("docs/reliability.md")).unwrap();
    let (_, elsewhere) = document.split_once("## Tested elsewhere\n").expect("the document has such a list");
    let listed: Vec<&str> = elsewhere.lines().filter_map(|line| line.strip_prefix("- `")?.split('`').next()).collect();
    assert!(!listed.is_empty());
    for test in listed {
        assert!(everywhere.contains(test), "there is no test {test}");
    }
}
