//! Who may change the directories of a sink: the one rule of [`trust`](crate::system::permissions), with what a sink says of itself.

use std::path::Path;

use rustix::process::{getegid, geteuid};
use rustix::thread::CapabilitySet;

use crate::domain::{FileSink, SinkFailure};
use crate::sink::error;
use crate::system::permissions::{Role, Status, Trusted};

/// Who the daemon is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Me {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Whether sticky directories bind us (no CAP_FOWNER).
    pub(super) bound: bool,
}

impl Me {
    pub(crate) fn current() -> Self {
        let set = rustix::thread::capabilities(None).map(|sets| sets.effective);
        let bound = !set.is_ok_and(|set| set.contains(CapabilitySet::FOWNER));
        Self { uid: geteuid().as_raw(), gid: getegid().as_raw(), bound }
    }
}

/// What a sink asks of its directories.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) owner: Option<u32>,
    pub(crate) group: Option<u32>,
    pub(crate) mode: u32,
    pub(crate) dir_mode: u32,
    pub(crate) trust: bool,
}

impl Rules {
    pub(crate) fn of(sink: &FileSink) -> Self {
        let FileSink { owner, group, mode, dir_mode, trust_dir: trust, .. } = *sink;
        Self { owner, group, mode, dir_mode, trust }
    }

    /// Who may change directories of this sink, whose files get `group` if it names none.
    pub(crate) fn trusted(&self, me: Me, group: u32) -> Trusted {
        Trusted::of(me.uid).and_user(self.owner).and_group(me.gid).and_group(self.group.unwrap_or(group))
    }
}

/// The group that a file gets which is made in a directory, if nobody says otherwise.
pub(crate) fn group_of_new_files(directory: &Status, me: Me) -> u32 {
    if directory.mode & 0o2000 == 0 { me.gid } else { directory.gid }
}

/// Applies the rule to one directory of a sink's path.
pub(crate) fn judge(
    trusted: &Trusted,
    path: &Path,
    status: &Status,
    role: Role,
    rules: &Rules,
) -> Result<(), SinkFailure> {
    let Some(risk) = trusted.risk(path, status, role).filter(|_| !rules.trust) else { return Ok(()) };
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
