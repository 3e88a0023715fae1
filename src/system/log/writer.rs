//! The thread that writes log lines, so that nobody who logs waits for whoever reads: a pipe that is not read, a terminal that is held
//! (XOFF), a journal that hangs.
//!
//! The queue is bounded. Lines beyond the bound are lost and counted, and a line in their place reports the loss once lines are written
//! again.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::domain::BootMs;
use crate::system::clock;

/// The most bytes in the queue: some 30,000 lines, for bursts.
const MAX_WAITING: usize = 4 << 20;

/// How long the end of the process waits for lines to be written.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// A line that takes longer hangs, in milliseconds.
const HANGS_AFTER_MS: u64 = 5_000;

/// The thread's stack: it formats at most one line of its own.
const STACK: usize = 256 << 10;

/// The process's log. A static, so that whoever ends the process can flush it.
static WRITER: OnceLock<Arc<LogWriter>> = OnceLock::new();

/// Where a line goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogTarget {
    /// The process's stderr, as bytes.
    Stderr,
    /// The journal, as one entry of its native protocol.
    Journal,
}

/// Writes one line, however long that takes. A line that fails is lost.
type Write = Box<dyn Fn(LogTarget, &[u8]) -> io::Result<()> + Send>;

/// The queue between those who log and the thread that writes.
#[derive(Debug, Default)]
pub(super) struct LogWriter {
    queue: Mutex<LineQueue>,
    /// Lines came, for the thread; or all were written, for those who flush.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LineQueue {
    lines: Vec<(LogTarget, Vec<u8>)>,
    bytes: usize,
    /// When the thread began the line that it is at.
    writes_since: Option<BootMs>,
    /// Lines that were lost that the log has not reported yet.
    unreported: u64,
    /// Lines that were lost in all.
    lost: u64,
}

/// Starts the thread that writes the process's log, once. `None`: the system has no thread for it.
pub(super) fn start(write: impl Fn(LogTarget, &[u8]) -> io::Result<()> + Send + 'static) -> Option<Arc<LogWriter>> {
    let writer = LogWriter::start(Box::new(write)).ok()?;
    Some(Arc::clone(WRITER.get_or_init(|| writer)))
}

/// Whether there is a log.
pub(super) fn is_started() -> bool {
    WRITER.get().is_some()
}

/// Waits until all lines are written, for a second at most.
pub fn flush() {
    if let Some(writer) = WRITER.get() {
        writer.flush(FLUSH_PATIENCE);
    }
}

/// Writes a line to stderr after all that was logged. Waits for a second at most if there is a log, or else for as long as it takes.
pub fn last_words(line: &str) {
    let bytes = format!("{line}\n").into_bytes();
    match WRITER.get() {
        Some(writer) => {
            writer.push(LogTarget::Stderr, bytes);
            writer.flush(FLUSH_PATIENCE);
        }
        None => drop(super::to_stderr(&bytes)),
    }
}

/// How far the log is behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Lines that were lost since the start, because the queue was full or they could not be written.
    pub lost: u64,
    /// Whether the line that is being written hangs.
    pub hangs: bool,
}

pub(super) fn backlog() -> Backlog {
    WRITER.get().map_or_else(Backlog::default, |writer| writer.backlog(clock::now().boot))
}

impl LogWriter {
    fn start(write: Write) -> io::Result<Arc<Self>> {
        let writer = Arc::new(Self::default());
        let ours = Arc::clone(&writer);
        std::thread::Builder::new().name("log".into()).stack_size(STACK).spawn(move || ours.run(&write))?;
        Ok(writer)
    }

    /// Queues a line, or counts it as lost if the queue is full.
    pub(super) fn push(&self, target: LogTarget, line: Vec<u8>) {
        let mut queue = self.lock();
        if queue.bytes + line.len() > MAX_WAITING {
            queue.unreported += 1;
            queue.lost += 1;
            return;
        }
        queue.bytes += line.len();
        queue.lines.push((target, line));
        drop(queue);
        self.changed.notify_all();
    }

    /// Waits until every line is written, for `patience` at most.
    fn flush(&self, patience: Duration) {
        let queue = self.lock();
        let under_way = |queue: &mut LineQueue| !queue.lines.is_empty() || queue.writes_since.is_some();
        drop(self.changed.wait_timeout_while(queue, patience, under_way));
    }

    fn backlog(&self, now: BootMs) -> Backlog {
        let queue = self.lock();
        let hangs = queue.writes_since.is_some_and(|since| now.since(since) >= HANGS_AFTER_MS);
        Backlog { lost: queue.lost, hangs }
    }

    fn run(&self, write: &Write) {
        loop {
            let queue = self.changed.wait_while(self.lock(), |queue| queue.lines.is_empty());
            let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
            let lines = std::mem::take(&mut queue.lines);
            let lost = std::mem::take(&mut queue.unreported);
            queue.bytes = 0;
            queue.writes_since = Some(clock::now().boot);
            drop(queue);
            if lost > 0 {
                // These came after the lines that are to be written now, and the queue is empty, so this line takes their place.
                tracing::error!(
                    event = "log_lines_lost",
                    lines = lost,
                    "{lost} lines of the log are lost here: they came faster than they were taken"
                );
            }
            for (target, line) in lines {
                self.lock().writes_since = Some(clock::now().boot);
                if write(target, &line).is_err() {
                    // It cannot be logged: that line would fail as well.
                    self.lock().lost += 1;
                }
            }
            self.lock().writes_since = None;
            self.changed.notify_all();
        }
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, LineQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes one event's line: the formatter writes a whole line at once.
pub(super) struct LineWriter(pub(super) Arc<LogWriter>);

impl io::Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(LogTarget::Stderr, bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A writer whose reader takes a line at each message of the sender.
    fn held_back() -> (Arc<LogWriter>, mpsc::Sender<()>, mpsc::Receiver<String>) {
        let (let_go, may_go) = mpsc::channel::<()>();
        let (taken, lines) = mpsc::channel();
        let writer = LogWriter::start(Box::new(move |_, line| {
            let _ = may_go.recv();
            let _ = taken.send(String::from_utf8_lossy(line).into_owned());
            Ok(())
        }));
        (writer.unwrap(), let_go, lines)
    }

    #[test]
    fn lines_come_out_in_the_order_in_which_they_went_in() {
        let (writer, let_go, lines) = held_back();
        (0..100).for_each(|n| writer.push(LogTarget::Stderr, format!("{n}").into_bytes()));
        (0..100).for_each(|_| let_go.send(()).unwrap());
        for n in 0..100 {
            assert_eq!(lines.recv_timeout(PATIENCE).unwrap(), format!("{n}"));
        }
    }

    #[test]
    fn whoever_logs_does_not_wait_for_a_reader_that_stands_still_and_what_waits_is_bounded() {
        let (writer, let_go, lines) = held_back();
        let line = vec![b'x'; 1 << 10];
        let many = 3 * MAX_WAITING / line.len();
        (0..many).for_each(|_| writer.push(LogTarget::Stderr, line.clone()));
        assert!(writer.lock().bytes <= MAX_WAITING);
        let lost = writer.backlog(BootMs(0)).lost;
        assert!((many as u64 / 3..=2 * many as u64 / 3 + 1).contains(&lost), "{lost} of {many} are lost");
        // Once it goes on, all lines that were queued are written.
        drop(let_go);
        let kept = many as u64 - lost;
        (0..kept).for_each(|_| drop(lines.recv_timeout(PATIENCE).unwrap()));
        writer.flush(PATIENCE);
        assert_eq!(writer.lock().unreported, 0, "the loss is reported once lines are taken again");
    }

    #[test]
    fn a_flush_waits_for_the_last_line_and_gives_up_on_a_reader_that_stands_still() {
        let (writer, let_go, lines) = held_back();
        writer.push(LogTarget::Stderr, b"one".to_vec());
        writer.flush(Duration::from_millis(50));
        assert!(lines.try_recv().is_err(), "nobody took it");
        assert!(writer.backlog(clock::now().boot + HANGS_AFTER_MS).hangs);
        let_go.send(()).unwrap();
        writer.flush(PATIENCE);
        assert_eq!(lines.try_recv().unwrap(), "one");
        assert!(!writer.backlog(clock::now().boot + HANGS_AFTER_MS).hangs);
    }
}
