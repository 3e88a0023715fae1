//! The sinks of the running config by number, the lanes that serve them, and what keeps a publication from its place.
//!
//! In come lists of sinks, and jobs; out go numbers, policies, and the lanes' batches. [`SinkRegistry`] is what the executor works
//! with, and what a plan numbers its sinks by.

mod lanes;
pub(crate) mod place_conflicts;
mod publication_window;
pub(crate) mod registry;
pub(crate) mod stall_detector;

pub(crate) use lanes::ReportTo;
pub(crate) use registry::SinkRegistry;
