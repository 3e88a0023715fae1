//! Entries of the journal, with an event's fields as the journal's own (`APP=`, `CORP_ID=`, `EVENT=`), as `journalctl APP=crm` wants them. The protocol is systemd's "Native Journal Protocol" (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).

use std::fmt;
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::writer::{LogTarget, LogWriter};

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// The longest value of a field, in bytes. An entry is one datagram, which holds some 200 KiB; a line of stderr holds 48 KiB (`LineMax=`).
const MAX_VALUE: usize = 64 << 10;

/// A socket to the journal; `None` if it does not listen.
pub(super) fn connect() -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    // A journal that hangs must not delay the start. It discards empty datagrams.
    socket.set_nonblocking(true).ok()?;
    match socket.send_to(&[], SOCKET) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => return None,
        _ => {}
    }
    socket.set_nonblocking(false).ok()?;
    Some(socket)
}

/// Sends an entry, and waits for the journal to take it.
pub(super) fn send(socket: &UnixDatagram, entry: &[u8]) -> io::Result<()> {
    socket.send_to(entry, SOCKET).map(drop)
}

/// Turns events into entries.
pub(super) struct JournalLayer {
    pub(super) writer: Arc<LogWriter>,
    /// `SYSLOG_IDENTIFIER=`: the program's name.
    pub(super) identifier: String,
}

impl<S: Subscriber> Layer<S> for JournalLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.writer.push(LogTarget::Journal, entry(event.metadata(), &self.identifier, |fields| event.record(fields)));
    }
}

fn entry(metadata: &Metadata<'_>, identifier: &str, record: impl FnOnce(&mut Fields)) -> Vec<u8> {
    let mut fields = Fields(Vec::with_capacity(512));
    fields.put("PRIORITY", priority(*metadata.level()).as_bytes());
    fields.put("TARGET", metadata.target().as_bytes());
    fields.put("CODE_FILE", metadata.file().unwrap_or_default().as_bytes());
    fields.put("CODE_LINE", metadata.line().unwrap_or_default().to_string().as_bytes());
    fields.put("SYSLOG_IDENTIFIER", identifier.as_bytes());
    record(&mut fields);
    fields.0
}

/// As in syslog (RFC 5424, 6.2.1).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

struct Fields(Vec<u8>);

impl Fields {
    /// The binary form, which takes any value: the name, a newline, the length in 64 bits little-endian, the value, a newline.
    fn put(&mut self, name: &str, value: &[u8]) {
        let value = value.get(..MAX_VALUE).unwrap_or(value);
        // The journal takes capitals, digits and underscores, no underscore first.
        let name = name.bytes().skip_while(|byte| !byte.is_ascii_alphabetic());
        self.0.extend(name.map(|byte| if byte.is_ascii_alphanumeric() { byte.to_ascii_uppercase() } else { b'_' }));
        self.0.push(b'\n');
        self.0.extend_from_slice(&(value.len() as u64).to_le_bytes());
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value.as_bytes());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = Vec::new();
        // Writing to memory does not fail; a value that cannot be formatted is shown as far as it came.
        let _ = write!(text, "{value:?}");
        self.put(field.name(), &text);
    }
}
