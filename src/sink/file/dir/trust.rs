//! The rule of [`permissions`](crate::system::permissions), applied to a sink's directories: who may change them.

use std::path::Path;

use rustix::process::{getegid, geteuid};
use rustix::thread::CapabilitySet;

use crate::domain::{FileSink, SinkFailure};
use crate::sink::error;
use crate::system::permissions::{Role, Status, Trusted};

/// The process's effective user and group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DaemonUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Sticky directories bind it: it lacks CAP_FOWNER.
    pub(super) is_bound_by_sticky: bool,
}

impl DaemonUser {
    pub(crate) fn current() -> Self {
        let set = rustix::thread::capabilities(None).map(|sets| sets.effective);
        let is_bound_by_sticky = !set.is_ok_and(|set| set.contains(CapabilitySet::FOWNER));
        Self { uid: geteuid().as_raw(), gid: getegid().as_raw(), is_bound_by_sticky }
    }
}

/// What a sink demands of its directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct DirPolicy {
    pub(crate) owner: Option<u32>,
    pub(crate) group: Option<u32>,
    pub(crate) mode: u32,
    pub(crate) dir_mode: u32,
    pub(crate) trust: bool,
}

impl DirPolicy {
    pub(crate) fn of(sink: &FileSink) -> Self {
        let FileSink { owner, group, mode, dir_mode, trust_dir: trust, .. } = *sink;
        Self { owner, group, mode, dir_mode, trust }
    }

    /// Who may change directories of this sink. Its files get `group` if the sink names none.
    pub(crate) fn trusted(&self, me: DaemonUser, group: u32) -> Trusted {
        Trusted::of(me.uid).and_user(self.owner).and_group(me.gid).and_group(self.group.unwrap_or(group))
    }
}

/// The group of files made in a directory, before any chown.
pub(crate) fn group_of_new_files(directory: &Status, me: DaemonUser) -> u32 {
    if directory.mode & 0o2000 == 0 { me.gid } else { directory.gid }
}

/// Judges one directory of a sink's path.
pub(crate) fn judge(
    trusted: &Trusted,
    path: &Path,
    status: &Status,
    role: Role,
    policy: &DirPolicy,
) -> Result<(), SinkFailure> {
    let Some(risk) = trusted.risk(path, status, role).filter(|_| !policy.trust) else { return Ok(()) };
    let who = match (risk.by_owner, risk.by_group) {
        (true, _) => ", who is neither root, nor the daemon, nor the sink's owner",
        (false, Some(_)) => ", which is not the sink's",
        (false, None) => "",
    };
    let say = match (risk.by_owner, risk.by_group) {
        (true, _) => format!("`owner = {}` or ", status.uid),
        (false, Some(group)) => format!("`group = {group}` or "),
        (false, None) => String::new(),
    };
    let why = format_args!("{}{who}: `{}`, or say {say}`trust_dir = true` in the sink", risk.what, risk.remedy);
    Err(error::unsafe_path(path, why))
}
