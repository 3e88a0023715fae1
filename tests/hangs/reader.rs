//! A reader of the healthy app's token files, who notes how old the oldest token is that he ever finds.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use corptokend::sandbox::SandboxHandle;

/// What the reader found since he was last asked.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Findings {
    /// The age of the oldest token, from its issue on.
    pub(crate) oldest: Duration,
    /// How long the reader himself was kept waiting by the machine, at most: so long anybody may have been.
    pub(crate) stall: Duration,
}

/// The reader. He stops with the value.
pub(crate) struct TokenReader {
    stop: Arc<AtomicBool>,
    found: Arc<Mutex<Findings>>,
    thread: Option<JoinHandle<()>>,
}

impl TokenReader {
    /// Reads these files, each named by its organisation, over and over. `born` is when the endpoint started. A file that
    /// is not there yet has no age.
    pub(crate) fn over(files: Vec<(String, PathBuf)>, endpoint: Arc<SandboxHandle>, born: Instant) -> Self {
        let (stop, found) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Findings::default())));
        let (stopped, noted) = (Arc::clone(&stop), Arc::clone(&found));
        let thread = std::thread::spawn(move || {
            let mut last = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                let oldest = files.iter().filter_map(|(corp_id, path)| age(&endpoint, born, corp_id, path)).max();
                let mut noted = noted.lock().unwrap();
                noted.oldest = noted.oldest.max(oldest.unwrap_or_default());
                noted.stall = noted.stall.max(last.elapsed());
                drop(noted);
                last = Instant::now();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { stop, found, thread: Some(thread) }
    }

    /// What was found since the last time.
    pub(crate) fn take(&self) -> Findings {
        std::mem::take(&mut self.found.lock().unwrap())
    }
}

impl Drop for TokenReader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How long ago the token in this file was issued. A token that nobody issued is as old as can be.
fn age(endpoint: &SandboxHandle, born: Instant, corp_id: &str, path: &PathBuf) -> Option<Duration> {
    let token = std::fs::read_to_string(path).ok()?;
    let issued = endpoint.issued(corp_id).into_iter().rfind(|issued| issued.token == token);
    let at = issued.map_or(Duration::ZERO, |issued| Duration::from_millis(issued.at_ms));
    Some(born.elapsed().saturating_sub(at))
}
