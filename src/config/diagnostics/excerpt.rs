//! One line of a file as a report may show it: an `…` replaces what must stay hidden, and what is far from the marked bytes.

use std::collections::HashSet;
use std::ops::Range;

use super::collect::{line_starts, line_text};
use super::redact;

/// How many bytes are shown before and after the start of the marked bytes.
const AROUND: usize = 80;
/// Replaces hidden bytes, however many there are, so that the length of a secret is not shown either.
const HIDDEN: char = '…';
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

/// A line that may be shown, and the marked bytes of it.
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
        let hidden = self.hidden_in(number, start..end, from..to);
        let (mut shown, mut marker, mut next) = (String::new(), (None, None), 0);
        if from > start {
            shown.push(HIDDEN);
        }
        for (at, character) in self.text[from..to].char_indices().map(|(at, character)| (from + at, character)) {
            while hidden.get(next).is_some_and(|range| range.end <= at) {
                next += 1;
            }
            let is_hidden = hidden.get(next).is_some_and(|range| range.start <= at);
            if is_hidden && !shown.ends_with(HIDDEN) {
                shown.push(HIDDEN);
            }
            let place = if is_hidden { shown.len() - HIDDEN.len_utf8() } else { shown.len() };
            if at >= meant.start {
                marker.0.get_or_insert(place);
            }
            if at >= meant.end {
                marker.1.get_or_insert(place);
            }
            if !is_hidden {
                shown.push(character);
            }
        }
        let marker = marker.0.unwrap_or(shown.len())..marker.1.unwrap_or(shown.len());
        if to < end && !shown.ends_with(HIDDEN) {
            shown.push(HIDDEN);
        }
        Some(Line { text: shown, marker })
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
