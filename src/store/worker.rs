//! The store's thread: gathers, commits, and holds what cannot be committed.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use super::database::{Database, Trouble};
use super::pending::Pending;
use super::{Reply, Request};
use crate::domain::{BootMs, Now, TenantId, Ticket};

/// The shortest time between two commits, in ms: a commit costs about as much for one token as for a hundred.
const GATHER_MS: u64 = 200;

/// How long to look away while a commit gathers, once so many changes wait for it that more are sure to come soon: to wake
/// up for each handful costs more than to commit it. What waits for that, at worst, is a token that is to be read.
const NAP: Duration = Duration::from_millis(5);
const MANY: usize = 32;

/// How long to wait before the database is opened again, in ms: first, and at most.
const REOPEN_MS: (u64, u64) = (1_000, 60_000);

/// What comes through the channel.
#[derive(Debug)]
pub(super) enum Message {
    Request(Request),
    Stop,
}

pub(super) struct Worker {
    path: PathBuf,
    /// `None` while the disk is broken.
    database: Option<Database>,
    pending: Pending,
    /// The next commit (or, without a database, the next attempt to open it) comes no sooner than this.
    not_before: BootMs,
    /// How long to wait after the next failure.
    backoff_ms: u64,
    /// Whether a rotten record was already spoken of.
    rot_reported: bool,
    now: fn() -> Now,
    reply: Box<dyn FnMut(Vec<Reply>) + Send>,
    /// What is to be said at the end of this round.
    replies: Vec<Reply>,
}

/// Whether the round was the last.
#[derive(PartialEq, Eq)]
enum Flow {
    GoOn,
    End,
}

impl Worker {
    pub(super) fn new(
        path: PathBuf,
        database: Option<Database>,
        unusable: Option<String>,
        now: fn() -> Now,
        reply: Box<dyn FnMut(Vec<Reply>) + Send>,
    ) -> Self {
        let mut worker = Self {
            path,
            database,
            pending: Pending::default(),
            not_before: BootMs(0),
            backoff_ms: REOPEN_MS.0,
            rot_reported: false,
            now,
            reply,
            replies: Vec::new(),
        };
        if let Some(reason) = unusable {
            worker.replies.push(Reply::Health(Some(reason)));
            worker.back_off();
        }
        worker
    }

    /// Works until it is told to stop, or nobody is left to ask for anything.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        while self.round(messages) == Flow::GoOn {}
        self.not_before = BootMs(0);
        self.write();
        self.say();
        if !self.pending.is_empty() {
            tracing::error!(
                event = "state_lost",
                "{} changes could not be written to the state {}; the next start does not know of them, and fetches tokens anew",
                self.pending.len(),
                self.path.display()
            );
        }
    }

    fn round(&mut self, messages: &Receiver<Message>) -> Flow {
        self.say();
        let gathers = self.database.is_some() && self.pending.tokens.len() >= MANY;
        if gathers && self.patience().is_some_and(|patience| patience > NAP) {
            std::thread::sleep(NAP);
        }
        let mut message = match self.patience() {
            None => messages.recv().map_err(|_| TryRecvError::Disconnected),
            Some(patience) => messages.recv_timeout(patience).map_err(|e| match e {
                RecvTimeoutError::Timeout => TryRecvError::Empty,
                RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
            }),
        };
        // All that waits belongs to the same commit, unless that is due.
        loop {
            match message {
                Ok(Message::Request(request)) => self.take(request),
                Ok(Message::Stop) | Err(TryRecvError::Disconnected) => return Flow::End,
                Err(TryRecvError::Empty) => break,
            }
            if self.overdue() {
                break;
            }
            message = messages.try_recv();
        }
        self.write();
        Flow::GoOn
    }

    /// How long to wait for a message; `None`: until there is one.
    fn patience(&self) -> Option<Duration> {
        let something_to_do = self.database.is_none() || !self.pending.is_empty();
        something_to_do.then(|| Duration::from_millis(self.not_before.since((self.now)().boot)))
    }

    /// Whether requests came so fast for so long that what they brought must not wait for a lull.
    fn overdue(&self) -> bool {
        !self.pending.is_empty() && (self.now)().boot >= self.not_before + GATHER_MS
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Keep(batch) => {
                let tickets: Vec<Ticket> = batch.iter().map(|kept| kept.ticket).collect();
                batch.into_iter().for_each(|kept| self.pending.keep(kept));
                if self.database.is_none() {
                    self.pending.forgive_replaced();
                    self.replies.push(Reply::NotKept(tickets));
                }
            }
            Request::Forget(ids) => ids.into_iter().for_each(|id| self.pending.forget(id)),
            Request::Amend(batch) => batch.into_iter().for_each(|(id, record)| self.pending.amend(id, record)),
            Request::Remember(batch) => self.pending.memories.extend(batch),
            Request::Applied(applied) => self.pending.applied = Some(applied),
            Request::Load(wanted) => self.load(wanted),
        }
    }

    fn load(&mut self, wanted: Vec<(Ticket, TenantId)>) {
        // What is given out for publication is on disk first, if there is a disk.
        if self.database.is_some() && wanted.iter().any(|(_, id)| self.pending.tokens.contains_key(id)) {
            self.commit();
        }
        let read = self.database.as_ref().map(|database| database.load(wanted.iter().map(|(_, id)| id)));
        let mut on_disk = match read {
            Some(Ok((loaded, rotten))) => {
                self.report_rot(rotten);
                loaded
            }
            Some(Err(trouble)) => {
                self.fail(trouble);
                Vec::new()
            }
            None => Vec::new(),
        };
        on_disk.resize_with(wanted.len(), || None);
        let answers = wanted.into_iter().zip(on_disk);
        let answers = answers.map(|((ticket, id), on_disk)| (ticket, self.pending.get(&id).unwrap_or(on_disk)));
        let answers = answers.collect();
        self.replies.push(Reply::Loaded(answers));
    }

    fn report_rot(&mut self, rotten: u64) {
        if rotten > 0 && !std::mem::replace(&mut self.rot_reported, true) {
            tracing::warn!(
                event = "state_rot",
                "{rotten} tokens in the state {} are not what was written there; they are fetched anew. Check the disk",
                self.path.display()
            );
        }
    }

    /// Opens the database if it must, and commits, if it is time for either.
    fn write(&mut self) {
        if (self.now)().boot < self.not_before {
            return;
        }
        if self.database.is_none() {
            self.reopen();
        } else if !self.pending.is_empty() {
            self.commit();
        }
    }

    fn commit(&mut self) {
        let Some(database) = &self.database else { return };
        match database.commit(&self.pending, (self.now)().wall) {
            Ok(()) => self.committed(),
            Err(trouble) => self.fail(trouble),
        }
    }

    fn committed(&mut self) {
        // Remembering a config is no reason for the next token to wait.
        if !self.pending.tokens.is_empty() {
            self.not_before = (self.now)().boot + GATHER_MS;
        }
        self.backoff_ms = REOPEN_MS.0;
        let tickets = std::mem::take(&mut self.pending).tickets();
        if !tickets.is_empty() {
            self.replies.push(Reply::Kept(tickets));
        }
    }

    /// From here on everything stays in memory.
    fn fail(&mut self, trouble: Trouble) {
        // An I/O error poisons the handle: only opening it again helps.
        self.database = None;
        let reason = reason_of(trouble);
        tracing::error!(
            event = "state_unwritable",
            "the state {} is unusable: {reason}. Tokens are published all the same and kept in memory",
            self.path.display()
        );
        let tickets = self.pending.tickets();
        if !tickets.is_empty() {
            self.replies.push(Reply::NotKept(tickets));
        }
        self.replies.push(Reply::Health(Some(reason)));
        self.back_off();
    }

    fn back_off(&mut self) {
        self.not_before = (self.now)().boot + self.backoff_ms;
        self.backoff_ms = (self.backoff_ms * 2).min(REOPEN_MS.1);
    }

    /// Opens the database again, and commits what is in memory. Healthy is only what was written to.
    fn reopen(&mut self) {
        let now = (self.now)().wall;
        let opened = Database::open_or_replace(&self.path, now).and_then(|(database, contents, set_aside)| {
            if let Some(aside) = set_aside {
                tracing::error!(
                    event = "state_set_aside",
                    "the state {} was set aside as {}: {}",
                    self.path.display(),
                    aside.to.display(),
                    aside.reason
                );
            }
            drop(contents);
            database.commit(&self.pending, now).map(|()| database)
        });
        match opened {
            Ok(database) => {
                self.database = Some(database);
                tracing::info!(event = "state_writable", "the state {} can be written again", self.path.display());
                self.replies.push(Reply::Health(None));
                self.committed();
            }
            Err(trouble) => {
                tracing::debug!(event = "state_unwritable", "still: {}", reason_of(trouble));
                self.back_off();
            }
        }
    }

    fn say(&mut self) {
        if !self.replies.is_empty() {
            (self.reply)(std::mem::take(&mut self.replies));
        }
    }
}

fn reason_of(trouble: Trouble) -> String {
    match trouble {
        Trouble::InUse => "another process took it".into(),
        Trouble::Damaged(reason) | Trouble::Unusable(reason) => reason,
    }
}
