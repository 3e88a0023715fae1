//! The tenants: their table, what is known of each, and how the steps of a plan change them.
//!
//! A [`Tenant`] is plain data, found by slot in [`Tenants`]; the other modules of the engine read and move its parts.

mod config_change;
mod duplicate_tokens;
mod failure;
mod sink_states;
mod table;
mod tenant;

pub use failure::TenantFailure;
pub(crate) use sink_states::{SinkMask, Visible, sinks};
pub(crate) use table::Tenants;
pub(crate) use tenant::{Class, Doubt, IDLE, MAX_YIELD_MS, Phase, Standing, Tenant, TokenInfo};
