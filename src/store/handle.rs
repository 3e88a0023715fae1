//! The store as the daemon holds it: opened, asked, stopped.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use super::database::{Contents, Trouble};
use super::message::{Answer, Applied, SetAside, StoreReply, StoreRequest};
use super::snapshot::Snapshot;
use super::worker::{Desk, Opening, Reader, Wanted, Worker, reason_of};
use crate::domain::{BootMs, Now, Record, SavedKey, SavedState, TenantId, Token, WallMs};

/// Since when the store's threads have been in a system call, or in the database; `None`: they are not.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stalled {
    /// The one that opens and commits.
    pub writing: Option<BootMs>,
    /// The one that reads.
    pub reading: Option<BootMs>,
}

/// A system call of the state that has not come back for so long hangs, in milliseconds.
pub const HANGS_AFTER_MS: u64 = 3_000;
/// How long [`open`] waits for a database at most, in milliseconds: one of a million tenants that was not closed is looked
/// through, which takes seconds.
const OPENS_WITHIN_MS: u64 = 60_000;
/// How often it looks whether that gets on.
const LOOK_EVERY: Duration = Duration::from_millis(100);

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
    /// The system gives us no thread.
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
    /// What is known of each token; empty when nothing could be read.
    pub restored: Snapshot,
    /// What is remembered besides the tokens.
    pub memories: Vec<(SavedKey, SavedState)>,
    /// The config that was applied last.
    pub applied: Applied,
    /// A number that is this state's own: drawn once, the same after every restart.
    pub seed: u64,
    /// When something was last committed, on the wall clock of then.
    pub last_commit: Option<WallMs>,
    /// A database that had to be set aside; a new one was begun.
    pub set_aside: Option<SetAside>,
    /// How many records were skipped because their checksum is wrong.
    pub rotten: u64,
    /// Why nothing can be kept for now. It is tried again, and [`StoreReply::Health`] tells when it works.
    pub unusable: Option<String>,
}

/// Opens the database at `path`, or begins one, and starts its threads.
///
/// The file is made with mode 0600, in a directory made with 0700 where missing. A file that is damaged, foreign or from
/// a newer version is moved to `PATH.corrupt`. A file that cannot be opened or written is no error: it is read as far as it
/// can be, the store keeps everything in memory and tries again, after 1 s at first and every minute at last. Nor is a disk
/// that hangs: after [`HANGS_AFTER_MS`] the store goes on without it, and tells what it held with [`StoreReply::Found`] when it is there.
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
    let (desk, answer): (_, Answer) = (Arc::new(Desk::new(now)), Arc::new(reply));
    let (ended, end) = mpsc::channel();
    // Nobody is in between: what is not taken in time comes back to the thread, which then says it otherwise.
    let (first, opening) = mpsc::sync_channel(0);
    let worker = Worker::new(path.to_owned(), Arc::clone(&desk), Arc::clone(&answer));
    let writer = spawn("store", path, move || {
        worker.run(&first);
        drop(ended);
    })?;
    let (wanted, to_read) = mpsc::channel();
    let shown = path.display().to_string();
    let reader = Reader { desk: Arc::clone(&desk), answer, path: shown, rot_reported: false };
    let reader = spawn("store-reader", path, move || reader.run(&to_read))?;
    let opening = first_answer(&opening, &desk).unwrap_or_else(|| Opening {
        contents: None,
        set_aside: None,
        trouble: Some(Trouble::Unusable(hangs(path))),
    });
    if opening.trouble.as_ref().is_some_and(Trouble::is_in_use) {
        return Err(OpenError::InUse { path: path.to_owned() });
    }
    let contents = opening.contents.unwrap_or_else(Contents::empty);
    Ok(Opened {
        store: Store { desk, wanted, end, writer, reader },
        restored: contents.restored,
        memories: contents.memories,
        applied: contents.applied,
        seed: contents.seed,
        last_commit: contents.last_commit,
        set_aside: opening.set_aside,
        rotten: contents.rotten,
        unusable: opening.trouble.as_ref().map(reason_of),
    })
}

/// Waits for the database to be opened, for as long as that gets on; `None`: it does not.
fn first_answer(opening: &mpsc::Receiver<Opening>, desk: &Desk) -> Option<Opening> {
    let begun = desk.now().boot;
    loop {
        match opening.recv_timeout(LOOK_EVERY) {
            Ok(opening) => return Some(opening),
            Err(mpsc::RecvTimeoutError::Disconnected) => return None,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        let now = desk.now().boot;
        let stands = desk.writing.since().map_or(0, |since| now.since(since));
        if stands >= HANGS_AFTER_MS || now.since(begun) >= OPENS_WITHIN_MS {
            return None;
        }
    }
}

fn spawn(name: &str, path: &Path, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(work);
    thread.map_err(|source| OpenError::NoThread { path: path.to_owned(), source })
}

/// What is told of a state that does not answer.
pub fn hangs(path: &Path) -> String {
    format!(
        "the state {} does not answer: see whether its device or server does (`dmesg`); it is tried on and on",
        path.display()
    )
}

/// A handle to the store's threads.
pub struct Store {
    desk: Arc<Desk>,
    wanted: mpsc::Sender<Wanted>,
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
    /// Asks for something. Changes are carried out in order; what is read meanwhile is the newest of each tenant. A request
    /// after the threads' end is lost, which [`Store::is_running`] tells.
    pub fn send(&self, request: StoreRequest) {
        match request {
            StoreRequest::Load(wanted) => drop(self.wanted.send(wanted)),
            change => self.desk.ask(change),
        }
    }

    /// The newest token of a tenant, where that is not on disk yet.
    pub fn recall(&self, id: &TenantId) -> Option<(Record, Token)> {
        self.desk.recall([id].into_iter()).pop().flatten().flatten()
    }

    /// Nobody waits any longer to hear that what was asked for is kept.
    pub fn expect_no_answer(&self) {
        self.desk.take_owed();
    }

    /// Since when the threads have been in the kernel.
    pub fn stalled(&self) -> Stalled {
        Stalled { writing: self.desk.writing.since(), reading: self.desk.reading.since() }
    }

    /// `false` once a thread has ended by itself, which is a defect.
    pub fn is_running(&self) -> bool {
        !self.writer.is_finished() && !self.reader.is_finished()
    }

    /// Commits what is pending and ends the threads; gives up waiting for them (a disk that hangs) after `patience`.
    pub fn stop(self, patience: Duration) {
        drop(self.wanted);
        self.desk.stop();
        // Nothing is ever sent: the channel closes when the thread ends.
        if self.end.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Disconnected) {
            let _ = self.writer.join();
        } else {
            tracing::error!(event = "state_stuck", "the state could not be committed in time; it is abandoned");
        }
    }
}
