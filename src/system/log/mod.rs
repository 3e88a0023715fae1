//! The log: where its lines go, and how they look.
//!
//! In come events of `tracing`, from everywhere. Out go lines to stderr (`text`, or JSON) or entries to the journal (`journal`), by way of a
//! thread of their own (`writer`): nobody who logs waits for whoever reads the log. `daemon` and `cli` start it.

mod journal;
mod text;
mod writer;

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use crate::domain::{LogFormat, LogLevel};
use crate::system::terminal::wants_colour;
use text::{Stamp, TextFormat};
use writer::{LineWriter, LogTarget, LogWriter};

pub use writer::{Backlog, flush, last_words};

/// The process's log. A reload can change its level, but not its format.
#[derive(Debug, Clone)]
pub struct LogHandle {
    filter: reload::Handle<Targets, Registry>,
}

impl LogHandle {
    /// Sets the least important level that is written.
    pub fn set_level(&self, level: LogLevel) {
        // It fails only after the subscriber is gone, and that lives as long as the process.
        let _ = self.filter.reload(filter(level));
    }

    /// Whether its lines are written.
    pub fn backlog(&self) -> Backlog {
        writer::backlog()
    }
}

/// Starts the log, for the rest of the process. Nothing changes if there is one already.
///
/// [`LogFormat::Auto`] writes to the journal when stderr leads there (`JOURNAL_STREAM`, systemd.exec(5)), with the fields
/// as the journal's own; else text, in colour on a terminal. [`LogFormat::Json`] is one flat object a line: `timestamp`,
/// `level`, `message` and the event's fields. Where there is no journal to write to, it is text.
pub fn init(format: LogFormat, level: LogLevel) -> LogHandle {
    let journal = match format {
        LogFormat::Auto => leads_to_journal(std::env::var("JOURNAL_STREAM").ok().as_deref(), std::io::stderr()),
        LogFormat::Journald => true,
        LogFormat::Text | LogFormat::Json => false,
    };
    let (filter, handle) = reload::Layer::new(filter(level));
    let journal = if journal { Some(journal::connect()) } else { None };
    let fell_back = matches!(journal, Some(None));
    let lines = lines(format, journal.flatten());
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    if fell_back {
        tracing::warn!(event = "no_journal", "the journal's socket cannot be used; logging text to stderr instead");
    }
    LogHandle { filter: handle }
}

/// Logs a panic, or writes it to stderr before there is a log. With a log, a thread that panics does not wait for a reader of stderr.
pub fn defect(words: &str) {
    if writer::is_started() {
        tracing::error!(event = "panicked", "{words}");
    } else {
        // Nobody may be reading.
        let _ = to_stderr(format!("{words}\n").as_bytes());
    }
}

/// The layer that makes lines, and the thread that writes them.
fn lines<S>(format: LogFormat, journal: Option<UnixDatagram>) -> Lines<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let to_journal = journal.is_some();
    let writer = writer::start(move |target, line| match (target, &journal) {
        (LogTarget::Journal, Some(socket)) => journal::send(socket, line),
        _ => to_stderr(line),
    });
    let stamp = if io::stderr().is_terminal() { Stamp::Time } else { Stamp::Moment };
    match (writer, format) {
        (Some(writer), _) if to_journal => {
            let program = std::env::current_exe().ok().and_then(|path| path.file_name().map(ToOwned::to_owned));
            let identifier = program.map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            Box::new(journal::JournalLayer { writer, identifier })
        }
        (Some(writer), LogFormat::Json) => json(line_writer(writer)),
        (Some(writer), _) => text(line_writer(writer), stamp, wants_colour(&io::stderr())),
        // No thread is to be had, so the process is about to end anyway.
        (None, LogFormat::Json) => json(io::stderr),
        (None, _) => text(io::stderr, stamp, wants_colour(&io::stderr())),
    }
}

fn line_writer(writer: Arc<LogWriter>) -> impl Fn() -> LineWriter + Send + Sync + 'static {
    move || LineWriter(Arc::clone(&writer))
}

/// Writes all of it, however long that takes. [`std::io::stderr`] would hold its lock for as long.
fn to_stderr(mut bytes: &[u8]) -> io::Result<()> {
    let stderr = rustix::stdio::stderr();
    while !bytes.is_empty() {
        match rustix::io::write(stderr, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(rustix::io::Errno::INTR) => {}
            // Another process that shares stderr made it non-blocking.
            Err(rustix::io::Errno::AGAIN) => {
                let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
                poll(&mut fds, None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Our own events at `level`, and what others warn of.
fn filter(level: LogLevel) -> Targets {
    let ours = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new().with_default(LevelFilter::WARN.min(ours)).with_target("corptokend", ours)
}

type Lines<S> = Box<dyn Layer<S> + Send + Sync>;

fn text<S, W>(writer: W, stamp: Stamp, colour: bool) -> Lines<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // A line that cannot be written is lost: complaining about it on stderr as well would be a panic.
    let layer = fmt::layer().with_writer(writer).with_ansi(colour).log_internal_errors(false);
    Box::new(layer.event_format(TextFormat { stamp }))
}

fn json<S, W>(writer: W) -> Lines<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer =
        fmt::layer().with_writer(writer).json().flatten_event(true).with_target(false).log_internal_errors(false);
    Box::new(layer.with_current_span(false).with_span_list(false))
}

/// Whether `stream` is the one that `JOURNAL_STREAM` names as `device:inode`. The variable alone proves nothing: it is
/// inherited by children whose stderr was redirected.
fn leads_to_journal(variable: Option<&str>, stream: impl AsFd) -> bool {
    let named = variable.and_then(|text| {
        let (device, inode) = text.split_once(':')?;
        Some((device.parse::<u64>().ok()?, inode.parse::<u64>().ok()?))
    });
    match (named, rustix::fs::fstat(stream)) {
        (Some(named), Ok(stat)) => named == (stat.st_dev, stat.st_ino),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct TestOutput(Arc<Mutex<Vec<u8>>>);

    impl Write for TestOutput {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl TestOutput {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn logged(lines: impl FnOnce(TestOutput) -> Lines<TestBase>, level: LogLevel, events: impl FnOnce()) -> String {
        let sink = TestOutput::default();
        let base = tracing_subscriber::registry().with(filter(level));
        tracing::subscriber::with_default(base.with(lines(sink.clone())), events);
        sink.text()
    }

    type TestBase = tracing_subscriber::layer::Layered<Targets, Registry>;

    fn to_json(sink: TestOutput) -> Lines<TestBase> {
        json(move || sink.clone())
    }

    fn to_text(sink: TestOutput) -> Lines<TestBase> {
        text(move || sink.clone(), Stamp::Moment, false)
    }

    #[test]
    fn json_is_one_flat_object_a_line() {
        let log = logged(to_json, LogLevel::Info, || {
            tracing::info!(event = "refreshed", app = "crm", corp_id = "ding1", attempt = 2, "a new\ntoken");
            tracing::warn!(event = "other", "second");
        });
        let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["app"], "crm");
        assert_eq!(lines[0]["attempt"], 2);
        assert_eq!(lines[0]["level"], "INFO");
        assert_eq!(lines[0]["message"], "a new\ntoken");
        assert!(lines[0]["timestamp"].is_string());
        assert!(lines[0].as_object().unwrap().values().all(|value| !value.is_object()));
    }

    #[test]
    fn other_crates_are_heard_only_when_they_warn() {
        let log = logged(to_text, LogLevel::Debug, || {
            tracing::debug!("ours");
            tracing::info!(target: "hyper", "chatter");
            tracing::warn!(target: "hyper", "trouble");
        });
        assert!(log.contains("ours") && log.contains("trouble") && !log.contains("chatter"), "{log}");
        let log = logged(to_text, LogLevel::Error, || tracing::warn!(target: "hyper", "trouble"));
        assert_eq!(log, "");
    }

    #[test]
    fn a_line_of_text_has_only_the_fields_that_its_message_does_not_say() {
        let log = logged(to_text, LogLevel::Info, || {
            let (app, corp_id, fingerprint) = ("crm", "ding1", "0a1b2c3d");
            tracing::info!(
                event = "rotated",
                app,
                corp_id,
                fingerprint,
                lifetime_s = 60,
                "{app}/{corp_id}: new token {fingerprint}"
            );
            tracing::warn!(
                event = "failing",
                app,
                corp_id,
                requestid = "",
                attempt = 1,
                "crm/ding1: tries again in 1s"
            );
        });
        let lines: Vec<&str> = log.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        assert_eq!(lines, ["INFO crm/ding1: new token 0a1b2c3d", "WARN crm/ding1: tries again in 1s attempt=1"]);
    }

    #[test]
    fn text_without_a_terminal_has_no_colour_and_hides_escapes() {
        let log = logged(to_text, LogLevel::Info, || tracing::info!(detail = "x\x1b[2Jy\u{202e}", "m\x1b[31m\u{2066}"));
        assert!(log.trim_end().chars().all(|c| !crate::domain::is_invisible(c)), "{log:?}");
    }

    #[test]
    fn only_the_very_stream_that_is_named_leads_to_the_journal() {
        let file = tempfile::tempfile().unwrap();
        let meta = file.metadata().unwrap();
        let name = format!("{}:{}", meta.dev(), meta.ino());
        assert!(leads_to_journal(Some(&name), &file));
        assert!(!leads_to_journal(Some(&name), tempfile::tempfile().unwrap()));
        for not in [None, Some(""), Some("8"), Some("a:b")] {
            assert!(!leads_to_journal(not, &file));
        }
    }
}
