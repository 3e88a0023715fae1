//! What every command shares: colour, width, printable text, the lines on stderr, and exit codes.
//!
//! Goes in: texts, some of which others wrote. Comes out: lines that cannot steer the terminal, and an [`Exit`]. Every file of
//! `cli` may use it; it knows no command.

mod exit;
mod printable;
mod screen;

use std::fmt::Display;
use std::io::{self, Write};

use crate::system::log;

pub use exit::Exit;
pub use screen::Colour;

pub(super) use printable::{SafeJson, printable, printable_lines};
pub(super) use screen::{padded, redraw, width};

/// Reports what went wrong: the cause in one line.
pub(super) fn report(error: impl Display) {
    print_line(format_args!("error: {error}"));
}

/// Writes a line to stderr, after what was logged. If stderr is closed, nobody reads it.
pub(super) fn print_line(line: impl Display) {
    log::flush();
    let _ = writeln!(io::stderr(), "{line}");
}

/// Reports that stdout could not be written, and returns the exit code. A closed pipe (`| head`) is not reported: the reader has
/// read enough.
pub(super) fn output_failed(error: &io::Error) -> Exit {
    if error.kind() != io::ErrorKind::BrokenPipe {
        report(format_args!("cannot write to stdout: {error}"));
    }
    Exit::Failed
}

/// `1 tenant`, `2 tenants`.
pub(super) fn counted(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
