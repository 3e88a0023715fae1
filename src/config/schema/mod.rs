//! Which keys there are. Each is declared once, in `keys`; from that declaration come the typed reading and its ranges and
//! defaults, the "did you mean", what a report may show of a value, the commented `config/config.toml`, the JSON Schema and
//! corptokend.toml(5).
//!
//! A leaf: everything in `config` may use it, and it uses nothing of `config`.

mod json_schema;
mod keys;
mod man_page;
mod reference;
mod suggest;

pub use json_schema::json_schema;
pub(crate) use keys::{
    ALL, API, APP, CLIENT_SECRET, CONTROL, DEFAULTS, LIMITS, LOG, REFRESH, RETRY, SINK, STATE, TENANT, TOP,
};
pub use man_page::man_page;
pub use reference::reference;
pub(crate) use suggest::{is_showable, listed};

use std::time::Duration;

use zeroize::Zeroizing;

use crate::domain::{CorpId, Endpoint, Placeholder, Proxy, Rate, Template};

/// The most digits of a number that is shown.
const LONGEST_NUMBER: usize = 12;

/// A table and the keys that it knows.
#[derive(Debug)]
pub(crate) struct TableSchema {
    /// What messages call it.
    pub(crate) name: &'static str,
    /// One paragraph.
    pub(crate) doc: &'static str,
    /// In the order of the documentation. Tables may have a group of keys in common.
    pub(crate) keys: &'static [&'static [KeySchema]],
}

/// A key of a table.
#[derive(Debug)]
pub(crate) struct KeySchema {
    pub(crate) name: &'static str,
    pub(crate) kind: ValueKind,
    /// The value that holds where the key is not set, as in the config, without quotes.
    pub(crate) default: Option<&'static str>,
    /// A value to show where there is no default.
    pub(crate) example: &'static str,
    /// A few words for the end of the line in `config/config.toml`.
    pub(crate) note: &'static str,
    /// One paragraph.
    pub(crate) doc: &'static str,
    /// Reports never show a value: a secret that was pasted there could not be told from a valid value.
    pub(crate) masked: bool,
}

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ValueKind {
    Duration {
        least: Duration,
        most: Duration,
    },
    Integer {
        least: i64,
        most: i64,
    },
    Fraction {
        least: f64,
        most: f64,
    },
    Boolean,
    Rate,
    Word(&'static [&'static str]),
    /// Permission bits: those that must be set, and those that must not.
    Mode {
        needed: u32,
        forbidden: u32,
    },
    Owner,
    Group,
    IpAddress,
    Endpoint,
    Proxy,
    Path,
    SinkPath,
    KeyringPath,
    Template,
    Text {
        what: &'static str,
        pattern: &'static str,
    },
    CorpIds,
    Table(&'static TableSchema),
    /// A table with exactly one of its keys.
    OneOf(&'static TableSchema),
    /// A list of tables.
    Sinks(&'static TableSchema),
    /// A table of tables, each with a name.
    Named {
        table: &'static TableSchema,
        pattern: &'static str,
    },
}

impl KeySchema {
    const VALUE: Self =
        Self { name: "", kind: ValueKind::Boolean, default: None, example: "", note: "", doc: "", masked: false };
    /// Keys whose documentation is that of their table.
    const TABLE: Self = Self::VALUE;
}

impl TableSchema {
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'static KeySchema> + Clone + use<> {
        self.keys.iter().copied().flatten()
    }

    pub(crate) fn key(&self, name: &str) -> Option<&'static KeySchema> {
        self.keys().find(|key| key.name == name)
    }

    /// The default of a key that has one.
    pub(crate) fn default(&self, name: &str) -> &'static str {
        self.key(name).and_then(|key| key.default).unwrap_or_else(|| unreachable!("{name} has no default"))
    }
}

/// Whether any table knows `key`.
pub(crate) fn is_known(key: &str) -> bool {
    ALL.iter().any(|table| table.key(key).is_some())
}

/// All keys of this name, of whatever table.
pub(crate) fn keys_named(name: &str) -> impl Iterator<Item = &'static KeySchema> {
    ALL.iter().filter_map(move |table| table.key(name))
}

/// Whether `value` is a number that is too short for a secret.
pub(crate) fn is_short_number(value: &str) -> bool {
    value.len() <= LONGEST_NUMBER && value.bytes().all(|b| b.is_ascii_digit() || b"+-._".contains(&b))
}

impl ValueKind {
    /// Whether the value is a string.
    fn is_quoted(self) -> bool {
        let is_number = matches!(self, Self::Integer { .. } | Self::Fraction { .. } | Self::Boolean);
        let is_nested = matches!(self, Self::CorpIds | Self::Sinks(_) | Self::Named { .. });
        !(is_number || is_nested || matches!(self, Self::Table(_) | Self::OneOf(_)))
    }

    /// Whether a report may show `value`: it is what the key wants, and could hardly be a secret. `bare` values have no quotes.
    pub(crate) fn shows(self, value: &str, bare: bool) -> bool {
        match self {
            Self::Duration { .. } => humantime::parse_duration(value).is_ok(),
            Self::Rate => value.parse::<Rate>().is_ok(),
            Self::Mode { .. } => is_short_number(value),
            Self::Word(words) => words.contains(&value),
            Self::Boolean => ["true", "false"].contains(&value),
            Self::IpAddress => value.parse::<std::net::IpAddr>().is_ok(),
            _ if bare => false,
            Self::Endpoint => Endpoint::new(value).is_ok(),
            Self::Proxy => Proxy::new(Zeroizing::new(value.to_owned())).is_some(),
            Self::CorpIds => CorpId::new(value).is_ok(),
            Self::Path => value.starts_with('/'),
            Self::SinkPath => value.starts_with('/') || names_a_placeholder(value),
            Self::KeyringPath => value.starts_with("@u/"),
            _ => false,
        }
    }
}

/// Whether a text is a path's template that names something, so that it is no secret.
fn names_a_placeholder(text: &str) -> bool {
    Template::parse(text, Placeholder::IN_PATHS).is_ok_and(|template| !template.is_fixed())
}
