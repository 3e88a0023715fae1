//! Parsing that goes on after a fault. The parser recovers within a line, but after a bracket or a quote that is not closed it
//! takes the rest of the file for a part of it. So a faulty stretch is reported and blanked, and the rest is parsed again.

use std::ops::Range;

use toml::de::{DeTable, Error};

use crate::config::diagnostics::collect::{Diagnostics, Span, line_of, line_starts, line_text};
use crate::config::diagnostics::redact;
use crate::config::diagnostics::sources::Source;

/// How many faulty stretches of a file are reported. The rest is reported once these are mended.
const MOST: usize = 20;

/// The text of each source that does not parse, with its faulty stretches blanked; `None` for those that do. All offsets
/// stay as they were.
pub(crate) fn blank_faults(
    sources: &[Source],
    errors: &[Vec<Error>],
    diagnostics: &Diagnostics<'_>,
) -> Vec<Option<String>> {
    let sources = sources.iter().zip(errors).enumerate();
    sources
        .map(|(file, (source, errors))| {
            let mut first = first_of(errors)?;
            let lines = line_starts(&source.text);
            let mut text = source.text.clone();
            for _ in 0..MOST {
                let (at, message) = first;
                let (at, faulty) = stretch(&text, &lines, at);
                diagnostics.syntax_error(Span::new(file, at..at), message);
                text = blank(text, faulty);
                let Some(next) = first_of(&DeTable::parse_recoverable(&text).1) else { break };
                first = next;
            }
            Some(text)
        })
        .collect()
}

/// Where the first error is, and what.
fn first_of(errors: &[Error]) -> Option<(usize, String)> {
    let first = errors.iter().min_by_key(|error| error.span().map_or(0, |span| span.start))?;
    Some((first.span().unwrap_or_default().start, format!("this is not TOML: {}", first.message())))
}

/// The bytes that a fault makes unreadable: its line, or, where something is left open or the line is a table's header, all
/// up to the next header. A string or bracket without an end is noticed at the end of the file; what is wrong is where it
/// begins, and that is where the error goes.
fn stretch(text: &str, lines: &[u32], at: usize) -> (usize, Range<usize>) {
    let open = redact::open_lines(text, lines);
    let is_header = |line: usize| line_text(text, lines, line).trim_start().starts_with('[');
    let line = line_of(lines, u32::try_from(at).unwrap_or(u32::MAX));
    let start_of = |line: usize| lines.get(line).map_or(text.len(), |start| *start as usize);
    let first = (0..line).rev().take_while(|before| open[*before]).last().unwrap_or(line);
    if first == line && !open[line] && !is_header(line) {
        return (at, start_of(line)..start_of(line + 1));
    }
    let at_the_end = first < line && text[at..].trim().is_empty();
    let from = if at_the_end { first } else { line };
    let next = (from + 1..lines.len()).find(|line| is_header(*line)).unwrap_or(lines.len());
    let indent = text[start_of(first)..].len() - text[start_of(first)..].trim_start().len();
    let reported = if at_the_end { start_of(first) + indent } else { at };
    (reported, start_of(first)..start_of(next))
}

/// Only whole lines are blanked, so what is left is still UTF-8.
fn blank(text: String, lines: Range<usize>) -> String {
    let mut bytes = text.into_bytes();
    for byte in bytes[lines].iter_mut().filter(|byte| **byte != b'\n') {
        *byte = b' ';
    }
    String::from_utf8(bytes).unwrap_or_default()
}
