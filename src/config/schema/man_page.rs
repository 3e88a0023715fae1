//! The manual page corptokend.toml(5).

use std::fmt::Write as _;

use super::{ALL, KeySchema, TOP, TableSchema, ValueKind, listed};

const START: &str = r#".TH CORPTOKEND.TOML 5 "" corptokend "File formats"
.SH NAME
corptokend.toml \- configuration of corptokend
.SH SYNOPSIS
.I /etc/corptokend/config.toml
.br
.I /etc/corptokend/config.d/*.toml
.SH DESCRIPTION
The file is TOML. The drop\-ins beside it are read in lexical order; names that begin with a dot are ignored. Tables of several
files merge, lists of
.B corp_ids
and of
.BR sink s
are joined, and any other key that is set in two files is an error.
.PP
Durations are strings with units
.RB ( \(dq90s\(dq ", " \(dq1h\ 30m\(dq ),
rates are calls a second or a minute
.RB ( \(dq15/s\(dq ", " \(dq30/m\(dq ),
and permission bits are octal strings. Relative paths start from the directory of the file that they stand in. Unknown keys are
errors.
.PP
A change takes effect when the file is saved.
.B corptokend check
says beforehand what it would do, and reports all faults at once.
"#;

const END: &str = r#".SH FILES
.TP
.I /etc/corptokend/config.toml
The main file, unless
.B \-\-config
or
.B CORPTOKEND_CONFIG
names another.
.TP
.I /etc/corptokend/config.d/*.toml
Its drop\-ins: the directory is named as the main file is, with
.I .d
instead of the extension.
.SH EXAMPLES
Four lines are a whole config:
.PP
.nf
[app.crm]
client_id     = "ding123"
client_secret = { file = "/etc/corptokend/crm.secret" }
corp_ids      = ["ding9f50b15bccd16741", "ding4a0c7f21e88b6d0a"]
.fi
.SH SEE ALSO
.BR corptokend (1)
"#;

/// The page in roff.
pub fn man_page() -> String {
    let mut page = START.to_owned();
    for table in ALL.iter().filter(|table| table.name != TOP.name) {
        describe(table, &mut page);
    }
    page.push_str(END);
    page
}

fn describe(table: &TableSchema, page: &mut String) {
    let _ = writeln!(page, ".SH \"{}\"\n{}", escaped(&table.name.to_uppercase()), escaped(table.doc));
    for key in table.keys() {
        let _ = writeln!(page, ".TP\n.B {}\n{}", escaped(key.name), escaped(&key.paragraph()));
    }
}

impl KeySchema {
    fn paragraph(&self) -> String {
        let mut text = match self.kind {
            ValueKind::Named { table, .. } => table.doc.to_owned(),
            _ => self.doc.to_owned(),
        };
        let _ = write!(text, " It is {}", self.kind.describe());
        if let Some(default) = self.default {
            let _ = write!(text, "; the default is {default}");
        }
        text + "."
    }
}

impl ValueKind {
    fn describe(self) -> String {
        let duration = humantime::format_duration;
        match self {
            Self::Duration { least, most } => format!("a duration from {} to {}", duration(least), duration(most)),
            Self::Integer { least, most } => format!("an integer from {least} to {most}"),
            Self::Fraction { least, most } => format!("a number from {least} to {most}"),
            Self::Boolean => "true or false".into(),
            Self::Rate => "a rate".into(),
            Self::Word(words) => format!("one of {}", listed(words)),
            Self::Mode { .. } => "an octal string".into(),
            Self::Owner => "a user's name or number".into(),
            Self::Group => "a group's name or number".into(),
            Self::IpAddress => "an IP address".into(),
            Self::Endpoint | Self::Proxy => "a URL".into(),
            Self::Path | Self::SinkPath => "a path".into(),
            Self::KeyringPath => "a path of keyrings".into(),
            Self::Template => "a text".into(),
            Self::Text { what, .. } => what.into(),
            Self::CorpIds => "a list of strings".into(),
            Self::Table(_) | Self::OneOf(_) => "a table".into(),
            Self::Sinks(_) => "a list of tables".into(),
            Self::Named { .. } => "a table of tables".into(),
        }
    }
}

/// Text for roff: no backslash, hyphen or leading dot is taken for a command, and what stands between backquotes is bold.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    let mut is_bold = false;
    for character in text.chars() {
        match character {
            '`' => {
                out.push_str(if is_bold { "\\fR" } else { "\\fB" });
                is_bold = !is_bold;
            }
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '.' | '\'' if out.is_empty() => {
                out.push_str("\\&");
                out.push(character);
            }
            _ => out.push(character),
        }
    }
    out
}
