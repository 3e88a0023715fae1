//! The files' tables merged into one, each key and value with its place. Tables merge, lists of `corp_ids` and `sink`
//! are joined, and anything else that stands twice is an error that shows both places.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use crate::config::diagnostics::collect::{Diagnostics, Span};
use crate::config::schema;

/// Lists that are joined when several files have them.
const JOINED: [&str; 2] = ["corp_ids", "sink"];

/// A table, perhaps of several files.
#[derive(Default)]
pub(crate) struct Table<'i> {
    pub(crate) entries: BTreeMap<&'i str, Entry<'i>>,
}

/// A key and its value.
pub(crate) struct Entry<'i> {
    /// Where the key stands (first).
    pub(crate) key: Span,
    /// Where the value stands (first).
    pub(crate) at: Span,
    pub(crate) value: Value<'i>,
}

/// A value.
pub(crate) enum Value<'i> {
    Table(Table<'i>),
    List(Vec<Item<'i>>),
    Scalar(&'i DeValue<'i>),
}

/// An element of a list.
pub(crate) struct Item<'i> {
    pub(crate) at: Span,
    pub(crate) value: &'i DeValue<'i>,
}

impl Value<'_> {
    /// What it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Table(_) => "a table",
            Self::List(_) => "a list",
            Self::Scalar(value) => kind_of(value),
        }
    }
}

impl<'i> Item<'i> {
    /// The element as a table of its own.
    pub(crate) fn as_table(&self) -> Option<Table<'i>> {
        self.value.as_table().map(|table| Table::of(table, self.at.file as usize))
    }
}

/// What a value is, for messages.
pub(crate) fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

impl<'i> Table<'i> {
    /// The table of one file.
    pub(crate) fn of(table: &'i DeTable<'i>, file: usize) -> Self {
        let entries = table
            .iter()
            // Where the parser found no value, it has diagnostic so, and stands in an integer of no extent.
            .filter(|(_, value)| !(value.span().is_empty() && value.get_ref().is_integer()))
            .map(|(key, value)| {
                let entry = Entry {
                    key: Span::new(file, key.span()),
                    at: Span::new(file, value.span()),
                    value: Value::of(value.get_ref(), file),
                };
                (&**key.get_ref(), entry)
            })
            .collect();
        Self { entries }
    }

    /// Adds the table of a later file.
    pub(crate) fn merge(&mut self, later: Table<'i>, diagnostics: &mut Diagnostics<'_>) {
        for (key, theirs) in later.entries {
            let Some(ours) = self.entries.get_mut(key) else {
                self.entries.insert(key, theirs);
                continue;
            };
            match (&mut ours.value, theirs.value) {
                (Value::Table(ours), Value::Table(theirs)) => ours.merge(theirs, diagnostics),
                (Value::List(ours), Value::List(theirs)) if JOINED.contains(&key) => ours.extend(theirs),
                _ => {
                    let what = if schema::is_showable(key) { format!("`{key}`") } else { "the same key".to_owned() };
                    diagnostics
                        .error(theirs.key, format!("{what} is set in two files"))
                        .also(ours.key, "it is set here, too")
                        .help("keep one of the two");
                }
            }
        }
    }
}

impl<'i> Value<'i> {
    fn of(value: &'i DeValue<'i>, file: usize) -> Self {
        match value {
            DeValue::Table(table) => Self::Table(Table::of(table, file)),
            DeValue::Array(list) => Self::List(
                list.iter().map(|item| Item { at: Span::new(file, item.span()), value: item.get_ref() }).collect(),
            ),
            scalar => Self::Scalar(scalar),
        }
    }
}
