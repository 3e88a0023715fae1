//! The files' tables merged into one, each key and value with its place. Tables merge, lists of `corp_ids` and `sink`
//! are joined, and anything else that stands twice is an error that shows both places.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use crate::config::diagnostics::collect::{Diagnostics, Span};
use crate::config::schema::is_showable;

/// Lists that are joined when several files have them.
const JOINED: [&str; 2] = ["corp_ids", "sink"];

/// A table, perhaps of several files.
#[derive(Default)]
pub(crate) struct Tree<'i> {
    pub(crate) nodes: BTreeMap<&'i str, Node<'i>>,
}

/// A key and its value.
pub(crate) struct Node<'i> {
    /// Where the key stands (first).
    pub(crate) key: Span,
    /// Where the value stands (first).
    pub(crate) at: Span,
    pub(crate) value: NodeValue<'i>,
}

/// A value.
pub(crate) enum NodeValue<'i> {
    Table(Tree<'i>),
    List(Vec<Element<'i>>),
    Scalar(&'i DeValue<'i>),
}

/// An element of a list.
pub(crate) struct Element<'i> {
    pub(crate) at: Span,
    pub(crate) value: &'i DeValue<'i>,
}

impl NodeValue<'_> {
    /// What it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Table(_) => "a table",
            Self::List(_) => "a list",
            Self::Scalar(value) => kind_of(value),
        }
    }
}

impl<'i> Element<'i> {
    /// The element as a table of its own.
    pub(crate) fn as_table(&self) -> Option<Tree<'i>> {
        self.value.as_table().map(|table| Tree::of(table, self.at.file as usize))
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

impl<'i> Tree<'i> {
    /// The table of one file.
    pub(crate) fn of(table: &'i DeTable<'i>, file: usize) -> Self {
        let nodes = table
            .iter()
            // Where the parser found no value, it has reported that, and stands in an integer of no extent.
            .filter(|(_, value)| !(value.span().is_empty() && value.get_ref().is_integer()))
            .map(|(key, value)| {
                let entry = Node {
                    key: Span::new(file, key.span()),
                    at: Span::new(file, value.span()),
                    value: NodeValue::of(value.get_ref(), file),
                };
                (&**key.get_ref(), entry)
            })
            .collect();
        Self { nodes }
    }

    /// Adds the table of a later file.
    pub(crate) fn merge(&mut self, later: Tree<'i>, diagnostics: &Diagnostics<'_>) {
        for (key, theirs) in later.nodes {
            let Some(ours) = self.nodes.get_mut(key) else {
                self.nodes.insert(key, theirs);
                continue;
            };
            match (&mut ours.value, theirs.value) {
                (NodeValue::Table(ours), NodeValue::Table(theirs)) => ours.merge(theirs, diagnostics),
                (NodeValue::List(ours), NodeValue::List(theirs)) if JOINED.contains(&key) => ours.extend(theirs),
                _ => {
                    let what = if is_showable(key) { format!("`{key}`") } else { "the same key".to_owned() };
                    diagnostics
                        .error(theirs.key, format!("{what} is set in two files"))
                        .also(ours.key, "it is set here, too")
                        .help("keep one of the two");
                }
            }
        }
    }
}

impl<'i> NodeValue<'i> {
    fn of(value: &'i DeValue<'i>, file: usize) -> Self {
        match value {
            DeValue::Table(table) => Self::Table(Tree::of(table, file)),
            DeValue::Array(list) => Self::List(
                list.iter().map(|item| Element { at: Span::new(file, item.span()), value: item.get_ref() }).collect(),
            ),
            scalar => Self::Scalar(scalar),
        }
    }
}
