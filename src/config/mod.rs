//! Text to [`Config`]: reading the files, all problems at once, and the difference of two configs.
//!
//! | room | what it does |
//! |---|---|
//! | `environment` | reads the file system: the config's files, secrets, permissions, the process |
//! | `parse` | text to one tree, in spite of faults and over several files |
//! | `schema` | which keys there are |
//! | `read` | the tree to a [`Config`], typed, all problems at once |
//! | `check` | what can only be judged over all tenants: conflicts and capacity |
//! | `diagnostics` | diagnostics, how they are reported, and what of a line may be shown |
//! | `diff` | how one config differs from the next, and what is carried over |

mod check;
mod diagnostics;
mod diff;
mod environment;
mod model;
mod parse;
mod read;
mod schema;

pub use check::capacity::{AppCapacity, Capacity, Figures, capacity};
pub use check::conflicts::conflicts;
pub use diagnostics::report::{Diagnostic, Location, Report, Severity};
pub use diff::mass_removal::keep_removed;
pub use diff::{AppDifference, Counts, Difference, Fate, Vacated, diff};
pub use environment::bounded::{PathTask, run_all};
pub use environment::own_files::OwnFiles;
pub use environment::process::{KeyQuota, Process};
pub use environment::secrets as secret;
pub use environment::sources::{Origin, Source, Sources, is_drop_in, last_written, read, where_to_watch};
pub use model::{Api, App, Config, Control, Limits, Log, Special, State};
pub use schema::{KnownKeys, known_keys};

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::domain::{AppName, Fingerprint, SecretSource};
use diagnostics::collect::{Diagnostics, Span};
use parse::merge::{Entry, Table, Value};
use toml::de::DeTable;

/// A config that was looked at.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The config; `Some` exactly if the report holds no error.
    pub config: Option<Config>,
    /// All that is wrong with it, and all that the operator should know.
    pub report: Report,
    /// What it tells even if it is in error.
    pub outline: Outline,
    /// What tells each app's secret from others, where it could be read.
    pub secrets: BTreeMap<AppName, Fingerprint>,
}

/// What a config tells, as far as it can be understood, even if it is in error: enough to find the daemon that runs, the
/// state that knows the last good config, and what else may end the error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// The database.
    pub state: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// The files that hold client secrets, be they there or not.
    pub secret_files: Vec<PathBuf>,
}

impl Outline {
    /// Of a config that says nothing.
    pub fn usual(process: &Process) -> Self {
        check(&Sources::remembered(Vec::new()), process).outline
    }

    fn of(config: &Config) -> Self {
        let secret_files = config.apps.values().filter_map(|app| match &app.client_secret {
            // An empty one stands for a secret that the config does not name.
            SecretSource::File(path) => Some(path.clone()).filter(|path| path.is_absolute()),
            SecretSource::Credential(_) | SecretSource::Env(_) => None,
        });
        Self {
            state: config.state.path.clone(),
            socket: config.control.socket.clone(),
            secret_files: secret_files.collect(),
        }
    }
}

/// Parses, merges, resolves and validates, and tells all problems at once.
pub fn check(sources: &Sources, process: &Process) -> Checked {
    let mut diagnostics = Diagnostics::new(&sources.files);
    for diagnostic in &sources.diagnostics {
        diagnostics.push(diagnostic.clone());
    }
    let (mut tables, errors): (Vec<_>, Vec<_>) =
        sources.files.iter().map(|source| DeTable::parse_recoverable(&source.text)).unzip();
    let blanked = parse::recover::blank_faults(&sources.files, &errors, &mut diagnostics);
    let mut tree = Table::default();
    for (table, blanked) in tables.iter_mut().zip(&blanked) {
        if let Some(text) = blanked {
            *table = DeTable::parse_recoverable(text).0;
        }
    }
    for (file, table) in tables.iter().enumerate() {
        tree.merge(Table::of(table.get_ref(), file), &mut diagnostics);
    }
    let (config, secrets) = read::top::resolve(&tree, sources, process, &mut diagnostics);
    if !diagnostics.has_errors() {
        check::capacity::warn(&config, &|name| place_of_app(&tree, name.as_str()), process, &mut diagnostics);
    }
    let outline = Outline::of(&config);
    let config = (!diagnostics.has_errors()).then_some(config);
    Checked { config, report: diagnostics.into_report(), outline, secrets }
}

fn place_of_app(tree: &Table<'_>, name: &str) -> Option<Span> {
    match tree.entries.get("app") {
        Some(Entry { value: Value::Table(apps), .. }) => apps.entries.get(name).map(|entry| entry.key),
        _ => None,
    }
}
