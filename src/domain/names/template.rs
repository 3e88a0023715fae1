//! Text with placeholders: `/srv/{app}/{corp_id}.json`, `TOKEN={token}\n`.

use std::fmt;

use super::ids::{AppName, Names};

/// A placeholder of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Placeholder {
    /// `{app}`
    App,
    /// `{corp_id}`
    CorpId,
    /// `{name}`, only for a tenant that has one
    Name,
    /// `{client_id}`
    ClientId,
    /// `{token}`, only in a sink's content
    Token,
    /// `{expires_at}`, RFC 3339, only in a sink's content
    ExpiresAt,
    /// `{expires_at_unix}`, seconds since 1970, only in a sink's content
    ExpiresAtUnix,
}

impl Placeholder {
    /// The placeholders that a path may have.
    pub const IN_PATHS: &'static [Self] = &[Self::App, Self::CorpId, Self::Name, Self::ClientId];
    /// The placeholders that a sink's content may have.
    pub const IN_CONTENT: &'static [Self] =
        &[Self::Token, Self::ExpiresAt, Self::ExpiresAtUnix, Self::App, Self::CorpId, Self::Name, Self::ClientId];

    /// The word between the braces.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::CorpId => "corp_id",
            Self::Name => "name",
            Self::ClientId => "client_id",
            Self::Token => "token",
            Self::ExpiresAt => "expires_at",
            Self::ExpiresAtUnix => "expires_at_unix",
        }
    }
}

/// Why a template was not accepted. Offsets are bytes into the template's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplate {
    /// A `{` without `}`, or a `}` without `{`.
    #[error("a single `{{` or `}}`; a brace that is meant as itself is written twice")]
    LoneBrace {
        /// Where.
        at: usize,
    },
    /// An unknown placeholder.
    #[error("the word between the braces is not known here; there are {}", known(.allowed))]
    UnknownPlaceholder {
        /// Where.
        at: usize,
        /// The known ones.
        allowed: &'static [Placeholder],
    },
}

fn known(allowed: &[Placeholder]) -> String {
    allowed.iter().map(|p| format!("{{{}}}", p.as_str())).collect::<Vec<_>>().join(", ")
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    Literal(Box<str>),
    Value(Placeholder),
}

/// A checked template.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Template(Box<[Part]>);

/// The values for a template's placeholders.
#[derive(Clone, Copy)]
pub struct Expansion<'a> {
    /// The tenant's names.
    pub names: &'a Names,
    /// Called for placeholders that are not names. It writes nothing for one without a value.
    pub content: &'a dyn Fn(Placeholder, &mut String),
}

impl Template {
    /// Parses `text`; `{{` and `}}` stand for braces, and only `allowed` placeholders are known.
    pub fn parse(text: &str, allowed: &'static [Placeholder]) -> Result<Self, InvalidTemplate> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(found) = rest.find(['{', '}']) {
            literal.push_str(&rest[..found]);
            let at = text.len() - rest.len() + found;
            let tail = &rest[found..];
            rest = if let Some(tail) = tail.strip_prefix("{{") {
                literal.push('{');
                tail
            } else if let Some(tail) = tail.strip_prefix("}}") {
                literal.push('}');
                tail
            } else {
                let (word, tail) = tail
                    .strip_prefix('{')
                    .and_then(|inner| inner.split_once('}'))
                    .ok_or(InvalidTemplate::LoneBrace { at })?;
                let value = allowed
                    .iter()
                    .copied()
                    .find(|p| p.as_str() == word)
                    .ok_or(InvalidTemplate::UnknownPlaceholder { at, allowed })?;
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal).into()));
                }
                parts.push(Part::Value(value));
                tail
            };
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(Self(parts.into()))
    }

    /// The text before the first placeholder other than `{app}`, with `{app}` filled in.
    pub fn prefix_in(&self, app: &AppName) -> String {
        let mut prefix = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) => prefix.push_str(text),
                Part::Value(Placeholder::App) => prefix.push_str(app.as_str()),
                Part::Value(_) => break,
            }
        }
        prefix
    }

    /// Whether the template names `placeholder`.
    pub fn names(&self, placeholder: Placeholder) -> bool {
        self.0.contains(&Part::Value(placeholder))
    }

    /// The text before the first placeholder.
    pub fn fixed_prefix(&self) -> &str {
        match self.0.first() {
            Some(Part::Literal(text)) => text,
            _ => "",
        }
    }

    /// Whether there is no placeholder at all.
    pub fn is_fixed(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Literal(_)))
    }

    /// Fills the placeholders in.
    pub fn expand(&self, with: Expansion<'_>, out: &mut String) {
        for part in &self.0 {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Value(Placeholder::App) => out.push_str(with.names.id.app.as_str()),
                Part::Value(Placeholder::CorpId) => out.push_str(with.names.id.corp_id.as_str()),
                Part::Value(Placeholder::ClientId) => out.push_str(with.names.client_id.as_str()),
                Part::Value(Placeholder::Name) => {
                    out.push_str(with.names.name.as_ref().map_or("", |name| name.as_str()));
                }
                Part::Value(other) => (with.content)(*other, out),
            }
        }
    }

    /// Fills in the names alone: for templates parsed with [`Placeholder::IN_PATHS`].
    pub fn expand_names(&self, names: &Names) -> String {
        let mut out = String::new();
        self.expand(Expansion { names, content: &|_, _| {} }, &mut out);
        out
    }
}

/// The template as it was written, braces doubled again.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            match part {
                Part::Literal(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}"))?,
                Part::Value(value) => write!(f, "{{{}}}", value.as_str())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names { id: "crm/ding1".parse().unwrap(), name: None, client_id: "c1".parse().unwrap() }
    }

    #[test]
    fn placeholders_expand_and_doubled_braces_are_braces() {
        let template = Template::parse("/a/{app}/{{x}}/{corp_id}.{client_id}", Placeholder::IN_PATHS).unwrap();
        assert_eq!(template.expand_names(&names()), "/a/crm/{x}/ding1.c1");
        assert_eq!(template.fixed_prefix(), "/a/");
        assert_eq!(template.to_string(), "/a/{app}/{{x}}/{corp_id}.{client_id}");
    }

    #[test]
    fn a_lone_brace_or_an_unknown_word_is_an_error_that_says_where() {
        assert_eq!(Template::parse("ab{app", Placeholder::IN_PATHS), Err(InvalidTemplate::LoneBrace { at: 2 }));
        assert_eq!(Template::parse("ab}", Placeholder::IN_PATHS), Err(InvalidTemplate::LoneBrace { at: 2 }));
        let error = Template::parse("x{token}", Placeholder::IN_PATHS).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the word between the braces is not known here; there are {app}, {corp_id}, {name}, {client_id}"
        );
    }
}
