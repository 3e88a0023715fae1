//! Failures of a publication, as an operator reads them: what was being done, to what, why it failed, what to do about it.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

use crate::domain::{SinkFailure, SinkFailureKind};

/// A failure of a system call on a file or directory.
pub(super) fn of(doing: &str, path: &Path, errno: Errno) -> SinkFailure {
    with_remedy(doing, path, errno, remedy(errno))
}

/// A failure to make something in `directory`.
pub(super) fn within(directory: &Path, doing: &str, path: &Path, errno: Errno) -> SinkFailure {
    let remedy = match errno {
        Errno::ACCESS | Errno::PERM => format!(
            "let user {uid} write there: `chown {uid} {}`, or chmod it, or name it in the unit's ReadWritePaths=",
            directory.display(),
            uid = uid(),
        ),
        errno => remedy(errno),
    };
    with_remedy(doing, path, errno, remedy)
}

/// As [`of`], with a remedy that the caller knows better.
pub(super) fn with_remedy(doing: &str, path: &Path, errno: Errno, remedy: impl Display) -> SinkFailure {
    SinkFailure {
        kind: kind(errno),
        detail: format!("cannot {doing} {}: {}; {remedy}", path.display(), text(errno)).into(),
    }
}

/// A path that must not be used as it is.
pub(super) fn unsafe_path(path: &Path, why: impl Display) -> SinkFailure {
    SinkFailure { kind: SinkFailureKind::Unsafe, detail: format!("{} {why}", path.display()).into() }
}

/// A place that belongs to the daemon itself.
pub(super) fn reserved(path: &Path, what: &str) -> SinkFailure {
    let detail = format!(
        "{} is {what}, reached by another path (a link or a mount), and no sink may be there: choose another path for the \
         sink",
        path.display()
    );
    SinkFailure { kind: SinkFailureKind::Taken, detail: detail.into() }
}

/// A place that another sink has claimed.
pub(super) fn taken(path: &Path) -> SinkFailure {
    let detail = format!(
        "{} is the place of another sink too, which reaches it by another path (a link or a mount) and keeps it: give each \
         sink a directory of its own; `corptokend check` names both",
        path.display()
    );
    SinkFailure { kind: SinkFailureKind::Taken, detail: detail.into() }
}

/// A place that was probed, and did not answer.
pub(super) fn does_not_answer(path: &Path, within: Duration) -> SinkFailure {
    let detail = format!(
        "{} does not answer within {} s: see whether its device or server does (`dmesg`)",
        path.display(),
        within.as_secs()
    );
    SinkFailure { kind: SinkFailureKind::Hangs, detail: detail.into() }
}

/// A probe whose thread panicked.
pub(super) fn probe_panicked() -> SinkFailure {
    let detail = "trying it ended in a defect of corptokend, which stderr shows; please report it";
    SinkFailure { kind: SinkFailureKind::Other, detail: detail.into() }
}

/// The kind of a file system's error.
pub(super) fn kind(errno: Errno) -> SinkFailureKind {
    match errno {
        Errno::NOSPC | Errno::DQUOT | Errno::MLINK => SinkFailureKind::Full,
        Errno::ROFS | Errno::IO | Errno::STALE | Errno::NODEV | Errno::NXIO => SinkFailureKind::Unwritable,
        Errno::ACCESS | Errno::PERM => SinkFailureKind::Denied,
        Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY => SinkFailureKind::Unsafe,
        Errno::TIMEDOUT => SinkFailureKind::Hangs,
        _ => SinkFailureKind::Other,
    }
}

/// The system's text for an error.
pub(super) fn text(errno: Errno) -> String {
    std::io::Error::from(errno).to_string()
}

fn remedy(errno: Errno) -> String {
    match errno {
        Errno::NOSPC => "free space or inodes on that file system (`df -h`, `df -i`)".to_owned(),
        Errno::DQUOT => format!("raise the disk quota of user {} or free some of it", uid()),
        Errno::ROFS => "the file system is mounted read-only: remount it, or name the directory in the unit's \
                        ReadWritePaths="
            .to_owned(),
        Errno::IO => "the device or its server reports an error: see `dmesg`".to_owned(),
        Errno::ACCESS | Errno::PERM => format!(
            "let user {} write there (chown or chmod the directory, or name it in the unit's ReadWritePaths=)",
            uid()
        ),
        Errno::BUSY => "a file that is itself a mount point cannot be replaced: mount its directory instead".to_owned(),
        Errno::MFILE | Errno::NFILE => "raise the limit of open files (LimitNOFILE= in the unit)".to_owned(),
        Errno::NAMETOOLONG => "shorten the sink's path".to_owned(),
        Errno::STALE => "the file server no longer knows the directory: mount it again".to_owned(),
        _ => "it is tried again".to_owned(),
    }
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}
