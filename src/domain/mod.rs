//! The words everyone shares: plain types with checked constructors, and no I/O.
//!
//! A value of one of these types is right for the rest of its life; whoever holds one need not check again.

mod failure;
mod ids;
mod invisible;
mod memory;
mod plan;
mod rate;
mod record;
mod route;
mod secret;
mod settings;
mod short;
mod sink;
mod template;
mod time;

pub use failure::{Blame, Failure, FailureKind, SinkFailure, SinkFailureKind};
pub use ids::{AppName, ClientId, CorpId, InvalidName, Names, Slot, TenantId, TenantName, Ticket};
pub use invisible::{first_invisible, is_invisible};
pub use memory::{Failing, Memory, Subject, Wait};
pub use plan::{AppPolicy, Change, Freshness, OnExpiry, OnRemove, Outlet, Refresh, Retry, SinkSetId};
pub use rate::{InvalidRate, Rate};
pub use record::{Fingerprint, Grant, MAX_LIFETIME_S, Record};
pub use route::{CallPath, OriginId, RouteId};
pub use secret::{InvalidToken, Secret, Token};
pub use settings::{Connection, Endpoint, InvalidEndpoint, Proxy, SecretSource};
pub use sink::{
    FileSink, Format, KeyringRoot, KeyringSink, LaneId, Place, RootId, SinkId, SinkKind, SinkSpec, TEMPORARY_EXTENSION,
    Wrote, is_temporary_name,
};
pub use template::{Expansion, InvalidTemplate, Placeholder, Template};
pub use time::{BootMs, Now, WallMs};
