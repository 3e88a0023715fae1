//! Cutting a text into keys, values and comments, whatever is wrong with it: the eyes of `mask`.

use std::ops::Range;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A word or string that is followed by `=`, or that stands in a table's header.
    Key,
    /// A word or string that stands elsewhere.
    Value,
    Comment,
    Newline,
}

pub(crate) struct Token<'t> {
    pub(crate) kind: Kind,
    pub(crate) span: Range<usize>,
    /// The last part of the key that a value belongs to.
    pub(crate) key: Option<&'t str>,
    /// The last part of the name of the table that the key, or the value's key, stands in, as far as the text tells.
    pub(crate) table: Option<&'t str>,
    pub(crate) in_header: bool,
}

impl Token<'_> {
    fn span(kind: Kind, span: Range<usize>) -> Self {
        Self { kind, span, key: None, table: None, in_header: false }
    }
}

/// Cuts a text into words, strings and comments, whatever is wrong with it.
pub(crate) struct Scan<'t> {
    text: &'t str,
    at: usize,
    /// The key before the last `=`.
    key: Option<&'t str>,
    /// What stands before the last dot of that key: the table it stands in.
    before_dot: Option<&'t str>,
    /// The last part of the last header.
    header: Option<&'t str>,
    /// The brackets that are open, with the key that each stands under.
    stack: Vec<(u8, Option<&'t str>)>,
    line_is_fresh: bool,
    in_header: bool,
}

impl<'t> Scan<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self {
            text,
            at: 0,
            key: None,
            before_dot: None,
            header: None,
            stack: Vec::new(),
            line_is_fresh: true,
            in_header: false,
        }
    }

    pub(crate) fn next(&mut self) -> Option<Token<'t>> {
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
                        return Some(Token::span(Kind::Newline, start..start + 1));
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
                return Some(Token::span(Kind::Comment, start..end));
            }
            return Some(self.word(start..end, byte));
        }
    }

    /// Whether a bracket is open.
    pub(crate) fn is_open(&self) -> bool {
        !self.stack.is_empty()
    }

    fn word(&mut self, span: Range<usize>, first: u8) -> Token<'t> {
        let written = &self.text[span.clone()];
        let follows = self.text[span.end..].trim_start_matches([' ', '\t']);
        let quoted = first == b'"' || first == b'\'';
        if follows.starts_with('=') && !follows.starts_with("==") {
            // `a.b.client_secret = …`: the last part decides.
            let name = written.trim_matches(['"', '\'']);
            let (before, last) = name.rsplit_once('.').filter(|_| !quoted).unwrap_or(("", name));
            self.key = Some(last);
            let table = self.table();
            self.before_dot = before.rsplit('.').next().filter(|part| !part.is_empty());
            self.in_header = false;
            return Token { kind: Kind::Key, span, key: None, table, in_header: false };
        }
        if self.in_header {
            let name = written.trim_matches(['"', '\'']);
            self.header = Some(if quoted { name } else { name.rsplit('.').next().unwrap_or(name) });
        }
        let dotted = follows.starts_with('.') && self.key.is_none();
        let kind = if self.in_header || dotted { Kind::Key } else { Kind::Value };
        let table = if kind == Kind::Value { self.before_dot.or_else(|| self.table()) } else { self.table() };
        Token { kind, span, key: self.key, table: table.filter(|_| !self.in_header), in_header: self.in_header }
    }

    /// The table in which a key without dots stands here.
    fn table(&self) -> Option<&'t str> {
        let inline = self.stack.iter().rev().find(|(bracket, _)| *bracket == b'{');
        inline.map_or(self.header, |(_, key)| *key)
    }

    fn separator(&mut self, byte: u8) {
        match byte {
            b'\n' => {
                self.line_is_fresh = true;
                self.in_header = false;
                if self.stack.is_empty() {
                    (self.key, self.before_dot) = (None, None);
                }
            }
            b'[' if self.line_is_fresh && (self.stack.is_empty() || self.looks_like_a_header()) => {
                self.stack.clear();
                (self.key, self.before_dot, self.header) = (None, None, None);
                self.in_header = true;
                self.line_is_fresh = false;
            }
            b'[' | b'{' if !self.in_header => {
                self.stack.push((byte, self.key));
                if byte == b'{' {
                    (self.key, self.before_dot) = (None, None);
                }
            }
            b']' if self.in_header => {}
            b']' | b'}' => self.key = self.stack.pop().and_then(|(_, key)| key),
            b',' if self.stack.last().is_some_and(|(bracket, _)| *bracket == b'{') => {
                (self.key, self.before_dot) = (None, None);
            }
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
