//! The tenants: their table, what is known of each, and how a plan's steps change them.

mod config_change;
mod duplicate_tokens;
mod failure;
mod table;
mod tenant;

pub(crate) use duplicate_tokens::Holders;
pub(crate) use failure::REMIND_MS;
pub use failure::TenantFailure;
pub(crate) use table::Table;
pub(crate) use tenant::{Class, Held, IDLE, PATIENCE_MS, Phase, Standing, Tenant};
