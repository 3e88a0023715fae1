//! Where problems are gathered while a config is read, and how a span of a file becomes a line and a column.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::report::{Diagnostic, Location, Report, Severity};
use crate::config::environment::sources::Source;

/// Bytes of one of the files. Half the size of two pointers, since every corp_id has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Span {
    pub(crate) file: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    pub(crate) fn new(file: usize, span: Range<usize>) -> Self {
        // Files are at most 64 MiB, so offsets fit.
        let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { file: short(file), start: short(span.start), end: short(span.end.max(span.start)) }
    }
}

/// The problems found so far.
pub(crate) struct Diagnostics<'s> {
    files: Vec<File<'s>>,
    list: Vec<Diagnostic>,
    any_syntax: bool,
}

struct File<'s> {
    path: Arc<Path>,
    text: &'s str,
    /// Where each line starts.
    lines: Vec<u32>,
}

impl<'s> Diagnostics<'s> {
    pub(crate) fn new(sources: &'s [Source]) -> Self {
        let files = sources
            .iter()
            .map(|source| File {
                path: source.path.as_path().into(),
                text: &source.text,
                lines: line_starts(&source.text),
            })
            .collect();
        Self { files, list: Vec::new(), any_syntax: false }
    }

    /// Reports a syntax error.
    pub(crate) fn syntax(&mut self, at: Span, message: String) {
        let mut diagnostic = Diagnostic::new(Severity::Error, message).at(self.location(at));
        diagnostic.syntax = true;
        self.list.push(diagnostic);
        self.any_syntax = true;
    }

    /// Whether any file does not parse: then something that seems to be missing may merely not have been seen.
    pub(crate) fn any_syntax(&self) -> bool {
        self.any_syntax
    }

    pub(crate) fn error(&mut self, at: Span, message: impl Into<String>) -> DiagnosticBuilder<'_, 's> {
        self.say(Severity::Error, at, message.into())
    }

    pub(crate) fn warning(&mut self, at: Span, message: impl Into<String>) -> DiagnosticBuilder<'_, 's> {
        self.say(Severity::Warning, at, message.into())
    }

    /// Adds a problem that has no place in a text.
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }

    pub(crate) fn location(&self, at: Span) -> Location {
        let file = &self.files[at.file as usize];
        let line = line_of(&file.lines, at.start);
        let start = file.lines[line] as usize;
        let before = file.text.get(start..at.start as usize).unwrap_or_default();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Location {
            file: Arc::clone(&file.path),
            line: count(line + 1),
            column: count(before.chars().count() + 1),
            span: at.start as usize..at.end as usize,
        }
    }

    /// The text at `at`, as it was written.
    pub(crate) fn raw(&self, at: Span) -> &'s str {
        self.files[at.file as usize].text.get(at.start as usize..at.end as usize).unwrap_or_default()
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.list.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// All problems in the order of the files, errors first.
    pub(crate) fn into_report(self) -> Report {
        let Self { files, mut list, .. } = self;
        // Config directories with thousands of drop-ins exist, and each may have its problem.
        let order: HashMap<&Path, usize> = files.iter().enumerate().map(|(nth, file)| (&*file.path, nth)).collect();
        let place = |location: &Location| (order.get(&*location.file).copied(), location.line, location.column);
        list.sort_by_cached_key(|diagnostic| diagnostic.at.as_ref().map(place));
        list.into_iter().collect()
    }

    fn say(&mut self, severity: Severity, at: Span, message: String) -> DiagnosticBuilder<'_, 's> {
        let diagnostic = Diagnostic::new(severity, message).at(self.location(at));
        self.list.push(diagnostic);
        let index = self.list.len() - 1;
        DiagnosticBuilder { diagnostics: self, index }
    }
}

/// A problem that was just reported, to which more can be diagnostic.
pub(crate) struct DiagnosticBuilder<'p, 's> {
    diagnostics: &'p mut Diagnostics<'s>,
    index: usize,
}

impl DiagnosticBuilder<'_, '_> {
    /// Says what would be right.
    pub(crate) fn help(self, text: impl Into<String>) -> Self {
        self.diagnostics.list[self.index].help = Some(text.into());
        self
    }

    /// It may end by itself.
    pub(crate) fn hangs(self) -> Self {
        self.diagnostics.list[self.index].hangs = true;
        self
    }

    /// Shows another place that belongs to it.
    pub(crate) fn also(self, at: Span, text: impl Into<String>) -> Self {
        let location = self.diagnostics.location(at);
        self.diagnostics.list[self.index].also.push((location, text.into()));
        self
    }
}

/// Where each line of `text` starts.
pub(crate) fn line_starts(text: &str) -> Vec<u32> {
    let after_newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
    std::iter::once(0).chain(after_newlines).map(|at| u32::try_from(at).unwrap_or(u32::MAX)).collect()
}

/// The line, from 0, in which the byte at `offset` stands.
pub(crate) fn line_of(lines: &[u32], offset: u32) -> usize {
    lines.partition_point(|start| *start <= offset).saturating_sub(1)
}

/// A line, from 0, with its newline.
pub(crate) fn line_text<'t>(text: &'t str, lines: &[u32], line: usize) -> &'t str {
    let end = lines.get(line + 1).map_or(text.len(), |next| *next as usize);
    lines.get(line).and_then(|start| text.get(*start as usize..end)).unwrap_or_default()
}
