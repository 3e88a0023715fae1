//! The writing thread: opens the database, commits in batches, and after an error opens the database again.

use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Weak};

use super::queue::{StoreQueue, WriterTask};
use crate::domain::BootMs;
use crate::store::database::{Database, DatabaseError, StoredState};
use crate::store::message::{ReplyCallback, SetAside, StoreReply};

/// The shortest time between two commits of tokens, in ms: one of a hundred tokens costs about as much as one of one.
const COMMIT_INTERVAL_MS: u64 = 200;

/// The first and the longest wait before the database is opened again, in ms.
const REOPEN_BACKOFF_MS: (u64, u64) = (1_000, 60_000);

/// The result of opening the database for the first time.
pub(crate) struct OpenResult {
    /// What it holds; `None` if that cannot be read yet.
    pub(crate) state: Option<StoredState>,
    pub(crate) set_aside: Option<SetAside>,
    pub(crate) error: Option<DatabaseError>,
}

pub(crate) struct StoreWriter {
    path: PathBuf,
    queue: Arc<StoreQueue>,
    reply: ReplyCallback,
    /// `None` after an error.
    database: Option<Arc<Database>>,
    /// The database that was opened last. It cannot be opened again while a thread still uses it.
    last: Weak<Database>,
    /// What the state held before this process has been read.
    is_state_read: bool,
    /// The state was last reported as writable.
    is_healthy: bool,
    /// The earliest time of the next commit or, without a database, of the next attempt to open it.
    not_before: BootMs,
    /// The wait after the next failure.
    backoff_ms: u64,
    /// To be sent at the end of this round.
    replies: Vec<StoreReply>,
}

impl StoreWriter {
    pub(crate) fn new(path: PathBuf, queue: Arc<StoreQueue>, reply: ReplyCallback) -> Self {
        Self {
            path,
            queue,
            reply,
            database: None,
            last: Weak::new(),
            is_state_read: false,
            is_healthy: true,
            not_before: BootMs(0),
            backoff_ms: REOPEN_BACKOFF_MS.0,
            replies: Vec::new(),
        }
    }

    /// Opens the database, sends the result to `first`, and works until the store stops.
    pub(crate) fn run(mut self, first: &SyncSender<OpenResult>) {
        if self.open(first) {
            while self.round() {}
            self.not_before = BootMs(0);
            self.write();
            self.send_replies();
            self.log_losses();
        }
        self.database = None;
        self.queue.close_source("the daemon is stopping");
    }

    /// Opens the database for the first time. Returns `false` if another process has it.
    fn open(&mut self, first: &SyncSender<OpenResult>) -> bool {
        let now = self.queue.now().wall;
        let opened = self.queue.writing.during(|| Database::open_or_replace(&self.path, now));
        let opening = match opened {
            Ok((database, state, set_aside)) => {
                self.use_database(database);
                OpenResult { state: Some(state), set_aside, error: None }
            }
            Err(error) => {
                let state = if error == DatabaseError::InUse { None } else { self.open_to_read() };
                OpenResult { state, set_aside: None, error: Some(error) }
            }
        };
        self.is_state_read = opening.state.is_some();
        let reason = opening.error.as_ref().map(ToString::to_string);
        let is_in_use = opening.error == Some(DatabaseError::InUse);
        match first.send(opening) {
            Ok(()) if is_in_use => return false,
            Ok(()) => {}
            // The opener gave up waiting, so this goes out as replies.
            Err(late) => self.opened_late(late.0),
        }
        if let Some(reason) = reason {
            self.is_healthy = false;
            self.replies.push(StoreReply::Health(Some(reason)));
            self.back_off();
        }
        true
    }

    fn opened_late(&mut self, opening: OpenResult) {
        self.log_set_aside(opening.set_aside.as_ref());
        self.replies.extend(opening.state.map(|state| StoreReply::Found(Box::new(state.contents))));
        if opening.error.is_none() {
            tracing::info!(event = "state_writable", "the state {} is open after all", self.path.display());
            self.replies.push(StoreReply::Health(None));
        }
    }

    fn round(&mut self) -> bool {
        self.send_replies();
        match self.queue.wait(self.database.is_some(), self.not_before) {
            WriterTask::Stop => return false,
            WriterTask::ReplyNotKept => self.reply_not_kept(),
            WriterTask::ReadFailed(error) if self.database.is_some() => self.fail(&error),
            WriterTask::ReadFailed(error) => self.queue.close_source(&error.to_string()),
            WriterTask::Write => self.write(),
        }
        true
    }

    /// Opens the database if there is none; otherwise commits.
    fn write(&mut self) {
        if self.database.is_none() {
            self.reopen();
        } else if !self.queue.is_empty() {
            self.commit();
        }
    }

    /// Returns whether the batch is on disk.
    fn commit(&mut self) -> bool {
        let Some(database) = self.database.clone() else { return false };
        let (batch, now) = (self.queue.begin_commit(), self.queue.now().wall);
        let has_tokens = !batch.tokens.is_empty();
        match self.queue.writing.during(|| database.commit(&batch, now)) {
            Ok(()) => {
                // Only tokens delay the next commit.
                if has_tokens {
                    self.not_before = self.queue.now().boot + COMMIT_INTERVAL_MS;
                }
                self.backoff_ms = REOPEN_BACKOFF_MS.0;
                let tickets = self.queue.committed(batch);
                if !tickets.is_empty() {
                    self.replies.push(StoreReply::Kept(tickets));
                }
                true
            }
            Err(error) => {
                self.queue.not_committed(batch);
                drop(database);
                self.fail(&error);
                false
            }
        }
    }

    /// Gives up the database: changes stay in memory until it can be opened again.
    fn fail(&mut self, error: &DatabaseError) {
        // After an I/O error redb refuses everything until the database is opened again.
        self.database = None;
        let reason = error.to_string();
        self.queue.close_source(&reason);
        self.reply_not_kept();
        if std::mem::replace(&mut self.is_healthy, false) {
            tracing::error!(
                event = "state_unwritable",
                "the state {} is unusable: {reason}. Tokens are published all the same and kept in memory",
                self.path.display()
            );
            self.replies.push(StoreReply::Health(Some(reason)));
        } else {
            tracing::debug!(event = "state_unwritable", "still: {reason}");
        }
        self.send_replies();
        self.open_to_read();
        self.back_off();
    }

    fn reply_not_kept(&mut self) {
        let tickets = self.queue.take_unreplied();
        if !tickets.is_empty() {
            self.replies.push(StoreReply::NotKept(tickets));
        }
    }

    fn back_off(&mut self) {
        self.not_before = self.queue.now().boot + self.backoff_ms;
        self.backoff_ms = (self.backoff_ms * 2).min(REOPEN_BACKOFF_MS.1);
    }

    fn use_database(&mut self, database: Database) {
        let database = Arc::new(database);
        self.last = Arc::downgrade(&database);
        self.queue.open_source(Arc::clone(&database));
        self.database = Some(database);
    }

    /// Opens the database for reading: a full disk must not cause calls for tokens that it holds. Returns what it holds, if
    /// that has not been read yet.
    fn open_to_read(&mut self) -> Option<StoredState> {
        let queue = Arc::clone(&self.queue);
        let opened = queue.writing.during(|| {
            let database = Database::open_to_read(&self.path)?;
            let state = if self.is_state_read { None } else { Some(database.read_all()?) };
            Ok::<_, DatabaseError>((database, state))
        });
        match opened {
            Ok((database, state)) => {
                let database = Arc::new(database);
                self.last = Arc::downgrade(&database);
                self.queue.open_source(database);
                state
            }
            Err(error) => {
                self.queue.close_source(&error.to_string());
                None
            }
        }
    }

    /// Opens the database again, and commits. Only a successful commit makes the state healthy.
    fn reopen(&mut self) {
        self.queue.close_source("the state is being opened again");
        if self.last.upgrade().is_some() {
            // The reader still uses it.
            return self.back_off();
        }
        let now = self.queue.now().wall;
        let queue = Arc::clone(&self.queue);
        match queue.writing.during(|| Database::open_or_replace(&self.path, now)) {
            Ok((database, state, set_aside)) => {
                self.log_set_aside(set_aside.as_ref());
                self.use_database(database);
                self.report_contents(state);
                let before = self.replies.len();
                if self.commit() {
                    tracing::info!(event = "state_writable", "the state {} can be written again", self.path.display());
                    self.is_healthy = true;
                    self.replies.insert(before, StoreReply::Health(None));
                }
            }
            Err(error) => {
                tracing::debug!(event = "state_unwritable", "still: {error}");
                self.open_to_read();
                self.back_off();
            }
        }
    }

    /// Reports what was read for the first time, or that a state with contents was replaced by a new one.
    fn report_contents(&mut self, state: StoredState) {
        match (std::mem::replace(&mut self.is_state_read, true), state.is_new) {
            (true, true) => self.replies.push(StoreReply::Begun),
            (false, false) => self.replies.push(StoreReply::Found(Box::new(state.contents))),
            _ => {}
        }
    }

    fn log_set_aside(&self, set_aside: Option<&SetAside>) {
        if let Some(aside) = set_aside {
            tracing::error!(
                event = "state_set_aside",
                "the state {} was set aside as {}: {}",
                self.path.display(),
                aside.to.display(),
                aside.reason
            );
        }
    }

    fn log_losses(&self) {
        let unwritten = self.queue.unwritten();
        if unwritten > 0 {
            tracing::error!(
                event = "state_lost",
                "{unwritten} changes could not be written to the state {}; the next start does not know of them, and fetches tokens anew",
                self.path.display()
            );
        }
    }

    fn send_replies(&mut self) {
        if !self.replies.is_empty() {
            (self.reply)(std::mem::take(&mut self.replies));
        }
    }
}
