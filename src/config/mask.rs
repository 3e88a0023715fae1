//! What of a line may be shown. A config that holds a secret where none belongs, or a faulty line that holds one, is
//! exactly what messages are about, so nothing is shown that is not known to be harmless: the value of a key that this
//! program knows and that holds no secret. All else is masked, comments too.
//!
//! This goes by the text, not by the parsed tree: it must hold where the text does not parse.

use std::ops::Range;

use super::keys;
use super::problems::line_of;
use super::scan::{Kind, Scan, Token};

/// Longer words than any key or app name have no business being shown as keys.
const LONGEST_KEY: usize = 40;

/// Keys whose values are names, and which a hasty hand may give the secret itself.
const NAMES: [&str; 2] = ["credential", "env"];

/// Keys whose strings are shown without what stands before an `@`.
const URLS: [&str; 2] = ["endpoint", "proxy"];

/// The bytes of `text` that must not be shown, in order, as far as the text as a whole tells.
pub(super) fn hidden(text: &str) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    let mut scan = Scan::new(text);
    while let Some(token) = scan.next() {
        hidden.extend(hide(text, &token));
    }
    hidden
}

/// The bytes of `line` that must not be shown, as far as the line alone tells: a quote too many somewhere before makes
/// strings of what lies between strings, but what follows a key on its own line belongs to that key. Of a `broken` line,
/// one that does not parse, nothing else is shown, and nothing at all if it speaks of secrets.
pub(super) fn hidden_in_line(line: &str, broken: bool) -> Vec<Range<usize>> {
    let suspicious = broken && speaks_of_secrets(line);
    let mut hidden = Vec::new();
    let mut scan = Scan::new(line);
    while let Some(token) = scan.next() {
        let is_value = token.kind == Kind::Value;
        let is_url = token.key.is_some_and(|key| URLS.contains(&key));
        if is_value && (suspicious || (broken && (is_url || !token.harmless()))) {
            hidden.extend(inside(line, &token).filter(|_| !keys::is_known(&line[token.span.clone()])));
        } else if token.key.is_some() || !is_value {
            hidden.extend(hide(line, &token));
        }
    }
    hidden
}

/// Which lines, from 0, end within a bracket or a string.
pub(super) fn open_lines(text: &str, lines: &[u32]) -> Vec<bool> {
    let mut open = vec![false; lines.len()];
    let mut scan = Scan::new(text);
    let line = |at: usize| line_of(lines, u32::try_from(at).unwrap_or(u32::MAX));
    while let Some(token) = scan.next() {
        let first = line(token.span.start);
        if token.kind == Kind::Newline {
            open[first] = scan.is_open();
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

fn hide(text: &str, token: &Token<'_>) -> Option<Range<usize>> {
    let written = &text[token.span.clone()];
    let all = Some(token.span.clone());
    match token.kind {
        Kind::Newline => None,
        // Strings of several lines are how the end of one string swallows the next.
        _ if written.contains('\n') => all,
        Kind::Comment => Some(token.span.start + 1..token.span.end).filter(|range| !range.is_empty()),
        Kind::Key if written.split('.').any(|part| part.len() > LONGEST_KEY && !token.in_header) => all,
        Kind::Key if token.in_header || is_bare(written) => None,
        Kind::Key => all,
        Kind::Value if keys::is_known(written) => None,
        Kind::Value if !token.harmless() => inside(text, token),
        Kind::Value => match token.key {
            Some(key) if URLS.contains(&key) => written.rfind('@').map(|at| token.span.start..token.span.start + at),
            Some(key) if NAMES.contains(&key) && written.len() > LONGEST_KEY => inside(text, token),
            _ => None,
        },
    }
}

/// All of a bare word; of a string, what stands between its quotes.
fn inside(text: &str, token: &Token<'_>) -> Option<Range<usize>> {
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

fn is_bare(key: &str) -> bool {
    key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
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
        let expected = "timeout = \"9s\" #…\nclient_secret = { file = \"f\" }\nclient_secret = '…'\nzzz = …\ncorp_ids = [\n\"a\"]\n";
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
        assert_eq!(line("x\", \"y\""), "…\"…\"…\"");
        assert_eq!(line("timeout = 10s"), "timeout = 10s");
        assert_eq!(line("file = \"a\" client_secret \"y\""), "file = \"…\" client_secret \"…\"");
        assert_eq!(line("proxy = http://u:p@h"), "proxy = …");
        assert_eq!(shown("\"a\", 5", hidden_in_line("\"a\", 5", false)), "\"a\", 5", "an element of a list, perhaps");
    }

    #[test]
    fn urls_are_shown_without_what_stands_before_the_host() {
        let text = "endpoint = \"https://u:p@h\"\nproxy = \"http://h\"\n";
        assert_eq!(shown(text, hidden(text)), "endpoint = …@h\"\nproxy = \"http://h\"\n");
    }

    #[test]
    fn lines_within_brackets_and_strings_are_open() {
        let text = "a = [\n1,\n]\nb = 1\nc = '''\n[x]\n'''\n[d]\n";
        let lines = super::super::problems::line_starts(text);
        assert_eq!(open_lines(text, &lines), [true, true, false, false, true, true, false, false, false]);
    }
}
