//! How a command ends.

use crate::control::ControlError;

/// An exit code. From 64 on they are those of sysexits.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Everything is as it should be.
    Success = 0,
    /// Something failed, or a tenant is not fresh.
    Failed = 1,
    /// `status`: a token has expired.
    Expired = 2,
    /// `status`: no daemon listens, or none that answers.
    NoDaemon = 3,
    /// `EX_USAGE`: the command line is wrong.
    Usage = 64,
    /// `EX_UNAVAILABLE`: the one real call of `check --online` brought no token.
    Unavailable = 69,
    /// `EX_TEMPFAIL`: the daemon is busy.
    Busy = 75,
    /// `EX_NOPERM`: the user may not ask the daemon.
    NoPermission = 77,
    /// `EX_CONFIG`: the config is wrong.
    Config = 78,
}

impl From<Exit> for u8 {
    fn from(exit: Exit) -> Self {
        exit as Self
    }
}

impl Exit {
    /// For a command that could not ask the daemon; `otherwise` where nothing better is known.
    pub(in crate::cli) fn of_client_error(error: &ControlError, otherwise: Self) -> Self {
        match error {
            ControlError::NoPermission(_) => Self::NoPermission,
            ControlError::Busy { .. } => Self::Busy,
            ControlError::Output(_) => Self::Failed,
            ControlError::NoDaemon(_)
            | ControlError::Silent { .. }
            | ControlError::Impostor { .. }
            | ControlError::Other { .. } => otherwise,
        }
    }
}
