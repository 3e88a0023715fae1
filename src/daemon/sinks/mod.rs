//! The sinks of the running config by number, the lanes that serve them, and what keeps a publication from its place.

pub(crate) mod place_conflicts;
pub(crate) mod registry;
pub(crate) mod stall_detector;
