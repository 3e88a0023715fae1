//! What of a line may be shown. A config that holds a secret where none belongs, or a faulty line that holds one, is
//! exactly what messages are about, so nothing is shown that is not known to be harmless: a key that this program knows, and
//! a value that is what its key wants and could hardly be a secret: a duration, a mode, a word of a list, an id, an absolute
//! path. All else is masked, comments and refused values too; the place in the file is told with each problem.
//!
//! This goes by the text, not by the parsed tree: it must hold where the text does not parse.

use std::ops::Range;

use super::collect::line_of;
use super::lexemes::{Lexeme, LexemeKind, Lexemes};
use crate::config::schema::{self, ValueKind};
use crate::domain::{AppName, CorpId};

/// The bytes of `text` that must not be shown, in order, as far as the text as a whole tells.
pub(crate) fn hidden(text: &str) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    let mut lexemes = Lexemes::new(text);
    while let Some(token) = lexemes.next() {
        hide(text, &token, Sight::Whole, &mut hidden);
    }
    hidden
}

/// The bytes of `line` that must not be shown, as far as the line alone tells: a quote too many somewhere before makes
/// strings of what lies between strings, but what follows a key on its own line belongs to that key. Of a `broken` line,
/// one that does not parse, nothing else is shown, and nothing at all if it speaks of secrets.
pub(crate) fn hidden_in_line(line: &str, broken: bool) -> Vec<Range<usize>> {
    let suspicious = broken && speaks_of_secrets(line);
    let sight = if broken { Sight::BrokenLine } else { Sight::Line };
    let mut hidden = Vec::new();
    let mut lexemes = Lexemes::new(line);
    while let Some(token) = lexemes.next() {
        if token.kind == LexemeKind::Value && suspicious {
            hidden.extend(inside(line, &token).filter(|_| !schema::is_known(&line[token.span.clone()])));
        } else if token.key.is_some() || token.kind != LexemeKind::Value || broken {
            hide(line, &token, sight, &mut hidden);
        }
    }
    hidden
}

/// How much of the text was seen before a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// All of it, so that the table is known in which something stands.
    Whole,
    /// Its line alone.
    Line,
    /// Its line alone, which does not parse.
    BrokenLine,
}

/// Which lines, from 0, end within a bracket or a string.
pub(crate) fn open_lines(text: &str, lines: &[u32]) -> Vec<bool> {
    let mut open = vec![false; lines.len()];
    let mut lexemes = Lexemes::new(text);
    let line = |at: usize| line_of(lines, u32::try_from(at).unwrap_or(u32::MAX));
    while let Some(token) = lexemes.next() {
        let first = line(token.span.start);
        if token.kind == LexemeKind::Newline {
            open[first] = lexemes.is_open();
        } else {
            open[first..line(token.span.end)].fill(true);
        }
    }
    open
}

fn speaks_of_secrets(line: &str) -> bool {
    let line = line.to_lowercase();
    let words = line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'));
    ["secret", "passw", "token", "credential", "key"].iter().any(|word| line.contains(word))
        || words.into_iter().any(|word| strsim::damerau_levenshtein(word, "client_secret") <= 4)
}

fn hide(text: &str, token: &Lexeme<'_>, sight: Sight, hidden: &mut Vec<Range<usize>>) {
    let written = &text[token.span.clone()];
    match token.kind {
        LexemeKind::Newline => {}
        // Strings of several lines are how the end of one string swallows the next.
        _ if written.contains('\n') => hidden.push(token.span.clone()),
        LexemeKind::Comment => {
            hidden.extend(Some(token.span.start + 1..token.span.end).filter(|range| !range.is_empty()))
        }
        LexemeKind::Key => hide_key(written, token, sight, hidden),
        LexemeKind::Value if schema::is_known(written) => {}
        LexemeKind::Value => {
            let Some(inner) = inside(text, token) else { return };
            let value = &text[inner.clone()];
            if !may_be_shown(token, value, inner == token.span, sight) {
                hidden.push(inner);
            } else if token.key == Some("proxy")
                && let Some(at) = value.rfind('@')
            {
                hidden.push(inner.start..inner.start + at);
            }
        }
    }
}

/// Hides the parts of a key that are neither known nor the name of an app or a tenant, each by itself.
fn hide_key(written: &str, token: &Lexeme<'_>, sight: Sight, hidden: &mut Vec<Range<usize>>) {
    let is_name = |part: &str| AppName::new(part).is_ok() || CorpId::new(part).is_ok();
    let mut at = token.span.start;
    let mut before = token.table;
    for (nth, part) in written.split('.').enumerate() {
        let shown = part.is_empty()
            || schema::is_showable(part)
            || match before {
                Some("app") => AppName::new(part).is_ok(),
                Some("tenant") => CorpId::new(part).is_ok(),
                // The line alone does not tell what stands above it.
                _ => nth == 0 && sight == Sight::Line && !token.in_header && is_name(part),
            };
        if !shown {
            hidden.push(at..at + part.len());
        }
        at += part.len() + 1;
        before = Some(part);
    }
}

/// Whether a value is what its key wants, and could hardly be a secret.
fn may_be_shown(token: &Lexeme<'_>, value: &str, bare: bool, sight: Sight) -> bool {
    let Some(key) = token.key.filter(|key| *key != "client_secret" && schema::is_known(key)) else { return false };
    if bare && schema::is_short_number(value) {
        return true;
    }
    let is_sink = token.table == Some("sink") || (sight == Sight::Line && token.table.is_none());
    schema::keys_named(key).any(|key| match key.kind {
        _ if key.masked => false,
        // The place of a client secret, which is a `file` too, is nobody's business before it was read.
        ValueKind::SinkPath => is_sink && key.kind.shows(value, bare),
        kind => kind.shows(value, bare),
    })
}

/// All of a bare word; of a string, what stands between its quotes.
fn inside(text: &str, token: &Lexeme<'_>) -> Option<Range<usize>> {
    let written = &text[token.span.clone()];
    let quote = written.chars().next().filter(|c| ['"', '\''].contains(c));
    let Some(quote) = quote else { return Some(token.span.clone()) };
    let opening = written.len() - written.trim_start_matches(quote).len();
    let opening = if opening >= 3 { 3 } else { 1 };
    let rest = &written[opening..];
    let closing = if rest.len() >= opening && rest.ends_with(&written[..opening]) { opening } else { 0 };
    let range = token.span.start + opening..token.span.end - closing;
    (!range.is_empty()).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, hidden: Vec<Range<usize>>) -> String {
        let mut text = text.to_owned();
        for range in hidden.into_iter().rev() {
            text.replace_range(range, "…");
        }
        text
    }

    #[test]
    fn values_of_known_keys_are_shown_and_all_else_is_not() {
        let text = "timeout = \"9s\" # a\nclient_secret = { file = \"f\" }\nclient_secret = 'x'\nzzz = 5\ncorp_ids = [\n\"a\"]\n";
        let expected =
            "timeout = \"9s\" #…\nclient_secret = { file = \"…\" }\nclient_secret = '…'\n… = …\ncorp_ids = [\n\"a\"]\n";
        assert_eq!(shown(text, hidden(text)), expected);
    }

    #[test]
    fn strings_of_several_lines_are_not_shown_whatever_their_key() {
        let text = "client_id = \"\"\"\nx\nclient_secret = \"y\"\n";
        assert_eq!(shown(text, hidden(text)), "client_id = …");
    }

    #[test]
    fn a_broken_line_shows_only_what_a_harmless_key_stands_before() {
        let line = |text: &str| shown(text, hidden_in_line(text, true));
        assert_eq!(line("x\", \"y\""), "…, \"…\"");
        assert_eq!(line("timeout = 10s"), "timeout = 10s");
        assert_eq!(line("file = \"a\" client_secret \"y\""), "file = \"…\" client_secret \"…\"");
        assert_eq!(line("proxy = http://u:p@h"), "proxy = …");
        assert_eq!(shown("\"a\", 5", hidden_in_line("\"a\", 5", false)), "\"a\", 5", "an element of a list, perhaps");
    }

    #[test]
    fn urls_are_shown_without_what_stands_before_the_host() {
        let text = "endpoint = \"https://u:p@h\"\nproxy = \"http://h\"\n";
        assert_eq!(shown(text, hidden(text)), "endpoint = \"…\"\nproxy = \"http://h\"\n");
    }

    #[test]
    fn lines_within_brackets_and_strings_are_open() {
        let text = "a = [\n1,\n]\nb = 1\nc = '''\n[x]\n'''\n[d]\n";
        let lines = super::super::collect::line_starts(text);
        assert_eq!(open_lines(text, &lines), [true, true, false, false, true, true, false, false, false]);
    }
}
