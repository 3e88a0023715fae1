//! Who may talk to the daemon.

use std::ffi::CString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{Gid, Uid, User, getgrouplist};
use tokio::net::unix::UCred;

/// A directory service may be slow, and nobody waits for it longer than this.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(2);

/// Who may talk to the daemon: root, the daemon's own user, and the members of the socket's group.
///
/// The socket's mode says the same; this holds as well when the mode is loose, or the socket was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    owner: u32,
    group: Option<u32>,
}

impl Admission {
    /// By the owner, group and mode of the socket at `path`, as [`super::bind`] made it.
    ///
    /// # Errors
    /// The socket's own, when it cannot be looked at.
    pub fn of_socket(path: &Path) -> io::Result<Self> {
        let meta = std::fs::symlink_metadata(path)?;
        Ok(Self { owner: meta.uid(), group: (meta.mode() & 0o060 != 0).then_some(meta.gid()) })
    }

    /// Whether the process at the other end may ask. Looks a user's groups up only where it must, off this thread.
    pub(super) async fn admits(self, peer: UCred) -> bool {
        if peer.uid() == 0 || peer.uid() == self.owner {
            return true;
        }
        let Some(group) = self.group else { return false };
        if peer.gid() == group {
            return true;
        }
        let uid = Uid::from_raw(peer.uid());
        let lookup = tokio::task::spawn_blocking(move || is_member(uid, Gid::from_raw(group)));
        matches!(tokio::time::timeout(LOOKUP_PATIENCE, lookup).await, Ok(Ok(true)))
    }
}

fn is_member(uid: Uid, group: Gid) -> bool {
    let Ok(Some(user)) = User::from_uid(uid) else { return false };
    let Ok(name) = CString::new(user.name) else { return false };
    getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&group))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_group_counts_only_where_the_mode_lets_it_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let at = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            Admission::of_socket(&path).unwrap()
        };
        assert!(at(0o660).group.is_some());
        assert!(at(0o600).group.is_none());
    }

    #[test]
    fn root_is_a_member_of_its_own_group_and_of_no_made_up_one() {
        assert!(is_member(Uid::from_raw(0), Gid::from_raw(0)));
        assert!(!is_member(Uid::from_raw(0), Gid::from_raw(4_000_000_000)));
        assert!(!is_member(Uid::from_raw(4_000_000_000), Gid::from_raw(0)));
    }
}
