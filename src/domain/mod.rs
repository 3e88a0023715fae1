//! The types that every module shares: plain values with checked constructors. No I/O, no clock, no randomness.
//!
//! Goes in: text and numbers from a config, an answer or the database. Comes out: values that stay valid, so
//! that no holder checks them again. Every module may import this one; it imports none.

mod endpoint;
mod log;
mod names;
mod plan;
mod sink;
mod tenant;
mod time;
mod token;

pub use endpoint::{CallPath, Connection, Endpoint, InvalidEndpoint, OriginId, Proxy, RouteId, SecretSource};
pub use log::{LogFormat, LogLevel};
pub use names::{
    AppName, ClientId, CorpId, Expansion, InvalidName, InvalidTemplate, Names, Placeholder, Slot, Template, TenantId,
    TenantName, Ticket, first_invisible, is_invisible,
};
pub use plan::{AppPolicy, Change, Freshness, OnRemove, Refresh, Retry, SinkPolicy, SinkSetId};
pub use sink::{
    FileSink, Format, KeyPath, KeyringRoot, KeyringSink, LaneId, OnExpiry, Place, RootId, SinkFailure, SinkFailureKind,
    SinkId, SinkKind, SinkSpec, TEMPORARY_EXTENSION, WithdrawalId, Wrote, is_temporary_name,
};
pub use tenant::{Blame, Failing, Failure, FailureKind, SavedKey, SavedState, TenantCounts, TenantState, Wait};
pub use time::{BootMs, InvalidRate, Now, Rate, WallMs};
pub use token::{Fingerprint, Grant, InvalidToken, MAX_LIFETIME_S, Record, Secret, Token};
