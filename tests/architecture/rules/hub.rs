//! Who may import whom.

use crate::source::{NamedPath, Source};

/// What each module of the crate may import besides itself. `domain` is a leaf that everyone may import; no two of the middle
/// row know each other; `daemon` joins them.
const IMPORTS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("system", &["domain"]),
    ("config", &["domain", "system"]),
    ("engine", &["domain"]),
    ("api", &["domain", "system"]),
    ("store", &["domain"]),
    ("sink", &["domain", "system"]),
    ("environment", &["domain", "system", "config"]),
    ("control", &["domain"]),
    ("sandbox", &["domain"]),
    ("daemon", &["domain", "system", "config", "environment", "engine", "api", "store", "sink", "control"]),
    ("cli", &["domain", "system", "config", "environment", "api", "sink", "control", "sandbox", "daemon"]),
];

/// Each module imports what the table says. Tests inside a module are held to it too.
pub(crate) fn modules_import_what_they_may(source: &Source) -> Vec<String> {
    let own = source.top();
    let Some((_, allowed)) = IMPORTS.iter().find(|(module, _)| *module == own) else { return Vec::new() };
    let strange = |path: &NamedPath| {
        let other = imported_module(path)?;
        let is_module = path.names[0] == "crate" || IMPORTS.iter().any(|(module, _)| *module == other);
        (is_module && other != own && !allowed.contains(&other))
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
fn the_hub_is_kept() {
    let rule = modules_import_what_they_may;
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
    assert_eq!(breaches("config/mod.rs", "use crate::environment::Sources;"), 1);
    assert_eq!(breaches("environment/mod.rs", "use crate::config::Sources;"), 0);
    assert_eq!(breaches("daemon/mod.rs", "use crate::cli::Exit; use crate::sandbox::Sandbox;"), 2);
    for good in [
        "use crate::domain::{Token, WallMs}; use crate::sink::Job; use super::lane;",
        "// crate::config\nconst A: &str = \"crate::config\";",
        "mod tests { mod inner { use super::super::render; } }",
    ] {
        assert_eq!(breaches("sink/file.rs", good), 0, "{good}");
    }
    assert_eq!(breaches("daemon/mod.rs", "use crate::sink;"), 0);
}

#[test]
fn the_table_of_imports_has_every_module() {
    let tops: std::collections::BTreeSet<&str> = crate::sources().iter().map(Source::top).collect();
    let known = IMPORTS.iter().map(|(module, _)| *module).chain(["lib", "main"]).collect();
    assert_eq!(tops, known);
}
