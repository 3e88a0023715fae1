//! Rust source as a flat list of tokens: enough to see which names a file uses, without being fooled by comments.

use std::ops::Range;

/// One token and the line that it starts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) line: usize,
}

/// What a rule may ask about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A name or a keyword, without a raw name's `r#`.
    Name(String),
    /// The text of a string, as written between its quotes.
    Text(String),
    /// `::`
    Path,
    /// Any other sign, one character at a time.
    Sign(char),
    /// A number, a character or a lifetime: no rule asks.
    Other,
}

impl Token {
    pub(crate) fn name(&self) -> Option<&str> {
        match &self.kind {
            Kind::Name(name) => Some(name),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is(&self, sign: char) -> bool {
        self.kind == Kind::Sign(sign)
    }

    pub(crate) fn is_path(&self) -> bool {
        self.kind == Kind::Path
    }
}

/// Splits `source` into tokens; comments, documentation included, are left out.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { rest: source, line: 1 };
    std::iter::from_fn(|| lexer.next_token()).collect()
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Lexer<'a> {
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    fn next_token(&mut self) -> Option<Token> {
        self.skip_blanks_and_comments();
        let line = self.line;
        let first = self.rest.chars().next()?;
        let kind = if let Some(text) = self.string() {
            Kind::Text(text)
        } else if first == '\'' {
            self.quote()
        } else if first.is_alphabetic() || first == '_' {
            Kind::Name(self.word())
        } else if first.is_ascii_digit() {
            self.word();
            Kind::Other
        } else if self.rest.starts_with("::") {
            self.take(2);
            Kind::Path
        } else {
            self.take(first.len_utf8());
            Kind::Sign(first)
        };
        Some(Token { kind, line })
    }

    fn skip_blanks_and_comments(&mut self) {
        loop {
            let blanks = self.rest.len() - self.rest.trim_start().len();
            self.take(blanks);
            if self.rest.starts_with("//") {
                self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with("/*") {
                self.block_comment();
            } else {
                return;
            }
        }
    }

    /// Block comments nest.
    fn block_comment(&mut self) {
        let mut depth = 0;
        while !self.rest.is_empty() {
            if self.rest.starts_with("/*") {
                depth += 1;
                self.take(2);
            } else if self.rest.starts_with("*/") {
                depth -= 1;
                self.take(2);
                if depth == 0 {
                    return;
                }
            } else {
                self.take(self.rest.chars().next().map_or(0, char::len_utf8));
            }
        }
    }

    /// Any of `"…"`, `b"…"`, `c"…"`, `r"…"`, `r#"…"#`, `br#"…"#`, `cr#"…"#`.
    fn string(&mut self) -> Option<String> {
        let prefix = self.rest.find(|c: char| !matches!(c, 'b' | 'c' | 'r'))?;
        if !matches!(&self.rest[..prefix], "" | "b" | "c" | "r" | "br" | "cr") {
            return None;
        }
        let raw = self.rest[..prefix].ends_with('r');
        let hashes = if raw { self.rest[prefix..].bytes().take_while(|&b| b == b'#').count() } else { 0 };
        self.rest[prefix + hashes..].strip_prefix('"')?;
        self.take(prefix + hashes + 1);
        let close = format!("\"{}", "#".repeat(hashes));
        let length = if raw { self.rest.find(&close) } else { escaped_length(self.rest) }.unwrap_or(self.rest.len());
        let text = self.take(length).to_owned();
        self.take(close.len().min(self.rest.len()));
        Some(text)
    }

    /// A character or a lifetime.
    fn quote(&mut self) -> Kind {
        self.take(1);
        let mut chars = self.rest.char_indices();
        match chars.next().map(|(_, c)| c) {
            Some('\\') => {
                let end = self.rest[2..].find('\'').map_or(self.rest.len(), |at| at + 3);
                self.take(end);
            }
            Some(_) if chars.next().is_some_and(|(_, c)| c == '\'') => {
                let end = chars.next().map_or(self.rest.len(), |(at, _)| at);
                self.take(end);
            }
            _ => {
                self.word();
            }
        }
        Kind::Other
    }

    fn word(&mut self) -> String {
        if let Some(raw) = self.rest.strip_prefix("r#") {
            self.take(self.rest.len() - raw.len());
        }
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        self.take(end).to_owned()
    }
}

fn escaped_length(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

/// The tokens outside of `#[cfg(test)]` items, and the modules that are declared under it (`#[cfg(test)] mod x;`).
pub(crate) fn without_tests(tokens: &[Token]) -> (Vec<Token>, Vec<String>) {
    let (mut kept, mut test_modules, mut at) = (Vec::new(), Vec::new(), 0);
    while at < tokens.len() {
        if let Some(item) = test_item(tokens, at) {
            let declared = tokens[item.clone()].iter().skip_while(|t| t.name() != Some("mod")).nth(1);
            if tokens[item.end - 1].is(';') {
                test_modules.extend(declared.and_then(Token::name).map(str::to_owned));
            }
            at = item.end;
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    (kept, test_modules)
}

/// If `#[cfg(test)]` starts at `at`: it and the item that it stands before.
fn test_item(tokens: &[Token], at: usize) -> Option<Range<usize>> {
    let marks = ["#", "[", "cfg", "(", "test", ")", "]"];
    let found = tokens.get(at..at + marks.len())?;
    let same = |token: &Token, mark: &&str| match &token.kind {
        Kind::Name(name) => name == mark,
        Kind::Sign(sign) => mark.len() == 1 && mark.starts_with(*sign),
        _ => false,
    };
    if !found.iter().zip(&marks).all(|(token, mark)| same(token, mark)) {
        return None;
    }
    let mut depth = 0;
    for (end, token) in tokens.iter().enumerate().skip(at + marks.len()) {
        match token.kind {
            Kind::Sign('{' | '(' | '[') => depth += 1,
            Kind::Sign('}' | ')' | ']') => depth -= 1,
            _ => {}
        }
        if depth == 0 && (token.is('}') || token.is(';')) {
            return Some(at..end + 1);
        }
    }
    Some(at..tokens.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(source: &str) -> Vec<String> {
        tokens(source).iter().filter_map(Token::name).map(str::to_owned).collect()
    }

    #[test]
    fn comments_strings_characters_and_lifetimes_are_not_names() {
        let source = "a /* b /* c */ d */ // e\n/// f\n'g' '\\'' \"h\\\"i\" r#\"j\"k\"# b\"l\" 'm: n 7u8 r#type rbc";
        assert_eq!(names(source), ["a", "n", "type", "rbc"]);
        let texts: Vec<_> = tokens(source).iter().filter_map(Token::text).map(str::to_owned).collect();
        assert_eq!(texts, ["h\\\"i", "j\"k", "l"]);
    }

    #[test]
    fn lines_are_counted_through_everything() {
        let lines: Vec<_> = tokens("a\n/*\n*/ \"\n\" b\nc").iter().map(|t| t.line).collect();
        assert_eq!(lines, [1, 3, 4, 5]);
    }

    #[test]
    fn test_items_are_left_out_and_test_modules_named() {
        let source = "a; #[cfg(test)] #[path = \"x\"] mod extra; b #[cfg(test)] mod tests { fn c() { } } d \
                      #[cfg(test)] fn e(f: [u8; 2]) -> g { } h #[cfg(not(test))] i";
        let (kept, modules) = without_tests(&tokens(source));
        let kept: Vec<_> = kept.iter().filter_map(Token::name).collect();
        assert_eq!(kept, ["a", "b", "d", "h", "cfg", "not", "test", "i"]);
        assert_eq!(modules, ["extra"]);
    }
}
