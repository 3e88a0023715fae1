//! Typed reading of one table: each method takes a key, reports what is wrong with its value, and goes on. Types, ranges and
//! words come from the schema.

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use toml::de::DeValue;

use super::values::{self, ValueFault};
use crate::config::diagnostics::collect::{DiagnosticBuilder, Diagnostics, Span};
use crate::config::environment::Process;
use crate::config::parse::merge::{Element, Node, NodeValue, Tree, kind_of};
use crate::config::schema::{self, TableSchema, ValueKind, listed};

/// What all readers of a config have in common.
pub(crate) struct Context<'c> {
    pub(crate) diagnostics: &'c Diagnostics<'c>,
    pub(crate) process: &'c Process,
    /// The directory that relative paths of each file start from.
    pub(crate) bases: Vec<&'c Path>,
    /// Every user and group that the config names.
    pub(crate) accounts: RefCell<Vec<AccountUse>>,
    /// Every secret that stands in the config itself, with the path of a file to move it to.
    pub(crate) inline_secrets: RefCell<Vec<(Span, std::path::PathBuf)>>,
}

impl Context<'_> {
    pub(crate) fn base(&self, at: Span) -> &Path {
        self.bases[at.file as usize]
    }
}

/// A user or group as the config names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AccountName {
    Id(u32),
    Name(String),
    /// A group that the packages make. Where it does not exist, or is not for us, the daemon's own group stands.
    Default(&'static str),
}

/// Where an account is named, and as what.
pub(crate) struct AccountUse {
    pub(crate) role: AccountRole,
    pub(crate) account: AccountName,
    pub(crate) at: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccountRole {
    Owner,
    Group,
}

/// A value and its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spanned<T> {
    pub(crate) value: T,
    pub(crate) at: Span,
}

/// A table that is being read.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'c> {
    tree: Option<&'c Tree<'c>>,
    schema: &'static TableSchema,
    pub(crate) context: &'c Context<'c>,
}

impl<'c> Reader<'c> {
    /// Starts reading, and reports the keys that the schema does not know.
    pub(crate) fn open(tree: Option<&'c Tree<'c>>, schema: &'static TableSchema, context: &'c Context<'c>) -> Self {
        let reader = Self { tree, schema, context };
        for (key, node) in tree.iter().flat_map(|tree| &tree.nodes).filter(|(key, _)| schema.key(key).is_none()) {
            let what = if schema::is_showable(key) { format!("unknown key `{key}`") } else { "unknown key".to_owned() };
            reader.error(node.key, format!("{what} in {}", schema.name)).help(schema.suggest(key));
        }
        reader
    }

    /// The table at `key` of this one; an empty one if there is none.
    pub(crate) fn table(&self, key: &'static str) -> Self {
        let (ValueKind::Table(schema) | ValueKind::OneOf(schema)) = self.kind(key) else {
            unreachable!("{key} is no table")
        };
        Self::open(self.tree(key), schema, self.context)
    }

    pub(crate) fn tree(&self, key: &'static str) -> Option<&'c Tree<'c>> {
        let node = self.node(key)?;
        match &node.value {
            NodeValue::Table(tree) => Some(tree),
            other => self.wrong_type(key, "a table", other.kind(), node.at),
        }
    }

    pub(crate) fn list(&self, key: &'static str) -> Option<&'c [Element<'c>]> {
        let node = self.node(key)?;
        match &node.value {
            NodeValue::List(elements) => Some(elements),
            NodeValue::Table(_) if key == "sink" => {
                self.error(node.key, "`sink` is a list of tables").help("write [[….sink]], with two brackets each");
                None
            }
            other => self.wrong_type(key, "a list", other.kind(), node.at),
        }
    }

    /// A string that `parse` understands.
    pub(crate) fn text<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, ValueFault>,
    ) -> Option<Spanned<T>> {
        let node = self.node(key)?;
        let at = node.at;
        let NodeValue::Scalar(DeValue::String(text)) = &node.value else {
            return self.wrong_type(key, "a string", node.value.kind(), at);
        };
        match parse(text) {
            Ok(value) => Some(Spanned { value, at }),
            Err(fault) => {
                let at = fault.offset.map_or(at, |offset| self.within(at, offset));
                let space = if fault.message.starts_with(':') { "" } else { " " };
                let diagnostic = self.error(at, format!("`{key}`{space}{}", fault.message));
                if let Some(help) = fault.help {
                    diagnostic.help(help);
                }
                None
            }
        }
    }

    /// A path, made absolute from the directory of the file that it stands in.
    pub(crate) fn path(&self, key: &'static str) -> Option<Spanned<std::path::PathBuf>> {
        let at = self.node(key)?.at;
        self.text(key, |text| values::path(text, self.context.base(at)))
    }

    /// One of the words that the schema declares. `meanings` has what each stands for, in the same order.
    pub(crate) fn word<T: Copy>(&self, key: &'static str, meanings: &[T]) -> Option<Spanned<T>> {
        let ValueKind::Word(words) = self.kind(key) else { unreachable!("{key} is no word") };
        debug_assert_eq!(words.len(), meanings.len(), "{key}");
        self.text(key, |text| {
            let found = words.iter().zip(meanings).find(|(word, _)| **word == text);
            found
                .map(|(_, meaning)| *meaning)
                .ok_or_else(|| ValueFault::new(format!("must be one of {}", listed(words))))
        })
    }

    pub(crate) fn mode(&self, key: &'static str) -> Option<Spanned<u32>> {
        let ValueKind::Mode { needed, forbidden } = self.kind(key) else { unreachable!("{key} is no mode") };
        self.text(key, |text| values::mode(text, needed, forbidden))
    }

    pub(crate) fn duration(&self, key: &'static str) -> Option<Spanned<Duration>> {
        let ValueKind::Duration { least, most } = self.kind(key) else { unreachable!("{key} is no duration") };
        let node = self.node(key)?;
        if matches!(node.value, NodeValue::Scalar(DeValue::Integer(_) | DeValue::Float(_))) {
            self.error(node.at, format!("`{key}` needs a unit")).help("write a duration as a string, like \"10s\"");
            return None;
        }
        self.text(key, |text| {
            let value = values::duration(text)?;
            if (least..=most).contains(&value) {
                return Ok(value);
            }
            let (least, most) = (humantime::format_duration(least), humantime::format_duration(most));
            Err(ValueFault::new(format!("must be between {least} and {most}")))
        })
    }

    pub(crate) fn boolean(&self, key: &'static str) -> Option<Spanned<bool>> {
        let node = self.node(key)?;
        match &node.value {
            NodeValue::Scalar(DeValue::Boolean(value)) => Some(Spanned { value: *value, at: node.at }),
            other => self.wrong_type(key, "true or false", other.kind(), node.at),
        }
    }

    pub(crate) fn integer(&self, key: &'static str) -> Option<Spanned<i64>> {
        let ValueKind::Integer { least, most } = self.kind(key) else { unreachable!("{key} is no integer") };
        self.integer_between(key, least, most)
    }

    fn integer_between(&self, key: &'static str, least: i64, most: i64) -> Option<Spanned<i64>> {
        let node = self.node(key)?;
        let NodeValue::Scalar(DeValue::Integer(integer)) = &node.value else {
            return self.wrong_type(key, "an integer", node.value.kind(), node.at);
        };
        let value = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        self.in_range(key, value.filter(|value| (least..=most).contains(value)), node.at, (least, most))
    }

    /// A number, whole or not.
    pub(crate) fn fraction(&self, key: &'static str) -> Option<Spanned<f64>> {
        let ValueKind::Fraction { least, most } = self.kind(key) else { unreachable!("{key} is no fraction") };
        let node = self.node(key)?;
        let text = match &node.value {
            NodeValue::Scalar(DeValue::Float(float)) => float.as_str(),
            NodeValue::Scalar(DeValue::Integer(integer)) => integer.as_str(),
            other => return self.wrong_type(key, "a number", other.kind(), node.at),
        };
        let value = text.parse::<f64>().ok().filter(|value| (least..=most).contains(value));
        self.in_range(key, value, node.at, (least, most))
    }

    fn in_range<T, R: std::fmt::Display>(
        &self,
        key: &str,
        value: Option<T>,
        at: Span,
        (least, most): (R, R),
    ) -> Option<Spanned<T>> {
        if value.is_none() {
            self.error(at, format!("`{key}` must be between {least} and {most}"));
        }
        value.map(|value| Spanned { value, at })
    }

    /// A user or group: a name, or an id as a string or an integer. It is noted for the look-up.
    pub(crate) fn account(&self, key: &'static str) -> Option<AccountName> {
        let role = if matches!(self.kind(key), ValueKind::Owner) { AccountRole::Owner } else { AccountRole::Group };
        let is_integer = matches!(self.node(key)?.value, NodeValue::Scalar(DeValue::Integer(_)));
        let found = if is_integer {
            // The largest number stands for no account (chown(2)).
            let id = self.integer_between(key, 0, i64::from(u32::MAX) - 1)?;
            Spanned { value: AccountName::Id(u32::try_from(id.value).ok()?), at: id.at }
        } else {
            self.text(key, |text| {
                let id = text.parse::<u32>().ok().filter(|id| *id != u32::MAX);
                Ok(id.map_or_else(|| AccountName::Name(text.to_owned()), AccountName::Id))
            })?
        };
        let account_use = AccountUse { role, account: found.value.clone(), at: found.at };
        self.context.accounts.borrow_mut().push(account_use);
        Some(found.value)
    }

    /// Whether some unknown key looks like a misspelt `key`.
    pub(crate) fn misspells(&self, key: &'static str) -> bool {
        let keys = self.tree.iter().flat_map(|tree| tree.nodes.keys());
        keys.filter(|unknown| self.schema.key(unknown).is_none())
            .any(|unknown| self.schema.nearest(unknown) == Some(key))
    }

    pub(crate) fn node(&self, key: &'static str) -> Option<&'c Node<'c>> {
        debug_assert!(self.schema.key(key).is_some(), "{key} is not in the schema of {}", self.schema.name);
        self.tree?.nodes.get(key)
    }

    /// The keys that are set and known.
    pub(crate) fn known_nodes(&self) -> impl Iterator<Item = &'c Node<'c>> {
        let schema = self.schema;
        self.tree
            .into_iter()
            .flat_map(|tree| &tree.nodes)
            .filter(|(key, _)| schema.key(key).is_some())
            .map(|(_, node)| node)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tree.is_none_or(|tree| tree.nodes.is_empty())
    }

    pub(crate) fn error(&self, at: Span, message: impl Into<String>) -> DiagnosticBuilder<'c> {
        self.context.diagnostics.error(at, message)
    }

    fn wrong_type<T>(&self, key: &str, wanted: &str, found: &str, at: Span) -> Option<T> {
        self.error(at, format!("`{key}` must be {wanted}, and is {found}"));
        None
    }

    fn kind(&self, key: &str) -> ValueKind {
        self.schema.key(key).map_or_else(|| unreachable!("{key} is not in {}", self.schema.name), |key| key.kind)
    }

    /// The place of a byte of a string's value: known where the value stands in the file as it is, without escapes.
    fn within(&self, at: Span, offset: usize) -> Span {
        let raw = self.context.diagnostics.raw(at);
        let escaped = raw.starts_with('"') && raw.contains('\\');
        let plain = !escaped && !raw.starts_with("\"\"\"") && !raw.starts_with("'''");
        match u32::try_from(offset) {
            Ok(offset) if plain && at.start + 1 + offset < at.end => {
                let start = at.start + 1 + offset;
                Span { start, end: start + 1, ..at }
            }
            _ => at,
        }
    }
}

/// The element of a list that should be a string.
pub(crate) fn element<'i>(key: &str, element: &Element<'i>, context: &Context<'_>) -> Option<&'i str> {
    let text = element.value.as_str();
    if text.is_none() {
        context.diagnostics.error(element.at, format!("`{key}` holds strings, and this is {}", kind_of(element.value)));
    }
    text
}
