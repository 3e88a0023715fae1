//! Who is at the other end of a connection.
//!
//! The kernel has decided already who may connect: connect(2) takes write permission on the socket's file (unix(7)), judged by
//! the process's own groups and by the file's ACL at that moment. So the groups of a process are not looked up again, least of
//! all in a database that may hang. What is left is to check that the file still has the mode that it was made with.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tokio::net::unix::UCred;

/// Who may use the control socket: root, the daemon's own user, and whoever the socket's mode admits, unless the mode admits
/// everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessPolicy {
    path: PathBuf,
    device: u64,
    inode: u64,
    owner: u32,
    group: u32,
}

/// The user at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// Root, or the daemon's own user. Each of them has connections of their own.
    Privileged(u32),
    /// Another user who may ask.
    Member(u32),
    /// A user who may not ask.
    Stranger(u32),
}

impl AccessPolicy {
    /// The policy of the socket at `path`, as [`bind`](super::bind) made it.
    ///
    /// # Errors
    /// The system's, if the socket's file cannot be examined.
    pub fn of_socket(path: &Path) -> io::Result<Self> {
        let meta = std::fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: meta.dev(), inode: meta.ino(), owner: meta.uid(), group: meta.gid() })
    }

    /// Classifies the process at the other end.
    pub(super) fn classify(&self, peer: UCred) -> Peer {
        match peer.uid() {
            uid if uid == 0 || uid == self.owner => Peer::Privileged(uid),
            uid if peer.gid() == self.group || self.file_is_unchanged() => Peer::Member(uid),
            uid => Peer::Stranger(uid),
        }
    }

    /// Whether the socket's file is still the one that was made, and not open to the world. Then the kernel has found that the
    /// peer is a member of the file's group. The config allows no other mode, but somebody may have changed or moved the file.
    fn file_is_unchanged(&self) -> bool {
        std::fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| (meta.dev(), meta.ino()) == (self.device, self.inode) && meta.mode() & 0o002 == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_kernels_decision_counts_while_the_file_is_the_one_that_was_made_and_closed_to_the_world() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let set = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        set(0o660);
        let access = AccessPolicy::of_socket(&path).unwrap();
        assert!(access.file_is_unchanged());
        set(0o666);
        assert!(!access.file_is_unchanged());
        set(0o660);
        let _other = std::os::unix::net::UnixListener::bind(dir.path().join("other")).unwrap();
        std::fs::rename(dir.path().join("other"), &path).unwrap();
        assert!(!access.file_is_unchanged(), "another socket's mode says nothing");
    }
}
