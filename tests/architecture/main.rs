//! The rules of `docs/architecture.md`, kept: who may import whom, what may be named where, how the tree is cut, and that the
//! documents say what is so.

mod documents;
mod modules;
mod rules;
mod source;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use source::{Module, Source, module_of};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every `.rs` file below `src`, except those that are declared under `#[cfg(test)]`.
fn sources() -> &'static [Source] {
    static SOURCES: OnceLock<Vec<Source>> = OnceLock::new();
    SOURCES.get_or_init(read_sources)
}

fn read_sources() -> Vec<Source> {
    let mut found = Vec::new();
    read_folder(&root().join("src"), &mut found);
    assert!(found.len() > 20, "only {} files were found; the rules look in the wrong place", found.len());
    let for_tests: Vec<Module> = found.iter().flat_map(|source| source.test_modules.clone()).collect();
    found.retain(|source| !for_tests.iter().any(|module| module_of(&source.path).starts_with(module)));
    found
}

fn read_folder(folder: &Path, found: &mut Vec<Source>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable directory").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            read_folder(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let below = path.strip_prefix(root().join("src")).expect("it was found below src");
            found.push(Source::read(below.to_str().expect("names are ASCII"), &read(&path)));
        }
    }
}

/// Applies a rule to all of `src`.
fn assert_kept(rule: impl Fn(&Source) -> Vec<String>) {
    let breaches: Vec<String> = sources().iter().flat_map(rule).collect();
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}
