//! Who may import whom.

use crate::source::{NamedPath, Source};

/// The hub's rows: each imports `domain` and itself. `domain` imports itself alone.
const ROWS: &[&str] = &["domain", "config", "engine", "api", "sink", "store"];
/// What a row that does I/O may use besides; it imports `domain` and itself.
const LEAVES: &[&str] = &["system"];
/// Rows that do no I/O.
const PURE: &[&str] = &["domain", "engine"];
/// The rest of the crate's modules, which a row may not import either.
const SHELL: &[&str] = &["daemon", "cli", "control", "sandbox"];

/// No two rows know each other, and none knows the shell. Tests inside a row are held to it too.
pub(crate) fn rows_know_domain_alone(source: &Source) -> Vec<String> {
    let own = source.top();
    if !ROWS.contains(&own) && !LEAVES.contains(&own) {
        return Vec::new();
    }
    let strange = |path: &NamedPath| {
        let other = imported_module(path)?;
        let known = ROWS.iter().chain(LEAVES).chain(SHELL).any(|module| *module == other);
        let is_leaf = LEAVES.contains(&other) && !PURE.contains(&own);
        let allowed = other == own || other == "domain" || (!LEAVES.contains(&own) && is_leaf);
        (!allowed && (known || path.names[0] == "crate"))
            .then(|| source.breach(path.line, format_args!("{own} imports {other}")))
    };
    source.paths.iter().filter_map(strange).collect()
}

/// The top module that a path leads to, if it leads through the crate's root.
fn imported_module(path: &NamedPath) -> Option<&str> {
    let supers = path.names.iter().take_while(|name| *name == "super").count();
    match path.names[0].as_str() {
        "crate" => path.names.get(1).map(String::as_str),
        "super" if supers >= path.module.len() => path.names.get(supers).map(String::as_str),
        _ => None,
    }
}

#[test]
fn no_two_rows_of_the_hub_know_each_other() {
    let rule = rows_know_domain_alone;
    crate::assert_kept(rule);
    let breaches = |path: &str, text: &str| rule(&Source::read(path, text)).len();
    for bad in [
        "use crate::config::Config;",
        "use crate::{domain::Token, daemon::turn};",
        "fn f() { crate::store::open() }",
        "use super::super::api;",
        "pub(in crate::cli) fn f() {}",
        "#[cfg(test)] mod tests { use crate::sandbox::Sandbox; }",
        "fn f() { assert!(crate::store::open()) }",
    ] {
        assert_eq!(breaches("sink/file.rs", bad), 1, "{bad}");
    }
    assert_eq!(breaches("sink/mod.rs", "use super::api;"), 1);
    assert_eq!(breaches("domain/ids.rs", "use crate::config::Config;"), 1);
    for (path, expected) in [("api/client.rs", 0), ("config/files.rs", 0), ("domain/ids.rs", 1), ("engine/app.rs", 1)] {
        for leaf in ["use crate::system::blocking::Blocking;", "use crate::system::permissions::Trusted;"] {
            assert_eq!(breaches(path, leaf), expected, "{path}: {leaf}");
        }
    }
    assert_eq!(breaches("system/blocking.rs", "use crate::config::Config;"), 1);
    for good in [
        "use crate::domain::{Token, WallMs}; use crate::sink::Job; use super::lane;",
        "// crate::config\nconst A: &str = \"crate::config\";",
        "mod tests { mod inner { use super::super::render; } }",
    ] {
        assert_eq!(breaches("sink/file.rs", good), 0, "{good}");
    }
    assert_eq!(breaches("daemon/mod.rs", "use crate::sink;"), 0);
}
