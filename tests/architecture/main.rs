//! The rules of `docs/architecture.md`, kept: who may import whom, what may be named where, how the tree is cut, and that the
//! documents say what is so.

mod documents;
mod modules;
mod picture;
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
    let src = root().join("src");
    let below = |path: &Path| path.strip_prefix(&src).expect("it was found below src").to_str().map(str::to_owned);
    let read_source = |path: &PathBuf| Source::read(&below(path).expect("names are ASCII"), &read(path));
    let mut found: Vec<Source> = rust_files(&src).iter().map(read_source).collect();
    assert!(found.len() > 20, "only {} files were found; the rules look in the wrong place", found.len());
    let for_tests: Vec<Module> = found.iter().flat_map(|source| source.test_modules.clone()).collect();
    found.retain(|source| !for_tests.iter().any(|module| module_of(&source.path).starts_with(module)));
    found
}

/// The `.rs` files of a folder and of those below it, sorted.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable directory").path()).collect();
    paths.sort();
    let files = paths.into_iter().flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// Applies a rule to all of `src`.
fn assert_kept(rule: impl Fn(&Source) -> Vec<String>) {
    let breaches: Vec<String> = sources().iter().flat_map(rule).collect();
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}
