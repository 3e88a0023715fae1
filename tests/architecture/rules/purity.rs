//! The engine decides and does nothing; the config reads text and nothing else.

use crate::source::{NamedPath, Source};

/// What of `std` decides without doing.
const PURE_STD: &[&str] = &[
    "alloc",
    "any",
    "array",
    "ascii",
    "borrow",
    "boxed",
    "cell",
    "char",
    "clone",
    "cmp",
    "collections",
    "convert",
    "default",
    "error",
    "f64",
    "fmt",
    "hash",
    "hint",
    "i64",
    "iter",
    "marker",
    "mem",
    "num",
    "ops",
    "option",
    "panic",
    "ptr",
    "range",
    "rc",
    "result",
    "slice",
    "str",
    "string",
    "sync",
    "time",
    "u16",
    "u32",
    "u64",
    "u8",
    "usize",
    "vec",
];
/// Crates that only compute.
const PURE_CRATES: &[&str] = &["hashbrown", "thiserror"];
/// Names that bring in a clock, chance, a thread, output, an executor or a secret, whatever they are imported from.
const IMPURE_NAMES: &[&str] = &[
    "Barrier",
    "Condvar",
    "DefaultHashBuilder",
    "Instant",
    "LazyLock",
    "Mutex",
    "OnceLock",
    "RandomState",
    "RwLock",
    "Secret",
    "SystemTime",
    "Token",
    "UNIX_EPOCH",
    "async",
    "await",
    "clock_gettime",
    "dbg",
    "eprint",
    "eprintln",
    "extern",
    "getrandom",
    "mpsc",
    "print",
    "println",
    "rand",
    "spawn",
    "thread_local",
    "unsafe",
];

/// No runtime, clock, chance, file, socket, thread or secret in the engine.
pub(crate) fn the_engine_is_pure(source: &Source, dependencies: &[String]) -> Vec<String> {
    if source.top() != "engine" {
        return Vec::new();
    }
    let named = source.product_names().filter(|name| IMPURE_NAMES.contains(&name.text.as_str()));
    let named = named.map(|name| source.breach(name.line, format_args!("the engine names {}", name.text)));
    let reached = source.product_paths().filter(|path| {
        let root = path.names[0].as_str();
        let outside = dependencies.iter().any(|crate_| crate_ == root) && !PURE_CRATES.contains(&root);
        outside || (matches!(root, "std" | "core") && !PURE_STD.contains(&path.names[1].as_str()))
    });
    let reached =
        reached.map(|path| source.breach(path.line, format_args!("the engine uses {}", path.names.join("::"))));
    named.chain(reached).chain(random_maps(source)).collect()
}

/// A map without a hasher of its own takes one that is seeded by chance, and with it an order.
fn random_maps(source: &Source) -> Vec<String> {
    let is_map = |name: &str| matches!(name, "HashMap" | "HashSet");
    let imported = source.product_paths().filter(|path| {
        let made = path.names.windows(2).any(|w| is_map(&w[0]) && matches!(w[1].as_str(), "new" | "with_capacity"));
        made || path.starts_with(&["std", "collections"]) && path.names.last().is_some_and(|name| is_map(name))
    });
    let imported =
        imported.map(|path| source.breach(path.line, format_args!("{} hashes by chance", path.names.join("::"))));
    let unhashed = source.product_names().filter(|name| match name.text.as_str() {
        "HashMap" => name.arguments.is_some_and(|count| count < 3),
        "HashSet" => name.arguments.is_some_and(|count| count < 2),
        _ => false,
    });
    let unhashed = unhashed.map(|name| source.breach(name.line, "a hash map or set without a fixed hasher"));
    imported.chain(unhashed).collect()
}

/// What the config may not use: files, accounts and sockets are looked at before, by `environment`.
const OUTSIDE: &[&[&str]] = &[
    &["std", "fs"],
    &["std", "env"],
    &["std", "net", "TcpStream"],
    &["std", "os", "unix", "fs"],
    &["std", "os", "unix", "net"],
    &["std", "process"],
    &["std", "thread"],
    &["crate", "system", "blocking"],
    &["crate", "system", "clock"],
    &["crate", "system", "log"],
    &["nix"],
    &["rustix"],
    &["tokio"],
];

/// The config is text, and what was collected before it is read.
pub(crate) fn the_config_does_no_io(source: &Source) -> Vec<String> {
    if source.top() != "config" {
        return Vec::new();
    }
    let strange = |path: &&NamedPath| OUTSIDE.iter().any(|names| path.starts_with(names));
    let breach = |path: &NamedPath| source.breach(path.line, format_args!("the config uses {}", path.names.join("::")));
    source.product_paths().filter(strange).map(breach).collect()
}

#[test]
fn the_engine_decides_and_does_nothing() {
    let crates: Vec<_> = crate::documents::dependencies().iter().map(|name| name.replace('-', "_")).collect();
    let rule = |source: &Source| the_engine_is_pure(source, &crates);
    crate::assert_kept(rule);
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
        "fn f() { g!(h().await) }",
        "use std::collections::HashMap;",
        "use std::sync::Mutex;",
        "struct A { map: HashMap<u32, (u8, u8)> }",
        "fn f() { hashbrown::HashSet::new() }",
        "fn f() { println!() }",
    ] {
        assert!(!rule(&Source::read("engine/wheel.rs", bad)).is_empty(), "{bad}");
        assert!(rule(&Source::read("daemon/driver.rs", bad)).is_empty(), "{bad}");
    }
    for good in [
        "use std::collections::{BTreeMap, BinaryHeap}; use std::time::Duration; use std::sync::Arc;",
        "// tokio, std::fs, a Secret, await\nconst A: &str = \"Instant::now\";",
        "struct A { map: HashMap<u32, (u8, u8), Fixed>, set: hashbrown::HashSet<u8, Fixed>, t: HashTable<u8> }",
        "fn f(ticket: Ticket) -> TokenCount { HashMap::with_hasher(Fixed) }",
        "#[cfg(test)] mod tests { use proptest::prelude::*; use std::collections::HashMap; }",
    ] {
        let found = rule(&Source::read("engine/wheel.rs", good));
        assert!(found.is_empty(), "{good}: {found:?}");
    }
}

#[test]
fn the_config_reads_text_alone() {
    crate::assert_kept(the_config_does_no_io);
    for bad in ["use std::fs;", "fn f() { rustix::fs::stat(x) }", "use nix::unistd::User;", "use std::{env, fmt};"] {
        assert_eq!(the_config_does_no_io(&Source::read("config/parse.rs", bad)).len(), 1, "{bad}");
        assert_eq!(the_config_does_no_io(&Source::read("environment/mod.rs", bad)).len(), 0, "{bad}");
    }
    for good in ["use std::path::Path;", "#[cfg(test)] mod tests { use std::fs; }", "// std::fs"] {
        assert_eq!(the_config_does_no_io(&Source::read("config/parse.rs", good)).len(), 0, "{good}");
    }
}
