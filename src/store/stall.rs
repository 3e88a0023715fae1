//! Since when a thread of the store has been waiting for the disk.

use std::cell::RefCell;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{BackendError, StorageBackend};

use crate::domain::{BootMs, Now};

/// When a thread last made progress in its current work. Opening a large state takes long, and a disk may be slow, so it
/// counts as progress that a system call came back.
#[derive(Debug)]
pub(super) struct StallClock {
    /// In milliseconds of the boot clock; 0 while the thread has no work.
    last_progress: AtomicU64,
    now: fn() -> Now,
}

thread_local! {
    /// The clock of the work that this thread is doing.
    static CURRENT: RefCell<Option<Arc<StallClock>>> = const { RefCell::new(None) };
}

impl StallClock {
    pub(super) fn new(now: fn() -> Now) -> Arc<Self> {
        Arc::new(Self { last_progress: AtomicU64::new(0), now })
    }

    /// Runs work that may hang, so that others see since when.
    pub(super) fn during<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> T {
        CURRENT.set(Some(Arc::clone(self)));
        self.progress();
        let result = work();
        CURRENT.set(None);
        self.last_progress.store(0, Ordering::Relaxed);
        result
    }

    /// When the work last made progress; `None` if there is no work.
    pub(super) fn since(&self) -> Option<BootMs> {
        Some(self.last_progress.load(Ordering::Relaxed)).filter(|&since| since > 0).map(BootMs)
    }

    fn progress(&self) {
        self.last_progress.store((self.now)().boot.0.max(1), Ordering::Relaxed);
    }
}

/// A backend that records each system call that comes back as progress of its thread.
#[derive(Debug)]
pub(super) struct MonitoredBackend<B>(pub(super) B);

fn monitored<T>(result: T) -> T {
    CURRENT.with_borrow(|current| {
        if let Some(clock) = current {
            clock.progress();
        }
    });
    result
}

impl<B: StorageBackend> StorageBackend for MonitoredBackend<B> {
    fn len(&self) -> io::Result<u64> {
        monitored(self.0.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        monitored(self.0.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        monitored(self.0.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        monitored(self.0.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        monitored(self.0.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        monitored(self.0.close())
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}
