//! `[app.*]`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::inherited::{self, Settings};
use super::reader::{Fault, Section, Set};
use super::sink::{Reading, Sink};
use super::tenants::{self, Tenants};
use super::values;
use crate::config::diagnostics::collect::{Mark, Problems};
use crate::config::model::{App, Special};
use crate::config::parse::merge::{Table, Value};
use crate::config::schema;
use crate::domain::{AppName, ClientId, SecretSource};

/// An app with what only diagnostics need: where everything stands.
pub(crate) struct ReadApp {
    pub(crate) name: AppName,
    pub(crate) app: App,
    /// Where each of [`App::tenants`] stands.
    pub(crate) tenant_marks: Vec<Mark>,
    pub(crate) sinks: Arc<[Sink]>,
    /// The sinks of the tenants that have their own.
    pub(crate) own_sinks: BTreeMap<usize, Arc<[Sink]>>,
    /// The place of the secret, and where the config names it.
    pub(crate) secret: Option<Set<SecretSource>>,
}

/// `[app.*]`.
pub(crate) fn apps(
    apps: Option<&Table<'_>>,
    defaults: &Settings,
    reading: &Reading<'_>,
    problems: &mut Problems<'_>,
) -> Vec<ReadApp> {
    let mut read = Vec::new();
    for (key, entry) in apps.iter().flat_map(|apps| &apps.entries) {
        let name = AppName::new(key);
        if name.is_err() {
            problems.error(entry.key, format!("an app's name must be {}", AppName::RULE)).help("rename the app");
        }
        let Value::Table(table) = &entry.value else {
            problems
                .error(entry.key, format!("an app is a table, and this is {}", entry.value.kind()))
                .help("write [app.NAME], and the app's keys below it");
            continue;
        };
        // Even an app without a proper name is read, so that all its problems are told at once.
        let stand_in = || AppName::new("app").unwrap_or_else(|_| unreachable!("the rule allows it"));
        let proper = name.is_ok();
        if let Some(app) = app(name.unwrap_or_else(|_| stand_in()), entry.key, table, defaults, reading, problems)
            && proper
        {
            read.push(app);
        }
    }
    read
}

fn app(
    name: AppName,
    at: Mark,
    table: &Table<'_>,
    defaults: &Settings,
    reading: &Reading<'_>,
    problems: &mut Problems<'_>,
) -> Option<ReadApp> {
    let section = Section::open(Some(table), &schema::APP, problems);
    let client_id = client_id(&section, &name, at, problems);
    let secret = client_secret(&section, &name, at, reading, problems);
    let settings = inherited::of_app(&section, defaults, reading, problems);
    let tenants = tenants::read(&section, reading, problems);
    let client_id = client_id.or_else(|| ClientId::new("unknown").ok())?;
    Some(assemble(name, client_id, secret, &settings, tenants))
}

fn assemble(
    name: AppName,
    client_id: ClientId,
    secret: Option<Set<SecretSource>>,
    settings: &Settings,
    tenants: Tenants,
) -> ReadApp {
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
    ReadApp { name, app, tenant_marks: tenants.marks, sinks, own_sinks, secret }
}

fn client_id(section: &Section<'_, '_>, name: &AppName, at: Mark, problems: &mut Problems<'_>) -> Option<ClientId> {
    if section.entry("client_id").is_none() {
        missing("client_id", section, name, at, "client_id = \"…\"", problems);
    }
    let set = section.text("client_id", problems, |text| {
        ClientId::new(text).map_err(|_| Fault::new(format!("must be {}", ClientId::RULE)))
    })?;
    Some(set.value)
}

fn missing(
    key: &'static str,
    section: &Section<'_, '_>,
    name: &AppName,
    at: Mark,
    example: &str,
    problems: &mut Problems<'_>,
) {
    // Where the text does not parse, the key may be there and merely not have been seen; a misspelt one is told of already.
    if !problems.any_syntax() && !section.misspells(key) {
        problems.error(at, format!("the app {name} has no `{key}`")).help(format!("add {example}"));
    }
}

/// `None` when there was a problem.
fn client_secret(
    section: &Section<'_, '_>,
    name: &AppName,
    at: Mark,
    reading: &Reading<'_>,
    problems: &mut Problems<'_>,
) -> Option<Set<SecretSource>> {
    let Some(entry) = section.entry("client_secret") else {
        missing(
            "client_secret",
            section,
            name,
            at,
            &format!("client_secret = {{ file = \"{name}.secret\" }}"),
            problems,
        );
        return None;
    };
    let Value::Table(table) = &entry.value else {
        let path = reading.base(entry.at).join(format!("{name}.secret"));
        let who =
            crate::config::environment::process::group_id("corptokend").map_or("-m 0600", |_| "-m 0640 -g corptokend");
        let help = format!(
            "run `install {who} /dev/stdin {path}`, paste the secret, press Enter and Ctrl-D; then write \
             client_secret = {{ file = \"{path}\" }}",
            path = path.display()
        );
        problems.error(entry.key, "a secret does not belong into the config").help(help);
        return None;
    };
    let section = Section::open(Some(table), &schema::CLIENT_SECRET, problems);
    let known = table.entries.iter().filter(|(key, _)| schema::CLIENT_SECRET.keys.contains(key));
    let given: Vec<Mark> = known.map(|(_, entry)| entry.key).collect();
    if let [first, second, ..] = given[..] {
        problems
            .error(second, "`client_secret` lies in one place, and these are several")
            .also(first, "the first")
            .help("keep one of `file`, `credential` and `env`");
        return None;
    }
    let file = section.text("file", problems, |text| values::path(text, reading.base(entry.at)));
    let credential = section.text("credential", problems, credential_name);
    let env = section.text("env", problems, variable_name);
    if table.entries.is_empty() {
        problems.error(entry.at, "`client_secret` says nothing").help("write { file = \"…\" }");
    }
    file.map(|set| Set { value: SecretSource::File(set.value), at: set.at })
        .or(credential.map(|set| Set { value: SecretSource::Credential(set.value), at: set.at }))
        .or(env.map(|set| Set { value: SecretSource::Env(set.value), at: set.at }))
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
