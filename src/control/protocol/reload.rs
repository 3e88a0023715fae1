//! `POST /v1/reload`.

use serde::{Deserialize, Serialize};

use super::status::HeldBack;

/// The answer to `POST /v1/reload`: what became of the config on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReloadVerdict {
    /// `false`: nothing changed, and `report` says why.
    pub applied: bool,
    /// Tenants that are new.
    pub added: u64,
    /// Tenants that are gone.
    pub removed: u64,
    /// Tenants whose sinks, names, credentials or policy changed.
    pub changed: u64,
    /// Tenants that are called for: new ones, and those of apps whose credentials changed.
    pub fetched: u64,
    /// A mass removal that was held back; the rest was applied.
    pub held_back: Option<HeldBack>,
    /// Errors and warnings for people, as `corptokend check` prints them, without colour.
    pub report: String,
    /// The same for programs, as `corptokend check --json` prints them.
    pub problems: Vec<serde_json::Value>,
}

/// The body of `POST /v1/reload`; an empty body is the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReloadRequest {
    /// Carry a mass removal out.
    pub allow_mass_removal: bool,
    /// Change nothing: only tell what a reload would do.
    pub dry_run: bool,
}
