//! The JSON Schema (draft 2020-12) of a config: for editors, which check and complete with it.
//!
//! It accepts every valid file, and refuses most invalid ones: what takes the machine or other files to judge is left to
//! `corptokend check`. No key is required, since a drop-in may set any part.

use serde_json::{Map, Value, json};

use super::{CLIENT_SECRET, KeySchema, REFRESH, RETRY, SINK, TENANT, TOP, TableSchema, ValueKind};
use crate::domain::SinkId;

/// Tables that several keys have in common, by their names.
const SHARED: [(&str, &TableSchema); 5] =
    [("refresh", &REFRESH), ("retry", &RETRY), ("client_secret", &CLIENT_SECRET), ("tenant", &TENANT), ("sink", &SINK)];

/// The schema as JSON text.
pub fn json_schema() -> String {
    let mut schema = table(&TOP);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "corptokend's configuration".into();
    let mut shared: Map<String, Value> =
        SHARED.into_iter().map(|(name, schema)| (name.to_owned(), table(schema))).collect();
    for (name, choice) in [("client_secret", &["file", "credential", "env"][..]), ("sink", &["file", "keyring"])] {
        shared[name]["oneOf"] = choice.iter().map(|key| json!({ "required": [key] })).collect();
    }
    schema["$defs"] = shared.into();
    format!("{schema:#}\n")
}

fn table(table: &TableSchema) -> Value {
    let properties: Map<String, Value> = table.keys().map(|key| (key.name.to_owned(), property(key))).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !table.doc.is_empty() {
        schema["description"] = table.doc.into();
    }
    schema
}

fn property(key: &KeySchema) -> Value {
    let mut schema = key.kind.to_json();
    if !key.doc.is_empty() {
        schema["description"] = key.doc.into();
    }
    if let Some(default) = key.default {
        let value = if key.kind.is_quoted() { Ok(default.into()) } else { default.parse::<Value>() };
        schema["default"] = value.unwrap_or(Value::Null);
    }
    if !key.example.is_empty() && key.kind.is_quoted() {
        schema["examples"] = json!([key.example.replace("\\n", "\n")]);
    }
    schema
}

impl ValueKind {
    fn to_json(self) -> Value {
        let text = |pattern: &str| json!({ "type": "string", "pattern": pattern });
        match self {
            Self::Duration { .. } => text("^\\s*[0-9][0-9\\s.]*[A-Za-zµ][0-9A-Za-zµ\\s.]*$"),
            Self::Integer { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
            Self::Fraction { least, most } => json!({ "type": "number", "minimum": least, "maximum": most }),
            Self::Boolean => json!({ "type": "boolean" }),
            Self::Rate => text("^\\s*\\+?[0-9]+\\s*/\\s*[sm]\\s*$"),
            Self::Word(words) => json!({ "enum": words }),
            Self::Mode { .. } => text("^[0-7]{3,4}$"),
            Self::Owner | Self::Group => {
                json!({ "type": ["string", "integer"], "minimum": 0, "maximum": u32::MAX - 1 })
            }
            Self::Endpoint => text("^https?://"),
            Self::IpAddress | Self::Proxy | Self::Path | Self::SinkPath => json!({ "type": "string", "minLength": 1 }),
            Self::KeyringPath => text("^(@u|\\+?[0-9]+)/"),
            Self::Template => text("\\{token\\}"),
            Self::Text { pattern, .. } => text(pattern),
            Self::CorpIds => json!({ "type": "array", "items": text("^[A-Za-z0-9_-]{1,64}$"), "uniqueItems": true }),
            Self::Table(schema) | Self::OneOf(schema) => shared(schema).unwrap_or_else(|| table(schema)),
            Self::Sinks(schema) => json!({ "type": "array", "items": shared(schema), "maxItems": SinkId::MAX }),
            Self::Named { table: schema, pattern } => {
                let entry = shared(schema).unwrap_or_else(|| table(schema));
                json!({ "type": "object", "patternProperties": { pattern: entry }, "additionalProperties": false })
            }
        }
    }
}

/// A reference to a table that several keys have in common.
fn shared(schema: &TableSchema) -> Option<Value> {
    let (name, _) = SHARED.iter().find(|(_, table)| table.name == schema.name)?;
    Some(json!({ "$ref": format!("#/$defs/{name}") }))
}
