//! The handle of the store: open it, send requests, stop it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use super::database::{DatabaseError, StoredState};
use super::message::{Contents, ReplyCallback, SetAside, StoreReply, StoreRequest};
use super::worker::{LoadRequest, OpenResult, StoreQueue, StoreReader, StoreWriter};
use crate::domain::{BootMs, Now, Record, TenantId, Token, WallMs};

/// Since when the store's threads have made no progress; `None` for one without work.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stalled {
    /// The thread that opens and commits.
    pub writing: Option<BootMs>,
    /// The thread that loads tokens.
    pub reading: Option<BootMs>,
}

/// A thread of the store hangs if it makes no progress for this long, in milliseconds.
pub const HANGS_AFTER_MS: u64 = 3_000;
/// The longest that [`open`] waits while the database makes progress, in milliseconds: one of a million tenants that was not
/// closed is checked, which takes seconds.
const OPEN_TIMEOUT_MS: u64 = 60_000;
/// How often it checks for progress.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Why the daemon must not run.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the database.
    #[error(
        "another corptokend uses the state {}; stop it, or give this one another [state] path", .path.display()
    )]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// The system has no thread for it.
    #[error("cannot start the thread of the state {}: {source}", .path.display())]
    NoThread {
        /// The database.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// What [`open`] found.
#[derive(Debug)]
pub struct Opened {
    /// The running store.
    pub store: Store,
    /// What the state held; empty if it could not be read.
    pub contents: Contents,
    /// A random number of this state, the same after every restart.
    pub seed: u64,
    /// The wall-clock time of the last commit.
    pub last_commit: Option<WallMs>,
    /// The database that had to be set aside, if any; a new one was created.
    pub set_aside: Option<SetAside>,
    /// How many values were skipped because their checksum is wrong.
    pub rotten: u64,
    /// Why nothing can be written for now. The store tries again, and sends [`StoreReply::Health`] when it works.
    pub unusable: Option<String>,
}

/// Opens the database at `path`, or creates one, and starts the threads.
///
/// The file is created with mode 0600, and a missing directory with 0700. A file that is damaged, foreign or from
/// a newer version is moved to `PATH.corrupt`. A file that cannot be opened or written is no error: it is read as far as it
/// can be, the store keeps everything in memory and tries again, after 1 s at first and every minute at last. Nor is a disk
/// that hangs: after [`HANGS_AFTER_MS`] the store goes on without it, and sends [`StoreReply::Found`] once it can be read.
///
/// `reply` is called on the store's threads; `now` is the clock.
///
/// # Errors
/// See [`OpenError`]: another process has the database.
pub fn open(
    path: &Path,
    reply: impl Fn(Vec<StoreReply>) + Send + Sync + 'static,
    now: fn() -> Now,
) -> Result<Opened, OpenError> {
    let (queue, reply): (_, ReplyCallback) = (Arc::new(StoreQueue::new(now)), Arc::new(reply));
    let (ended, end) = mpsc::channel();
    // Without a buffer: a result that is not taken in time comes back to the thread, which then sends it as replies.
    let (first, opening) = mpsc::sync_channel(0);
    let worker = StoreWriter::new(path.to_owned(), Arc::clone(&queue), Arc::clone(&reply));
    let writer = spawn("store", path, move || {
        worker.run(&first);
        drop(ended);
    })?;
    let (loads, to_load) = mpsc::channel();
    let shown = path.display().to_string();
    let reader = StoreReader { queue: Arc::clone(&queue), reply, path: shown, is_rot_logged: false };
    let reader = spawn("store-reader", path, move || reader.run(&to_load))?;
    let opening = wait_for_open(&opening, &queue).unwrap_or_else(|| OpenResult {
        state: None,
        set_aside: None,
        error: Some(DatabaseError::Unusable(hangs(path))),
    });
    if opening.error == Some(DatabaseError::InUse) {
        return Err(OpenError::InUse { path: path.to_owned() });
    }
    let state = opening.state.unwrap_or_else(StoredState::empty);
    Ok(Opened {
        store: Store { queue, loads, end, writer, reader },
        contents: state.contents,
        seed: state.seed,
        last_commit: state.last_commit,
        set_aside: opening.set_aside,
        rotten: state.rotten,
        unusable: opening.error.as_ref().map(ToString::to_string),
    })
}

/// Waits for the database to be opened, as long as that makes progress; `None` if it hangs.
fn wait_for_open(opening: &mpsc::Receiver<OpenResult>, queue: &StoreQueue) -> Option<OpenResult> {
    let begun = queue.now().boot;
    loop {
        match opening.recv_timeout(CHECK_INTERVAL) {
            Ok(opening) => return Some(opening),
            Err(mpsc::RecvTimeoutError::Disconnected) => return None,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        let now = queue.now().boot;
        let stalled_ms = queue.writing.since().map_or(0, |since| now.since(since));
        if stalled_ms >= HANGS_AFTER_MS || now.since(begun) >= OPEN_TIMEOUT_MS {
            return None;
        }
    }
}

fn spawn(name: &str, path: &Path, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(work);
    thread.map_err(|source| OpenError::NoThread { path: path.to_owned(), source })
}

/// The message about a state that does not answer.
pub fn hangs(path: &Path) -> String {
    format!(
        "the state {} does not answer: see whether its device or server does (`dmesg`); it is tried on and on",
        path.display()
    )
}

/// A handle to the store's threads.
pub struct Store {
    queue: Arc<StoreQueue>,
    loads: mpsc::Sender<LoadRequest>,
    /// Closed when the writing thread ends.
    end: mpsc::Receiver<()>,
    writer: JoinHandle<()>,
    reader: JoinHandle<()>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Sends a request. Changes are made in order, and loads return the newest token of each tenant. Requests after the
    /// threads' end are lost; see [`Store::is_running`].
    pub fn send(&self, request: StoreRequest) {
        match request {
            StoreRequest::Load(wanted) => drop(self.loads.send(wanted)),
            change => self.queue.push(change),
        }
    }

    /// A tenant's token, if it waits for a commit.
    pub fn in_memory(&self, id: &TenantId) -> Option<(Record, Token)> {
        self.queue.in_memory([id].into_iter()).pop().flatten().flatten()
    }

    /// Drops the tickets without a reply: nobody waits for them any more.
    pub fn drop_unreplied(&self) {
        self.queue.take_unreplied();
    }

    /// Since when the threads have made no progress.
    pub fn stalled(&self) -> Stalled {
        Stalled { writing: self.queue.writing.since(), reading: self.queue.reading.since() }
    }

    /// `false` once a thread has ended by itself, which is a bug.
    pub fn is_running(&self) -> bool {
        !self.writer.is_finished() && !self.reader.is_finished()
    }

    /// Commits what is pending and ends the threads. After `patience` it abandons them: the disk hangs.
    pub fn stop(self, patience: Duration) {
        drop(self.loads);
        self.queue.stop();
        // Nothing is ever sent: the channel closes when the thread ends.
        if self.end.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Disconnected) {
            let _ = self.writer.join();
        } else {
            tracing::error!(event = "state_stuck", "the state could not be committed in time; it is abandoned");
        }
    }
}
