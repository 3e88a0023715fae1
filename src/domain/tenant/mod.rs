//! How a tenant is doing: what failed, and what of that outlives a restart.

mod failure;
mod saved_state;

pub use failure::{Blame, Failure, FailureKind};
pub use saved_state::{Failing, Memory, Subject, Wait};
