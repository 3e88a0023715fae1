//! Typed reading of one table: each reader takes a key, says what is wrong with it, and goes on.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use crate::config::diagnostics::collect::{Diagnostics, Span};
use crate::config::parse::merge::{Entry, Item, Table, Value, kind_of};
use crate::config::schema::{self, KnownKeys, listed};

/// A value and its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spanned<T> {
    pub(crate) value: T,
    pub(crate) at: Span,
}

/// What is wrong with a text: the message goes on after "`key`: ".
pub(crate) struct Fault {
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    /// Where in the text, in bytes.
    pub(crate) offset: Option<usize>,
}

impl Fault {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, offset: None }
    }

    pub(crate) fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }
}

/// A table that is being read.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'t, 'i> {
    table: Option<&'t Table<'i>>,
    keys: &'static KnownKeys,
}

impl<'t, 'i> Reader<'t, 'i> {
    /// Starts reading, with what `table` holds and should not.
    pub(crate) fn open(
        table: Option<&'t Table<'i>>,
        keys: &'static KnownKeys,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Self {
        for (key, entry) in table.iter().flat_map(|table| &table.entries) {
            if !keys.keys.contains(key) {
                unknown(key, entry.key, keys, diagnostics);
            }
        }
        Self { table, keys }
    }

    /// The table at `key` of this one; an empty one if there is none.
    pub(crate) fn reader(
        &self,
        key: &'static str,
        keys: &'static KnownKeys,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Reader<'t, 'i> {
        Reader::open(self.table(key, diagnostics), keys, diagnostics)
    }

    pub(crate) fn table(&self, key: &'static str, diagnostics: &mut Diagnostics<'_>) -> Option<&'t Table<'i>> {
        let entry = self.entry(key)?;
        match &entry.value {
            Value::Table(table) => Some(table),
            other => {
                wrong_type(key, "a table", other.kind(), entry.at, diagnostics);
                None
            }
        }
    }

    pub(crate) fn list(&self, key: &'static str, diagnostics: &mut Diagnostics<'_>) -> Option<&'t [Item<'i>]> {
        let entry = self.entry(key)?;
        match &entry.value {
            Value::List(items) => Some(items),
            Value::Table(_) if key == "sink" => {
                diagnostics
                    .error(entry.key, "`sink` is a list of tables")
                    .help("write [[….sink]], with two brackets each");
                None
            }
            other => {
                wrong_type(key, "a list", other.kind(), entry.at, diagnostics);
                None
            }
        }
    }

    /// A string that `parse` understands.
    pub(crate) fn text<T>(
        &self,
        key: &'static str,
        diagnostics: &mut Diagnostics<'_>,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<Spanned<T>> {
        let (text, at) = self.string(key, diagnostics)?;
        match parse(text) {
            Ok(value) => Some(Spanned { value, at }),
            Err(fault) => {
                report(key, fault, at, diagnostics);
                None
            }
        }
    }

    pub(crate) fn string(&self, key: &'static str, diagnostics: &mut Diagnostics<'_>) -> Option<(&'t str, Span)> {
        let entry = self.entry(key)?;
        match &entry.value {
            Value::Scalar(DeValue::String(text)) => Some((text, entry.at)),
            other => {
                wrong_type(key, "a string", other.kind(), entry.at, diagnostics);
                None
            }
        }
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(
        &self,
        key: &'static str,
        diagnostics: &mut Diagnostics<'_>,
        words: &[(&'static str, T)],
    ) -> Option<Spanned<T>> {
        self.text(key, diagnostics, |text| {
            let found = words.iter().find(|(word, _)| *word == text);
            found.map(|(_, value)| *value).ok_or_else(|| {
                let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                Fault::new(format!("must be one of {}", listed(&known)))
            })
        })
    }

    /// A duration within a range.
    pub(crate) fn duration(
        &self,
        key: &'static str,
        diagnostics: &mut Diagnostics<'_>,
        range: RangeInclusive<Duration>,
    ) -> Option<Spanned<Duration>> {
        if let Some(Entry { at, value: Value::Scalar(DeValue::Integer(_) | DeValue::Float(_)), .. }) = self.entry(key) {
            diagnostics.error(*at, format!("`{key}` needs a unit")).help("write a duration as a string, like \"10s\"");
            return None;
        }
        self.text(key, diagnostics, |text| {
            let value = humantime::parse_duration(text)
                .map_err(|_| Fault::new("is not a duration").help("write it like \"90s\", \"1h 30m\" or \"500ms\""))?;
            if range.contains(&value) {
                return Ok(value);
            }
            let (least, most) = (humantime::format_duration(*range.start()), humantime::format_duration(*range.end()));
            Err(Fault::new(format!("must be between {least} and {most}")))
        })
    }

    pub(crate) fn boolean(&self, key: &'static str, diagnostics: &mut Diagnostics<'_>) -> Option<Spanned<bool>> {
        let entry = self.entry(key)?;
        match &entry.value {
            Value::Scalar(DeValue::Boolean(value)) => Some(Spanned { value: *value, at: entry.at }),
            other => {
                wrong_type(key, "true or false", other.kind(), entry.at, diagnostics);
                None
            }
        }
    }

    pub(crate) fn integer(
        &self,
        key: &'static str,
        diagnostics: &mut Diagnostics<'_>,
        range: RangeInclusive<i64>,
    ) -> Option<Spanned<i64>> {
        let entry = self.entry(key)?;
        let Value::Scalar(DeValue::Integer(integer)) = &entry.value else {
            wrong_type(key, "an integer", entry.value.kind(), entry.at, diagnostics);
            return None;
        };
        let value = i64::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|n| range.contains(n));
        if value.is_none() {
            diagnostics.error(entry.at, format!("`{key}` must be between {} and {}", range.start(), range.end()));
        }
        value.map(|value| Spanned { value, at: entry.at })
    }

    /// A number, whole or not, within a range.
    pub(crate) fn fraction(
        &self,
        key: &'static str,
        diagnostics: &mut Diagnostics<'_>,
        range: RangeInclusive<f64>,
    ) -> Option<Spanned<f64>> {
        let entry = self.entry(key)?;
        let number = match &entry.value {
            Value::Scalar(DeValue::Float(float)) => float.as_str().parse::<f64>().ok(),
            Value::Scalar(DeValue::Integer(integer)) => integer.as_str().parse::<f64>().ok(),
            other => {
                wrong_type(key, "a number", other.kind(), entry.at, diagnostics);
                return None;
            }
        };
        let value = number.filter(|number| range.contains(number));
        if value.is_none() {
            diagnostics.error(entry.at, format!("`{key}` must be between {} and {}", range.start(), range.end()));
        }
        value.map(|value| Spanned { value, at: entry.at })
    }

    /// Whether some unknown key looks like a misspelt `key`.
    pub(crate) fn misspells(&self, key: &'static str) -> bool {
        let unknown = self.table.iter().flat_map(|table| table.entries.keys()).filter(|k| !self.keys.keys.contains(*k));
        unknown.map(|unknown| self.keys.suggest(unknown)).any(|hint| hint.contains(&format!("mean `{key}`")))
    }

    pub(crate) fn entry(&self, key: &'static str) -> Option<&'t Entry<'i>> {
        debug_assert!(self.keys.keys.contains(&key), "{key} is missing among the known keys of {}", self.keys.table);
        self.table?.entries.get(key)
    }
}

/// Reports a fault in the text at `at`, at its very column where that can be told.
pub(crate) fn report(key: &str, fault: Fault, at: Span, diagnostics: &mut Diagnostics<'_>) {
    let at = fault.offset.map_or(at, |offset| within(at, offset, diagnostics));
    let space = if fault.message.starts_with(':') { "" } else { " " };
    let diagnostic = diagnostics.error(at, format!("`{key}`{space}{}", fault.message));
    if let Some(help) = fault.help {
        diagnostic.help(help);
    }
}

/// The place of a byte of a string's value: known where the value stands in the file as it is, without escapes.
fn within(at: Span, offset: usize, diagnostics: &Diagnostics<'_>) -> Span {
    let raw = diagnostics.raw(at);
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

pub(crate) fn wrong_type(key: &str, wanted: &str, found: &str, at: Span, diagnostics: &mut Diagnostics<'_>) {
    diagnostics.error(at, format!("`{key}` must be {wanted}, and is {found}"));
}

/// The element of a list that should be a string.
pub(crate) fn element<'i>(key: &str, item: &Item<'i>, diagnostics: &mut Diagnostics<'_>) -> Option<&'i str> {
    let text = item.value.as_str();
    if text.is_none() {
        diagnostics.error(item.at, format!("`{key}` holds strings, and this is {}", kind_of(item.value)));
    }
    text
}

fn unknown(key: &str, at: Span, known: &KnownKeys, diagnostics: &mut Diagnostics<'_>) {
    let what = if schema::is_showable(key) {
        format!("unknown key `{key}` in {}", known.table)
    } else {
        format!("unknown key in {}", known.table)
    };
    diagnostics.error(at, what).help(known.suggest(key));
}
