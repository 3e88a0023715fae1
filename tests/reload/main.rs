//! Editing the config of a running daemon, as an operator sees it.
//!
//! | file | what it is |
//! |---|---|
//! | `watching` | every way in which editors, links, ConfigMaps and drop-ins change a config |
//! | `secrets` | a secret in the wrong place is never shown |
//! | `requests` | SIGHUP, `corptokend reload`, `corptokend check` |
//! | `rejection` | a config in error changes nothing |
//! | `tenants` | what an edit does to tenants: added, removed, moved |
//! | `removal` | what becomes of the places of tenants that leave, in every kind of sink |
//! | `credentials` | other secrets and other client_ids |
//! | `mass_removal` | what looks like an accident is held back |
//! | `restart` | what changed while the daemon was down |
//! | `service_manager` | what systemd hears |
//! | `faults` | kills, floods and broken file systems in the middle of it |
//! | `fixture` | what these share |
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod credentials;
mod faults;
mod fixture;
mod mass_removal;
mod rejection;
mod removal;
mod requests;
mod restart;
mod secrets;
mod service_manager;
#[path = "../support/mod.rs"]
mod support;
mod tenants;
mod watching;
