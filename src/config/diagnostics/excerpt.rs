//! One line of a file as it may be shown: what must stay hidden gave way to an `…`, and so did what is far from the place
//! that is meant.

use std::collections::HashSet;
use std::ops::Range;

use super::collect::{line_starts, line_text};
use super::redact;

/// How many bytes are shown before and after the place that is meant begins.
const AROUND: usize = 80;
/// A line longer than this is not looked at by itself.
const LONG: usize = 64 << 10;

/// A file's text, and what of it must stay hidden.
pub(crate) struct Text<'s> {
    text: &'s str,
    lines: Vec<u32>,
    /// Lines, from 0, that do not parse.
    broken: HashSet<usize>,
    hidden: Vec<Range<usize>>,
}

/// A line that may be shown, and what of it is meant.
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) marker: Range<usize>,
}

impl<'s> Text<'s> {
    pub(crate) fn new(text: &'s str, broken: HashSet<usize>) -> Self {
        Self { text, lines: line_starts(text), broken, hidden: redact::hidden(text) }
    }

    /// Line `number`, from 0, with a marker under those of its bytes that are in `span`.
    pub(crate) fn line(&self, number: usize, span: Range<usize>) -> Option<Line> {
        let start = *self.lines.get(number)? as usize;
        let written = line_text(self.text, &self.lines, number).trim_end_matches(['\n', '\r']);
        let end = start + written.len();
        let meant = span.start.clamp(start, end)..span.end.clamp(start, end);
        let from = self.boundary(meant.start.saturating_sub(AROUND).max(start));
        let to = self.boundary((meant.start + AROUND).min(end));
        let mut line = Masked { text: String::new(), moved: Vec::new() };
        if from > start {
            line.mask(start..from);
        }
        let mut at = from;
        for range in self.hidden_in(number, start..end, from..to) {
            let range = range.start.max(at)..range.end.min(to);
            // One stretch can be hidden for two reasons.
            if !range.is_empty() {
                line.keep(self.text, at..range.start);
                line.mask(range.clone());
                at = range.end;
            }
        }
        line.keep(self.text, at..to);
        if to < end {
            line.mask(to..end);
        }
        let marker = line.place_of(meant.start)..line.place_of(meant.end);
        Some(Line { marker: marker.start..marker.end.max(marker.start), text: line.text })
    }

    /// What must not be shown of the part of a line that is looked at, sorted. A line may hold 100,000 such stretches, and
    /// each may have its problem.
    fn hidden_in(&self, number: usize, bytes: Range<usize>, part: Range<usize>) -> Vec<Range<usize>> {
        let broken = self.broken.contains(&number);
        let first = self.hidden.partition_point(|range| range.end <= part.start);
        let by_text = self.hidden[first..].iter().take_while(|range| range.start < part.end).cloned();
        let by_line = match bytes.len() {
            0..LONG => redact::hidden_in_line(&self.text[bytes.clone()], broken),
            length => Vec::from_iter(broken.then_some(0..length)),
        };
        let by_line = by_line.into_iter().map(|range| range.start + bytes.start..range.end + bytes.start);
        let mut hidden: Vec<Range<usize>> = by_text.chain(by_line).collect();
        hidden.sort_by_key(|range| range.start);
        hidden
    }

    fn boundary(&self, mut at: usize) -> usize {
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

/// A line in the making.
struct Masked {
    text: String,
    /// Stretches of the file, and where they went.
    moved: Vec<(Range<usize>, Range<usize>)>,
}

impl Masked {
    fn keep(&mut self, text: &str, range: Range<usize>) {
        // Character by character, so that every place that is looked for has an entry of its own.
        for (at, character) in text[range.clone()].char_indices() {
            let to = self.text.len();
            self.text.push(character);
            let from = range.start + at;
            self.moved.push((from..from + character.len_utf8(), to..self.text.len()));
        }
    }

    fn mask(&mut self, range: Range<usize>) {
        let to = self.text.len();
        if !self.text.ends_with('…') {
            self.text.push('…');
        }
        self.moved.push((range, to..self.text.len()));
    }

    /// Where an offset of the file is now; within a masked stretch, its beginning.
    fn place_of(&self, offset: usize) -> usize {
        let next = self.moved.partition_point(|(from, _)| from.end <= offset);
        self.moved.get(next).map_or(self.text.len(), |(_, to)| to.start)
    }
}
