//! Who can decide where a secret or a token goes: one rule for the config, the files that it names, and the directories above
//! them and above sinks.
//!
//! The rule is that of sshd's StrictModes (sshd_config(5)): what decides may be written only by root, the daemon's own user
//! or, for a sink, the sink's own owner and group; and so may every directory above it, since whoever can rename a directory
//! can put another in its place. POSIX access control lists count as much as mode bits.
//!
//! `environment` and `sink` use it, so that neither has a rule of its own. It reads and never writes. It can hang as the file system can, so
//! callers run it on threads that may hang.

mod acl;
mod dir_entries;
mod path_audit;
mod reserved;
mod rule;
mod status;
mod walk;

pub use dir_entries::{DirEntry, entries};
pub use path_audit::{Danger, PathAudit, PathElement};
pub use reserved::Reserved;
pub use rule::{Risk, Role, Trusted};
pub use status::{Identity, Status, is_on_read_only_mount};
pub use walk::{Stuck, Walk, WalkStep};
