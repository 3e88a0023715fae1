//! Log lines for people: `12:00:01 INFO crm/ding1: new token 0a1b2c3d, good for 1m`. A message says what happened in full,
//! so a field is added only where the message does not say it; JSON and the journal have all of them.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::domain::{WallMs, is_invisible};
use crate::system::clock;

/// Fields for programs, which repeat what the message says.
const FOR_MACHINES: [&str; 4] = ["event", "kind", "lifetime_s", "percent"];

/// How a line shows the time, which is UTC, as in `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stamp {
    /// `12:00:01`, for a terminal.
    Time,
    /// `2026-01-31T12:00:01Z`, for a file.
    Moment,
}

/// Formats a line.
pub(super) struct TextFormat {
    pub(super) stamp: Stamp,
}

impl<S, N> FormatEvent<S, N> for TextFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut text = EventText::default();
        event.record(&mut text);
        let level = *event.metadata().level();
        let (colour, dim, plain) =
            if writer.has_ansi_escapes() { (colour_of(level), "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
        let stamp = self.stamp.of(clock::now().wall);
        write!(writer, "{dim}{stamp}{plain} {colour}{level}{plain} {}", text.message)?;
        for (name, value) in text.fields.iter().filter(|(_, value)| !says(&text.message, value)) {
            write!(writer, " {dim}{name}={plain}{value}")?;
        }
        writeln!(writer)
    }
}

impl Stamp {
    fn of(self, moment: WallMs) -> String {
        let whole = moment.rfc3339();
        match self {
            Self::Moment => whole,
            Self::Time => whole.get(11..19).map(str::to_owned).unwrap_or(whole),
        }
    }
}

fn colour_of(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        _ => "\x1b[2m",
    }
}

/// An event's message and fields.
#[derive(Default)]
struct EventText {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for EventText {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = printable(value, Newlines::Kept),
            name if FOR_MACHINES.contains(&name) || value.is_empty() => {}
            name => self.fields.push((name, printable(value, Newlines::Escaped))),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Newlines {
    /// A report has several lines.
    Kept,
    /// A field has one.
    Escaped,
}

/// Escapes what could steer a terminal.
fn printable(text: &str, newlines: Newlines) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' if newlines == Newlines::Kept => shown.push(c),
            c if is_invisible(c) => {
                let _ = write!(shown, "{}", c.escape_default());
            }
            c => shown.push(c),
        }
    }
    shown
}

/// Whether the message holds the value as a word of its own.
fn says(message: &str, value: &str) -> bool {
    let part = |c: char| c.is_alphanumeric();
    message.match_indices(value).any(|(at, _)| {
        let (before, after) = (&message[..at], &message[at + value.len()..]);
        !before.chars().next_back().is_some_and(part) && !after.chars().next().is_some_and(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_said_only_as_a_whole_word() {
        assert!(says("crm/ding1: works", "ding1"));
        assert!(!says("crm/ding12: works", "ding1"));
        assert!(says("tries again in 1m 5s", "1m 5s"));
        assert!(!says("good for 1m", "1"));
        assert!(says("x1 and 1", "1"));
    }

    #[test]
    fn the_time_of_day_is_what_a_watcher_wants_and_the_moment_what_a_file_wants() {
        let moment = WallMs(1_769_860_801_234);
        assert_eq!(Stamp::Time.of(moment), "12:00:01");
        assert_eq!(Stamp::Moment.of(moment), "2026-01-31T12:00:01Z");
    }
}
