//! Why the daemon did not answer.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::is_invisible;

/// Why the daemon did not answer. Commands give most of these exit codes of their own.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("no daemon listens on {}; is it running? (`systemctl status corptokend`)", .0.display())]
    NoDaemon(PathBuf),
    /// We may not ask.
    #[error(
        "no permission for {}; ask as root or as a member of the socket's group (corptokend-admin)", .0.display()
    )]
    NoPermission(PathBuf),
    /// The daemon is there, and cannot answer now: too many connections, or it is stopping. Later it can.
    #[error("the daemon on {} is busy: {reason}", .socket.display())]
    Busy {
        /// The socket.
        socket: PathBuf,
        /// What keeps it.
        reason: String,
    },
    /// Somebody took our connection, and says nothing.
    #[error("the daemon on {} does not answer: nothing came for {} s; {hint}", .socket.display(), .waited.as_secs())]
    Silent {
        /// The socket.
        socket: PathBuf,
        /// For how long.
        waited: Duration,
        /// Which process that is, and what it does.
        hint: String,
    },
    /// Whoever listens cannot be the daemon.
    #[error(
        "user {uid} listens on {}, who is neither root nor you, and does not own its directory: that is not believed to be \
         the daemon (if it is: give it the directory)", .socket.display()
    )]
    Impostor {
        /// The socket.
        socket: PathBuf,
        /// Who listens.
        uid: u32,
    },
    /// Somebody listens, but the answer is not what it should be.
    #[error("the daemon on {} gives no proper answer: {reason}", .socket.display())]
    Other {
        /// The socket.
        socket: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// What the daemon says could not be passed on.
    #[error("cannot write the daemon's answer: {0}")]
    Output(io::Error),
}

/// The longest text of somebody else that an error repeats, in characters.
const MAX_REASON: usize = 500;

/// An answer that is not what it should be. What others say is made printable.
pub(super) fn other(socket: &Path, reason: impl ToString) -> ControlError {
    ControlError::Other { socket: socket.to_owned(), reason: printable(&reason.to_string()) }
}

/// A daemon that cannot answer now.
pub(super) fn busy(socket: &Path, reason: impl ToString) -> ControlError {
    ControlError::Busy { socket: socket.to_owned(), reason: printable(&reason.to_string()) }
}

/// A process that took our connection and says nothing.
pub(super) fn silent(socket: &Path, pid: Option<i32>, waited: Duration) -> ControlError {
    let hint = match pid.filter(|pid| *pid > 0) {
        None => "its process is not to be seen from here".to_owned(),
        Some(pid) => match state_of(pid) {
            Some('T' | 't') => format!("its process {pid} is stopped (`kill -CONT {pid}`)"),
            Some('D') => format!("its process {pid} hangs in the kernel (`dmesg`)"),
            _ => format!("see what its process {pid} does (`systemctl status {pid}`)"),
        },
    };
    ControlError::Silent { socket: socket.to_owned(), waited, hint }
}

/// The letter in proc_pid_stat(5): after the name, which may hold anything, in parentheses.
fn state_of(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn printable(text: &str) -> String {
    text.chars().take(MAX_REASON).map(|c| if is_invisible(c) { '\u{fffd}' } else { c }).collect()
}
