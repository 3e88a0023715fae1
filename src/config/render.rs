//! Reports as a compiler would print them: file, line, column, the line with a marker under it, and a remedy.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::files::Sources;
use super::mask;
use super::problems::{line_starts, line_text};
use super::report::{Problem, Report, Severity, Spot};

/// More than anybody reads.
const MOST: usize = 100;
/// The longest stretch of a line that is shown, in characters, with the marker in it.
const WIDTH: usize = 160;

impl Report {
    /// The report for people. Lines of the files are shown with everything masked that could be a secret. At most 100
    /// problems are printed; the rest is counted.
    pub fn render(&self, sources: &Sources, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
        let shown = &self.problems[..self.problems.len().min(MOST)];
        let texts = Texts::of(shown, &self.problems, sources);
        let mut out = String::new();
        for problem in shown {
            let places = problem.at.iter().map(|spot| (spot, None));
            let places = places.chain(problem.also.iter().map(|(spot, label)| (spot, Some(label.as_str()))));
            let places: Vec<Place<'_>> = places.map(|(spot, label)| texts.place(spot, label)).collect();
            let rendered = renderer.render(&[group(problem, &places)]);
            out.push_str(&places.iter().fold(rendered, |text, place| place.with_true_column(&text)));
            out.push_str("\n\n");
        }
        if self.problems.len() > MOST {
            let _ = writeln!(out, "… and {} more", self.problems.len() - MOST);
        }
        out
    }
}

fn group<'a>(problem: &'a Problem, places: &'a [Place<'a>]) -> Group<'a> {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(problem.message.as_str()));
    for place in places {
        group = match &place.line {
            Some(line) => group.element(place.snippet(line)),
            None => group.element(place.origin()),
        };
    }
    match &problem.help {
        Some(help) => group.element(Level::HELP.message(help.as_str())),
        None => group,
    }
}

/// A place that a problem is about.
struct Place<'a> {
    spot: &'a Spot,
    label: Option<&'a str>,
    line: Option<Line>,
}

/// A line that may be shown, and what of it is meant.
struct Line {
    text: String,
    marker: Range<usize>,
}

impl Place<'_> {
    fn origin(&self) -> Origin<'_> {
        let origin = Origin::path(self.spot.file.to_string_lossy());
        match self.spot.line {
            0 => origin,
            line => origin.line(line as usize).char_column(self.spot.column as usize),
        }
    }

    fn snippet<'l>(&'l self, line: &'l Line) -> Snippet<'l, annotate_snippets::Annotation<'l>> {
        let annotation = match self.label {
            Some(label) => AnnotationKind::Context.span(line.marker.clone()).label(label),
            None => AnnotationKind::Primary.span(line.marker.clone()),
        };
        Snippet::source(line.text.as_str())
            .path(self.spot.file.to_string_lossy())
            .line_start(self.spot.line as usize)
            .annotation(annotation)
    }

    /// The column in the heading was counted in what is shown; where something before it is masked or cut off, that is
    /// not the column in the file.
    fn with_true_column(&self, rendered: &str) -> String {
        let Spot { file, line: number, column, .. } = self.spot;
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

struct Text<'s> {
    text: &'s str,
    lines: Vec<u32>,
    hidden: Vec<Range<usize>>,
}

impl<'s> Texts<'s> {
    fn of(shown: &[Problem], all: &[Problem], sources: &'s Sources) -> Self {
        let mentioned = |path: &Path| {
            shown.iter().flat_map(|p| p.at.iter().chain(p.also.iter().map(|(spot, _)| spot))).any(|s| &*s.file == path)
        };
        let texts = sources.files.iter().filter(|source| mentioned(&source.path)).map(|source| {
            let lines = line_starts(&source.text);
            let mut broken = vec![false; lines.len()];
            for spot in all.iter().filter(|p| p.syntax).filter_map(|p| p.at.as_ref()) {
                if *spot.file == *source.path
                    && let Some(line) = broken.get_mut((spot.line as usize).wrapping_sub(1))
                {
                    *line = true;
                }
            }
            let hidden = mask::hidden(&source.text, &lines, &|line| broken[line]);
            (source.path.as_path(), Text { text: &source.text, lines, hidden })
        });
        Self(texts.collect())
    }

    fn place<'a>(&self, spot: &'a Spot, label: Option<&'a str>) -> Place<'a> {
        Place { spot, label, line: self.line(spot) }
    }

    fn line(&self, spot: &Spot) -> Option<Line> {
        let file = self.0.get(&*spot.file)?;
        let number = (spot.line as usize).checked_sub(1)?;
        let start = *file.lines.get(number)? as usize;
        let written = line_text(file.text, &file.lines, number).trim_end_matches(['\n', '\r']);
        let end = start + written.len();
        let mut line = Masked { text: String::new(), moved: Vec::new() };
        let mut at = start;
        let first = file.hidden.partition_point(|range| range.end <= start);
        for range in file.hidden[first..].iter().take_while(|range| range.start < end) {
            line.keep(file.text, at..range.start.max(start));
            at = range.end.min(end);
            line.mask(range.start.max(start)..at);
        }
        line.keep(file.text, at..end);
        let from = line.place_of(spot.span.start.clamp(start, end));
        let to = line.place_of(spot.span.end.clamp(start, end)).max(from);
        Some(cut(line.text, from..to))
    }
}

/// A line in which some stretches gave way to an `…`.
struct Masked {
    text: String,
    /// Stretches of the file, and where they went.
    moved: Vec<(Range<usize>, Range<usize>)>,
}

impl Masked {
    fn keep(&mut self, text: &str, range: Range<usize>) {
        let to = self.text.len();
        self.text.push_str(&text[range.clone()]);
        self.moved.push((range, to..self.text.len()));
    }

    fn mask(&mut self, range: Range<usize>) {
        let to = self.text.len();
        self.text.push('…');
        self.moved.push((range, to..self.text.len()));
    }

    /// Where an offset of the file is now; within a masked stretch, its nearer end.
    fn place_of(&self, offset: usize) -> usize {
        let Some((from, to)) = self.moved.iter().find(|(from, _)| offset <= from.end) else { return self.text.len() };
        if offset <= from.start {
            to.start
        } else if from.len() == to.len() && offset < from.end {
            to.start + (offset - from.start)
        } else {
            to.end
        }
    }
}

/// Shortens a line of many thousand corp_ids to what surrounds the marker.
fn cut(text: String, marker: Range<usize>) -> Line {
    if text.len() <= WIDTH {
        return Line { text, marker };
    }
    let boundary = |mut at: usize| {
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let from = boundary(marker.start.saturating_sub(WIDTH / 2));
    let to = boundary((from + WIDTH).min(text.len()));
    let (before, after) = (if from > 0 { "…" } else { "" }, if to < text.len() { "…" } else { "" });
    let place = |at: usize| at.clamp(from, to) - from + before.len();
    Line { marker: place(marker.start)..place(marker.end), text: format!("{before}{}{after}", &text[from..to]) }
}
