//! The fields of an answer's JSON that matter, without a copy that outlives them.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use zeroize::Zeroizing;

/// A field's value. Text may be a token, so it is overwritten when dropped.
#[derive(Default)]
pub(super) enum FieldValue {
    /// The field is missing.
    #[default]
    Absent,
    /// A number without fraction or exponent, 0 or greater.
    Whole(u64),
    Text(Zeroizing<String>),
    /// Anything else: what it is, in words.
    Other(&'static str),
}

impl FieldValue {
    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// The fields of an answer.
#[derive(Default)]
pub(super) struct AnswerFields {
    pub(super) access_token: FieldValue,
    pub(super) expires_in: FieldValue,
    pub(super) code: FieldValue,
    pub(super) message: FieldValue,
    pub(super) request_id: FieldValue,
    pub(super) punish: FieldValue,
    pub(super) wait: FieldValue,
    /// Whether a key occurs twice: it is unknown which one is meant.
    pub(super) duplicate: bool,
}

/// Reads a body that should be one JSON object.
///
/// # Errors
/// What is wrong with it, in a text that quotes nothing of it.
pub(super) fn read(body: &[u8]) -> Result<AnswerFields, String> {
    if body.is_empty() {
        return Err("is empty".to_owned());
    }
    if body.starts_with(b"\xef\xbb\xbf") {
        return Err("begins with a byte order mark, which JSON does not allow".to_owned());
    }
    if std::str::from_utf8(body).is_err() {
        return Err("is not UTF-8".to_owned());
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    // serde_json's own messages can quote the body; its category and position cannot.
    let fields = json.deserialize_any(FieldsVisitor).and_then(|fields| json.end().map(|()| fields));
    fields.map_err(|error| match error.classify() {
        Category::Eof => "breaks off in the middle of the JSON".to_owned(),
        Category::Data => "is not a JSON object".to_owned(),
        Category::Syntax | Category::Io => {
            format!("is not JSON (line {}, column {})", error.line(), error.column())
        }
    })
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = AnswerFields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AnswerFields, A::Error> {
        let mut fields = AnswerFields::default();
        let mut others = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let Some(field) = fields.by_key(&key) else {
                map.next_value::<IgnoredAny>()?;
                fields.duplicate |= !others.insert(key);
                continue;
            };
            let seen = !field.is_absent();
            *field = map.next_value()?;
            fields.duplicate |= seen;
        }
        Ok(fields)
    }
}

impl AnswerFields {
    fn by_key(&mut self, key: &str) -> Option<&mut FieldValue> {
        match key {
            "access_token" => Some(&mut self.access_token),
            "expires_in" => Some(&mut self.expires_in),
            "code" => Some(&mut self.code),
            "message" => Some(&mut self.message),
            "requestid" => Some(&mut self.request_id),
            "punish" => Some(&mut self.punish),
            "wait" => Some(&mut self.wait),
            _ => None,
        }
    }
}

impl<'de> serde::Deserialize<'de> for FieldValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldValueVisitor)
    }
}

struct FieldValueVisitor;

impl<'de> Visitor<'de> for FieldValueVisitor {
    type Value = FieldValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_u64<E>(self, number: u64) -> Result<FieldValue, E> {
        Ok(FieldValue::Whole(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<FieldValue, E> {
        Ok(FieldValue::Other("a negative number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<FieldValue, E> {
        Ok(FieldValue::Other("not a whole number"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<FieldValue, E> {
        Ok(FieldValue::Other("a boolean"))
    }

    fn visit_unit<E>(self) -> Result<FieldValue, E> {
        Ok(FieldValue::Other("null"))
    }

    fn visit_str<E>(self, text: &str) -> Result<FieldValue, E> {
        Ok(FieldValue::Text(Zeroizing::new(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<FieldValue, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(FieldValue::Other("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FieldValue, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(FieldValue::Other("an object"))
    }
}
