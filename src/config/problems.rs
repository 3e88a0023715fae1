//! Where problems are gathered while a config is read, and how a span of a file becomes a line and a column.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::files::Source;
use super::mask;
use super::report::{Problem, Severity, Spot};

/// Bytes of one of the files. Half the size of two pointers, since every corp_id has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub(super) file: u32,
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Mark {
    pub(super) fn new(file: usize, span: Range<usize>) -> Self {
        // Files are at most 64 MiB, so offsets fit.
        let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { file: short(file), start: short(span.start), end: short(span.end.max(span.start)) }
    }
}

/// The problems found so far.
pub(super) struct Problems<'s> {
    files: Vec<File<'s>>,
    list: Vec<Problem>,
}

struct File<'s> {
    path: Arc<Path>,
    text: &'s str,
    /// Where each line starts.
    lines: Vec<u32>,
    /// Which lines leave a bracket or a string open; known once there is a syntax error.
    open: Option<Vec<bool>>,
    /// Where nothing can be concluded, because the text does not parse there: ranges of lines, from 0, ends excluded.
    blind: Vec<Range<usize>>,
}

impl<'s> Problems<'s> {
    pub(super) fn new(sources: &'s [Source]) -> Self {
        let files = sources
            .iter()
            .map(|source| File {
                path: source.path.as_path().into(),
                text: &source.text,
                lines: line_starts(&source.text),
                open: None,
                blind: Vec::new(),
            })
            .collect();
        Self { files, list: Vec::new() }
    }

    /// Reports a syntax error. What follows from the same faulty lines is not reported as well.
    pub(super) fn syntax(&mut self, at: Mark, message: String) {
        let file = &mut self.files[at.file as usize];
        let line = line_of(&file.lines, at.start);
        let open = file.open.get_or_insert_with(|| mask::open_lines(file.text, &file.lines));
        let blind = derailed(file.text, &file.lines, open, line);
        if !file.blind.last().is_some_and(|last| last.end >= blind.end && last.start <= blind.start) {
            file.blind.push(blind);
        }
        let spot = self.spot(at);
        // The parser stumbles several times over one fault: the first stumble is the useful one.
        let told = self.list.iter().any(|p| p.syntax && p.at.as_ref().is_some_and(|s| s.file == spot.file && s.line == spot.line));
        if !told {
            let mut problem = Problem::new(Severity::Error, message).at(spot);
            problem.syntax = true;
            self.list.push(problem);
        }
    }

    /// Whether the text around `at` does not parse, so that nothing more should be said of it.
    pub(super) fn is_blind(&self, at: Mark) -> bool {
        let file = &self.files[at.file as usize];
        !file.blind.is_empty() && {
            let line = line_of(&file.lines, at.start);
            file.blind.iter().any(|lines| lines.contains(&line))
        }
    }

    /// Whether any file does not parse: then something that seems to be missing may merely not have been seen.
    pub(super) fn any_syntax(&self) -> bool {
        self.files.iter().any(|file| !file.blind.is_empty())
    }

    pub(super) fn error(&mut self, at: Mark, message: impl Into<String>) -> Said<'_, 's> {
        self.say(Severity::Error, at, message.into())
    }

    pub(super) fn warning(&mut self, at: Mark, message: impl Into<String>) -> Said<'_, 's> {
        self.say(Severity::Warning, at, message.into())
    }

    /// Adds a problem that has no place in a text.
    pub(super) fn push(&mut self, problem: Problem) {
        self.list.push(problem);
    }

    pub(super) fn spot(&self, at: Mark) -> Spot {
        let file = &self.files[at.file as usize];
        let line = line_of(&file.lines, at.start);
        let start = file.lines[line] as usize;
        let before = file.text.get(start..at.start as usize).unwrap_or_default();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Spot {
            file: Arc::clone(&file.path),
            line: count(line + 1),
            column: count(before.chars().count() + 1),
            span: at.start as usize..at.end as usize,
        }
    }

    /// The text at `at`, as it was written.
    pub(super) fn raw(&self, at: Mark) -> &'s str {
        self.files[at.file as usize].text.get(at.start as usize..at.end as usize).unwrap_or_default()
    }

    pub(super) fn has_errors(&self) -> bool {
        self.list.iter().any(|problem| problem.severity == Severity::Error)
    }

    pub(super) fn into_list(self) -> Vec<Problem> {
        self.list
    }

    fn say(&mut self, severity: Severity, at: Mark, message: String) -> Said<'_, 's> {
        if self.is_blind(at) {
            return Said { problems: self, index: None };
        }
        let problem = Problem::new(severity, message).at(self.spot(at));
        self.list.push(problem);
        let index = self.list.len() - 1;
        Said { problems: self, index: Some(index) }
    }
}

/// A problem that was just reported, to which more can be said.
pub(super) struct Said<'p, 's> {
    problems: &'p mut Problems<'s>,
    index: Option<usize>,
}

impl Said<'_, '_> {
    /// Says what would be right.
    pub(super) fn help(self, text: impl Into<String>) -> Self {
        if let Some(index) = self.index {
            self.problems.list[index].help = Some(text.into());
        }
        self
    }

    /// Shows another place that belongs to it.
    pub(super) fn also(self, at: Mark, text: impl Into<String>) -> Self {
        if let Some(index) = self.index {
            let spot = self.problems.spot(at);
            self.problems.list[index].also.push((spot, text.into()));
        }
        self
    }
}

/// Where each line of `text` starts.
pub(super) fn line_starts(text: &str) -> Vec<u32> {
    let after_newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
    std::iter::once(0).chain(after_newlines).map(|at| u32::try_from(at).unwrap_or(u32::MAX)).collect()
}

/// The line, from 0, in which the byte at `offset` stands.
pub(super) fn line_of(lines: &[u32], offset: u32) -> usize {
    lines.partition_point(|start| *start <= offset).saturating_sub(1)
}

/// The lines, from 0, of which nothing can be concluded when `line` does not parse: the line alone, or, where something
/// is open or the line is a table's header, all up to the next header.
fn derailed(text: &str, lines: &[u32], open: &[bool], line: usize) -> Range<usize> {
    let is_header = |line: usize| line_text(text, lines, line).trim_start().starts_with('[');
    if !open[line] && !(line > 0 && open[line - 1]) && !is_header(line) {
        return line..line + 1;
    }
    let next = (line + 1..lines.len()).find(|line| is_header(*line)).unwrap_or(lines.len());
    line..next
}

/// A line, from 0, with its newline.
pub(super) fn line_text<'t>(text: &'t str, lines: &[u32], line: usize) -> &'t str {
    let end = lines.get(line + 1).map_or(text.len(), |next| *next as usize);
    lines.get(line).and_then(|start| text.get(*start as usize..end)).unwrap_or_default()
}
