//! Publication: makes files and keys hold the tokens that they should hold.
//!
//! In: [`FileJob`]s and [`KeyJob`]s, sent to a [`Lane`] of that kind: publish this token at this place, or empty this place.
//! Out: [`LaneReport`]s, by callback from the lane's thread: what became of each job, and what others changed since.
//!
//! Each file system has a lane of its own, and so have the kernel keyrings: a thread that does its jobs in order, so that
//! a mount that hangs holds up no other. A lane for files works with `file`, the lane for keys with `keyring`; neither
//! knows the other. [`Claims`] is what the lanes share: which sink owns which place. [`SinkProbe`] tries sinks and publishes
//! nothing. The daemon starts lanes; `corptokend check` tries sinks.

mod claims;
mod error;
mod file;
mod job;
mod keyring;
mod lane;
mod probe;
mod ticker;

pub use claims::{Claims, Holder, PlaceConflict};
pub use file::render;
pub use job::{FileJob, KeyJob, LaneReport, Publication, RemovalCause};
pub use lane::{Lane, Stopped};
pub use probe::{ProbeError, ProbeTarget, SinkProbe, file_system_of};
