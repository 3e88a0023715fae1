//! What this process gives up, so that a token or a secret does not leave it by a side door.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// No core dumps, and no reading of our memory by other processes of the same user (prctl(2), `PR_SET_DUMPABLE`).
pub fn no_dumps() {
    // Where either is refused, the other still holds.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}
