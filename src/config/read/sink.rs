//! `[[….sink]]`: files and kernel keyrings.

use std::sync::Arc;

use super::reader::{AccountName, Reader};
use super::values::{self, ValueFault};
use crate::config::diagnostics::collect::Span;
use crate::config::parse::merge::{Element, kind_of};
use crate::config::schema::SINK;
use crate::domain::{FileSink, Format, KeyringRoot, KeyringSink, Placeholder, SinkId, SinkKind, Template};

/// A sink as it was read: what is still missing is the numbers of its accounts, and what its app does with expired tokens.
#[derive(Debug, Clone)]
pub(crate) struct SinkDraft {
    /// Without owner and group.
    pub(crate) kind: SinkKind,
    pub(crate) owner: Option<AccountName>,
    pub(crate) group: Option<AccountName>,
    /// Where its path stands; `None` for the sink that nobody wrote.
    pub(crate) at: Option<Span>,
}

impl SinkDraft {
    /// Where tokens go when no sink is configured: files below the runtime directory.
    pub(crate) fn standard(runtime_directory: &str) -> Self {
        let directory = runtime_directory.replace('{', "{{").replace('}', "}}");
        let path = Template::parse(&format!("{directory}/tokens/{{app}}/{{corp_id}}"), Placeholder::IN_PATHS);
        Self {
            kind: SinkKind::File(Arc::new(FileSink {
                path: path.unwrap_or_else(|_| unreachable!("its braces are doubled")),
                format: Format::Raw,
                mode: default_mode("mode"),
                dir_mode: default_mode("dir_mode"),
                owner: None,
                group: None,
                trust_dir: false,
            })),
            owner: None,
            group: Some(AccountName::Default("corptokend-readers")),
            at: None,
        }
    }
}

/// The permission bits where a sink sets none.
fn default_mode(key: &'static str) -> u32 {
    values::default(&SINK, key, |text| values::mode(text, 0, 0))
}

/// The sinks of the list at `sink`.
pub(crate) fn sinks(reader: &Reader<'_>) -> Option<Arc<[SinkDraft]>> {
    let elements = reader.list("sink")?;
    if let Some(one_too_many) = elements.get(SinkId::MAX) {
        let message = format!("a tenant can have {} sinks, and these are {}", SinkId::MAX, elements.len());
        reader.error(one_too_many.at, message).help("remove some");
        return Some(Arc::new([]));
    }
    Some(elements.iter().filter_map(|element| sink(element, reader)).collect())
}

fn sink(element: &Element<'_>, parent: &Reader<'_>) -> Option<SinkDraft> {
    let Some(tree) = element.as_table() else {
        parent
            .error(element.at, format!("a sink is a table, and this is {}", kind_of(element.value)))
            .help("write { file = \"…\" } or { keyring = \"…\" }");
        return None;
    };
    let reader = Reader::open(Some(&tree), &SINK, parent.context);
    match (reader.node("file"), reader.node("keyring")) {
        (Some(_), None) => file_sink(&reader),
        (None, Some(_)) => keyring_sink(&reader),
        (Some(file), Some(keyring)) => {
            reader
                .error(keyring.key, "a sink is a `file` or a `keyring`, and this is both")
                .also(file.key, "the `file`")
                .help("make two sinks of it");
            None
        }
        (None, None) => {
            reader
                .error(element.at, "a sink needs a `file` or a `keyring`")
                .help("add file = \"/run/corptokend/tokens/{app}/{corp_id}\", for example");
            None
        }
    }
}

fn file_sink(reader: &Reader<'_>) -> Option<SinkDraft> {
    let at = reader.node("file")?.at;
    let path = reader.text("file", |text| values::path_template(text, reader.context.base(at)));
    let format = format(reader);
    let (mode, dir_mode) = (reader.mode("mode"), reader.mode("dir_mode"));
    let (owner, group) = (reader.account("owner"), reader.account("group"));
    let trust_dir = reader.boolean("trust_dir");
    let file = FileSink {
        path: path?.value,
        format: format?,
        mode: mode.map_or_else(|| default_mode("mode"), |mode| mode.value),
        dir_mode: dir_mode.map_or_else(|| default_mode("dir_mode"), |mode| mode.value),
        owner: None,
        group: None,
        trust_dir: trust_dir.is_some_and(|trust| trust.value),
    };
    Some(SinkDraft { kind: SinkKind::File(file.into()), owner, group, at: Some(at) })
}

/// `None` when there was an error.
fn format(reader: &Reader<'_>) -> Option<Format> {
    match (reader.node("format"), reader.node("template")) {
        (Some(format), Some(template)) => {
            reader
                .error(template.key, "a sink has a `format` or a `template`, and this has both")
                .also(format.key, "the `format`")
                .help("remove one of the two");
            None
        }
        (None, Some(_)) => reader.text("template", content_template).map(|template| Format::Template(template.value)),
        (None, None) => Some(Format::Raw),
        (Some(_), None) => {
            let formats = [Format::Raw, Format::Line, Format::Json, Format::Env];
            reader.word("format", &[0, 1, 2, 3]).map(|index| formats[index.value].clone())
        }
    }
}

fn content_template(text: &str) -> Result<Template, ValueFault> {
    let template = values::template(text, Placeholder::IN_CONTENT)?;
    if template.names(Placeholder::Token) {
        return Ok(template);
    }
    Err(ValueFault::new("does not name the token").help("write {token} where the token belongs"))
}

fn keyring_sink(reader: &Reader<'_>) -> Option<SinkDraft> {
    for key in SINK.keys().filter(|key| key.name != "keyring") {
        if let Some(node) = reader.node(key.name) {
            let message = format!("`{}` is for files, and this sink is a keyring", key.name);
            reader.error(node.key, message).help("remove it");
        }
    }
    let keyring = reader.text("keyring", keyring_path)?;
    Some(SinkDraft { kind: SinkKind::Keyring(keyring.value.into()), owner: None, group: None, at: Some(keyring.at) })
}

fn keyring_path(text: &str) -> Result<KeyringSink, ValueFault> {
    let help = "write it like \"@u/corptokend/{app}/{corp_id}\"";
    let (root, rest) =
        text.split_once('/').ok_or_else(|| ValueFault::new("needs a key below the keyring").help(help))?;
    let serial = || root.parse::<i32>().ok().filter(|serial| *serial > 0).map(KeyringRoot::Serial);
    let known = if root == "@u" { Some(KeyringRoot::User) } else { serial() };
    let root_kind = known.ok_or_else(|| ValueFault::new("must start with @u or a keyring's number").help(help))?;
    let mut offset = root.len() + 1;
    let mut path = Vec::new();
    let last = rest.split('/').count() - 1;
    for (index, part) in rest.split('/').enumerate() {
        let shifted = |fault: ValueFault| ValueFault { offset: fault.offset.map(|at| at + offset), ..fault };
        values::visible(part).map_err(shifted)?;
        if part.is_empty() {
            return Err(ValueFault::new("has an empty part").help(help).at(offset));
        }
        if index < last && part.starts_with('.') {
            let message = "names a keyring that begins with a dot, which the kernel keeps for itself";
            return Err(ValueFault::new(message).help(help).at(offset));
        }
        path.push(values::template(part, Placeholder::IN_PATHS).map_err(shifted)?);
        offset += part.len() + 1;
    }
    Ok(KeyringSink { root: root_kind, path: path.into() })
}
