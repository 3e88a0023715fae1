//! What this process gives up, so that a token or a secret does not leave it by a side door.

use std::ffi::CString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// No core dumps, and no reading of our memory by other processes of the same user (prctl(2), `PR_SET_DUMPABLE`).
pub fn no_dumps() {
    // Where either is refused, the other still holds.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// Root becomes the owner of `directory`, with that user's groups, so that what is written there is the owner's. Whoever
/// is not root stays who they are, and root stays root where root owns the directory or nobody made it yet.
///
/// Must be called before threads are started.
///
/// # Errors
/// When the user has no entry, or the kernel refuses.
pub fn become_owner_of(directory: &Path) -> io::Result<()> {
    let Ok(status) = std::fs::metadata(directory) else { return Ok(()) };
    if !rustix::process::geteuid().is_root() || status.uid() == 0 {
        return Ok(());
    }
    let uid = nix::unistd::Uid::from_raw(status.uid());
    let user = nix::unistd::User::from_uid(uid)?.ok_or_else(|| {
        let directory = directory.display();
        io::Error::other(format!("{directory} belongs to user {uid}, who has no entry in the user database"))
    })?;
    let name = CString::new(user.name)?;
    nix::unistd::initgroups(&name, user.gid)?;
    nix::unistd::setgid(user.gid)?;
    nix::unistd::setuid(uid)?;
    Ok(())
}
