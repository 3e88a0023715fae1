//! The documents say what is so: files that they name exist, every dependency has its reasons, every decision is in the index.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{read, root, rust_files};

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

/// A decision as it stands at the head of its file.
struct Decision {
    file: String,
    number: String,
    title: String,
    summary: String,
    sections: Vec<String>,
}

fn decision(path: &Path) -> Option<Decision> {
    let file = path.file_name()?.to_str()?.to_owned();
    if file == "README.md" {
        return None;
    }
    let text = read(path);
    let mut lines = text.lines();
    let heading = lines.next().and_then(|line| line.strip_prefix("# ")).and_then(|line| line.split_once(": "));
    let (number, title) = heading.unwrap_or_else(|| panic!("{file} does not begin with `# NNNN: Title`"));
    let summary = lines.nth(1).unwrap_or_default().to_owned();
    let sections = text.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_owned).collect();
    Some(Decision { file: file.clone(), number: number.to_owned(), title: title.to_owned(), summary, sections })
}

fn decisions() -> Vec<Decision> {
    let folder = root().join("docs/decisions");
    let mut found: Vec<Decision> =
        documents().iter().filter(|path| path.starts_with(&folder)).filter_map(|path| decision(path)).collect();
    found.sort_by(|one, other| one.file.cmp(&other.file));
    found
}

/// The sections of a decision, in this order; the first two are there always.
const SECTIONS: [&str; 4] = ["Problem", "Decision", "Alternatives", "Consequences"];

#[test]
fn every_decision_has_its_number_a_summary_and_the_same_sections() {
    let decisions = decisions();
    assert!(decisions.len() > 50);
    for (at, Decision { file, number, summary, sections, .. }) in decisions.iter().enumerate() {
        assert!(file.starts_with(&format!("{number}-")), "{file} has the number {number} in its heading");
        assert!(at == 0 || decisions[at - 1].number != *number, "two decisions have the number {number}");
        assert!(
            summary.ends_with('.') && summary.len() > 20,
            "{file}: no one-line summary under the heading: {summary:?}"
        );
        let expected: Vec<&str> = SECTIONS.into_iter().filter(|name| sections.iter().any(|own| own == name)).collect();
        assert_eq!(*sections, expected, "{file}: sections are {SECTIONS:?}, in this order");
        assert!(expected.starts_with(&SECTIONS[..2]), "{file}: a problem and a decision belong in it");
    }
}

/// `CORPTOKEND_DECISIONS=write` brings the index up to date.
#[test]
fn the_index_of_decisions_has_them_all() {
    let rows = decisions().into_iter().map(|decision| {
        let Decision { file, number, title, summary, .. } = decision;
        format!("| [{number}]({file}) | {title} | {summary} |\n")
    });
    let table: String =
        std::iter::once("| | decision | in one line |\n|---|---|---|\n".to_owned()).chain(rows).collect();
    let index = root().join("docs/decisions/README.md");
    let text = read(&index);
    let (head, _) = text.split_once("| | decision |").expect("the index has a table");
    let expected = format!("{head}{table}");
    if std::env::var("CORPTOKEND_DECISIONS").is_ok_and(|value| value == "write") {
        fs::write(&index, &expected).expect("the index can be written");
        return;
    }
    assert_eq!(text, expected, "CORPTOKEND_DECISIONS=write cargo test --test architecture decisions");
}

/// The rows of a table whose head begins so, each with its cells.
fn table<'a>(text: &'a str, head: &str) -> Vec<Vec<&'a str>> {
    let (_, rest) = text.split_once(head).unwrap_or_else(|| panic!("there is no table {head:?}"));
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// The bold words that begin the README's promises.
fn promises(readme: &str) -> BTreeSet<&str> {
    let (_, rest) = readme.split_once("## What is promised\n").expect("the README makes promises");
    let promises = rest.split("What is not:").next().unwrap_or_default();
    promises.lines().filter_map(|line| line.strip_prefix("- **")?.split("**").next()).collect()
}

#[test]
fn every_promise_of_the_readme_names_the_tests_that_hold_it() {
    let readme = read(&root().join("README.md"));
    let contributing = read(&root().join("CONTRIBUTING.md"));
    let rows = table(&contributing, "| promise | tests |");
    let listed: BTreeSet<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(listed, promises(&readme), "promises in CONTRIBUTING.md, and in README.md");
    let mut code = String::new();
    for folder in ["src", "tests"] {
        for path in rust_files(&root().join(folder)) {
            code += &read(&path);
        }
    }
    for test in rows.iter().flat_map(|row| row[1].split('`').skip(1).step_by(2)) {
        assert!(code.contains(&format!("fn {test}(")), "there is no test {test}");
    }
}
