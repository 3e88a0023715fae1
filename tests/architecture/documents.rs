//! The documents say what is so: files that they name exist, every dependency has its reasons, every decision is in the index.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::{read, root};

/// The crates that Cargo.toml names.
pub(crate) fn dependencies() -> Vec<String> {
    let text = read(&root().join("Cargo.toml"));
    let manifest = toml::de::DeTable::parse(&text).expect("cargo read it before");
    let names = |table: &str| {
        let table = manifest.get_ref().get(table).and_then(|table| table.get_ref().as_table()).expect("a table");
        table.keys().map(|name| name.get_ref().to_string()).collect::<Vec<_>>()
    };
    [names("dependencies"), names("dev-dependencies")].concat()
}

/// Every document of the repository, but the changelog, which tells of what was.
fn documents() -> Vec<PathBuf> {
    let in_folder = |folder: &str| {
        let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
        entries.map(|entry| entry.expect("a readable directory").path()).collect::<Vec<_>>()
    };
    let all = [in_folder("."), in_folder("docs"), in_folder("docs/decisions")].concat();
    let mut all: Vec<PathBuf> = all
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "md") && !path.ends_with("CHANGELOG.md"))
        .collect();
    all.sort();
    all
}

/// The paths of the repository that a text names in code marks, and the targets of its links.
fn named_paths(text: &str) -> Vec<&str> {
    const TOPS: [&str; 7] = ["src/", "tests/", "docs/", "config/", "systemd/", "benches/", ".ci/"];
    let in_marks = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| !word.contains(char::is_whitespace) && TOPS.iter().any(|top| word.starts_with(top)));
    in_marks.map(|word| word.split(['#', ':']).next().unwrap_or(word)).collect()
}

#[test]
fn documents_name_files_that_exist() {
    let mut missing = Vec::new();
    let mut named = 0;
    for document in documents() {
        let text = read(&document);
        for path in named_paths(&text) {
            named += 1;
            if !root().join(path).exists() {
                missing.push(format!("{}: {path}", document.strip_prefix(root()).unwrap_or(&document).display()));
            }
        }
    }
    assert!(named > 50, "only {named} names were found");
    assert!(missing.is_empty(), "these are not there:\n{}\n", missing.join("\n"));
    assert_eq!(
        named_paths("`src/a.rs` src/b `tests/c` `config check` `docs/d.md#e`"),
        ["src/a.rs", "tests/c", "docs/d.md"]
    );
}

#[test]
fn every_dependency_has_its_reasons_and_none_is_explained_that_left() {
    let text = read(&root().join("docs/decisions/0001-dependencies.md"));
    let explained: BTreeSet<&str> = text.split("**").skip(1).step_by(2).flat_map(|names| names.split(", ")).collect();
    let used = dependencies();
    let used: BTreeSet<&str> = used.iter().map(String::as_str).collect();
    assert_eq!(explained, used, "docs/decisions/0001-dependencies.md and Cargo.toml differ");
}
