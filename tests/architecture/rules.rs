//! The rules, one function each: what a file of `src` may name. `docs/architecture.md` says why.

use crate::paths::{Path, paths};
use crate::source::{Token, tokens, without_tests};

/// A file of `src`.
pub(crate) struct File<'a> {
    /// Its path below `src`, with slashes: `engine/wheel.rs`.
    pub(crate) path: &'a str,
    all: Vec<Token>,
    product: Vec<Token>,
}

impl<'a> File<'a> {
    pub(crate) fn new(path: &'a str, source: &str) -> Self {
        let all = tokens(source);
        let (product, _) = without_tests(&all);
        Self { path, all, product }
    }

    /// The top module, or the file's own name at the top: `engine`, `lib`.
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    fn breach(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("src/{}:{line}: {what}", self.path)
    }
}

/// The hub's rows: each imports `domain` and itself. `domain` imports itself alone.
const ROWS: &[&str] = &["domain", "config", "engine", "api", "sink", "store", "hook"];
/// What a row that does I/O may use besides: it knows nothing of the crate itself.
const LEAVES: &[&str] = &["blocking", "trust"];
/// Rows that do no I/O.
const PURE: &[&str] = &["domain", "engine"];
/// The rest of the crate's modules, which a row may not import either.
const SHELL: &[&str] = &["daemon", "cli", "control", "sandbox"];

/// No two rows know each other, and none knows the shell. Tests inside a row are held to it too.
pub(crate) fn rows_know_domain_alone(file: &File<'_>) -> Vec<String> {
    let own = file.module();
    if !ROWS.contains(&own) && !LEAVES.contains(&own) {
        return Vec::new();
    }
    let depth = file.path.split('/').filter(|part| *part != "mod.rs").count();
    let strange = |path: &Path| {
        let other = imported_module(path, depth)?;
        let known = ROWS.iter().chain(LEAVES).chain(SHELL).any(|module| *module == other);
        let is_leaf = LEAVES.contains(&other) && !PURE.contains(&own);
        let allowed = other == own || (!LEAVES.contains(&own) && (other == "domain" || is_leaf));
        (!allowed && (known || path.names[0] == "crate"))
            .then(|| file.breach(path.line, format_args!("{own} imports {other}")))
    };
    paths(&file.all).iter().filter_map(strange).collect()
}

/// The top module that a path leads to, if it leads through the crate's root.
fn imported_module(path: &Path, depth: usize) -> Option<&str> {
    let supers = path.names.iter().take_while(|name| *name == "super").count();
    match path.names[0].as_str() {
        "crate" => path.names.get(1).map(String::as_str),
        // Inside an inline module one more `super` is needed; a module of the hub is then told by its name.
        "super" if supers >= depth => path.names.get(supers).map(String::as_str),
        _ => None,
    }
}

/// What of `std` decides without doing.
const PURE_STD: &[&str] = &[
    "alloc",
    "any",
    "array",
    "ascii",
    "borrow",
    "boxed",
    "char",
    "clone",
    "cmp",
    "collections",
    "convert",
    "default",
    "error",
    "fmt",
    "hash",
    "hint",
    "iter",
    "marker",
    "mem",
    "num",
    "ops",
    "option",
    "panic",
    "range",
    "rc",
    "result",
    "slice",
    "str",
    "string",
    "sync",
    "time",
    "vec",
    "u8",
    "u16",
    "u32",
    "u64",
    "usize",
    "i64",
    "f64",
    "cell",
    "ptr",
];
/// Crates that only compute.
const PURE_CRATES: &[&str] = &["hashbrown", "thiserror"];
/// Names that bring in a clock, chance, a thread, output, an executor or a secret, whatever they are imported from.
const IMPURE_NAMES: &[&str] = &[
    "Instant",
    "SystemTime",
    "UNIX_EPOCH",
    "clock_gettime",
    "RandomState",
    "DefaultHashBuilder",
    "getrandom",
    "rand",
    "thread_local",
    "spawn",
    "Mutex",
    "RwLock",
    "Condvar",
    "Barrier",
    "mpsc",
    "OnceLock",
    "LazyLock",
    "async",
    "await",
    "unsafe",
    "extern",
    "println",
    "print",
    "eprintln",
    "eprint",
    "dbg",
    "Secret",
    "Token",
];

/// The engine decides and does nothing: no runtime, clock, chance, file, socket, thread or secret.
pub(crate) fn the_engine_is_pure(file: &File<'_>, dependencies: &[String]) -> Vec<String> {
    if file.module() != "engine" {
        return Vec::new();
    }
    let named = file.product.iter().filter_map(|token| {
        let name = token.name().filter(|name| IMPURE_NAMES.contains(name))?;
        Some(file.breach(token.line, format_args!("the engine names {name}")))
    });
    let all = paths(&file.product);
    let reached = all.iter().filter_map(|path| {
        let root = path.names[0].as_str();
        let outside = dependencies.iter().any(|crate_| crate_ == root) && !PURE_CRATES.contains(&root);
        let doing = matches!(root, "std" | "core") && !PURE_STD.contains(&path.names[1].as_str());
        (outside || doing).then(|| file.breach(path.line, format_args!("the engine uses {}", path.names.join("::"))))
    });
    named.chain(reached).chain(random_maps(file, &all)).collect()
}

/// A map without a hasher of its own takes one that is seeded by chance, and with it an order.
fn random_maps(file: &File<'_>, all: &[Path]) -> Vec<String> {
    let is_map = |name: &str| matches!(name, "HashMap" | "HashSet");
    let imported = all.iter().filter(|path| {
        let made = path.names.windows(2).any(|w| is_map(&w[0]) && matches!(w[1].as_str(), "new" | "with_capacity"));
        made || path.starts_with(&["std", "collections"]) && path.names.last().is_some_and(|name| is_map(name))
    });
    let mut breaches: Vec<_> = imported
        .map(|path| file.breach(path.line, format_args!("{} hashes by chance", path.names.join("::"))))
        .collect();
    for (at, token) in file.product.iter().enumerate() {
        let Some(wanted) = token.name().and_then(|name| match name {
            "HashMap" => Some(3),
            "HashSet" => Some(2),
            _ => None,
        }) else {
            continue;
        };
        let arguments = type_arguments(&file.product[at + 1..]);
        if arguments.is_some_and(|count| count < wanted) {
            breaches.push(file.breach(token.line, "a hash map or set without a fixed hasher"));
        }
    }
    breaches
}

/// How many arguments stand in the `<…>` that `tokens` start with, if they start with one.
fn type_arguments(tokens: &[Token]) -> Option<usize> {
    tokens.first().filter(|token| token.is('<'))?;
    let (mut depth, mut commas, mut last_is_comma) = (0, 0, false);
    for token in tokens {
        match token.kind {
            crate::source::Kind::Sign('<' | '(' | '[') => depth += 1,
            crate::source::Kind::Sign('>' | ')' | ']') => depth -= 1,
            crate::source::Kind::Sign(',') if depth == 1 => commas += 1,
            _ => {}
        }
        if depth == 0 {
            return Some(commas + usize::from(!last_is_comma));
        }
        last_is_comma = token.is(',');
    }
    None
}

/// What only DingTalk's endpoint says.
const CODES: &[&str] = &[
    "invalid.client",
    "unsupported.grant.type",
    "unauthorized.client",
    "server.error",
    "unknownError",
    "Forbidden.AccessDenied",
    "QpsLimit",
    "IpNotInWhiteList",
    "punish",
    "/v1.0/oauth2",
];
/// The one thing of DingTalk's that the config knows.
const DEFAULT_ENDPOINT: &str = "https://api.dingtalk.com";

/// Another issuer would be another `api`: nothing else knows DingTalk, or how a call is made.
pub(crate) fn the_api_alone_knows_dingtalk(file: &File<'_>) -> Vec<String> {
    if matches!(file.module(), "api" | "sandbox") {
        return Vec::new();
    }
    // What `dev` prints tells people whose limits it plays.
    let introduces = file.path == "cli/dev.rs";
    let breach = |token: &Token| {
        let said = token.name().or(token.text())?;
        let default = file.module() == "config" && said == DEFAULT_ENDPOINT;
        let word = if token.name() == Some("reqwest") {
            "reqwest"
        } else if let Some(code) = CODES.iter().find(|code| token.text().is_some_and(|text| text.contains(**code))) {
            code
        } else if said.to_ascii_lowercase().contains("dingtalk") && !(introduces && token.text().is_some()) {
            "DingTalk"
        } else {
            return None;
        };
        (!default).then(|| file.breach(token.line, format_args!("{word} belongs in src/api")))
    };
    file.product.iter().filter_map(breach).collect()
}

/// Time comes in as an argument; one file reads the clock. The sandbox plays another machine, with a clock of its own.
pub(crate) fn one_file_reads_the_clock(file: &File<'_>) -> Vec<String> {
    if file.path == "daemon/clock.rs" || file.module() == "sandbox" {
        return Vec::new();
    }
    let all = paths(&file.product);
    let tokio_time = all.iter().any(|path| path.starts_with(&["tokio", "time", "Instant"]));
    let breach = |path: &Path| {
        let read = path.names.windows(2).find(|pair| match (pair[0].as_str(), pair[1].as_str()) {
            ("SystemTime", "now") => true,
            ("Instant", "now") => !tokio_time,
            (_, "clock_gettime") => true,
            _ => false,
        })?;
        Some(file.breach(path.line, format_args!("{} outside of daemon/clock.rs", read.join("::"))))
    };
    let unlinted = file.product.iter().filter(|token| token.name() == Some("disallowed_methods"));
    all.iter()
        .filter_map(breach)
        .chain(unlinted.map(|token| file.breach(token.line, "the lint that keeps clocks out is switched off")))
        .collect()
}
