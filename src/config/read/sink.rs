//! `[[….sink]]`: files and kernel keyrings.

use std::path::Path;

use super::reader::{Fault, Reader, Spanned};
use super::values;
use crate::config::diagnostics::collect::{Diagnostics, Span};
use crate::config::environment::process::Process;
use crate::config::parse::merge::{Item, kind_of};
use crate::config::schema;
use crate::domain::{FileSink, Format, KeyringRoot, KeyringSink, Placeholder, SinkId, SinkKind, Template};

/// The permission bits that a file gets when its sink does not say.
pub(crate) const MODE: u32 = 0o640;
/// And a directory that had to be made.
pub(crate) const DIR_MODE: u32 = 0o750;

/// Keys that say something about files alone.
const FOR_FILES: [&str; 7] = ["format", "template", "mode", "dir_mode", "owner", "group", "trust_dir"];

/// A sink as it was read, before its app says what becomes of expired tokens.
#[derive(Clone)]
pub(crate) struct Sink {
    pub(crate) kind: SinkKind,
    /// Where its path stands; `None` for the sink that nobody wrote.
    pub(crate) at: Option<Span>,
}

impl Sink {
    /// Whether it is filled in from this value, in path or content.
    pub(crate) fn names(&self, placeholder: Placeholder) -> bool {
        names(&self.kind, placeholder)
    }
}

/// Whether a sink is filled in from this value, in path or content.
pub(crate) fn names(kind: &SinkKind, placeholder: Placeholder) -> bool {
    match kind {
        SinkKind::File(file) => {
            file.path.names(placeholder)
                || matches!(&file.format, Format::Template(template) if template.names(placeholder))
        }
        SinkKind::Keyring(keyring) => keyring.path.iter().any(|part| part.names(placeholder)),
    }
}

/// What sinks are read against.
pub(crate) struct Context<'a> {
    pub(crate) bases: &'a [&'a Path],
    pub(crate) process: &'a Process,
}

impl Context<'_> {
    pub(crate) fn base(&self, at: Span) -> &Path {
        self.bases[at.file as usize]
    }
}

/// The sinks of a list.
pub(crate) fn sinks(items: &[Item<'_>], context: &Context<'_>, diagnostics: &mut Diagnostics<'_>) -> Vec<Sink> {
    if let Some(one_too_many) = items.get(SinkId::MAX) {
        diagnostics
            .error(one_too_many.at, format!("a tenant can have {} sinks, and these are {}", SinkId::MAX, items.len()))
            .help("remove some");
    }
    if items.len() > SinkId::MAX {
        return Vec::new();
    }
    items.iter().filter_map(|item| sink(item, context, diagnostics)).collect()
}

fn sink(item: &Item<'_>, context: &Context<'_>, diagnostics: &mut Diagnostics<'_>) -> Option<Sink> {
    let Some(table) = item.as_table() else {
        diagnostics
            .error(item.at, format!("a sink is a table, and this is {}", kind_of(item.value)))
            .help("write { file = \"…\" } or { keyring = \"…\" }");
        return None;
    };
    let reader = Reader::open(Some(&table), &schema::SINK, diagnostics);
    let (file, keyring) = (reader.entry("file"), reader.entry("keyring"));
    match (file, keyring) {
        (Some(_), None) => file_sink(&reader, context, diagnostics),
        (None, Some(_)) => keyring_sink(&reader, diagnostics),
        (Some(file), Some(keyring)) => {
            diagnostics
                .error(keyring.key, "a sink is a `file` or a `keyring`, and this is both")
                .also(file.key, "the `file`")
                .help("make two sinks of it");
            None
        }
        (None, None) => {
            diagnostics
                .error(item.at, "a sink needs a `file` or a `keyring`")
                .help("add file = \"/run/corptokend/tokens/{app}/{corp_id}\", for example");
            None
        }
    }
}

fn file_sink(reader: &Reader<'_, '_>, context: &Context<'_>, diagnostics: &mut Diagnostics<'_>) -> Option<Sink> {
    let at = reader.entry("file")?.at;
    let path = reader.text("file", diagnostics, |text| values::path_template(text, context.base(at)));
    let format = format(reader, diagnostics);
    let mode = reader.text("mode", diagnostics, |text| values::mode(text, 0o400, 0o113));
    let dir_mode = reader.text("dir_mode", diagnostics, |text| values::mode(text, 0o700, 0o002));
    let owner = owner(reader, context, diagnostics);
    let group = group(reader, context.process, diagnostics);
    let trust_dir = reader.boolean("trust_dir", diagnostics);
    let file = FileSink {
        path: path?.value,
        format: format?,
        mode: mode.map_or(MODE, |set| set.value),
        dir_mode: dir_mode.map_or(DIR_MODE, |set| set.value),
        owner: owner.map(|set| set.value),
        group: group.map(|set| set.value),
        trust_dir: trust_dir.is_some_and(|set| set.value),
    };
    Some(Sink { kind: SinkKind::File(file), at: Some(at) })
}

/// `None` when there was a problem.
fn format(reader: &Reader<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> Option<Format> {
    if let (Some(format), Some(template)) = (reader.entry("format"), reader.entry("template")) {
        diagnostics
            .error(template.key, "a sink has a `format` or a `template`, and this has both")
            .also(format.key, "the `format`")
            .help("remove one of the two");
        return None;
    }
    if reader.entry("template").is_some() {
        return reader.text("template", diagnostics, content_template).map(|set| Format::Template(set.value));
    }
    if reader.entry("format").is_none() {
        return Some(Format::Raw);
    }
    let words = [("raw", 0), ("line", 1), ("json", 2), ("env", 3)];
    let formats = [Format::Raw, Format::Line, Format::Json, Format::Env];
    reader.word("format", diagnostics, &words).map(|set| formats[set.value].clone())
}

fn content_template(text: &str) -> Result<Template, Fault> {
    let template = values::template(text, Placeholder::IN_CONTENT)?;
    if template.names(Placeholder::Token) {
        return Ok(template);
    }
    Err(Fault::new("does not name the token").help("write {token} where the token belongs"))
}

fn owner(reader: &Reader<'_, '_>, context: &Context<'_>, diagnostics: &mut Diagnostics<'_>) -> Option<Spanned<u32>> {
    let owner = values::account(reader, "owner", diagnostics)?;
    if owner.value != context.process.user && !context.process.may_chown {
        diagnostics
            .error(owner.at, "files cannot be given to another user without CAP_CHOWN")
            .help("add AmbientCapabilities=CAP_CHOWN and CapabilityBoundingSet=CAP_CHOWN to the unit, or use `group`");
    }
    Some(owner)
}

/// `group`, for sinks and for the control socket.
pub(crate) fn group(
    reader: &Reader<'_, '_>,
    process: &Process,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Spanned<u32>> {
    let group = values::account(reader, "group", diagnostics)?;
    if !process.may_give_to(group.value) {
        diagnostics
            .error(group.at, "files cannot be given to a group that the daemon's user is not in")
            .help("add SupplementaryGroups= with that group to the unit (or give it CAP_CHOWN)");
    }
    Some(group)
}

fn keyring_sink(reader: &Reader<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> Option<Sink> {
    for key in FOR_FILES {
        if let Some(entry) = reader.entry(key) {
            diagnostics.error(entry.key, format!("`{key}` is for files, and this sink is a keyring")).help("remove it");
        }
    }
    let set = reader.text("keyring", diagnostics, keyring_path)?;
    Some(Sink { kind: SinkKind::Keyring(set.value), at: Some(set.at) })
}

fn keyring_path(text: &str) -> Result<KeyringSink, Fault> {
    let help = "write it like \"@u/corptokend/{app}/{corp_id}\"";
    let (root, rest) = text.split_once('/').ok_or_else(|| Fault::new("needs a key below the keyring").help(help))?;
    let serial = || root.parse::<i32>().ok().filter(|serial| *serial > 0).map(KeyringRoot::Serial);
    let known = if root == "@u" { Some(KeyringRoot::User) } else { serial() };
    let root_kind = known.ok_or_else(|| Fault::new("must start with @u or a keyring's number").help(help))?;
    let mut offset = root.len() + 1;
    let mut path = Vec::new();
    let last = rest.split('/').count() - 1;
    for (index, part) in rest.split('/').enumerate() {
        values::visible(part).map_err(|fault| Fault { offset: fault.offset.map(|at| at + offset), ..fault })?;
        let fault = if part.is_empty() {
            Some("has an empty part")
        } else if index < last && part.starts_with('.') {
            Some("names a keyring that begins with a dot, which the kernel keeps for itself")
        } else {
            None
        };
        if let Some(message) = fault {
            return Err(Fault { offset: Some(offset), ..Fault::new(message).help(help) });
        }
        let template = values::template(part, Placeholder::IN_PATHS)
            .map_err(|fault| Fault { offset: fault.offset.map(|at| at + offset), ..fault })?;
        path.push(template);
        offset += part.len() + 1;
    }
    Ok(KeyringSink { root: root_kind, path: path.into() })
}
