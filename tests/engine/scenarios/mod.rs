//! What an operator sees in the cases that matter.

pub(crate) mod calls;
mod drift;
mod failures;
mod fairness;
pub(crate) mod isolation;
mod late_state;
mod outages;
mod saved_state;
mod sinks;
mod tokens;
