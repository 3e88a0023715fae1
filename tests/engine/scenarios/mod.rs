//! What an operator sees in the cases that matter.

mod calls;
mod drift;
mod failures;
mod fairness;
pub(crate) mod fixture;
mod isolation;
mod late_state;
mod outages;
mod saved_state;
mod sinks;
mod tokens;
