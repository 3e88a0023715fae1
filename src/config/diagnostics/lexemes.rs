//! Cuts a text into keys, values and comments, whatever is wrong with it: toml's own lexer, and above it which key and which
//! table each value stands under, as far as the text tells.

use std::iter::Peekable;
use std::ops::Range;

use toml_parser::Source;
use toml_parser::lexer::{Lexer, TokenKind};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LexemeKind {
    /// A word or string that is followed by `=`, or that stands in a table's header.
    Key,
    /// A word or string that stands elsewhere.
    Value,
    Comment,
    Newline,
}

pub(crate) struct Lexeme<'t> {
    pub(crate) kind: LexemeKind,
    pub(crate) span: Range<usize>,
    /// The last part of the key that a value belongs to.
    pub(crate) key: Option<&'t str>,
    /// The last part of the name of the table that the key, or the value's key, stands in, as far as the text tells.
    pub(crate) table: Option<&'t str>,
    pub(crate) in_header: bool,
}

impl Lexeme<'_> {
    fn of(kind: LexemeKind, span: Range<usize>) -> Self {
        Self { kind, span, key: None, table: None, in_header: false }
    }
}

/// The lexemes of a text.
pub(crate) struct Lexemes<'t> {
    text: &'t str,
    tokens: Peekable<Lexer<'t>>,
    /// The key before the last `=`.
    key: Option<&'t str>,
    /// What stands before the last dot of that key: the table it stands in.
    before_dot: Option<&'t str>,
    /// The last part of the last header.
    header: Option<&'t str>,
    /// The brackets that are open, with the key that each stands under.
    stack: Vec<(TokenKind, Option<&'t str>)>,
    line_is_fresh: bool,
    in_header: bool,
}

impl<'t> Lexemes<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self {
            text,
            tokens: Source::new(text).lex().peekable(),
            key: None,
            before_dot: None,
            header: None,
            stack: Vec::new(),
            line_is_fresh: true,
            in_header: false,
        }
    }

    pub(crate) fn next(&mut self) -> Option<Lexeme<'t>> {
        loop {
            let token = self.tokens.next()?;
            let (kind, span) = (token.kind(), token.span().start()..token.span().end());
            match kind {
                TokenKind::Eof => return None,
                TokenKind::Whitespace => {}
                TokenKind::Comment => {
                    self.line_is_fresh = false;
                    return Some(Lexeme::of(LexemeKind::Comment, span));
                }
                TokenKind::Newline => {
                    self.separator(kind, span.end);
                    return Some(Lexeme::of(LexemeKind::Newline, span));
                }
                TokenKind::Atom | TokenKind::Dot => {
                    self.line_is_fresh = false;
                    let end = self.end_of_word(span.end);
                    return Some(self.word(span.start..end, false));
                }
                TokenKind::LiteralString
                | TokenKind::BasicString
                | TokenKind::MlLiteralString
                | TokenKind::MlBasicString => {
                    self.line_is_fresh = false;
                    return Some(self.word(span, true));
                }
                _ => self.separator(kind, span.end),
            }
        }
    }

    /// A word goes on over its dots: `a.b`, `0.5`, `http://h.example`.
    fn end_of_word(&mut self, mut end: usize) -> usize {
        while let Some(next) = self.tokens.next_if(|next| matches!(next.kind(), TokenKind::Atom | TokenKind::Dot)) {
            end = next.span().end();
        }
        end
    }

    /// Whether a bracket is open.
    pub(crate) fn is_open(&self) -> bool {
        !self.stack.is_empty()
    }

    fn word(&mut self, span: Range<usize>, quoted: bool) -> Lexeme<'t> {
        let written = &self.text[span.clone()];
        let follows = self.text[span.end..].trim_start_matches([' ', '\t']);
        if follows.starts_with('=') && !follows.starts_with("==") {
            // `a.b.client_secret = …`: the last part decides.
            let name = written.trim_matches(['"', '\'']);
            let (before, last) = name.rsplit_once('.').filter(|_| !quoted).unwrap_or(("", name));
            self.key = Some(last);
            let table = self.table();
            self.before_dot = before.rsplit('.').next().filter(|part| !part.is_empty());
            self.in_header = false;
            return Lexeme { kind: LexemeKind::Key, span, key: None, table, in_header: false };
        }
        if self.in_header {
            let name = written.trim_matches(['"', '\'']);
            self.header = Some(if quoted { name } else { name.rsplit('.').next().unwrap_or(name) });
        }
        let dotted = follows.starts_with('.') && self.key.is_none();
        let kind = if self.in_header || dotted { LexemeKind::Key } else { LexemeKind::Value };
        let table = if kind == LexemeKind::Value { self.before_dot.or_else(|| self.table()) } else { self.table() };
        Lexeme { kind, span, key: self.key, table: table.filter(|_| !self.in_header), in_header: self.in_header }
    }

    /// The table in which a key without dots stands here.
    fn table(&self) -> Option<&'t str> {
        let inline = self.stack.iter().rev().find(|(bracket, _)| *bracket == TokenKind::LeftCurlyBracket);
        inline.map_or(self.header, |(_, key)| *key)
    }

    /// What a sign between words means for the words that follow. `end` is where it ends.
    fn separator(&mut self, sign: TokenKind, end: usize) {
        use TokenKind::{Comma, LeftCurlyBracket, LeftSquareBracket, Newline, RightCurlyBracket, RightSquareBracket};
        match sign {
            Newline => {
                self.line_is_fresh = true;
                self.in_header = false;
                if self.stack.is_empty() {
                    (self.key, self.before_dot) = (None, None);
                }
            }
            LeftSquareBracket if self.line_is_fresh && (self.stack.is_empty() || self.looks_like_a_header(end)) => {
                self.stack.clear();
                (self.key, self.before_dot, self.header) = (None, None, None);
                self.in_header = true;
                self.line_is_fresh = false;
            }
            LeftSquareBracket | LeftCurlyBracket if !self.in_header => {
                self.stack.push((sign, self.key));
                if sign == LeftCurlyBracket {
                    (self.key, self.before_dot) = (None, None);
                }
            }
            RightSquareBracket if self.in_header => {}
            RightSquareBracket | RightCurlyBracket => self.key = self.stack.pop().and_then(|(_, key)| key),
            Comma if self.stack.last().is_some_and(|(bracket, _)| *bracket == LeftCurlyBracket) => {
                (self.key, self.before_dot) = (None, None);
            }
            _ => {}
        }
    }

    /// A `[` that begins a line within a list: a header all the same, if the line holds nothing else.
    fn looks_like_a_header(&self, at: usize) -> bool {
        let line = self.text[at..].lines().next().unwrap_or_default();
        let line = line.split('#').next().unwrap_or_default().trim();
        line.ends_with(']') && line.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.[]\"' ".contains(&b))
    }
}
