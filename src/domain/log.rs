//! What an operator chooses of the log.

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// The journal's own protocol when started by systemd, text otherwise.
    Auto,
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
    /// The journal's own protocol.
    Journald,
}

/// How important a log line must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Errors alone.
    Error,
    /// And warnings.
    Warn,
    /// And what an operator wants to see happen.
    Info,
    /// And why.
    Debug,
    /// And everything.
    Trace,
}
