//! Reports as a compiler would print them: file, line, column, the line with a marker under it, and a remedy.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::excerpt::{Line, Text};
use super::report::{Diagnostic, Location, Report, Severity};
use super::sources::Sources;

/// More than anybody reads.
const MOST: usize = 100;

impl Report {
    /// The report for people. Lines of the files are shown with everything masked that could be a secret. At most 100
    /// problems are printed; the rest is counted.
    pub fn render(&self, sources: &Sources, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
        let shown = &self.diagnostics[..self.diagnostics.len().min(MOST)];
        let texts = Texts::of(shown, &self.diagnostics, sources);
        let mut out = String::new();
        for diagnostic in shown {
            let places = diagnostic.at.iter().map(|location| (location, None));
            let places = places.chain(diagnostic.also.iter().map(|(location, label)| (location, Some(label.as_str()))));
            let places: Vec<LabelledLine<'_>> = places.map(|(location, label)| texts.place(location, label)).collect();
            let rendered = renderer.render(&[group(diagnostic, &places)]);
            out.push_str(&places.iter().fold(rendered, |text, place| place.with_true_column(&text)));
            out.push_str("\n\n");
        }
        if self.diagnostics.len() > MOST {
            let _ = writeln!(out, "… and {} more", self.diagnostics.len() - MOST);
        }
        out
    }
}

fn group<'a>(diagnostic: &'a Diagnostic, places: &'a [LabelledLine<'a>]) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(diagnostic.message.as_str()));
    for place in places {
        group = match &place.line {
            Some(line) => group.element(place.snippet(line)),
            None => group.element(place.origin()),
        };
    }
    match &diagnostic.help {
        Some(help) => group.element(Level::HELP.message(help.as_str())),
        None => group,
    }
}

/// A place that a problem is about.
struct LabelledLine<'a> {
    location: &'a Location,
    label: Option<&'a str>,
    line: Option<Line>,
}

impl LabelledLine<'_> {
    fn origin(&self) -> Origin<'_> {
        let origin = Origin::path(self.location.file.to_string_lossy());
        match self.location.line {
            0 => origin,
            line => origin.line(line as usize).char_column(self.location.column as usize),
        }
    }

    fn snippet<'l>(&'l self, line: &'l Line) -> Snippet<'l, annotate_snippets::Annotation<'l>> {
        let annotation = match self.label {
            Some(label) => AnnotationKind::Context.span(line.marker.clone()).label(label),
            None => AnnotationKind::Primary.span(line.marker.clone()),
        };
        Snippet::source(line.text.as_str())
            .path(self.location.file.to_string_lossy())
            .line_start(self.location.line as usize)
            .annotation(annotation)
    }

    /// The column in the heading was counted in what is shown; where something before it is masked or cut off, that is
    /// not the column in the file.
    fn with_true_column(&self, rendered: &str) -> String {
        let Location { file, line: number, column, .. } = self.location;
        let shown = self.line.as_ref().map(|line| line.text[..line.marker.start].chars().count() + 1);
        match shown {
            Some(shown) if shown != *column as usize => {
                let heading = |column: usize| format!("{}:{number}:{column}", file.display());
                rendered.replacen(&heading(shown), &heading(*column as usize), 1)
            }
            _ => rendered.to_owned(),
        }
    }
}

/// The files that the problems are about.
struct Texts<'s>(HashMap<&'s Path, Text<'s>>);

impl<'s> Texts<'s> {
    fn of(shown: &[Diagnostic], all: &[Diagnostic], sources: &'s Sources) -> Self {
        let mentioned = |path: &Path| {
            shown
                .iter()
                .flat_map(|p| p.at.iter().chain(p.also.iter().map(|(location, _)| location)))
                .any(|s| &*s.file == path)
        };
        let texts = sources.files.iter().filter(|source| mentioned(&source.path)).map(|source| {
            let here = |location: &&Location| *location.file == *source.path;
            let broken = all.iter().filter(|p| p.is_syntax).filter_map(|p| p.at.as_ref()).filter(here);
            let broken = broken.filter_map(|location| (location.line as usize).checked_sub(1));
            (source.path.as_path(), Text::new(&source.text, broken.collect()))
        });
        Self(texts.collect())
    }

    fn place<'a>(&self, location: &'a Location, label: Option<&'a str>) -> LabelledLine<'a> {
        LabelledLine { location, label, line: self.line(location) }
    }

    fn line(&self, location: &Location) -> Option<Line> {
        let number = (location.line as usize).checked_sub(1)?;
        self.0.get(&*location.file)?.line(number, location.bytes.clone())
    }
}
