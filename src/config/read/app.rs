//! `[app.*]`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::inherited::{self, Inherited};
use super::reader::{Fault, Reader, Spanned};
use super::sink::{Context, Sink};
use super::tenants::{self, Tenants};
use super::values;
use crate::config::diagnostics::collect::{Diagnostics, Span};
use crate::config::model::{App, Special};
use crate::config::parse::merge::{Table, Value};
use crate::config::schema;
use crate::domain::{AppName, ClientId, SecretSource};

/// An app with what only diagnostics need: where everything stands.
pub(crate) struct AppDraft {
    pub(crate) name: AppName,
    pub(crate) app: App,
    /// Where each of [`App::tenants`] stands.
    pub(crate) tenant_spans: Vec<Span>,
    pub(crate) sinks: Arc<[Sink]>,
    /// The sinks of the tenants that have their own.
    pub(crate) own_sinks: BTreeMap<usize, Arc<[Sink]>>,
    /// The place of the secret, and where the config names it.
    pub(crate) secret: Option<Spanned<SecretSource>>,
}

/// `[app.*]`.
pub(crate) fn apps(
    apps: Option<&Table<'_>>,
    defaults: &Inherited,
    context: &Context<'_>,
    diagnostics: &mut Diagnostics<'_>,
) -> Vec<AppDraft> {
    let mut read = Vec::new();
    for (key, entry) in apps.iter().flat_map(|apps| &apps.entries) {
        let name = AppName::new(key);
        if name.is_err() {
            diagnostics.error(entry.key, format!("an app's name must be {}", AppName::RULE)).help("rename the app");
        }
        let Value::Table(table) = &entry.value else {
            diagnostics
                .error(entry.key, format!("an app is a table, and this is {}", entry.value.kind()))
                .help("write [app.NAME], and the app's keys below it");
            continue;
        };
        // Even an app without a proper name is read, so that all its problems are told at once.
        let stand_in = || AppName::new("app").unwrap_or_else(|_| unreachable!("the rule allows it"));
        let proper = name.is_ok();
        if let Some(app) = app(name.unwrap_or_else(|_| stand_in()), entry.key, table, defaults, context, diagnostics)
            && proper
        {
            read.push(app);
        }
    }
    read
}

fn app(
    name: AppName,
    at: Span,
    table: &Table<'_>,
    defaults: &Inherited,
    context: &Context<'_>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<AppDraft> {
    let reader = Reader::open(Some(table), &schema::APP, diagnostics);
    let client_id = client_id(&reader, &name, at, diagnostics);
    let secret = client_secret(&reader, &name, at, context, diagnostics);
    let settings = inherited::of_app(&reader, defaults, context, diagnostics);
    let tenants = tenants::read(&reader, context, diagnostics);
    let client_id = client_id.or_else(|| ClientId::new("unknown").ok())?;
    Some(assemble(name, client_id, secret, &settings, tenants))
}

fn assemble(
    name: AppName,
    client_id: ClientId,
    secret: Option<Spanned<SecretSource>>,
    settings: &Inherited,
    tenants: Tenants,
) -> AppDraft {
    let sinks = settings.sinks();
    let special = tenants.special.iter().map(|(index, special)| {
        let sinks = special.sinks.as_ref().map(|sinks| settings.specs(sinks));
        (tenants.ids[*index].clone(), Special { name: special.name.clone(), sinks })
    });
    let app = App {
        client_id,
        // Without a secret there was a problem, and nobody gets to see this.
        client_secret: secret.as_ref().map_or_else(|| SecretSource::Env("".into()), |secret| secret.value.clone()),
        endpoint: settings.endpoint(),
        proxy: settings.proxy(),
        policy: settings.policy(),
        on_remove: settings.on_remove(),
        sinks: settings.specs(&sinks),
        special: special.collect(),
        tenants: tenants.ids,
    };
    let own_sinks = tenants.special.into_iter().filter_map(|(index, own)| Some((index, own.sinks?))).collect();
    AppDraft { name, app, tenant_spans: tenants.marks, sinks, own_sinks, secret }
}

fn client_id(reader: &Reader<'_, '_>, name: &AppName, at: Span, diagnostics: &mut Diagnostics<'_>) -> Option<ClientId> {
    if reader.entry("client_id").is_none() {
        missing("client_id", reader, name, at, "client_id = \"…\"", diagnostics);
    }
    let set = reader.text("client_id", diagnostics, |text| {
        ClientId::new(text).map_err(|_| Fault::new(format!("must be {}", ClientId::RULE)))
    })?;
    Some(set.value)
}

fn missing(
    key: &'static str,
    reader: &Reader<'_, '_>,
    name: &AppName,
    at: Span,
    example: &str,
    diagnostics: &mut Diagnostics<'_>,
) {
    // Where the text does not parse, the key may be there and merely not have been seen; a misspelt one is told of already.
    if !diagnostics.any_syntax() && !reader.misspells(key) {
        diagnostics.error(at, format!("the app {name} has no `{key}`")).help(format!("add {example}"));
    }
}

/// `None` when there was a problem.
fn client_secret(
    reader: &Reader<'_, '_>,
    name: &AppName,
    at: Span,
    context: &Context<'_>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Spanned<SecretSource>> {
    let Some(entry) = reader.entry("client_secret") else {
        missing(
            "client_secret",
            reader,
            name,
            at,
            &format!("client_secret = {{ file = \"{name}.secret\" }}"),
            diagnostics,
        );
        return None;
    };
    let Value::Table(table) = &entry.value else {
        let path = context.base(entry.at).join(format!("{name}.secret"));
        let who =
            crate::config::environment::process::group_id("corptokend").map_or("-m 0600", |_| "-m 0640 -g corptokend");
        let help = format!(
            "run `install {who} /dev/stdin {path}`, paste the secret, press Enter and Ctrl-D; then write \
             client_secret = {{ file = \"{path}\" }}",
            path = path.display()
        );
        diagnostics.error(entry.key, "a secret does not belong into the config").help(help);
        return None;
    };
    let reader = Reader::open(Some(table), &schema::CLIENT_SECRET, diagnostics);
    let known = table.entries.iter().filter(|(key, _)| schema::CLIENT_SECRET.keys.contains(key));
    let given: Vec<Span> = known.map(|(_, entry)| entry.key).collect();
    if let [first, second, ..] = given[..] {
        diagnostics
            .error(second, "`client_secret` lies in one place, and these are several")
            .also(first, "the first")
            .help("keep one of `file`, `credential` and `env`");
        return None;
    }
    let file = reader.text("file", diagnostics, |text| values::path(text, context.base(entry.at)));
    let credential = reader.text("credential", diagnostics, credential_name);
    let env = reader.text("env", diagnostics, variable_name);
    if table.entries.is_empty() {
        diagnostics.error(entry.at, "`client_secret` says nothing").help("write { file = \"…\" }");
    }
    file.map(|set| Spanned { value: SecretSource::File(set.value), at: set.at })
        .or(credential.map(|set| Spanned { value: SecretSource::Credential(set.value), at: set.at }))
        .or(env.map(|set| Spanned { value: SecretSource::Env(set.value), at: set.at }))
}

fn credential_name(text: &str) -> Result<Box<str>, Fault> {
    let proper = (1..=255).contains(&text.len())
        && ![".", ".."].contains(&text)
        && text.chars().all(|c| c != '/' && c != ':' && !c.is_control());
    if proper { Ok(text.into()) } else { Err(Fault::new("must be a credential's name, as in LoadCredential=")) }
}

fn variable_name(text: &str) -> Result<Box<str>, Fault> {
    let proper = !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if proper { Ok(text.into()) } else { Err(Fault::new("must be an environment variable's name")) }
}
