//! Since when a thread of the store has got nothing done.

use std::cell::RefCell;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{BackendError, StorageBackend};

use crate::domain::{BootMs, Now};

/// One thread's work that may hang. To open a large state takes a while, and a disk may be slow: what counts is the last
/// system call that came back.
#[derive(Debug)]
pub(super) struct Busy {
    /// In milliseconds of the boot clock; 0: it has nothing to do.
    since: AtomicU64,
    now: fn() -> Now,
}

thread_local! {
    /// What the thread works at.
    static CURRENT: RefCell<Option<Arc<Busy>>> = const { RefCell::new(None) };
}

impl Busy {
    pub(super) fn new(now: fn() -> Now) -> Arc<Self> {
        Arc::new(Self { since: AtomicU64::new(0), now })
    }

    /// Does what may hang, and lets others see for how long it does.
    pub(super) fn during<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> T {
        CURRENT.set(Some(Arc::clone(self)));
        self.moves();
        let done = work();
        CURRENT.set(None);
        self.since.store(0, Ordering::Relaxed);
        done
    }

    /// `None`: it has nothing to do.
    pub(super) fn since(&self) -> Option<BootMs> {
        Some(self.since.load(Ordering::Relaxed)).filter(|&since| since > 0).map(BootMs)
    }

    fn moves(&self) {
        self.since.store((self.now)().boot.0.max(1), Ordering::Relaxed);
    }
}

/// A backend that tells its thread's [`Busy`] of each system call that comes back.
#[derive(Debug)]
pub(super) struct Watched<B>(pub(super) B);

fn watched<T>(done: T) -> T {
    CURRENT.with_borrow(|current| {
        if let Some(busy) = current {
            busy.moves();
        }
    });
    done
}

impl<B: StorageBackend> StorageBackend for Watched<B> {
    fn len(&self) -> io::Result<u64> {
        watched(self.0.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        watched(self.0.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        watched(self.0.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        watched(self.0.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        watched(self.0.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        watched(self.0.close())
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
