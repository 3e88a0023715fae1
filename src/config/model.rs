//! The config, resolved: every default applied, every value checked, nothing optional that has a default.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::{
    AppName, AppPolicy, ClientId, Connection, CorpId, Endpoint, LogFormat, LogLevel, Names, OnRemove, Proxy, Rate,
    SecretSource, SinkSpec, TenantId, TenantName,
};

/// The whole config.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[api]`
    pub api: ApiConfig,
    /// `[limits]`
    pub limits: LimitsConfig,
    /// `[state]`
    pub state: StateConfig,
    /// `[control]`
    pub control: ControlConfig,
    /// `[log]`
    pub log: LogConfig,
    /// The files that the daemon lives by, and that no sink may write.
    pub own_files: OwnFiles,
    /// `[app.*]`, with `[defaults]` applied.
    pub apps: BTreeMap<AppName, AppConfig>,
}

/// `[api]`: how calls are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// For a whole call.
    pub timeout: Duration,
    /// For the connection alone.
    pub connect_timeout: Duration,
    /// The most calls under way at once.
    pub max_in_flight: u16,
    /// Certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The address to call from.
    pub local_address: Option<IpAddr>,
}

/// `[limits]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitsConfig {
    /// The most calls, all apps together.
    pub total: Rate,
}

/// `[state]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateConfig {
    /// The database.
    pub path: PathBuf,
}

/// `[control]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlConfig {
    /// The Unix socket.
    pub socket: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// Its group's id; `None`: the daemon's.
    pub group: Option<u32>,
}

/// `[log]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// How a line looks.
    pub format: LogFormat,
    /// The least important level that is written.
    pub level: LogLevel,
}

/// `[app.NAME]`, with `[defaults]` applied.
#[derive(Debug, Clone, PartialEq)]
pub struct AppConfig {
    /// The public half of the credentials.
    pub client_id: ClientId,
    /// Where the other half lies.
    pub client_secret: SecretSource,
    /// The endpoint's base URL.
    pub endpoint: Endpoint,
    /// The proxy, where the config names one.
    pub proxy: Option<Proxy>,
    /// How its tenants are kept fresh.
    pub policy: AppPolicy,
    /// What becomes of the sinks of a tenant that leaves.
    pub on_remove: OnRemove,
    /// Its tenants, sorted, each once; text shared with the engine.
    pub tenants: Vec<CorpId>,
    /// The sinks of each tenant that has none of its own.
    pub sinks: Arc<[SinkSpec]>,
    /// The few tenants that have settings of their own; each stands in `tenants` too.
    pub overrides: BTreeMap<CorpId, TenantOverrides>,
}

/// `[app.NAME.tenant.CORP_ID]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TenantOverrides {
    /// The value of `{name}`.
    pub name: Option<TenantName>,
    /// Sinks that replace the app's.
    pub sinks: Option<Arc<[SinkSpec]>>,
}

impl AppConfig {
    /// The sinks of one of its tenants.
    pub fn sinks_of(&self, corp_id: &CorpId) -> &Arc<[SinkSpec]> {
        self.overrides.get(corp_id).and_then(|overrides| overrides.sinks.as_ref()).unwrap_or(&self.sinks)
    }

    /// All the names of one of its tenants.
    pub fn names_of(&self, app: &AppName, corp_id: &CorpId) -> Names {
        Names {
            id: TenantId { app: app.clone(), corp_id: corp_id.clone() },
            name: self.overrides.get(corp_id).and_then(|overrides| overrides.name.clone()),
            client_id: self.client_id.clone(),
        }
    }
}

/// The files that the daemon itself lives by, which no sink may write; each with what it is, for messages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnFiles {
    /// The state, the control socket, the config, certificates, secrets, the program.
    pub files: Vec<(PathBuf, &'static str)>,
    /// The directories that are watched for changes of the config, and that of the credentials.
    pub directories: Vec<(PathBuf, &'static str)>,
}

impl Config {
    /// How connections for `app` are made.
    pub fn connection(&self, app: &AppConfig) -> Connection {
        Connection {
            endpoint: app.endpoint.clone(),
            proxy: app.proxy.clone(),
            ca_file: self.api.ca_file.clone(),
            local_address: self.api.local_address,
            timeout: self.api.timeout,
            connect_timeout: self.api.connect_timeout,
        }
    }

    /// How many tenants there are.
    pub fn tenant_count(&self) -> usize {
        self.apps.values().map(|app| app.tenants.len()).sum()
    }

    /// Whether `id` is configured.
    pub fn contains(&self, id: &TenantId) -> bool {
        self.apps.get(&id.app).is_some_and(|app| app.tenants.binary_search(&id.corp_id).is_ok())
    }
}
