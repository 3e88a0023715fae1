//! Who may talk to the daemon.
//!
//! The kernel has decided that already: connecting takes write permission on the socket's file (unix(7)), judged by the
//! process's own groups and by the file's ACL, at the very moment. So the groups of a process are not looked up again, least
//! of all in a database that may hang. What is left is to see that the file still says what it was made to say.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tokio::net::unix::UCred;

/// Who may talk to the daemon: root, the daemon's own user, and whom the socket's mode lets in, as long as that does not
/// let everybody in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    path: PathBuf,
    device: u64,
    inode: u64,
    owner: u32,
    group: u32,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// Root, or the daemon's own user. There are always connections left for each of them.
    Keeper(u32),
    /// Somebody else who may ask.
    Guest(u32),
    /// Somebody who may not.
    Stranger(u32),
}

impl Admission {
    /// By the socket at `path`, as [`bind`](super::bind) made it.
    ///
    /// # Errors
    /// The socket's own, when it cannot be looked at.
    pub fn of_socket(path: &Path) -> io::Result<Self> {
        let meta = std::fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: meta.dev(), inode: meta.ino(), owner: meta.uid(), group: meta.gid() })
    }

    /// Who the process at the other end is to us.
    pub(super) fn judge(&self, peer: UCred) -> Peer {
        match peer.uid() {
            uid if uid == 0 || uid == self.owner => Peer::Keeper(uid),
            uid if peer.gid() == self.group || self.mode_was_judged() => Peer::Guest(uid),
            uid => Peer::Stranger(uid),
        }
    }

    /// Whether the socket's file is still the one that was made, and not open to the world: then the kernel found that the
    /// peer is a member of its group. The config allows no other mode, but somebody may have changed or moved the file.
    fn mode_was_judged(&self) -> bool {
        std::fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| (meta.dev(), meta.ino()) == (self.device, self.inode) && meta.mode() & 0o002 == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_kernels_word_counts_as_long_as_the_file_is_the_one_that_was_made_and_closed_to_the_world() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let set = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        set(0o660);
        let admission = Admission::of_socket(&path).unwrap();
        assert!(admission.mode_was_judged());
        set(0o666);
        assert!(!admission.mode_was_judged());
        set(0o660);
        let _other = std::os::unix::net::UnixListener::bind(dir.path().join("other")).unwrap();
        std::fs::rename(dir.path().join("other"), &path).unwrap();
        assert!(!admission.mode_was_judged(), "another socket's mode says nothing");
    }
}
