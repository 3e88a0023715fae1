//! The hub of `docs/architecture.md`, kept: who may import whom, and what may be named where.

mod paths;
mod rules;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use rules::File;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn src() -> PathBuf {
    root().join("src")
}

/// Every `.rs` file below `directory`, except those that a parent declares under `#[cfg(test)]`.
fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a readable directory").path()).collect();
    files.sort();
    let test_modules: Vec<String> = files
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .flat_map(|path| source::without_tests(&source::tokens(&read(path))).1)
        .collect();
    files.retain(|path| !path.file_stem().is_some_and(|stem| test_modules.iter().any(|m| **m == *stem)));
    for path in files {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Applies a rule to all of `src`.
fn assert_kept(rule: impl Fn(&File<'_>) -> Vec<String>) {
    let mut files = Vec::new();
    rust_files(&src(), &mut files);
    assert!(files.len() > 20, "only {} files were found; the rule looks in the wrong place", files.len());
    let mut breaches = Vec::new();
    for path in files {
        let below = path.strip_prefix(src()).expect("it was found below src").to_str().expect("names are ASCII");
        breaches.extend(rule(&File::new(below, &read(&path))));
    }
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

/// The crates that Cargo.toml names.
fn dependencies() -> Vec<String> {
    let text = read(&root().join("Cargo.toml"));
    let manifest = toml::de::DeTable::parse(&text).expect("cargo read it before");
    let names = |table: &str| {
        let table = manifest.get_ref().get(table).and_then(|table| table.get_ref().as_table()).expect("a table");
        table.keys().map(|name| name.get_ref().to_string()).collect::<Vec<_>>()
    };
    [names("dependencies"), names("dev-dependencies")].concat()
}

/// What `rule` says of a file with this text.
fn breaches(rule: impl Fn(&File<'_>) -> Vec<String>, path: &str, text: &str) -> usize {
    rule(&File::new(path, text)).len()
}

#[test]
fn no_two_rows_of_the_hub_know_each_other() {
    assert_kept(rules::rows_know_domain_alone);
    for bad in [
        "use crate::config::Config;",
        "use crate::{domain::Token, daemon::turn};",
        "fn f() { crate::store::open() }",
        "use super::super::api;",
        "pub(in crate::cli) fn f() {}",
        "#[cfg(test)] mod tests { use crate::sandbox::Sandbox; }",
    ] {
        assert_eq!(breaches(rules::rows_know_domain_alone, "sink/file.rs", bad), 1, "{bad}");
    }
    assert_eq!(breaches(rules::rows_know_domain_alone, "sink/mod.rs", "use super::api;"), 1);
    assert_eq!(breaches(rules::rows_know_domain_alone, "domain/ids.rs", "use crate::config::Config;"), 1);
    for (path, expected) in [("api/client.rs", 0), ("config/files.rs", 0), ("domain/ids.rs", 1), ("engine/app.rs", 1)] {
        for leaf in ["use crate::blocking::Blocking;", "use crate::trust::Trusted;"] {
            assert_eq!(breaches(rules::rows_know_domain_alone, path, leaf), expected, "{path}: {leaf}");
        }
    }
    assert_eq!(breaches(rules::rows_know_domain_alone, "blocking.rs", "use crate::domain::Token;"), 1);
    for good in [
        "use crate::domain::{Token, WallMs}; use crate::sink::Job; use super::lane;",
        "// crate::config\nconst A: &str = \"crate::config\";",
        "mod tests { mod inner { use super::super::render; } }",
    ] {
        assert_eq!(breaches(rules::rows_know_domain_alone, "sink/file.rs", good), 0, "{good}");
    }
    assert_eq!(breaches(rules::rows_know_domain_alone, "daemon/mod.rs", "use crate::sink;"), 0);
}

#[test]
fn the_engine_decides_and_does_nothing() {
    let crates: Vec<_> = dependencies().iter().map(|name| name.replace('-', "_")).collect();
    let rule = |file: &File<'_>| rules::the_engine_is_pure(file, &crates);
    assert_kept(rule);
    for bad in [
        "use tokio::sync::oneshot;",
        "use std::fs;",
        "use std::{fmt, net::IpAddr};",
        "fn f() { std::process::exit(1) }",
        "use std::time::SystemTime;",
        "fn f(t: Instant) {}",
        "use std::thread;",
        "fn f() { tracing::info!(\"x\") }",
        "use proptest::prelude::*;",
        "use crate::domain::Secret;",
        "struct A { token: Token }",
        "async fn f() {}",
        "use std::collections::HashMap;",
        "use std::sync::Mutex;",
        "struct A { map: HashMap<u32, (u8, u8)> }",
        "fn f() { hashbrown::HashSet::new() }",
        "fn f() { println!() }",
    ] {
        assert_ne!(breaches(rule, "engine/wheel.rs", bad), 0, "{bad}");
        assert_eq!(breaches(rule, "daemon/turn.rs", bad), 0, "{bad}");
    }
    for good in [
        "use std::collections::{BTreeMap, BinaryHeap}; use std::time::Duration; use std::sync::Arc;",
        "// tokio, std::fs, a Secret, await\nconst A: &str = \"Instant::now\";",
        "struct A { map: HashMap<u32, (u8, u8), Fixed>, set: hashbrown::HashSet<u8, Fixed>, t: HashTable<u8> }",
        "fn f(ticket: Ticket) -> TokenCount { HashMap::with_hasher(Fixed) }",
        "#[cfg(test)] mod tests { use proptest::prelude::*; use std::collections::HashMap; }",
    ] {
        let found = rule(&File::new("engine/wheel.rs", good));
        assert!(found.is_empty(), "{good}: {found:?}");
    }
}

#[test]
fn nothing_outside_the_api_knows_dingtalk() {
    assert_kept(rules::the_api_alone_knows_dingtalk);
    for bad in [
        "use reqwest::Client;",
        "fn f(code: &str) -> bool { code == \"invalid.client\" }",
        "const A: &str = \"Forbidden.AccessDenied.QpsLimitForApi\";",
        "const A: &str = \"https://api.dingtalk.com\";",
        "struct DingTalkError;",
    ] {
        assert_eq!(breaches(rules::the_api_alone_knows_dingtalk, "daemon/calls.rs", bad), 1, "{bad}");
        assert_eq!(breaches(rules::the_api_alone_knows_dingtalk, "api/classify.rs", bad), 0, "{bad}");
    }
    let rule = rules::the_api_alone_knows_dingtalk;
    assert_eq!(breaches(rule, "config/resolve.rs", "const A: &str = \"https://api.dingtalk.com\";"), 0);
    assert_eq!(breaches(rule, "config/resolve.rs", "const A: &str = \"https://api.dingtalk.io\";"), 1);
    assert_eq!(breaches(rule, "cli/dev.rs", "const A: &str = \"DingTalk's: 7200\";"), 0);
    assert_eq!(breaches(rule, "cli/dev.rs", "const A: &str = \"invalid.client\"; struct DingTalk;"), 2);
    assert_eq!(breaches(rule, "domain/rate.rs", "/// DingTalk's limit: invalid.client\nstruct A;"), 0);
}

#[test]
fn one_file_reads_the_clock() {
    let rule = rules::one_file_reads_the_clock;
    assert_kept(rule);
    for bad in [
        "fn f() { std::time::SystemTime::now(); }",
        "fn f() { Instant::now(); }",
        "fn f() { rustix::time::clock_gettime(x); }",
        "#[expect(clippy::disallowed_methods, reason = \"none\")] fn f() {}",
    ] {
        assert_eq!(breaches(rule, "daemon/turn.rs", bad), 1, "{bad}");
        assert_eq!(breaches(rule, "daemon/clock.rs", bad), 0, "{bad}");
    }
    assert_eq!(breaches(rule, "api/client.rs", "use tokio::time::Instant; fn f() { Instant::now() }"), 0);
    assert_eq!(breaches(rule, "daemon/turn.rs", "// Instant::now\nconst A: &str = \"SystemTime::now\";"), 0);
}

#[test]
fn every_dependency_has_its_reasons_and_none_is_explained_that_left() {
    let text = read(&root().join("docs/decisions/0001-dependencies.md"));
    let mut explained: Vec<&str> = text.split("**").skip(1).step_by(2).flat_map(|names| names.split(", ")).collect();
    let mut used = dependencies();
    explained.sort_unstable();
    explained.dedup();
    used.sort_unstable();
    used.dedup();
    assert_eq!(explained, used, "docs/decisions/0001-dependencies.md and Cargo.toml differ");
}

#[test]
fn the_documents_name_files_that_exist() {
    for document in ["README.md", "docs/architecture.md", "docs/decisions/0003-unit.md"] {
        let text = read(&root().join(document));
        let named = text.split('`').skip(1).step_by(2).filter(|word| {
            ["src/", "tests/", "docs/", "config/", "systemd/", ".ci/"].iter().any(|top| word.starts_with(top))
        });
        let missing: Vec<_> = named.filter(|path| !root().join(path).exists()).collect();
        assert!(missing.is_empty(), "{document} names what is not there: {missing:?}");
    }
}
