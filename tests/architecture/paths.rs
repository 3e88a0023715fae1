//! The paths that a file names, with `use` groups spelled out.

use crate::source::Token;

/// A path such as `std::time::Instant`, and the line that it ends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) names: Vec<String>,
    pub(crate) line: usize,
}

impl Path {
    pub(crate) fn starts_with(&self, names: &[&str]) -> bool {
        self.names.len() >= names.len() && self.names.iter().zip(names).all(|(mine, other)| mine == other)
    }
}

/// Every path of at least two names, in `use` and everywhere else; `use a::{b, c::{self, d}}` gives `a::b`,
/// `a::c::self` and `a::c::d`.
pub(crate) fn paths(tokens: &[Token]) -> Vec<Path> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        at = path(tokens, at, &mut Vec::new(), &mut found).max(at + 1);
    }
    found
}

/// Reads the path, or the group of paths, that starts at `at`, if one does, and gives where it ends.
fn path(tokens: &[Token], mut at: usize, prefix: &mut Vec<String>, found: &mut Vec<Path>) -> usize {
    let outer = prefix.len();
    while let Some(token) = tokens.get(at) {
        if let Some(name) = token.name() {
            prefix.push(name.to_owned());
        } else if token.is('*') && !prefix.is_empty() {
            prefix.push("*".to_owned());
        } else if token.is('{') && !prefix.is_empty() {
            at = group(tokens, at + 1, prefix, found);
            prefix.truncate(outer);
            return at;
        } else {
            break;
        }
        at += 1;
        // A path that goes on in `::<` ends before it.
        let goes_on = |next: &Token| next.name().is_some() || next.is('{') || next.is('*');
        if !tokens.get(at).is_some_and(Token::is_path) || !tokens.get(at + 1).is_some_and(goes_on) {
            break;
        }
        at += 1;
    }
    if prefix.len() >= 2 && prefix.len() > outer {
        found.push(Path { names: prefix.clone(), line: tokens[at - 1].line });
    }
    prefix.truncate(outer);
    at
}

/// Reads `b, c::d as e}`, which stands behind `a::{`.
fn group(tokens: &[Token], mut at: usize, prefix: &mut Vec<String>, found: &mut Vec<Path>) -> usize {
    while let Some(token) = tokens.get(at) {
        at = match token.name() {
            _ if token.is('}') => return at + 1,
            Some("as") => at + 2,
            _ => path(tokens, at, prefix, found).max(at + 1),
        };
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tokens;

    fn spelled(source: &str) -> Vec<String> {
        paths(&tokens(source)).iter().map(|path| path.names.join("::")).collect()
    }

    #[test]
    fn groups_are_spelled_out() {
        let source = "use a::{b, c::{self, d as e}, f::*}; use {g::h, i::j};";
        assert_eq!(spelled(source), ["a::b", "a::c::self", "a::c::d", "a::f::*", "g::h", "i::j"]);
    }

    #[test]
    fn paths_in_expressions_and_types_are_found() {
        let source =
            "fn f(x: ::std::io::Error) -> Vec<u8> { *x; if y { z::w() } Vec::<a::B>::new(); #[p::q] r!{} s::t!() }";
        assert_eq!(spelled(source), ["std::io::Error", "z::w", "a::B", "p::q", "s::t"]);
    }
}
