//! Collects diagnostics while a config is read and checked, and turns the spans of values into lines and columns.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::report::{Diagnostic, Location, Report, Severity};
use super::sources::Source;

/// Bytes of one of the files. Half the size of two pointers, since every corp_id has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Span {
    pub(crate) file: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    pub(crate) fn new(file: usize, bytes: Range<usize>) -> Self {
        // Files are at most 64 MiB, so offsets fit.
        let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { file: short(file), start: short(bytes.start), end: short(bytes.end.max(bytes.start)) }
    }
}

/// The diagnostics so far. Readers of nested tables share it, so it is filled through a shared reference.
pub(crate) struct Diagnostics<'s> {
    files: Vec<SourceLines<'s>>,
    list: RefCell<Vec<Diagnostic>>,
    any_syntax_error: Cell<bool>,
}

struct SourceLines<'s> {
    path: Arc<Path>,
    text: &'s str,
    starts: Vec<u32>,
}

impl<'s> Diagnostics<'s> {
    pub(crate) fn new(sources: &'s [Source]) -> Self {
        let lines = |source: &'s Source| SourceLines {
            path: source.path.as_path().into(),
            text: &source.text,
            starts: line_starts(&source.text),
        };
        Self {
            files: sources.iter().map(lines).collect(),
            list: RefCell::default(),
            any_syntax_error: Cell::new(false),
        }
    }

    pub(crate) fn syntax_error(&self, at: Span, message: String) {
        self.any_syntax_error.set(true);
        self.push(Diagnostic { is_syntax: true, ..Diagnostic::new(Severity::Error, message).at(self.location(at)) });
    }

    /// Whether any file does not parse: then something that seems to be missing may merely not have been seen.
    pub(crate) fn any_syntax_error(&self) -> bool {
        self.any_syntax_error.get()
    }

    pub(crate) fn error(&self, at: Span, message: impl Into<String>) -> DiagnosticBuilder<'_> {
        self.report(Severity::Error, at, message.into())
    }

    pub(crate) fn warning(&self, at: Span, message: impl Into<String>) -> DiagnosticBuilder<'_> {
        self.report(Severity::Warning, at, message.into())
    }

    pub(crate) fn report(&self, severity: Severity, at: Span, message: String) -> DiagnosticBuilder<'_> {
        self.push(Diagnostic::new(severity, message).at(self.location(at)));
        DiagnosticBuilder { diagnostics: self, index: self.list.borrow().len() - 1 }
    }

    /// Adds a diagnostic that has no place in a text.
    pub(crate) fn push(&self, diagnostic: Diagnostic) {
        self.list.borrow_mut().push(diagnostic);
    }

    fn location(&self, at: Span) -> Location {
        let file = &self.files[at.file as usize];
        let line = line_of(&file.starts, at.start);
        let start = file.starts[line] as usize;
        let before = file.text.get(start..at.start as usize).unwrap_or_default();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Location {
            file: Arc::clone(&file.path),
            line: count(line + 1),
            column: count(before.chars().count() + 1),
            bytes: at.start as usize..at.end as usize,
        }
    }

    /// The text at `at`, as it was written.
    pub(crate) fn raw(&self, at: Span) -> &'s str {
        self.files[at.file as usize].text.get(at.start as usize..at.end as usize).unwrap_or_default()
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.list.borrow().iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// All diagnostics in the order of the files, errors first.
    pub(crate) fn into_report(self) -> Report {
        let Self { files, list, .. } = self;
        let mut list = list.into_inner();
        // Directories with thousands of drop-ins exist, and each may have its diagnostic.
        let order: HashMap<&Path, usize> = files.iter().enumerate().map(|(nth, file)| (&*file.path, nth)).collect();
        let place = |at: &Location| (order.get(&*at.file).copied(), at.line, at.column);
        list.sort_by_cached_key(|diagnostic| diagnostic.at.as_ref().map(place));
        list.into_iter().collect()
    }
}

/// Adds to the diagnostic that was just reported.
pub(crate) struct DiagnosticBuilder<'d> {
    diagnostics: &'d Diagnostics<'d>,
    index: usize,
}

impl DiagnosticBuilder<'_> {
    /// Says what would be right.
    pub(crate) fn help(self, text: impl Into<String>) -> Self {
        self.change(|diagnostic| diagnostic.help = Some(text.into()))
    }

    /// The fault may end by itself, since something does not answer.
    pub(crate) fn hangs(self) -> Self {
        self.change(|diagnostic| diagnostic.hangs = true)
    }

    /// Shows another place that belongs to it.
    pub(crate) fn also(self, at: Span, text: impl Into<String>) -> Self {
        let location = self.diagnostics.location(at);
        self.change(|diagnostic| diagnostic.also.push((location, text.into())))
    }

    fn change(self, change: impl FnOnce(&mut Diagnostic)) -> Self {
        change(&mut self.diagnostics.list.borrow_mut()[self.index]);
        self
    }
}

/// Where each line of `text` starts.
pub(crate) fn line_starts(text: &str) -> Vec<u32> {
    let after_newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
    std::iter::once(0).chain(after_newlines).map(|at| u32::try_from(at).unwrap_or(u32::MAX)).collect()
}

/// The line, from 0, in which the byte at `offset` stands.
pub(crate) fn line_of(starts: &[u32], offset: u32) -> usize {
    starts.partition_point(|start| *start <= offset).saturating_sub(1)
}

/// A line, from 0, with its newline.
pub(crate) fn line_text<'t>(text: &'t str, starts: &[u32], line: usize) -> &'t str {
    let end = starts.get(line + 1).map_or(text.len(), |next| *next as usize);
    starts.get(line).and_then(|start| text.get(*start as usize..end)).unwrap_or_default()
}
