//! Colour, columns, and a screen that is drawn again and again.

use std::io::{self, IsTerminal, Write};

use rustix::termios::Winsize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::system::terminal::{is_capable, wants_colour};

/// Whether to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Yes.
    On,
    /// No.
    Off,
}

impl Colour {
    /// On where `stream` is a terminal that shows it.
    pub fn for_terminal(stream: &impl IsTerminal) -> Self {
        if wants_colour(stream) { Self::On } else { Self::Off }
    }

    /// `text` in the colour of this SGR code (ECMA-48, 8.3.117).
    pub(in crate::cli) fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::On => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Off => text.to_owned(),
        }
    }
}

/// How many columns `text` takes. It must be printable.
pub(in crate::cli) fn width(text: &str) -> usize {
    text.width()
}

/// `text`, filled with blanks to `columns`.
pub(in crate::cli) fn padded(text: &str, columns: usize) -> String {
    let missing = columns.saturating_sub(width(text));
    format!("{text}{:missing$}", "")
}

/// Draws `screen` over the one before, clipped to the terminal's size. Where stdout is no terminal, it is written whole.
pub(in crate::cli) fn redraw(screen: &str, out: &mut dyn Write) -> io::Result<()> {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        // Home, then clear to the end: less flicker than to clear the whole screen first.
        Ok(size) if is_capable(&io::stdout()) => write!(out, "\x1b[H\x1b[J{}", clipped(screen, size))?,
        _ => writeln!(out, "{screen}")?,
    }
    out.flush()
}

/// As much of `screen` as a terminal of this size shows, one row less, so that the cursor has a place.
fn clipped(screen: &str, size: Winsize) -> String {
    // 0: the terminal does not know its size.
    let known = |length: u16| if length == 0 { usize::MAX } else { usize::from(length) };
    let (rows, columns) = (known(size.ws_row).max(2) - 1, known(size.ws_col));
    screen.lines().take(rows).map(|line| clipped_line(line, columns) + "\n").collect()
}

/// The beginning of a line that fits into `columns`, with all of its colours.
fn clipped_line(line: &str, columns: usize) -> String {
    let (mut text, mut used, mut in_sequence) = (String::new(), 0, false);
    for c in line.chars() {
        if c == '\x1b' || in_sequence {
            in_sequence = c != 'm';
            text.push(c);
            continue;
        }
        used += c.width().unwrap_or(0);
        if used <= columns {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(columns: u16, rows: u16) -> Winsize {
        Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
    }

    #[test]
    fn a_screen_is_clipped_to_the_terminal_and_keeps_its_first_lines() {
        let screen = format!("summary\n{}\n", "x".repeat(200)).repeat(20);
        let shown = clipped(&screen, size(80, 24));
        assert!(shown.starts_with("summary\n"));
        assert_eq!(shown.lines().count(), 23);
        assert!(shown.lines().all(|line| line.len() <= 80), "{shown}");
        assert_eq!(clipped("all of it\n", size(0, 0)), "all of it\n", "a terminal that does not know its size");
    }

    #[test]
    fn colours_take_no_columns_and_end_where_the_line_is_clipped() {
        let line = format!("{}abc", Colour::On.paint("31", "12345"));
        assert_eq!(clipped_line(&line, 6), "\x1b[31m12345\x1b[0ma");
        assert_eq!(clipped_line(&line, 3), "\x1b[31m123\x1b[0m");
    }

    #[test]
    fn a_wide_character_takes_two_columns() {
        assert_eq!(clipped_line("钉钉钉", 5), "钉钉");
        assert_eq!(width(&padded("钉", 4)), 4);
    }
}
