//! Where the store's threads and those who ask them meet.
//!
//! Changes are laid down here, the newest of a tenant on top of the older ones; the writer takes all of them for a commit.
//! So one batch is under way, and whatever comes while the disk hangs waits in no more memory than the state itself takes.
//! A lock is held for a look and never while anything is read from disk or written to it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::{BootMs, Now, Record, TenantId, Ticket, Token};
use crate::store::database::{Database, Trouble};
use crate::store::message::StoreRequest;
use crate::store::pending::Pending;
use crate::store::stall::Busy;

pub(crate) struct Desk {
    inbox: Mutex<Inbox>,
    /// Rings when the writer sleeps and there is something for it.
    bell: Condvar,
    view: Mutex<View>,
    pub(crate) writing: Arc<Busy>,
    pub(crate) reading: Arc<Busy>,
    now: fn() -> Now,
}

#[derive(Default)]
struct Inbox {
    waiting: Pending,
    /// What is being committed.
    committing: Option<Arc<Pending>>,
    /// The writer wants to hear of whatever comes.
    sleeps: bool,
    read_failed: Option<Trouble>,
    stops: bool,
}

/// Where tokens can be read.
enum View {
    Open(Arc<Database>),
    /// Nowhere, for this reason.
    Closed(Arc<str>),
}

/// What the writer is woken for.
pub(crate) enum Call {
    /// It is time to commit, or to open the database again.
    Write,
    /// Somebody is owed the answer that nothing can be committed.
    Owed,
    /// The database could not be read.
    ReadFailed(Trouble),
    Stop,
}

impl Desk {
    pub(crate) fn new(now: fn() -> Now) -> Self {
        Self {
            inbox: Mutex::default(),
            bell: Condvar::new(),
            view: Mutex::new(View::Closed("the state is not open yet".into())),
            writing: Busy::new(now),
            reading: Busy::new(now),
            now,
        }
    }

    pub(crate) fn now(&self) -> Now {
        (self.now)()
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lays a change down.
    pub(crate) fn ask(&self, request: StoreRequest) {
        let mut inbox = self.inbox();
        let waiting = &mut inbox.waiting;
        match request {
            StoreRequest::Keep(batch) => batch.into_iter().for_each(|kept| waiting.keep(kept)),
            StoreRequest::Forget(ids) => ids.into_iter().for_each(|id| waiting.forget(id)),
            StoreRequest::Amend(batch) => batch.into_iter().for_each(|(id, record)| waiting.amend(id, record)),
            StoreRequest::Remember(batch) => waiting.memories.extend(batch),
            StoreRequest::Applied(applied) => waiting.applied = Some(applied),
            StoreRequest::Load(_) => debug_assert!(false, "that is the reader's"),
        }
        if inbox.sleeps {
            self.bell.notify_one();
        }
    }

    pub(crate) fn stop(&self) {
        self.inbox().stops = true;
        self.bell.notify_one();
    }

    /// Waits until there is something for the writer: nothing before `not_before` but what cannot wait.
    pub(crate) fn wait(&self, is_open: bool, not_before: BootMs) -> Call {
        let mut inbox = self.inbox();
        loop {
            if inbox.stops {
                return Call::Stop;
            }
            if let Some(trouble) = inbox.read_failed.take() {
                return Call::ReadFailed(trouble);
            }
            if !is_open && inbox.waiting.owes() {
                return Call::Owed;
            }
            let due = !is_open || !inbox.waiting.is_empty();
            let wait_ms = not_before.since(self.now().boot);
            if due && wait_ms == 0 {
                return Call::Write;
            }
            // What gathers for a commit need not wake anybody.
            inbox.sleeps = !due || !is_open;
            inbox = if due {
                let (inbox, _) = self
                    .bell
                    .wait_timeout(inbox, Duration::from_millis(wait_ms))
                    .unwrap_or_else(PoisonError::into_inner);
                inbox
            } else {
                self.bell.wait(inbox).unwrap_or_else(PoisonError::into_inner)
            };
            inbox.sleeps = false;
        }
    }

    /// Takes all that waits, for a commit.
    pub(crate) fn begin_commit(&self) -> Arc<Pending> {
        let mut inbox = self.inbox();
        let batch = Arc::new(std::mem::take(&mut inbox.waiting));
        inbox.committing = Some(Arc::clone(&batch));
        batch
    }

    /// The batch is on disk. Returns who is owed an answer.
    pub(crate) fn committed(&self, batch: Arc<Pending>) -> Vec<Ticket> {
        self.inbox().committing = None;
        Arc::into_inner(batch).map(Pending::tickets).unwrap_or_default()
    }

    /// The batch could not be committed: it waits again, below what came since.
    pub(crate) fn not_committed(&self, batch: Arc<Pending>) {
        let mut inbox = self.inbox();
        inbox.committing = None;
        if let Some(mut batch) = Arc::into_inner(batch) {
            batch.absorb(std::mem::take(&mut inbox.waiting));
            inbox.waiting = batch;
        }
    }

    /// Who is owed an answer, and gets none that it is kept.
    pub(crate) fn take_owed(&self) -> Vec<Ticket> {
        self.inbox().waiting.take_owed()
    }

    /// Whether everything is on disk.
    pub(crate) fn is_empty(&self) -> bool {
        self.inbox().waiting.is_empty()
    }

    /// How many changes are not on disk, the config apart.
    pub(crate) fn unwritten(&self) -> usize {
        self.inbox().waiting.len()
    }

    /// What is known of tenants' tokens without the disk: `None` where the disk has to say.
    pub(crate) fn recall<'a>(&self, ids: impl Iterator<Item = &'a TenantId>) -> Vec<Option<Option<(Record, Token)>>> {
        let inbox = self.inbox();
        let committing = inbox.committing.as_deref();
        ids.map(|id| inbox.waiting.get(id).or_else(|| committing?.get(id))).collect()
    }

    /// Tokens can be read from here on.
    pub(crate) fn show(&self, database: Arc<Database>) {
        self.replace_view(View::Open(database));
    }

    /// No token can be read, for this reason.
    pub(crate) fn hide(&self, reason: &str) {
        self.replace_view(View::Closed(reason.into()));
    }

    fn replace_view(&self, view: View) {
        let before = std::mem::replace(&mut *self.view(), view);
        // To close a database is to write, so not under the lock; and it may hang, as any writing.
        self.writing.during(|| drop(before));
    }

    /// Where tokens can be read, or why nowhere.
    pub(crate) fn look(&self) -> Result<Arc<Database>, Arc<str>> {
        match &*self.view() {
            View::Open(database) => Ok(Arc::clone(database)),
            View::Closed(reason) => Err(Arc::clone(reason)),
        }
    }

    /// This database could not be read. If it is another one by now, that is nobody's concern.
    pub(crate) fn read_failed(&self, database: &Arc<Database>, trouble: Trouble) {
        if matches!(&*self.view(), View::Open(open) if Arc::ptr_eq(open, database)) {
            self.inbox().read_failed = Some(trouble);
            self.bell.notify_one();
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

    /// A disk that does not answer once it is told so, until its other end is dropped.
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
        let desk = Arc::new(Desk::new(now));
        desk.show(Arc::new(Database::with(|| Ok(disk)).unwrap()));
        assert_eq!(desk.writing.since(), None);
        hangs.store(true, Ordering::Relaxed);
        let closing = std::thread::spawn({
            let desk = Arc::clone(&desk);
            move || desk.hide("it failed")
        });
        let is_seen = (0..2_000).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            desk.writing.since().is_some()
        });
        assert!(is_seen && !closing.is_finished() && desk.look().is_err());
        drop(go_on);
        closing.join().unwrap();
        assert_eq!(desk.writing.since(), None);
    }
}
