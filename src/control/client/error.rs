//! Why the daemon did not answer.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::is_invisible;

/// Why the daemon did not answer. Most variants have an exit code of their own.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No process listens on the socket.
    #[error("no daemon listens on {}; is it running? (`systemctl status corptokend`)", .0.display())]
    NoDaemon(PathBuf),
    /// The user may not connect.
    #[error(
        "no permission for {}; ask as root or as a member of the socket's group (corptokend-admin)", .0.display()
    )]
    NoPermission(PathBuf),
    /// The daemon cannot answer now, but perhaps shortly: it has too many connections, or is stopping.
    #[error("the daemon on {} is busy: {reason}", .socket.display())]
    Busy {
        /// The socket.
        socket: PathBuf,
        /// Why it cannot.
        reason: String,
    },
    /// A process accepted the connection and does not answer.
    #[error("the daemon on {} has not answered for {} s; {hint}", .socket.display(), .waited.as_secs())]
    Silent {
        /// The socket.
        socket: PathBuf,
        /// How long the command waited.
        waited: Duration,
        /// Which process it is, and in what state.
        hint: String,
    },
    /// The listening process is not trusted to be the daemon.
    #[error(
        "user {uid} listens on {}, but is neither root nor you, and does not own the socket's directory, so it is not trusted to \
         be the daemon (if it is: `chown {uid}` the directory)", .socket.display()
    )]
    Impostor {
        /// The socket.
        socket: PathBuf,
        /// The user of the listening process.
        uid: u32,
    },
    /// The answer is invalid.
    #[error("the daemon on {} gives an invalid answer: {reason}", .socket.display())]
    Other {
        /// The socket.
        socket: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The answer could not be written to stdout.
    #[error("cannot write the daemon's answer: {0}")]
    Output(io::Error),
}

/// The longest text of the peer's that an error repeats, in characters.
const MAX_REASON: usize = 500;

/// An invalid answer. The peer's text is made printable.
pub(super) fn other(socket: &Path, reason: impl ToString) -> ControlError {
    ControlError::Other { socket: socket.to_owned(), reason: printable(&reason.to_string()) }
}

/// A daemon that cannot answer now.
pub(super) fn busy(socket: &Path, reason: impl ToString) -> ControlError {
    ControlError::Busy { socket: socket.to_owned(), reason: printable(&reason.to_string()) }
}

/// A process that accepted the connection and does not answer.
pub(super) fn silent(socket: &Path, pid: Option<i32>, waited: Duration) -> ControlError {
    let hint = match pid.filter(|pid| *pid > 0) {
        None => "its process is not visible from here".to_owned(),
        Some(pid) => match state_of(pid) {
            Some('T' | 't') => format!("its process {pid} is stopped (`kill -CONT {pid}`)"),
            Some('D') => format!("its process {pid} hangs in the kernel (`dmesg`)"),
            _ => format!("see what its process {pid} does (`systemctl status {pid}`)"),
        },
    };
    ControlError::Silent { socket: socket.to_owned(), waited, hint }
}

/// The process's state, a letter in proc_pid_stat(5). It follows the name, which is in parentheses and may hold anything.
fn state_of(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn printable(text: &str) -> String {
    text.chars().take(MAX_REASON).map(|c| if is_invisible(c) { '\u{fffd}' } else { c }).collect()
}
