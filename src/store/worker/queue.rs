//! What the store's threads and its users share: the changes that wait for a commit, and the database to read from.
//!
//! A newer change of a tenant replaces the older one; the writer takes all of them for a commit. So one batch is in flight,
//! and while the disk hangs the rest takes no more memory than the state itself. No lock is held during disk I/O.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::{BootMs, Now, Record, TenantId, Ticket, Token};
use crate::store::database::{Database, DatabaseError};
use crate::store::message::StoreRequest;
use crate::store::pending::PendingChanges;
use crate::store::stall::StallClock;

pub(crate) struct StoreQueue {
    state: Mutex<QueueState>,
    /// Notified when the writer sleeps and has something to do.
    wake_writer: Condvar,
    source: Mutex<ReadSource>,
    pub(crate) writing: Arc<StallClock>,
    pub(crate) reading: Arc<StallClock>,
    now: fn() -> Now,
}

#[derive(Default)]
struct QueueState {
    waiting: PendingChanges,
    /// The batch in flight.
    committing: Option<Arc<PendingChanges>>,
    /// The writer is to be woken by any change.
    writer_sleeps: bool,
    read_failed: Option<DatabaseError>,
    is_stopping: bool,
}

/// The database to read tokens from.
enum ReadSource {
    Open(Arc<Database>),
    /// None, for this reason.
    Closed(Arc<str>),
}

/// What the writer has to do.
pub(crate) enum WriterTask {
    /// Commit, or open the database again.
    Write,
    /// Reply that nothing can be committed.
    ReplyNotKept,
    /// Replace the database, which could not be read.
    ReadFailed(DatabaseError),
    Stop,
}

impl StoreQueue {
    pub(crate) fn new(now: fn() -> Now) -> Self {
        Self {
            state: Mutex::default(),
            wake_writer: Condvar::new(),
            source: Mutex::new(ReadSource::Closed("the state is not open yet".into())),
            writing: StallClock::new(now),
            reading: StallClock::new(now),
            now,
        }
    }

    pub(crate) fn now(&self) -> Now {
        (self.now)()
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn source(&self) -> MutexGuard<'_, ReadSource> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a change.
    pub(crate) fn push(&self, request: StoreRequest) {
        let mut state = self.state();
        let waiting = &mut state.waiting;
        match request {
            StoreRequest::Keep(batch) => batch.into_iter().for_each(|kept| waiting.keep(kept)),
            StoreRequest::Forget(ids) => ids.into_iter().for_each(|id| waiting.forget(id)),
            StoreRequest::Amend(batch) => batch.into_iter().for_each(|(id, record)| waiting.amend(id, record)),
            StoreRequest::Remember(batch) => waiting.saved.extend(batch),
            StoreRequest::Applied(applied) => waiting.applied = Some(applied),
            StoreRequest::Load(_) => debug_assert!(false, "loads go to the reader"),
        }
        if state.writer_sleeps {
            self.wake_writer.notify_one();
        }
    }

    pub(crate) fn stop(&self) {
        self.state().is_stopping = true;
        self.wake_writer.notify_one();
    }

    /// Waits until the writer has something to do: before `not_before` only what is urgent.
    pub(crate) fn wait(&self, is_open: bool, not_before: BootMs) -> WriterTask {
        let mut state = self.state();
        loop {
            if state.is_stopping {
                return WriterTask::Stop;
            }
            if let Some(error) = state.read_failed.take() {
                return WriterTask::ReadFailed(error);
            }
            if !is_open && state.waiting.needs_reply() {
                return WriterTask::ReplyNotKept;
            }
            let due = !is_open || !state.waiting.is_empty();
            let wait_ms = not_before.since(self.now().boot);
            if due && wait_ms == 0 {
                return WriterTask::Write;
            }
            // A change that can wait for the next commit need not wake the writer.
            state.writer_sleeps = !due || !is_open;
            state = if due {
                let (state, _) = self
                    .wake_writer
                    .wait_timeout(state, Duration::from_millis(wait_ms))
                    .unwrap_or_else(PoisonError::into_inner);
                state
            } else {
                self.wake_writer.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
            state.writer_sleeps = false;
        }
    }

    /// Takes all waiting changes, for a commit.
    pub(crate) fn begin_commit(&self) -> Arc<PendingChanges> {
        let mut state = self.state();
        let batch = Arc::new(std::mem::take(&mut state.waiting));
        state.committing = Some(Arc::clone(&batch));
        batch
    }

    /// The batch is on disk. Returns who is owed a reply.
    pub(crate) fn committed(&self, batch: Arc<PendingChanges>) -> Vec<Ticket> {
        self.state().committing = None;
        Arc::into_inner(batch).map(PendingChanges::tickets).unwrap_or_default()
    }

    /// The batch could not be committed: it waits again, merged with newer changes.
    pub(crate) fn not_committed(&self, batch: Arc<PendingChanges>) {
        let mut state = self.state();
        state.committing = None;
        if let Some(mut batch) = Arc::into_inner(batch) {
            batch.absorb(std::mem::take(&mut state.waiting));
            state.waiting = batch;
        }
    }

    /// Who is owed a reply, and gets none that it is kept.
    pub(crate) fn take_unreplied(&self) -> Vec<Ticket> {
        self.state().waiting.take_unreplied()
    }

    /// Whether no change waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.state().waiting.is_empty()
    }

    /// How many changes wait, the config apart.
    pub(crate) fn unwritten(&self) -> usize {
        self.state().waiting.len()
    }

    /// Tenants' tokens in memory: `None` where the disk has the newest.
    pub(crate) fn in_memory<'a>(
        &self,
        ids: impl Iterator<Item = &'a TenantId>,
    ) -> Vec<Option<Option<(Record, Token)>>> {
        let state = self.state();
        let committing = state.committing.as_deref();
        ids.map(|id| state.waiting.get(id).or_else(|| committing?.get(id))).collect()
    }

    /// Sets the database to read from.
    pub(crate) fn open_source(&self, database: Arc<Database>) {
        self.replace_source(ReadSource::Open(database));
    }

    /// Nothing can be read, for this reason.
    pub(crate) fn close_source(&self, reason: &str) {
        self.replace_source(ReadSource::Closed(reason.into()));
    }

    fn replace_source(&self, source: ReadSource) {
        let previous = std::mem::replace(&mut *self.source(), source);
        // Closing a database writes, so it must not happen under the lock, and it may hang.
        self.writing.during(|| drop(previous));
    }

    /// The database to read from, or why there is none.
    pub(crate) fn readable(&self) -> Result<Arc<Database>, Arc<str>> {
        match &*self.source() {
            ReadSource::Open(database) => Ok(Arc::clone(database)),
            ReadSource::Closed(reason) => Err(Arc::clone(reason)),
        }
    }

    /// This database could not be read. Has no effect if another one has replaced it.
    pub(crate) fn read_failed(&self, database: &Arc<Database>, error: DatabaseError) {
        if matches!(&*self.source(), ReadSource::Open(open) if Arc::ptr_eq(open, database)) {
            self.state().read_failed = Some(error);
            self.wake_writer.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Receiver, channel};

    use redb::StorageBackend;
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::domain::WallMs;

    /// A disk that hangs while `hangs` is set, until the other end of the channel is dropped.
    #[derive(Debug)]
    struct Disk {
        memory: InMemoryBackend,
        hangs: Arc<AtomicBool>,
        goes_on: Mutex<Receiver<()>>,
    }

    impl Disk {
        fn answer<T>(&self, done: T) -> T {
            if self.hangs.load(Ordering::Relaxed) {
                let _ = self.goes_on.lock().unwrap().recv();
            }
            done
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            self.answer(self.memory.len())
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.answer(self.memory.read(offset, out))
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.answer(self.memory.set_len(len))
        }
        fn sync_data(&self) -> io::Result<()> {
            self.answer(self.memory.sync_data())
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.answer(self.memory.write(offset, data))
        }
        fn close(&self) -> io::Result<()> {
            self.answer(self.memory.close())
        }
    }

    fn now() -> Now {
        Now { boot: BootMs(1), wall: WallMs(1) }
    }

    #[test]
    fn a_disk_that_hangs_while_the_database_is_closed_is_seen_to_hang() {
        let (hangs, (go_on, goes_on)) = (Arc::<AtomicBool>::default(), channel());
        let disk = Disk { memory: InMemoryBackend::new(), hangs: Arc::clone(&hangs), goes_on: Mutex::new(goes_on) };
        let queue = Arc::new(StoreQueue::new(now));
        queue.open_source(Arc::new(Database::with(|| Ok(disk)).unwrap()));
        assert_eq!(queue.writing.since(), None);
        hangs.store(true, Ordering::Relaxed);
        let closing = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.close_source("it failed")
        });
        let is_seen = (0..2_000).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            queue.writing.since().is_some()
        });
        assert!(is_seen && !closing.is_finished() && queue.readable().is_err());
        drop(go_on);
        closing.join().unwrap();
        assert_eq!(queue.writing.since(), None);
    }
}
