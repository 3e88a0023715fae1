//! Text to one tree. In: the texts of all files. Out: their tables merged into one [`Tree`](merge::Tree) whose keys and
//! values know their spans, in spite of faults in some lines. For `read` alone.

pub(crate) mod merge;
mod recover;

use toml::de::DeTable;

use super::diagnostics::collect::Diagnostics;
use super::diagnostics::sources::Source;
use merge::Tree;

/// Parses the files and gives `read` their merged tree, which borrows from the texts.
pub(crate) fn parse<R>(files: &[Source], diagnostics: &Diagnostics<'_>, read: impl FnOnce(&Tree<'_>) -> R) -> R {
    let (mut tables, errors): (Vec<_>, Vec<_>) =
        files.iter().map(|source| DeTable::parse_recoverable(&source.text)).unzip();
    let blanked = recover::blank_faults(files, &errors, diagnostics);
    for (table, blanked) in tables.iter_mut().zip(&blanked) {
        if let Some(text) = blanked {
            *table = DeTable::parse_recoverable(text).0;
        }
    }
    let mut tree = Tree::default();
    for (file, table) in tables.iter().enumerate() {
        tree.merge(Tree::of(table.get_ref(), file), diagnostics);
    }
    read(&tree)
}
