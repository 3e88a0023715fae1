//! What of a line may be shown. A config that holds a secret where none belongs, or a faulty line that holds one, is
//! exactly what messages are about, so nothing is shown that is not known to be harmless: the value of a key that this
//! program knows and that holds no secret. All else is masked, comments too.
//!
//! This goes by the text, not by the parsed tree: it must hold where the text does not parse.

use std::ops::Range;

use super::keys;
use super::problems::{line_of, line_text};

/// Longer words than any key or app name have no business being shown as keys.
const LONGEST_KEY: usize = 40;

/// Keys whose values are names, and which a hasty hand may give the secret itself.
const NAMES: [&str; 2] = ["credential", "env"];

/// Keys whose strings are shown without what stands before an `@`.
const URLS: [&str; 2] = ["endpoint", "proxy"];

/// The bytes of `text` that must not be shown, in order. `broken` says of a line (from 0) that it does not parse;
/// `lines` is where each line starts.
pub(super) fn hidden(text: &str, lines: &[u32], broken: &dyn Fn(usize) -> bool) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    let mut scan = Scan::new(text);
    // Of a line with thousands of tokens it is found out once.
    let mut known = None;
    while let Some(token) = scan.next() {
        let line = line_of(lines, u32::try_from(token.span.start).unwrap_or(u32::MAX));
        let broken = broken(line);
        let suspicious = broken
            && match known {
                Some((of, speaks)) if of == line => speaks,
                _ => known.insert((line, speaks_of_secrets(line_text(text, lines, line)))).1,
            };
        if let Some(range) = hide(text, &token, broken, suspicious) {
            hidden.push(range);
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
            open[first] = !scan.stack.is_empty();
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

fn hide(text: &str, token: &Token<'_>, broken: bool, suspicious: bool) -> Option<Range<usize>> {
    let written = &text[token.span.clone()];
    let all = Some(token.span.clone());
    match token.kind {
        Kind::Newline => None,
        Kind::Comment => Some(token.span.start + 1..token.span.end).filter(|range| !range.is_empty()),
        Kind::Key if written.split('.').any(|part| part.len() > LONGEST_KEY && !token.in_header) => all,
        Kind::Key if token.in_header || is_bare(written) => None,
        Kind::Key => all,
        Kind::Value if keys::is_known(written) => None,
        // Strings of several lines are how the end of one string swallows the next.
        Kind::Value if suspicious || !token.harmless() || written.contains('\n') => inside(text, token),
        Kind::Value => match token.key {
            Some(key) if URLS.contains(&key) && broken => inside(text, token),
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A word or string that is followed by `=`, or that stands in a table's header.
    Key,
    /// A word or string that stands elsewhere.
    Value,
    Comment,
    Newline,
}

struct Token<'t> {
    kind: Kind,
    span: Range<usize>,
    /// The last part of the key that a value belongs to.
    key: Option<&'t str>,
    in_header: bool,
}

impl Token<'_> {
    /// Whether the value belongs to a key that is known and holds no secret.
    fn harmless(&self) -> bool {
        self.key.is_some_and(|key| key != "client_secret" && keys::is_known(key))
    }
}

/// Cuts a text into words, strings and comments, whatever is wrong with it.
struct Scan<'t> {
    text: &'t str,
    at: usize,
    /// The key before the last `=`.
    key: Option<&'t str>,
    /// The brackets that are open, with the key that each stands under.
    stack: Vec<(u8, Option<&'t str>)>,
    line_is_fresh: bool,
    in_header: bool,
}

impl<'t> Scan<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, at: 0, key: None, stack: Vec::new(), line_is_fresh: true, in_header: false }
    }

    fn next(&mut self) -> Option<Token<'t>> {
        loop {
            let start = self.at;
            let byte = *self.text.as_bytes().get(start)?;
            let end = match byte {
                b'#' => self.end_of_line(start),
                b'"' | b'\'' => self.end_of_string(start, byte),
                _ if is_separator(byte) => {
                    self.at += 1;
                    self.separator(byte);
                    if byte == b'\n' {
                        return Some(Token {
                            kind: Kind::Newline,
                            span: start..start + 1,
                            key: None,
                            in_header: false,
                        });
                    }
                    continue;
                }
                _ => self.text[start..]
                    .bytes()
                    .position(|b| is_separator(b) || b == b'#')
                    .map_or(self.text.len(), |n| start + n),
            };
            self.at = end;
            self.line_is_fresh = false;
            if byte == b'#' {
                return Some(Token { kind: Kind::Comment, span: start..end, key: None, in_header: false });
            }
            return Some(self.word(start..end, byte));
        }
    }

    fn word(&mut self, span: Range<usize>, first: u8) -> Token<'t> {
        let written = &self.text[span.clone()];
        let follows = self.text[span.end..].trim_start_matches([' ', '\t']);
        let quoted = first == b'"' || first == b'\'';
        if follows.starts_with('=') && !follows.starts_with("==") {
            // `a.b.client_secret = …`: the last part decides.
            let name = written.trim_matches(['"', '\'']);
            self.key = Some(if quoted { name } else { name.rsplit('.').next().unwrap_or(name) });
            self.in_header = false;
            return Token { kind: Kind::Key, span, key: None, in_header: false };
        }
        let dotted = follows.starts_with('.') && self.key.is_none();
        let kind = if self.in_header || dotted { Kind::Key } else { Kind::Value };
        Token { kind, span, key: self.key, in_header: self.in_header }
    }

    fn separator(&mut self, byte: u8) {
        match byte {
            b'\n' => {
                self.line_is_fresh = true;
                self.in_header = false;
                if self.stack.is_empty() {
                    self.key = None;
                }
            }
            b'[' if self.line_is_fresh && (self.stack.is_empty() || self.looks_like_a_header()) => {
                self.stack.clear();
                self.key = None;
                self.in_header = true;
                self.line_is_fresh = false;
            }
            b'[' | b'{' if !self.in_header => {
                self.stack.push((byte, self.key));
                if byte == b'{' {
                    self.key = None;
                }
            }
            b']' if self.in_header => {}
            b']' | b'}' => self.key = self.stack.pop().and_then(|(_, key)| key),
            b',' if self.stack.last().is_some_and(|(bracket, _)| *bracket == b'{') => self.key = None,
            _ => {}
        }
    }

    /// A `[` that begins a line within a list: a header all the same, if the line holds nothing else.
    fn looks_like_a_header(&self) -> bool {
        let line = &self.text[self.at..self.end_of_line(self.at)];
        let line = line.split('#').next().unwrap_or_default().trim();
        line.ends_with(']') && line.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.[]\"' ".contains(&b))
    }

    fn end_of_line(&self, from: usize) -> usize {
        self.text[from..].find('\n').map_or(self.text.len(), |n| from + n)
    }

    /// A string that does not end ends with its line, or, in three quotes, with the file.
    fn end_of_string(&self, start: usize, quote: u8) -> usize {
        let bytes = self.text.as_bytes();
        let long = bytes[start..].starts_with(&[quote; 3]);
        let mut at = start + if long { 3 } else { 1 };
        while at < bytes.len() {
            match bytes[at] {
                b'\\' if quote == b'"' && bytes.get(at + 1) != Some(&b'\n') => at += 1,
                b'\n' if !long => return at,
                b if b == quote && !long => return at + 1,
                b if b == quote && bytes[at..].starts_with(&[quote; 3]) => {
                    // Up to two more quotes belong to the string.
                    let extra = bytes[at + 3..].iter().take(2).take_while(|b| **b == quote).count();
                    return at + 3 + extra;
                }
                _ => {}
            }
            at += 1;
        }
        self.text.len()
    }
}

fn is_separator(byte: u8) -> bool {
    byte.is_ascii_whitespace() || b"=,[]{}\"'".contains(&byte)
}
