//! How a tenant is doing: its state, what failed, and what of that outlives a restart.

mod failure;
mod saved_state;
mod state;

pub use failure::{Blame, Failure, FailureKind};
pub use saved_state::{Failing, SavedKey, SavedState, Wait};
pub use state::{TenantCounts, TenantState};
