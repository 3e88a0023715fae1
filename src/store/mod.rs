//! Tokens and deadlines over restarts, in an embedded database on a thread of its own.
//!
//! [`open`] reads what is kept and starts the thread, [`Store::send`] asks it for something, and its answers come
//! through the callback. What was committed before a crash is there after it; what could not be committed is in memory
//! until it can.

mod database;
mod entry;
mod file;
mod memories;
mod memory;
mod pending;
mod restored;
mod worker;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::domain::{AppName, Fingerprint, Memory, Now, Record, Subject, TenantId, Ticket, Token, WallMs};
use database::{Database, Trouble};
use worker::{Message, Worker};

pub use restored::Restored;

/// One token to be kept.
#[derive(Debug)]
pub struct Kept {
    /// Whose call brought it.
    pub ticket: Ticket,
    /// Whose token it is.
    pub id: TenantId,
    /// What is known of it.
    pub record: Record,
    /// The token.
    pub token: Token,
}

/// A config that was applied.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Its files, in order: paths and texts.
    pub texts: Vec<(PathBuf, String)>,
    /// Which client secret each app had.
    pub secrets: Vec<(AppName, Fingerprint)>,
}

/// The texts may hold the password of a proxy.
impl fmt::Debug for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<&PathBuf> = self.texts.iter().map(|(path, _)| path).collect();
        f.debug_struct("Applied").field("paths", &paths).field("secrets", &self.secrets.len()).finish()
    }
}

/// What the store is asked to do.
#[derive(Debug)]
pub enum Request {
    /// Commit these. Answered with [`Reply::Kept`] or [`Reply::NotKept`], within 200 ms and a commit.
    Keep(Vec<Kept>),
    /// Read these tokens for publication. Answered with [`Reply::Loaded`].
    Load(Vec<(Ticket, TenantId)>),
    /// Drop what is kept of these tenants.
    Forget(Vec<TenantId>),
    /// Tell the times of these tokens anew, where the same tokens are still kept. Not answered.
    Amend(Vec<(TenantId, Record)>),
    /// Remember these, each in place of what was remembered of its subject; `None`: nothing any more. Not answered.
    Remember(Vec<(Subject, Option<Memory>)>),
    /// Remember the config that was applied, so that the next start can compare and, if need be, run it.
    Applied(Applied),
}

/// What the store has to say.
#[derive(Debug)]
pub enum Reply {
    /// These are on disk.
    Kept(Vec<Ticket>),
    /// These could not be committed; they stay in memory, here, until they can. Then comes [`Reply::Kept`] for those
    /// that nothing newer replaced.
    NotKept(Vec<Ticket>),
    /// What was read, in the order of the request; `None` where nothing (or nothing whole) is kept.
    Loaded(Vec<(Ticket, Option<(Record, Token)>)>),
    /// The database became writable (`None`) or unwritable (the reason).
    Health(Option<String>),
}

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

/// A database that could not be used and was moved out of the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Where it lies now. The next one that is set aside replaces it.
    pub to: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// What [`open`] found.
#[derive(Debug)]
pub struct Opened {
    /// The running store.
    pub store: Store,
    /// What is known of each token; empty when nothing could be read.
    pub restored: Restored,
    /// What is remembered besides the tokens.
    pub memories: Vec<(Subject, Memory)>,
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
    /// Why nothing can be kept for now. It is tried again, and [`Reply::Health`] tells when it works.
    pub unusable: Option<String>,
}

/// Opens the database at `path`, or begins one, and starts its thread.
///
/// The file is made with mode 0600, in a directory made with 0700 where missing. A file that is damaged, foreign or from
/// a newer version is moved to `PATH.corrupt`. A file that cannot be opened or written is no error: the store then
/// keeps everything in memory and tries again, after 1 s at first and every minute at last.
///
/// `reply` is called on the store's thread; `now` is the clock.
///
/// # Errors
/// See [`OpenError`]: another process has the database.
pub fn open(
    path: &Path,
    reply: impl FnMut(Vec<Reply>) + Send + 'static,
    now: fn() -> Now,
) -> Result<Opened, OpenError> {
    let (database, contents, set_aside, unusable) = match Database::open_or_replace(path, now().wall) {
        Ok((database, contents, set_aside)) => (Some(database), contents, set_aside, None),
        Err(Trouble::InUse) => return Err(OpenError::InUse { path: path.to_owned() }),
        Err(Trouble::Damaged(reason) | Trouble::Unusable(reason)) => {
            (None, database::Contents::empty(), None, Some(reason))
        }
    };
    let (sender, messages) = mpsc::channel();
    let (ended, end) = mpsc::channel();
    let worker = Worker::new(path.to_owned(), database, unusable.clone(), now, Box::new(reply));
    let thread = std::thread::Builder::new()
        .name("store".into())
        .spawn(move || {
            worker.run(&messages);
            drop(ended);
        })
        .map_err(|source| OpenError::NoThread { path: path.to_owned(), source })?;
    Ok(Opened {
        store: Store { sender, end, thread },
        restored: contents.restored,
        memories: contents.memories,
        applied: contents.applied,
        seed: contents.seed,
        last_commit: contents.last_commit,
        set_aside,
        rotten: contents.rotten,
        unusable,
    })
}

/// A handle to the store's thread.
#[derive(Debug)]
pub struct Store {
    sender: mpsc::Sender<Message>,
    /// Closed when the thread ends.
    end: mpsc::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Store {
    /// Asks for something. Requests are carried out in order. A request after the thread's end is lost, which
    /// [`Store::is_running`] tells.
    pub fn send(&self, request: Request) {
        let _ = self.sender.send(Message::Request(request));
    }

    /// `false` once the thread has ended by itself, which is a defect.
    pub fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Commits what is pending and ends the thread; gives up waiting for it (a disk that hangs) after `patience`.
    pub fn stop(self, patience: Duration) {
        let _ = self.sender.send(Message::Stop);
        // Nothing is ever sent: the channel closes when the thread ends.
        if self.end.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Disconnected) {
            let _ = self.thread.join();
        } else {
            tracing::error!(event = "state_stuck", "the state could not be committed in time; it is abandoned");
        }
    }
}
