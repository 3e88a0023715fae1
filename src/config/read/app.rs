//! `[app.*]`.

use super::inherited::{self, Inherited};
use super::reader::{Context, Reader, Spanned};
use super::tenants::{self, TenantDrafts};
use super::values::ValueFault;
use crate::config::diagnostics::collect::Span;
use crate::config::parse::merge::{NodeValue, Tree};
use crate::config::schema::APP;
use crate::domain::{AppName, ClientId, SecretSource};

/// An app as it was read, with the spans that diagnostics need.
pub(crate) struct AppDraft {
    pub(crate) name: AppName,
    /// Where its table stands (first).
    pub(crate) at: Span,
    pub(crate) client_id: ClientId,
    /// Where its secret is kept; `None` when that was an error.
    pub(crate) secret: Option<Spanned<SecretSource>>,
    pub(crate) settings: Inherited,
    pub(crate) tenants: TenantDrafts,
}

/// `[app.*]`.
pub(crate) fn apps<'c>(top: &Reader<'c>, defaults: &Inherited) -> Vec<AppDraft> {
    let context: &'c Context<'c> = top.context;
    let mut read = Vec::new();
    for (key, node) in top.tree("app").into_iter().flat_map(|apps| &apps.nodes) {
        let name = AppName::new(key);
        if name.is_err() {
            top.error(node.key, format!("an app's name must be {}", AppName::RULE)).help("rename the app");
        }
        let NodeValue::Table(tree) = &node.value else {
            top.error(node.key, format!("an app is a table, and this is {}", node.value.kind()))
                .help("write [app.NAME], and the app's keys below it");
            continue;
        };
        // An app without a valid name is read as well, so that all its faults are reported at once.
        let stand_in = || AppName::new("app").unwrap_or_else(|_| unreachable!("the rule allows it"));
        let is_valid = name.is_ok();
        let draft = app(name.unwrap_or_else(|_| stand_in()), node.key, tree, context, defaults);
        read.extend(draft.filter(|_| is_valid));
    }
    read
}

fn app<'c>(
    name: AppName,
    at: Span,
    tree: &'c Tree<'c>,
    context: &'c Context<'c>,
    defaults: &Inherited,
) -> Option<AppDraft> {
    let reader = Reader::open(Some(tree), &APP, context);
    let client_id = client_id(&reader, &name, at);
    let secret = client_secret(&reader, &name, at);
    let settings = inherited::of_app(&reader, defaults);
    let tenants = tenants::read(&reader);
    let client_id = client_id.or_else(|| ClientId::new("unknown").ok())?;
    Some(AppDraft { name, at, client_id, secret, settings, tenants })
}

fn client_id(reader: &Reader<'_>, name: &AppName, at: Span) -> Option<ClientId> {
    report_missing(reader, "client_id", name, at, "client_id = \"…\"");
    let rule = |_| ValueFault::new(format!("must be {}", ClientId::RULE));
    Some(reader.text("client_id", |text| ClientId::new(text).map_err(rule))?.value)
}

fn report_missing(reader: &Reader<'_>, key: &'static str, app: &AppName, at: Span, example: &str) {
    // Where the text does not parse, the key may be there and not have been seen; a misspelt one was reported already.
    if reader.node(key).is_none() && !reader.context.diagnostics.any_syntax_error() && !reader.misspells(key) {
        reader.error(at, format!("the app {app} has no `{key}`")).help(format!("add {example}"));
    }
}

/// `None` when there was an error.
fn client_secret(app: &Reader<'_>, name: &AppName, at: Span) -> Option<Spanned<SecretSource>> {
    let example = format!("client_secret = {{ file = \"{name}.secret\" }}");
    report_missing(app, "client_secret", name, at, &example);
    let node = app.node("client_secret")?;
    let NodeValue::Table(_) = node.value else {
        let path = app.context.base(node.at).join(format!("{name}.secret"));
        app.context.inline_secrets.borrow_mut().push((node.key, path));
        return None;
    };
    let reader = app.table("client_secret");
    let given: Vec<Span> = reader.known_nodes().map(|node| node.key).collect();
    if let [first, second, ..] = given[..] {
        reader
            .error(second, "`client_secret` lies in one place, and these are several")
            .also(first, "the first")
            .help("keep one of `file`, `credential` and `env`");
        return None;
    }
    if reader.is_empty() {
        reader.error(node.at, "`client_secret` says nothing").help("write { file = \"…\" }");
    }
    let file = reader.path("file").map(|file| Spanned { value: SecretSource::File(file.value), at: file.at });
    let credential = reader.text("credential", |text| Ok(SecretSource::Credential(credential_name(text)?)));
    let env = reader.text("env", |text| Ok(SecretSource::Env(variable_name(text)?)));
    file.or(credential).or(env)
}

fn credential_name(text: &str) -> Result<Box<str>, ValueFault> {
    let is_valid = (1..=255).contains(&text.len())
        && ![".", ".."].contains(&text)
        && text.chars().all(|c| c != '/' && c != ':' && !c.is_control());
    let fault = || ValueFault::new("must be a credential's name, as in LoadCredential=");
    is_valid.then(|| text.into()).ok_or_else(fault)
}

fn variable_name(text: &str) -> Result<Box<str>, ValueFault> {
    let is_valid = !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_valid.then(|| text.into()).ok_or_else(|| ValueFault::new("must be an environment variable's name"))
}

#[cfg(test)]
impl AppDraft {
    /// An app whose tenants each have sinks of their own.
    pub(crate) fn with_tenants(
        name: AppName,
        tenants: impl Iterator<Item = (crate::domain::CorpId, Span, Vec<super::sink::SinkDraft>)>,
    ) -> Self {
        let mut drafts = TenantDrafts::default();
        for (index, (id, span, sinks)) in tenants.enumerate() {
            drafts.ids.push(id);
            drafts.spans.push(span);
            drafts.overrides.insert(index, tenants::OverridesDraft { name: None, sinks: Some(sinks.into()) });
        }
        let at = Span { file: 0, start: 0, end: 0 };
        let client_id = ClientId::new("c").unwrap();
        Self { name, at, client_id, secret: None, settings: Inherited::default(), tenants: drafts }
    }
}
