//! `[defaults]` and `[app.*]`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::keys;
use super::model::{App, Special};
use super::problems::{Mark, Problems};
use super::section::{Fault, Section, Set};
use super::sink::{self, Reading, Sink};
use super::tenants::{self, Tenants};
use super::tree::{Table, Value};
use super::values;
use crate::domain::{
    AppName, AppPolicy, ClientId, Endpoint, OnExpiry, OnRemove, Proxy, Rate, Refresh, Retry, SecretSource, SinkKind,
    SinkSpec,
};

const ENDPOINT: &str = "https://api.dingtalk.com";
const RATE: Rate = Rate::per_second(15);
const REFRESH: Refresh = Refresh { at: 0.7, jitter: 0.05 };
const RETRY: Retry = Retry { min: Duration::from_secs(1), max: Duration::from_secs(300) };

/// An app with what only diagnostics need: where everything stands.
pub(super) struct ReadApp {
    pub(super) name: AppName,
    pub(super) app: App,
    /// Where each of [`App::tenants`] stands.
    pub(super) tenant_marks: Vec<Mark>,
    pub(super) sinks: Arc<[Sink]>,
    /// The sinks of the tenants that have their own.
    pub(super) own_sinks: BTreeMap<usize, Arc<[Sink]>>,
    /// The place of the secret, and where the config names it.
    pub(super) secret: Option<Set<SecretSource>>,
}

/// What `[defaults]` and an app can both say.
#[derive(Clone, Default)]
pub(super) struct Settings {
    endpoint: Option<Set<Endpoint>>,
    proxy: Option<Proxy>,
    rate: Option<Rate>,
    at: Option<Set<f64>>,
    jitter: Option<Set<f64>>,
    min: Option<Set<Duration>>,
    max: Option<Set<Duration>>,
    on_remove: Option<OnRemove>,
    on_expiry: Option<OnExpiry>,
    enabled: Option<bool>,
    sinks: Option<Arc<[Sink]>>,
}

/// `[defaults]`, over what is built in.
pub(super) fn defaults(
    table: Option<&Table<'_>>,
    standard_sink: Sink,
    reading: &Reading<'_>,
    problems: &mut Problems<'_>,
) -> Settings {
    let section = Section::open(table, &keys::DEFAULTS, problems);
    let mut settings = settings(&section, reading, problems);
    check_refresh(&settings, &settings, problems);
    check_retry(&settings, &settings, problems);
    settings.sinks.get_or_insert_with(|| Arc::new([standard_sink]));
    settings
}

/// `[app.*]`.
pub(super) fn apps(
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
    let section = Section::open(Some(table), &keys::APP, problems);
    let client_id = client_id(&section, &name, at, problems);
    let secret = client_secret(&section, &name, at, reading, problems);
    let own = settings(&section, reading, problems);
    let settings = own.over(defaults);
    if own.at.is_some() || own.jitter.is_some() {
        check_refresh(&own, &settings, problems);
    }
    if own.min.is_some() || own.max.is_some() {
        check_retry(&own, &settings, problems);
    }
    let tenants = tenants::read(&section, reading, problems);
    let client_id = client_id.or_else(|| ClientId::new("unknown").ok())?;
    Some(settings.into_app(name, client_id, secret, tenants))
}

fn client_id(section: &Section<'_, '_>, name: &AppName, at: Mark, problems: &mut Problems<'_>) -> Option<ClientId> {
    if section.entry("client_id").is_none() {
        missing("client_id", name, at, "client_id = \"…\"", problems);
    }
    let set = section.text("client_id", problems, |text| {
        ClientId::new(text).map_err(|_| Fault::new(format!("must be {}", ClientId::RULE)))
    })?;
    Some(set.value)
}

fn missing(key: &str, name: &AppName, at: Mark, example: &str, problems: &mut Problems<'_>) {
    // Where the text does not parse, the key may be there and merely not have been seen.
    if !problems.any_syntax() {
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
        missing("client_secret", name, at, &format!("client_secret = {{ file = \"{name}.secret\" }}"), problems);
        return None;
    };
    let Value::Table(table) = &entry.value else {
        let path = reading.base(entry.at).join(format!("{name}.secret"));
        let who = super::surroundings::group_id("corptokend").map_or("-m 0600", |_| "-m 0640 -g corptokend");
        let help = format!(
            "run `install {who} /dev/stdin {path}`, paste the secret, press Enter and Ctrl-D; then write \
             client_secret = {{ file = \"{path}\" }}",
            path = path.display()
        );
        problems.error(entry.key, "a secret does not belong into the config").help(help);
        return None;
    };
    let section = Section::open(Some(table), &keys::CLIENT_SECRET, problems);
    let known = table.entries.iter().filter(|(key, _)| keys::CLIENT_SECRET.keys.contains(key));
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

fn settings(section: &Section<'_, '_>, reading: &Reading<'_>, problems: &mut Problems<'_>) -> Settings {
    let refresh = section.section("refresh", &keys::REFRESH, problems);
    let retry = section.section("retry", &keys::RETRY, problems);
    let waits = Duration::from_millis(100)..=Duration::from_secs(24 * 3600);
    Settings {
        endpoint: section.text("endpoint", problems, |text| {
            Endpoint::new(text).map_err(|error| Fault::new(format!("is wrong: {error}")))
        }),
        proxy: section.text("proxy", problems, proxy).map(|set| set.value),
        rate: section.text("rate", problems, values::rate).map(|set| set.value),
        at: refresh.fraction("at", problems, 0.05..=0.95),
        jitter: refresh.fraction("jitter", problems, 0.0..=0.5),
        min: retry.duration("min", problems, waits.clone()),
        max: retry.duration("max", problems, waits),
        on_remove: section
            .word("on_remove", problems, &[("delete", OnRemove::Delete), ("keep", OnRemove::Keep)])
            .map(|set| set.value),
        on_expiry: section
            .word("on_expiry", problems, &[("keep", OnExpiry::Keep), ("delete", OnExpiry::Delete)])
            .map(|set| set.value),
        enabled: section.boolean("enabled", problems).map(|set| set.value),
        sinks: section.list("sink", problems).map(|items| sink::sinks(items, reading, problems).into()),
    }
}

fn proxy(text: &str) -> Result<Proxy, Fault> {
    Proxy::new(Zeroizing::new(text.to_owned()))
        .ok_or_else(|| Fault::new("is not a proxy's URL").help("write it like \"http://proxy:3128\""))
}

/// The earliest and the latest due point must lie within the token's life.
fn check_refresh(own: &Settings, all: &Settings, problems: &mut Problems<'_>) {
    let refresh = all.refresh();
    let Some(at) = own.jitter.or(own.at).map(|set| set.at) else { return };
    if refresh.at - refresh.jitter < 0.01 || refresh.at + refresh.jitter > 0.99 {
        let (from, to) = (refresh.at - refresh.jitter, refresh.at + refresh.jitter);
        problems
            .error(at, format!("refreshes would be due from {from:.2} to {to:.2} of a token's life"))
            .help("choose `at` and `jitter` so that at - jitter is at least 0.01, and at + jitter at most 0.99");
    }
}

fn check_retry(own: &Settings, all: &Settings, problems: &mut Problems<'_>) {
    let retry = all.retry();
    let Some(at) = own.max.or(own.min).map(|set| set.at) else { return };
    if retry.min > retry.max {
        let (min, max) = (humantime::format_duration(retry.min), humantime::format_duration(retry.max));
        problems
            .error(at, format!("the first wait, {min}, is longer than the longest, {max}"))
            .help("make `min` smaller or `max` larger");
    }
}

impl Settings {
    /// What an app says, and `defaults` where it says nothing.
    fn over(&self, defaults: &Self) -> Self {
        Self {
            endpoint: self.endpoint.clone().or_else(|| defaults.endpoint.clone()),
            proxy: self.proxy.clone().or_else(|| defaults.proxy.clone()),
            rate: self.rate.or(defaults.rate),
            at: self.at.or(defaults.at),
            jitter: self.jitter.or(defaults.jitter),
            min: self.min.or(defaults.min),
            max: self.max.or(defaults.max),
            on_remove: self.on_remove.or(defaults.on_remove),
            on_expiry: self.on_expiry.or(defaults.on_expiry),
            enabled: self.enabled.or(defaults.enabled),
            sinks: self.sinks.clone().or_else(|| defaults.sinks.clone()),
        }
    }

    fn refresh(&self) -> Refresh {
        Refresh {
            at: self.at.map_or(REFRESH.at, |set| set.value),
            jitter: self.jitter.map_or(REFRESH.jitter, |set| set.value),
        }
    }

    fn retry(&self) -> Retry {
        Retry { min: self.min.map_or(RETRY.min, |set| set.value), max: self.max.map_or(RETRY.max, |set| set.value) }
    }

    fn specs(&self, sinks: &[Sink]) -> Arc<[SinkSpec]> {
        let by_kind = |kind: &SinkKind| match kind {
            SinkKind::File(_) => OnExpiry::Keep,
            SinkKind::Keyring(_) => OnExpiry::Delete,
        };
        sinks
            .iter()
            .map(|sink| SinkSpec {
                kind: sink.kind.clone(),
                on_expiry: self.on_expiry.unwrap_or_else(|| by_kind(&sink.kind)),
            })
            .collect()
    }

    fn into_app(
        self,
        name: AppName,
        client_id: ClientId,
        secret: Option<Set<SecretSource>>,
        tenants: Tenants,
    ) -> ReadApp {
        let sinks = self.sinks.clone().unwrap_or_default();
        let special = tenants.special.iter().map(|(index, special)| {
            let sinks = special.sinks.as_ref().map(|sinks| self.specs(sinks));
            (tenants.ids[*index].clone(), Special { name: special.name.clone(), sinks })
        });
        let app = App {
            client_id,
            client_secret: secret
                .as_ref()
                .map_or_else(|| SecretSource::File(PathBuf::new()), |secret| secret.value.clone()),
            endpoint: self.endpoint.as_ref().map_or_else(standard_endpoint, |set| set.value.clone()),
            proxy: self.proxy.clone(),
            policy: AppPolicy {
                rate: self.rate.unwrap_or(RATE),
                refresh: self.refresh(),
                retry: self.retry(),
                enabled: self.enabled.unwrap_or(true),
            },
            on_remove: self.on_remove.unwrap_or(OnRemove::Delete),
            sinks: self.specs(&sinks),
            special: special.collect(),
            tenants: tenants.ids,
        };
        let own_sinks =
            tenants.special.into_iter().filter_map(|(index, special)| Some((index, special.sinks?))).collect();
        ReadApp { name, app, tenant_marks: tenants.marks, sinks, own_sinks, secret }
    }
}

fn standard_endpoint() -> Endpoint {
    Endpoint::new(ENDPOINT).unwrap_or_else(|_| unreachable!("a constant that a test covers"))
}
