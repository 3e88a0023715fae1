//! The store's thread: opens the database, gathers, commits, and tries again what cannot be committed.

use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Weak};

use super::queue::{Call, Desk};
use crate::domain::BootMs;
use crate::store::database::{Contents, Database, Trouble};
use crate::store::message::{Answer, Late, SetAside, StoreReply};

/// The shortest time between two commits, in ms: a commit costs about as much for one token as for a hundred.
const GATHER_MS: u64 = 200;

/// How long to wait before the database is opened again, in ms: first, and at most.
const REOPEN_MS: (u64, u64) = (1_000, 60_000);

/// What came of opening the database first.
pub(crate) struct Opening {
    /// What is in it; `None`: that cannot be known yet.
    pub(crate) contents: Option<Contents>,
    pub(crate) set_aside: Option<SetAside>,
    pub(crate) trouble: Option<Trouble>,
}

pub(crate) struct Worker {
    path: PathBuf,
    desk: Arc<Desk>,
    answer: Answer,
    /// `None` while the disk is broken.
    database: Option<Arc<Database>>,
    /// The database that was opened last, for writing or reading: as long as somebody has it, it cannot be opened anew.
    last: Weak<Database>,
    /// Whether it is known what the state held before this process.
    is_known: bool,
    /// Whether the last that was said of the state is that it can be written.
    is_well: bool,
    /// The next commit (or, without a database, the next attempt to open it) comes no sooner than this.
    not_before: BootMs,
    /// How long to wait after the next failure.
    backoff_ms: u64,
    /// What is to be said at the end of this round.
    replies: Vec<StoreReply>,
}

impl Worker {
    pub(crate) fn new(path: PathBuf, desk: Arc<Desk>, answer: Answer) -> Self {
        Self {
            path,
            desk,
            answer,
            database: None,
            last: Weak::new(),
            is_known: false,
            is_well: true,
            not_before: BootMs(0),
            backoff_ms: REOPEN_MS.0,
            replies: Vec::new(),
        }
    }

    /// Opens the database, tells `first` of it, and works until it is told to stop.
    pub(crate) fn run(mut self, first: &SyncSender<Opening>) {
        if self.open(first) {
            while self.round() {}
            self.not_before = BootMs(0);
            self.write();
            self.say();
            self.report_losses();
        }
        self.database = None;
        self.desk.hide("the daemon is stopping");
    }

    /// Opens the database for the first time. Returns whether there is anything to do from here on.
    fn open(&mut self, first: &SyncSender<Opening>) -> bool {
        let now = self.desk.now().wall;
        let opened = self.desk.writing.during(|| Database::open_or_replace(&self.path, now));
        let opening = match opened {
            Ok((database, contents, set_aside)) => {
                self.use_database(database);
                Opening { contents: Some(contents), set_aside, trouble: None }
            }
            Err(trouble) => {
                let contents = if trouble.is_in_use() { None } else { self.open_to_read() };
                Opening { contents, set_aside: None, trouble: Some(trouble) }
            }
        };
        self.is_known = opening.contents.is_some();
        let reason = opening.trouble.as_ref().map(reason_of);
        let is_in_use = opening.trouble.as_ref().is_some_and(Trouble::is_in_use);
        match first.send(opening) {
            Ok(()) if is_in_use => return false,
            Ok(()) => {}
            // Nobody waited for so long; what there is to say is said as to anybody.
            Err(late) => self.opened_late(late.0),
        }
        if let Some(reason) = reason {
            self.is_well = false;
            self.replies.push(StoreReply::Health(Some(reason)));
            self.back_off();
        }
        true
    }

    fn opened_late(&mut self, opening: Opening) {
        self.report_set_aside(opening.set_aside.as_ref());
        self.replies.extend(opening.contents.map(|contents| StoreReply::Found(Box::new(Late::from(contents)))));
        if opening.trouble.is_none() {
            tracing::info!(event = "state_writable", "the state {} is open after all", self.path.display());
            self.replies.push(StoreReply::Health(None));
        }
    }

    fn round(&mut self) -> bool {
        self.say();
        match self.desk.wait(self.database.is_some(), self.not_before) {
            Call::Stop => return false,
            Call::Owed => self.answer_owed(),
            Call::ReadFailed(trouble) if self.database.is_some() => self.fail(&trouble),
            Call::ReadFailed(trouble) => self.desk.hide(&reason_of(&trouble)),
            Call::Write => self.write(),
        }
        true
    }

    /// Opens the database if it must, and commits, if it is time for either.
    fn write(&mut self) {
        if self.database.is_none() {
            self.reopen();
        } else if !self.desk.is_empty() {
            self.commit();
        }
    }

    /// Returns whether all that waited is on disk.
    fn commit(&mut self) -> bool {
        let Some(database) = self.database.clone() else { return false };
        let (batch, now) = (self.desk.begin_commit(), self.desk.now().wall);
        let has_tokens = !batch.tokens.is_empty();
        match self.desk.writing.during(|| database.commit(&batch, now)) {
            Ok(()) => {
                // Remembering a config is no reason for the next token to wait.
                if has_tokens {
                    self.not_before = self.desk.now().boot + GATHER_MS;
                }
                self.backoff_ms = REOPEN_MS.0;
                let tickets = self.desk.committed(batch);
                if !tickets.is_empty() {
                    self.replies.push(StoreReply::Kept(tickets));
                }
                true
            }
            Err(trouble) => {
                self.desk.not_committed(batch);
                drop(database);
                self.fail(&trouble);
                false
            }
        }
    }

    /// From here on everything stays in memory.
    fn fail(&mut self, trouble: &Trouble) {
        // An I/O error poisons the handle: only opening it again helps.
        self.database = None;
        let reason = reason_of(trouble);
        self.desk.hide(&reason);
        self.answer_owed();
        if std::mem::replace(&mut self.is_well, false) {
            tracing::error!(
                event = "state_unwritable",
                "the state {} is unusable: {reason}. Tokens are published all the same and kept in memory",
                self.path.display()
            );
            self.replies.push(StoreReply::Health(Some(reason)));
        } else {
            tracing::debug!(event = "state_unwritable", "still: {reason}");
        }
        self.say();
        self.open_to_read();
        self.back_off();
    }

    fn answer_owed(&mut self) {
        let tickets = self.desk.take_owed();
        if !tickets.is_empty() {
            self.replies.push(StoreReply::NotKept(tickets));
        }
    }

    fn back_off(&mut self) {
        self.not_before = self.desk.now().boot + self.backoff_ms;
        self.backoff_ms = (self.backoff_ms * 2).min(REOPEN_MS.1);
    }

    fn use_database(&mut self, database: Database) {
        let database = Arc::new(database);
        self.last = Arc::downgrade(&database);
        self.desk.show(Arc::clone(&database));
        self.database = Some(database);
    }

    /// What cannot be written can often be read: nobody must be called because of a full disk. Returns what is in it, if that
    /// is not known yet.
    fn open_to_read(&mut self) -> Option<Contents> {
        let desk = Arc::clone(&self.desk);
        let opened = desk.writing.during(|| {
            let database = Database::open_to_read(&self.path)?;
            let contents = if self.is_known { None } else { Some(database.read_all()?) };
            Ok((database, contents))
        });
        match opened {
            Ok((database, contents)) => {
                let database = Arc::new(database);
                self.last = Arc::downgrade(&database);
                self.desk.show(database);
                contents
            }
            Err(trouble) => {
                self.desk.hide(&reason_of(&trouble));
                None
            }
        }
    }

    /// Opens the database again, and commits what is in memory. Healthy is only what was written to.
    fn reopen(&mut self) {
        self.desk.hide("the state is being opened again");
        if self.last.upgrade().is_some() {
            // A token is being read from it.
            return self.back_off();
        }
        let now = self.desk.now().wall;
        let desk = Arc::clone(&self.desk);
        match desk.writing.during(|| Database::open_or_replace(&self.path, now)) {
            Ok((database, contents, set_aside)) => {
                self.report_set_aside(set_aside.as_ref());
                self.use_database(database);
                self.take_stock(contents);
                let before = self.replies.len();
                if self.commit() {
                    tracing::info!(event = "state_writable", "the state {} can be written again", self.path.display());
                    self.is_well = true;
                    self.replies.insert(before, StoreReply::Health(None));
                }
            }
            Err(trouble) => {
                tracing::debug!(event = "state_unwritable", "still: {}", reason_of(&trouble));
                self.open_to_read();
                self.back_off();
            }
        }
    }

    /// Others must know what was found for the first time, and that nothing was found where something had been.
    fn take_stock(&mut self, contents: Contents) {
        match (std::mem::replace(&mut self.is_known, true), contents.is_new) {
            (true, true) => self.replies.push(StoreReply::Begun),
            (false, false) => self.replies.push(StoreReply::Found(Box::new(Late::from(contents)))),
            _ => {}
        }
    }

    fn report_set_aside(&self, set_aside: Option<&SetAside>) {
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

    fn report_losses(&self) {
        let unwritten = self.desk.unwritten();
        if unwritten > 0 {
            tracing::error!(
                event = "state_lost",
                "{unwritten} changes could not be written to the state {}; the next start does not know of them, and fetches tokens anew",
                self.path.display()
            );
        }
    }

    fn say(&mut self) {
        if !self.replies.is_empty() {
            (self.answer)(std::mem::take(&mut self.replies));
        }
    }
}

pub(crate) fn reason_of(trouble: &Trouble) -> String {
    match trouble {
        Trouble::InUse => "another process took it".into(),
        Trouble::Damaged(reason) | Trouble::Unusable(reason) => reason.clone(),
    }
}
