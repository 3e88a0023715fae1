//! A draft to a [`Config`]: everything that takes the machine, or all tenants, to judge. In: a draft and the [`Environment`]
//! that was collected for its needs. Out: the config, if nothing is an error, and the report. `conflicts` judges the places of
//! sinks, `inputs` accounts, certificates and secrets, `capacity` the rates.

pub(crate) mod capacity;
pub(crate) mod conflicts;
mod duplicates;
mod inputs;
mod places;
mod reserved;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::diagnostics::report::Report;
use super::diagnostics::sources::TextOrigin;
use super::environment::{Environment, Needs};
use super::model::{AppConfig, Config, ControlConfig, OwnFiles, TenantOverrides};
use super::read::app::AppDraft;
use super::read::reader::{AccountName, AccountRole};
use super::read::sink::SinkDraft;
use super::read::{DAEMON, Draft, Outline};
use crate::domain::{AppName, Fingerprint, SecretSource, SinkKind, SinkSpec};
use inputs::Accounts;
use places::AppPlaces;

/// A config that was checked.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The config; `Some` exactly if the report holds no error.
    pub config: Option<Config>,
    /// All that is wrong with it, and all that the operator should know.
    pub report: Report,
    /// The part that is known even if the config is in error.
    pub outline: Outline,
    /// The fingerprint of each app's secret that could be read.
    pub secrets: BTreeMap<AppName, Fingerprint>,
}

impl Draft<'_> {
    /// What must be looked up on the machine before the config can be checked.
    pub fn needs(&self) -> Needs {
        let names = |role| {
            let uses = self.accounts.iter().filter(move |account| account.role == role);
            uses.filter_map(|account| match &account.account {
                AccountName::Name(name) => Some(name.clone()),
                AccountName::Id(_) | AccountName::Default(_) => None,
            })
        };
        let defaults = ["corptokend-admin", "corptokend-readers", DAEMON];
        // Texts that were applied before are applied again: a sink whose place has become another's is refused when it is
        // published to.
        let (own_files, directories) = match self.sources.origin {
            TextOrigin::Disk => (self.own_files(), places::directories(&self.places())),
            TextOrigin::State => (OwnFiles::default(), Vec::new()),
        };
        Needs {
            users: names(AccountRole::Owner).chain([DAEMON.to_owned()]).collect(),
            groups: names(AccountRole::Group).chain(defaults.map(str::to_owned)).collect(),
            secrets: self.apps.iter().filter_map(|app| Some(app.secret.as_ref()?.value.clone())).collect(),
            ca_file: self.api.ca_file.clone(),
            own_files,
            directories,
        }
    }

    /// Checks the draft against what was looked up for its needs, and reports all faults at once.
    pub fn check(self, environment: &Environment) -> Checked {
        let outline = self.outline();
        let own_files = self.own_files();
        inputs::check_inline_secrets(&self, environment);
        let accounts = Accounts::check(&self, environment);
        let secrets = inputs::check_files(&self, environment);
        conflicts::check(&self.places(), &own_files, environment, &self.diagnostics);
        let group = self.control_group.as_ref().and_then(|group| accounts.id(AccountRole::Group, group));
        let control = ControlConfig { group, ..self.control.clone() };
        let app_spans: BTreeMap<AppName, _> = self.apps.iter().map(|app| (app.name.clone(), app.at)).collect();
        let sinks: Vec<AppSinks> = self.apps.iter().map(|app| AppSinks::of(app, &accounts)).collect();
        let Self { process, diagnostics, api, limits, state, log, apps, .. } = self;
        let apps = apps.into_iter().zip(sinks).map(|(app, sinks)| (app.name.clone(), finish(app, sinks))).collect();
        let config = Config { api, limits, state, control, log, own_files, apps };
        if !diagnostics.has_errors() {
            capacity::warn(&config, &app_spans, &process, &diagnostics);
        }
        let config = (!diagnostics.has_errors()).then_some(config);
        Checked { config, report: diagnostics.into_report(), outline, secrets }
    }

    fn places(&self) -> Vec<AppPlaces<'_>> {
        self.apps.iter().map(AppPlaces::of_draft).collect()
    }
}

/// An app's sinks with the numbers of their accounts.
struct AppSinks {
    shared: Arc<[SinkSpec]>,
    own: BTreeMap<usize, Arc<[SinkSpec]>>,
}

impl AppSinks {
    fn of(app: &AppDraft, accounts: &Accounts<'_>) -> Self {
        let spec = |sink: &SinkDraft| {
            let mut kind = sink.kind.clone();
            if let SinkKind::File(file) = &mut kind {
                let file = Arc::make_mut(file);
                file.owner = sink.owner.as_ref().and_then(|owner| accounts.id(AccountRole::Owner, owner));
                file.group = sink.group.as_ref().and_then(|group| accounts.id(AccountRole::Group, group));
            }
            SinkSpec { on_expiry: app.settings.on_expiry(&kind), kind }
        };
        let specs = |sinks: &[SinkDraft]| -> Arc<[SinkSpec]> { sinks.iter().map(spec).collect() };
        let own = app.tenants.overrides.iter();
        Self {
            shared: specs(app.settings.sinks()),
            own: own.filter_map(|(tenant, own)| Some((*tenant, specs(own.sinks.as_deref()?)))).collect(),
        }
    }
}

fn finish(app: AppDraft, mut sinks: AppSinks) -> AppConfig {
    let AppDraft { client_id, secret, settings, tenants, .. } = app;
    let overrides = tenants.overrides.into_iter().map(|(tenant, own)| {
        let overrides = TenantOverrides { name: own.name, sinks: sinks.own.remove(&tenant) };
        (tenants.ids[tenant].clone(), overrides)
    });
    AppConfig {
        client_id,
        // Without a secret there was an error, and nobody gets to see this.
        client_secret: secret.map_or_else(|| SecretSource::Env("".into()), |secret| secret.value),
        endpoint: settings.endpoint(),
        policy: settings.policy(),
        on_remove: settings.on_remove(),
        sinks: sinks.shared,
        overrides: overrides.collect(),
        proxy: settings.proxy,
        tenants: tenants.ids,
    }
}
