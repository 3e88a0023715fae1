//! Tokens and deadlines over restarts, in an embedded database on threads of its own: one writes, one reads.
//!
//! [`open`] starts them and waits for what is kept, [`Store::send`] asks for something, and the answers come through the
//! callback. What was committed before a crash is there after it; what could not be committed is in memory until it can. A
//! disk that hangs holds up these threads and nobody else: [`Store::stuck`] tells for how long.

mod busy;
mod database;
mod desk;
mod entry;
mod file;
mod memories;
mod memory;
mod overlay;
mod pending;
mod reader;
mod restored;
mod worker;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::domain::{AppName, BootMs, Fingerprint, Memory, Now, Record, Subject, TenantId, Ticket, Token, WallMs};
use database::{Contents, Trouble};
use desk::Desk;
use reader::{Reader, Wanted};
use worker::{Opening, Worker, reason_of};

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
    /// Commit these. Answered with [`Reply::Kept`] or [`Reply::NotKept`], within 200 ms and a commit, unless the disk hangs.
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
    /// What was read, in the order of the request.
    Loaded(Vec<(Ticket, Lookup)>),
    /// What the state held before this process, where that could not be read when it was opened.
    Found(Box<Late>),
    /// What the state held is lost, and it was begun anew: nothing is remembered but what was asked for and not answered
    /// yet, and what is asked for from here on.
    Begun,
    /// The database became writable (`None`) or unwritable (the reason).
    Health(Option<String>),
}

/// What the state knows of a tenant's token.
#[derive(Debug)]
pub enum Lookup {
    /// The newest that it was given, whether that is on disk yet or not.
    Found(Record, Token),
    /// There is none, or none that is whole.
    Missing,
    /// It cannot be read now, for this reason.
    Unavailable(Arc<str>),
}

impl Lookup {
    /// What was found, if anything was.
    pub fn found(self) -> Option<(Record, Token)> {
        match self {
            Self::Found(record, token) => Some((record, token)),
            Self::Missing | Self::Unavailable(_) => None,
        }
    }
}

/// What the state held before this process.
#[derive(Debug)]
pub struct Late {
    /// What is known of each token.
    pub restored: Restored,
    /// What is remembered besides the tokens.
    pub memories: Vec<(Subject, Memory)>,
    /// The config that was applied last, by a process before this one.
    pub applied: Applied,
}

impl From<Contents> for Late {
    fn from(contents: Contents) -> Self {
        let Contents { restored, memories, applied, .. } = contents;
        Self { restored, memories, applied }
    }
}

/// Since when the store's threads have been in a system call, or in the database; `None`: they are not.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stuck {
    /// The one that opens and commits.
    pub writing: Option<BootMs>,
    /// The one that reads.
    pub reading: Option<BootMs>,
}

/// Where answers go.
type Answer = Arc<dyn Fn(Vec<Reply>) + Send + Sync>;

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

/// Opens the database at `path`, or begins one, and starts its threads.
///
/// The file is made with mode 0600, in a directory made with 0700 where missing. A file that is damaged, foreign or from
/// a newer version is moved to `PATH.corrupt`. A file that cannot be opened or written is no error: it is read as far as it
/// can be, the store keeps everything in memory and tries again, after 1 s at first and every minute at last. Nor is a disk
/// that hangs: after [`HANGS_AFTER_MS`] the store goes on without it, and tells what it held with [`Reply::Found`] when it is there.
///
/// `reply` is called on the store's threads; `now` is the clock.
///
/// # Errors
/// See [`OpenError`]: another process has the database.
pub fn open(
    path: &Path,
    reply: impl Fn(Vec<Reply>) + Send + Sync + 'static,
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
    pub fn send(&self, request: Request) {
        match request {
            Request::Load(wanted) => drop(self.wanted.send(wanted)),
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
    pub fn stuck(&self) -> Stuck {
        Stuck { writing: self.desk.writing.since(), reading: self.desk.reading.since() }
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
