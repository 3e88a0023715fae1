//! What goes over the control socket, as JSON. It is stable: fields are added, never renamed or removed. A field that is
//! absent (an upgrade left the old daemon running) has its default.
//!
//! Times are RFC 3339 in UTC, to the second; durations are whole seconds, negative once the moment has passed. The server
//! writes these types and the client reads them; `docs/json.md` documents the keys.

mod reload;
mod status;
mod tenants;

use serde::{Deserialize, Serialize};

pub use reload::{ReloadRequest, ReloadVerdict};
pub use status::{ConfigStatus, DaemonStatus, HeldBack, HoldRow, StateHealth};
pub use tenants::{LastError, Page, SinkRow, SinkState, TenantFilter, TenantRow};

/// The body of every answer that is not 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong with the request, and what would be right.
    pub error: String,
}
