//! The commands' end of the control socket.

use std::path::PathBuf;

/// Why the daemon did not answer; each has an exit code of its own.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no daemon listens on {}; is it running? (`systemctl status corptokend`)", .0.display())]
    NoDaemon(PathBuf),
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {}
