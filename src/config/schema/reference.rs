//! The commented `config/config.toml`: every key with its default or an example.

use std::fmt::Write as _;

use super::{
    API, APP, CLIENT_SECRET, CONTROL, DEFAULTS, KeySchema, LIMITS, LOG, SINK, STATE, TENANT, TableSchema, ValueKind,
};

const INTRODUCTION: &str = "\
# corptokend's configuration. Every key is here, commented out, with its default or an example.
# `corptokend schema` prints this reference as a JSON Schema for editors; corptokend.toml(5) says more about each key.
#
# Four lines are a whole config (see [app.crm] below); everything else suits the machine as it is. Files in config.d/
# beside this one (*.toml, in lexical order) are read as well: tables merge, lists of corp_ids and sinks are joined.
# A change takes effect when the file is saved; `corptokend check` says beforehand what it would do.
#
# Durations are written \"90s\", \"1h 30m\", \"500ms\"; rates \"15/s\", \"30/m\"; modes as octal strings. Relative paths start
# from the directory of the file that they stand in.
";

/// The columns of the comments behind keys and tables: the first that has room.
const NOTES: [usize; 2] = [35, 47];

/// The text of `config/config.toml`.
pub fn reference() -> String {
    let mut text = INTRODUCTION.to_owned();
    for table in [&API, &LIMITS, &STATE, &CONTROL, &LOG, &DEFAULTS] {
        block(&mut text, table.name, table.doc, table.keys().filter(|key| key.name != "sink"));
    }
    let sink = |names: &[&str]| SINK.keys().filter(|key| names.contains(&key.name)).collect::<Vec<_>>();
    let of_files: Vec<_> = SINK.keys().filter(|key| !["keyring", "template"].contains(&key.name)).collect();
    block(&mut text, "#[[defaults.sink]]", "Where tokens go: files ...", of_files.into_iter());
    block(&mut text, "#[[defaults.sink]]", "... or the kernel's keyrings", sink(&["keyring"]).into_iter());
    block(&mut text, "#[app.crm]", "", APP.keys[0].iter().filter(|key| key.name != "tenant"));
    let tenant = "app.crm.tenant.ding9f50b15bccd16741";
    block(&mut text, &format!("#[{tenant}]"), TENANT.doc, TENANT.keys().filter(|key| key.name != "sink"));
    let note = "A tenant's sinks replace its app's, which replace the default ones.";
    heading(&mut text, &format!("#[[{tenant}.sink]]"), note);
    text.push_str("#file     = \"/srv/acme/token\"\n");
    keys(&mut text, sink(&["template"]).into_iter());
    text
}

fn block<'k>(text: &mut String, head: &str, note: &str, these: impl Iterator<Item = &'k KeySchema> + Clone) {
    heading(text, head, note);
    keys(text, these);
}

fn heading(text: &mut String, head: &str, note: &str) {
    text.push('\n');
    line(text, head.to_owned(), note);
}

fn keys<'k>(text: &mut String, these: impl Iterator<Item = &'k KeySchema> + Clone) {
    let width = these.clone().map(|key| key.name.len()).max().unwrap_or(0);
    for key in these {
        let (name, note) = (key.name, key.short_note());
        if let ValueKind::OneOf(_) = key.kind {
            for (nth, choice) in CLIENT_SECRET.keys().enumerate() {
                let mark = if nth == 0 { "#" } else { "##" };
                let value = format!("{{ {} = {} }}", choice.name, choice.value());
                line(text, format!("{mark}{name:width$} = {value}"), choice.note);
            }
        } else {
            line(text, format!("#{name:width$} = {}", key.value()), &note);
        }
    }
}

fn line(text: &mut String, start: String, note: &str) {
    let _ = if note.is_empty() {
        writeln!(text, "{start}")
    } else if let Some(column) = NOTES.into_iter().find(|column| start.len() < *column) {
        writeln!(text, "{start:column$}# {note}")
    } else {
        writeln!(text, "{start}   # {note}")
    };
}

impl KeySchema {
    /// The words that can be chosen from, and the note.
    fn short_note(&self) -> String {
        let words = match self.kind {
            ValueKind::Word(words) => words.join(" | "),
            _ => return self.note.to_owned(),
        };
        if self.note.is_empty() { words } else { format!("{words}: {}", self.note) }
    }

    /// The default, or else the example, as TOML.
    pub(super) fn value(&self) -> String {
        let text = self.default.unwrap_or(self.example);
        match self.kind {
            ValueKind::Table(table) => inline(table),
            _ if self.kind.is_quoted() => format!("\"{text}\""),
            _ => text.to_owned(),
        }
    }
}

fn inline(table: &TableSchema) -> String {
    let keys: Vec<String> = table.keys().map(|key| format!("{} = {}", key.name, key.value())).collect();
    format!("{{ {} }}", keys.join(", "))
}
