//! `GET /v1/status`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::tenants::TenantRow;
use crate::domain::TenantCounts;

/// `GET /v1/status`: everything but the tenants themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DaemonStatus {
    /// The daemon's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// When it started.
    pub started_at: String,
    /// Whether it said so to systemd: every tenant had one outcome and every sink one attempt, or 30 s passed.
    pub ready: bool,
    /// For how long, since the start, the scheduler was busy at a stretch at most, in milliseconds: so long it may have been
    /// late for anything.
    pub longest_turn_ms: u64,
    /// All tenants, by state.
    pub tenants: TenantCounts,
    /// The tenants of each app, by state; an app without tenants is there too.
    pub apps: BTreeMap<String, TenantCounts>,
    /// How often a place of each app was set right after somebody else had changed it, since the daemon started.
    pub repairs: BTreeMap<String, u64>,
    /// What runs, and how the last reload went.
    pub config: ConfigStatus,
    /// Whether tokens can be kept over a restart.
    pub state: StateHealth,
    /// Until when nobody at all is called, because the endpoints banned this address; then one probe is.
    pub api_paused_until: Option<String>,
    /// How many lines of the log were lost since the start, because nobody took those before them.
    pub log_lines_lost: u64,
    /// What holds calls back at the moment: bans, endpoints and apps that are not answered.
    pub holds: Vec<HoldRow>,
    /// What an operator should look at although it is no error.
    pub warnings: Vec<String>,
    /// The tenant that is worst off, unless all are fresh.
    pub worst: Option<TenantRow>,
}

/// Calls that are held back, but for a probe now and then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HoldRow {
    /// `origin`, `route` or `app`: whose calls.
    pub scope: String,
    /// A host, an endpoint's URL, or an app's name.
    pub name: String,
    /// How the last call failed, as in a tenant's `last_error`.
    pub kind: String,
    /// What is wrong, for people.
    pub reason: String,
    /// Since when.
    pub since: String,
    /// When the next probe comes; none while one is under way, or where no tenant is due that could be it.
    pub next_probe_at: Option<String>,
}

/// What runs, and how the last reload went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigStatus {
    /// The main file.
    pub path: String,
    /// `false`: the config on disk is not what runs.
    pub last_reload_successful: bool,
    /// When the config was last read, with either outcome.
    pub last_reload_at: Option<String>,
    /// What is wrong with the config on disk, one line each.
    pub problems: Vec<String>,
    /// A mass removal that waits for `corptokend reload --allow-mass-removal`.
    pub held_back: Option<HeldBack>,
}

/// A mass removal that was not carried out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    /// How many tenants would have gone. They are kept, and renewed.
    pub removed: u64,
}

/// Whether tokens can be kept over a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StateHealth {
    /// `false`: what was fetched since is in memory only.
    pub healthy: bool,
    /// Why it is not.
    pub reason: Option<String>,
}
