//! Diagnostics, each with a location, a message and a remedy, and the report that holds them all.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::domain::is_invisible;

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The config cannot be used.
    Error,
    /// The config can be used, but the operator should know.
    Warning,
}

impl Severity {
    /// `error` or `warning`, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The file, as the operator named it.
    pub file: Arc<Path>,
    /// Counted from 1; 0 when the file as a whole is meant.
    pub line: u32,
    /// In characters, counted from 1; 0 when the file as a whole is meant.
    pub column: u32,
    /// Bytes of the file's text.
    pub(crate) bytes: Range<usize>,
}

impl Location {
    /// The file as a whole.
    pub fn file(file: impl Into<Arc<Path>>) -> Self {
        Self { file: file.into(), line: 0, column: 0, bytes: 0..0 }
    }

    /// The place that follows `before`, the beginning of the file.
    pub(crate) fn after(file: &Path, before: &str) -> Self {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Self {
            file: file.into(),
            line: count(before.matches('\n').count() + 1),
            column: count(line.chars().count() + 1),
            bytes: before.len()..before.len(),
        }
    }

    fn to_json(&self) -> Value {
        let number = |n: u32| (n > 0).then_some(n);
        json!({ "file": self.file.to_string_lossy(), "line": number(self.line), "column": number(self.column) })
    }
}

/// `config.toml:12:5`, or the file alone.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 { write!(f, ":{}:{}", self.line, self.column) } else { Ok(()) }
    }
}

/// One thing that is wrong. Its texts never hold a secret, nor any value that could be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub message: String,
    /// Where; `None` when it is not about a file.
    pub at: Option<Location>,
    /// Other places that belong to it, each with what is there.
    pub also: Vec<(Location, String)>,
    /// What would be right.
    pub help: Option<String>,
    /// Something did not answer in time, so the fault may end by itself.
    pub hangs: bool,
    /// A syntax error: the meaning of the words on its line is unknown, so fewer of them are shown.
    pub(crate) is_syntax: bool,
}

impl Diagnostic {
    /// A diagnostic without a location.
    pub fn new(severity: Severity, message: impl Into<String>) -> Self {
        Self {
            severity,
            message: message.into(),
            at: None,
            also: Vec::new(),
            help: None,
            hangs: false,
            is_syntax: false,
        }
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, location: Location) -> Self {
        self.at = Some(location);
        self
    }

    /// Marks that something did not answer in time, so that the fault may end by itself.
    #[must_use]
    pub fn that_hangs(mut self) -> Self {
        self.hangs = true;
        self
    }

    /// Says what would be right.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// The problem in one line, for the log and `systemctl status`: `config.toml:12:5: error: …`.
    pub fn one_line(&self) -> String {
        let mut line = self.at.as_ref().map(|location| format!("{location}: ")).unwrap_or_default();
        line.push_str(self.severity.as_str());
        line.push_str(": ");
        line.push_str(&self.message);
        line.replace(is_invisible, " ")
    }

    fn to_json(&self) -> Value {
        let mut value =
            self.at.as_ref().map_or_else(|| json!({ "file": null, "line": null, "column": null }), Location::to_json);
        value["severity"] = self.severity.as_str().into();
        value["message"] = self.message.as_str().into();
        value["help"] = self.help.as_deref().into();
        value["also"] = self
            .also
            .iter()
            .map(|(location, text)| {
                let mut place = location.to_json();
                place["message"] = text.as_str().into();
                place
            })
            .collect();
        value
    }
}

/// All that is wrong, errors first, each kind in the order of the files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The diagnostics.
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// Whether there is an error: such a config is not used.
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// Whether something did not answer in time: then the config is worth reading again later, even if no file changes.
    pub fn hangs(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.hangs)
    }

    /// Whether it has errors, and all of them may end by themselves, because something did not answer in time.
    pub fn may_end_by_itself(&self) -> bool {
        let mut errors = self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
        self.has_errors() && errors.all(|error| error.hangs)
    }

    /// How many problems of this severity there are.
    pub fn count(&self, severity: Severity) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count()
    }

    /// The first error, in one line, and how many more there are: for `STATUS=` and the log.
    pub fn headline(&self) -> Option<String> {
        let first = self.diagnostics.iter().find(|diagnostic| diagnostic.severity == Severity::Error)?;
        let more = self.count(Severity::Error) - 1;
        let line = first.one_line();
        Some(if more == 0 { line } else { format!("{line} (and {more} more)") })
    }

    /// The stable form: a list of objects with `severity` (`"error"`, `"warning"`), `file`, `line`, `column` (numbers
    /// counted from 1, or null), `message`, `help` (or null), and `also`, a list of `file`, `line`, `column`, `message`.
    pub fn to_json(&self) -> Value {
        self.diagnostics.iter().map(Diagnostic::to_json).collect()
    }
}

impl From<Diagnostic> for Report {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { diagnostics: vec![diagnostic] }
    }
}

impl FromIterator<Diagnostic> for Report {
    fn from_iter<T: IntoIterator<Item = Diagnostic>>(diagnostics: T) -> Self {
        let mut diagnostics: Vec<Diagnostic> = diagnostics.into_iter().collect();
        diagnostics.sort_by_key(|diagnostic| diagnostic.severity);
        Self { diagnostics }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_stays_one_line_and_json_keeps_its_keys() {
        let location = Location { file: Path::new("a\n.toml").into(), line: 12, column: 5, bytes: 0..1 };
        let diagnostic = Diagnostic::new(Severity::Error, "bad\nthing").at(location).help("do this");
        assert_eq!(diagnostic.one_line(), "a .toml:12:5: error: bad thing");
        let json = Report::from(diagnostic).to_json();
        assert_eq!(
            json[0],
            json!({ "file": "a\n.toml", "line": 12, "column": 5, "severity": "error", "message": "bad\nthing",
                    "help": "do this", "also": [] })
        );
    }

    #[test]
    fn the_headline_names_the_first_error_and_counts_the_rest() {
        let diagnostic = |severity, text: &str| Diagnostic::new(severity, text);
        let report: Report =
            [diagnostic(Severity::Warning, "w"), diagnostic(Severity::Error, "a"), diagnostic(Severity::Error, "b")]
                .into_iter()
                .collect();
        assert_eq!(report.headline().unwrap(), "error: a (and 1 more)");
        assert!(Report::default().headline().is_none());
    }
}
