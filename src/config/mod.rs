//! Text to [`Config`]: reading the files, all problems at once, and the difference of two configs.
//!
//! | file | what it is |
//! |---|---|
//! | `files`, `secret` | the only ones that read the file system |
//! | `parse` | parsing that goes on after a fault |
//! | `tree` | the parsed files merged into one table whose values know their places |
//! | `keys`, `section`, `values` | what keys there are, and typed reading that goes on after a problem |
//! | `resolve`, `app`, `tenants`, `sink` | the tables, one after the other, into a [`Config`] |
//! | `places`, `capacity` | what can only be judged over all tenants |
//! | `report`, `render`, `mask` | problems, how they are told, and what of a line may be shown |
//! | `diff`, `keep` | how one config differs from the next |

mod app;
mod capacity;
mod diff;
mod files;
mod keep;
mod keys;
mod mask;
mod model;
mod parse;
mod places;
mod problems;
mod render;
mod report;
mod resolve;
pub mod secret;
mod section;
mod sink;
mod surroundings;
mod tenants;
mod tree;
mod values;

pub use capacity::{AppCapacity, Capacity, Figures, capacity};
pub use diff::{AppDifference, Counts, Difference, Fate, Vacated, diff};
pub use files::{Source, Sources, read, where_to_watch};
pub use keep::keep_removed;
pub use keys::{KnownKeys, known_keys};
pub use model::{Api, App, Config, Control, Limits, Log, LogFormat, LogLevel, Special, State};
pub use report::{Problem, Report, Severity, Spot};
pub use surroundings::{KeyQuota, Surroundings};

use std::path::PathBuf;

use problems::{Mark, Problems};
use toml::de::DeTable;
use tree::{Entry, Table, Value};

/// A config that was looked at.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The config; `Some` exactly if the report holds no error.
    pub config: Option<Config>,
    /// All that is wrong with it, and all that the operator should know.
    pub report: Report,
}

/// Parses, merges, resolves and validates, and tells all problems at once.
pub fn check(sources: &Sources, surroundings: &Surroundings) -> Checked {
    let (config, report) = examine(sources, surroundings);
    Checked { config: (!report.has_errors()).then_some(config), report }
}

/// Where the daemon's control socket is, as far as can be told: a config in error says so as well, and who wants to know
/// what the daemon thinks of it needs the socket.
pub fn control_socket(sources: &Sources, surroundings: &Surroundings) -> PathBuf {
    examine(sources, surroundings).0.control.socket
}

/// What could be made out of a config, be it in error or not, and all that is wrong with it.
fn examine(sources: &Sources, surroundings: &Surroundings) -> (Config, Report) {
    let mut problems = Problems::new(&sources.files);
    for problem in &sources.problems {
        problems.push(problem.clone());
    }
    let (mut tables, errors): (Vec<_>, Vec<_>) =
        sources.files.iter().map(|source| DeTable::parse_recoverable(&source.text)).unzip();
    let blanked = parse::blank_faults(&sources.files, &errors, &mut problems);
    let mut tree = Table::default();
    for (table, blanked) in tables.iter_mut().zip(&blanked) {
        if let Some(text) = blanked {
            *table = DeTable::parse_recoverable(text).0;
        }
    }
    for (file, table) in tables.iter().enumerate() {
        tree.merge(Table::of(table.get_ref(), file), &mut problems);
    }
    let config = resolve::resolve(&tree, sources, surroundings, &mut problems);
    if !problems.has_errors() {
        capacity::warn(&config, &|name| place_of_app(&tree, name.as_str()), surroundings, &mut problems);
    }
    (config, problems.into_list().into_iter().collect())
}

fn place_of_app(tree: &Table<'_>, name: &str) -> Option<Mark> {
    match tree.entries.get("app") {
        Some(Entry { value: Value::Table(apps), .. }) => apps.entries.get(name).map(|entry| entry.key),
        _ => None,
    }
}
