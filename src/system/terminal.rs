//! Whether a stream is a terminal, and what it can show.

use std::io::IsTerminal;

/// Whether `stream` is a terminal that understands control sequences.
pub fn is_capable(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether output to `stream` is coloured: on a terminal that can show it, unless `NO_COLOR` is set (<https://no-color.org>).
pub fn wants_colour(stream: &impl IsTerminal) -> bool {
    is_capable(stream) && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
