//! Blocking work that the kernel may never finish: a read on a mount that is gone, a name that no server resolves.
//!
//! Each piece of work has a key, the path or the host that it is about, and a thread of its own. At most one piece of a key is
//! outstanding, so work that hangs costs one thread, however often it is asked for; and the number of threads is bounded. They are
//! not taken from a pool, because a pool whose threads all hang has none left for work that does not
//! (`docs/decisions/0047-work-that-may-hang.md`).

use std::collections::HashMap;
use std::ffi::OsStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// Why there is no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfinished {
    /// It did not end in time, now or when it was asked for before, and is still outstanding.
    #[error("it does not come to an end")]
    Hangs,
    /// So much work is outstanding that no more is begun.
    #[error("too much else does not come to an end")]
    TooMuch,
    /// The system has no thread for it.
    #[error("the system has no thread for it")]
    NoThread,
    /// The work panicked, which is a defect; the log shows it.
    #[error("it ended in a defect, which the log shows")]
    Defect,
}

type Finished<T> = Result<T, Unfinished>;
type Task<T> = Box<dyn FnOnce() -> T + Send>;

/// Does work that may hang, on threads of its own. Clones share the threads.
pub struct Blocking<T>(Arc<Threads<T>>);

struct Threads<T> {
    /// The threads' name, of which `ps` shows 15 bytes at most.
    name: &'static str,
    most: usize,
    /// The number of the last piece of work that began.
    last: AtomicU64,
    outstanding: Mutex<HashMap<Box<OsStr>, Outstanding<T>>>,
}

/// The work of one key.
struct Outstanding<T> {
    /// Tells this piece of work from all others.
    number: u64,
    waiting: Vec<Waiter<T>>,
    /// Somebody waited for it in vain.
    hangs: bool,
    /// Begins when this one ends. All who ask in the meantime share it: the work in progress may have read what was there before.
    next: Option<(Task<T>, Vec<Waiter<T>>)>,
}

enum Waiter<T> {
    Async(oneshot::Sender<Finished<T>>),
    Thread(mpsc::Sender<Finished<T>>),
}

impl<T> Clone for Blocking<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Clone + Send + 'static> Blocking<T> {
    /// At most `most` threads of this name.
    pub fn new(name: &'static str, most: usize) -> Self {
        Self(Arc::new(Threads { name, most, last: AtomicU64::new(0), outstanding: Mutex::new(HashMap::new()) }))
    }

    /// Does `work`, and waits for it at most for `patience`. While other work of this `key` is outstanding it waits its turn,
    /// and shares the result with all others who do: a result is always of work that began after it was asked for. May be
    /// dropped at any time; work that began goes on to its end.
    ///
    /// # Errors
    /// See [`Unfinished`]. After a time-out, further calls for the key fail with [`Unfinished::Hangs`] at once, until the work has
    /// ended.
    pub async fn run(
        &self,
        key: impl AsRef<OsStr>,
        patience: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Finished<T> {
        let (key, (answer, answered)) = (key.as_ref(), oneshot::channel());
        let number = self.ask(key, Box::new(work), Waiter::Async(answer))?;
        match tokio::time::timeout(patience, answered).await {
            Ok(outcome) => outcome.unwrap_or(Err(Unfinished::Defect)),
            Err(_) => Err(self.give_up(key, number)),
        }
    }

    /// As [`run`](Self::run), for a thread that may wait itself.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_and_block(
        &self,
        key: impl AsRef<OsStr>,
        patience: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Finished<T> {
        let (key, (answer, answered)) = (key.as_ref(), mpsc::channel());
        let number = self.ask(key, Box::new(work), Waiter::Thread(answer))?;
        match answered.recv_timeout(patience) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => Err(self.give_up(key, number)),
            Err(RecvTimeoutError::Disconnected) => Err(Unfinished::Defect),
        }
    }

    /// How many pieces of work are outstanding: one a key.
    pub fn outstanding(&self) -> usize {
        self.lock().len()
    }

    /// Whether work of another key could be begun now.
    pub(crate) fn has_room(&self) -> bool {
        self.outstanding() < self.0.most
    }

    /// Begins the work, or puts it behind what is outstanding. Returns the number of the work that is outstanding now.
    fn ask(&self, key: &OsStr, work: Task<T>, waiter: Waiter<T>) -> Result<u64, Unfinished> {
        let mut all = self.lock();
        if let Some(outstanding) = all.get_mut(key) {
            if outstanding.hangs {
                return Err(Unfinished::Hangs);
            }
            match &mut outstanding.next {
                Some((_, waiting)) => waiting.push(waiter),
                None => outstanding.next = Some((work, vec![waiter])),
            }
            return Ok(outstanding.number);
        }
        if all.len() >= self.0.most {
            return Err(Unfinished::TooMuch);
        }
        let number = self.next_number();
        let begun = Outstanding { number, waiting: vec![waiter], hangs: false, next: None };
        all.insert(key.into(), begun);
        drop(all);
        let (this, own_key) = (self.clone(), key.to_os_string());
        let thread = std::thread::Builder::new().name(self.0.name.into()).spawn(move || this.work_off(&own_key, work));
        match thread {
            Ok(_) => Ok(number), // the thread ends by itself, and nobody joins it
            Err(_) => {
                let abandoned = self.lock().remove(key);
                abandoned.into_iter().for_each(|work| work.fail(Unfinished::NoThread));
                Err(Unfinished::NoThread)
            }
        }
    }

    /// What a thread does: this work, and then the work that was asked for in the meantime.
    fn work_off(&self, key: &OsStr, mut work: Task<T>) {
        loop {
            // The work owns what it touches, so nothing is left half done.
            let outcome = catch_unwind(AssertUnwindSafe(work)).map_err(|_| Unfinished::Defect);
            let (waiting, next) = self.ended(key);
            waiting.into_iter().for_each(|waiter| waiter.send(outcome.clone()));
            match next {
                Some(next) => work = next,
                None => return,
            }
        }
    }

    /// The outstanding work of a key ended. Returns who waits for it, and the next work.
    fn ended(&self, key: &OsStr) -> (Vec<Waiter<T>>, Option<Task<T>>) {
        let mut all = self.lock();
        let Some(outstanding) = all.get_mut(key) else { return (Vec::new(), None) };
        let waiting = std::mem::take(&mut outstanding.waiting);
        outstanding.hangs = false;
        let wanted = outstanding.next.take().filter(|(_, waiting)| waiting.iter().any(Waiter::is_there));
        let next = match wanted {
            Some((work, waiting)) => {
                (outstanding.number, outstanding.waiting) = (self.next_number(), waiting);
                Some(work)
            }
            None => {
                all.remove(key);
                None
            }
        };
        (waiting, next)
    }

    /// A wait timed out. If the work that was outstanding when it began still is, the other waits end at once, too.
    fn give_up(&self, key: &OsStr, number: u64) -> Unfinished {
        let mut all = self.lock();
        if let Some(outstanding) = all.get_mut(key).filter(|outstanding| outstanding.number == number) {
            outstanding.hangs = true;
            let (waiting, next) = (std::mem::take(&mut outstanding.waiting), outstanding.next.take());
            drop(all);
            let all = waiting.into_iter().chain(next.into_iter().flat_map(|(_, waiting)| waiting));
            all.for_each(|waiter| waiter.send(Err(Unfinished::Hangs)));
        }
        Unfinished::Hangs
    }

    fn next_number(&self) -> u64 {
        self.0.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<OsStr>, Outstanding<T>>> {
        // Nothing in here panics half-way through a change.
        self.0.outstanding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Outstanding<T> {
    fn fail(self, why: Unfinished) {
        let next = self.next.into_iter().flat_map(|(_, waiting)| waiting);
        self.waiting.into_iter().chain(next).for_each(|waiter| waiter.send(Err(why)));
    }
}

impl<T> Waiter<T> {
    fn send(self, outcome: Finished<T>) {
        // A receiver that timed out is gone.
        match self {
            Self::Async(waiter) => drop(waiter.send(outcome)),
            Self::Thread(waiter) => drop(waiter.send(outcome)),
        }
    }

    /// Whether it may still be waiting.
    fn is_there(&self) -> bool {
        match self {
            Self::Async(waiter) => !waiter.is_closed(),
            Self::Thread(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(60);

    /// Work that ends when the sender is dropped.
    fn hanging() -> (mpsc::Sender<()>, impl FnOnce() -> u32 + Send + 'static) {
        let (release, held) = mpsc::channel::<()>();
        (release, move || {
            let _ = held.recv();
            1
        })
    }

    async fn until(condition: impl Fn() -> bool) {
        let waited = tokio::time::timeout(LONG, async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        waited.await.expect("it comes to that");
    }

    #[tokio::test]
    async fn work_that_hangs_costs_one_thread_however_often_it_is_asked_for() {
        let blocking = Blocking::new("test", 8);
        let (release, work) = hanging();
        assert_eq!(blocking.run("dead", SHORT, work).await, Err(Unfinished::Hangs));
        for _ in 0..100 {
            let again = blocking.run("dead", LONG, || unreachable!("it is not begun while the first hangs"));
            assert_eq!(again.await, Err(Unfinished::Hangs));
        }
        assert_eq!(blocking.outstanding(), 1);
        assert_eq!(blocking.run("alive", LONG, || 2).await, Ok(2), "another key is not concerned");
        drop(release);
        until(|| blocking.outstanding() == 0).await;
        assert_eq!(blocking.run("dead", LONG, || 3).await, Ok(3), "it comes back by itself");
    }

    #[tokio::test]
    async fn those_who_ask_while_work_is_under_way_share_the_next_and_never_the_one_that_began_before() {
        let blocking = Blocking::new("test", 8);
        let begun = Arc::new(AtomicUsize::new(0));
        let (release, work) = hanging();
        let first = tokio::spawn({
            let blocking = blocking.clone();
            async move { blocking.run("key", LONG, work).await }
        });
        until(|| blocking.outstanding() == 1).await;
        let others: Vec<_> = (0..10)
            .map(|_| {
                let (blocking, begun) = (blocking.clone(), Arc::clone(&begun));
                tokio::spawn(async move {
                    let counted = move || {
                        begun.fetch_add(1, Ordering::Relaxed);
                        2
                    };
                    blocking.run("key", LONG, counted).await
                })
            })
            .collect();
        until(|| blocking.lock()[OsStr::new("key")].next.as_ref().is_some_and(|(_, waiting)| waiting.len() == 10))
            .await;
        drop(release);
        assert_eq!(first.await.unwrap(), Ok(1));
        for other in others {
            assert_eq!(other.await.unwrap(), Ok(2));
        }
        assert_eq!(begun.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn there_is_a_bound_on_all_and_who_gives_up_frees_those_who_wait_for_the_same() {
        let blocking = Blocking::new("test", 2);
        let (_release, work) = hanging();
        let (_other, other_work) = hanging();
        let waiting = tokio::spawn({
            let blocking = blocking.clone();
            async move { blocking.run("a", LONG, work).await }
        });
        until(|| blocking.outstanding() == 1).await;
        assert_eq!(blocking.run("b", SHORT, other_work).await, Err(Unfinished::Hangs));
        assert_eq!(blocking.run("c", LONG, || 1).await, Err(Unfinished::TooMuch));
        assert_eq!(blocking.run("a", SHORT, || 1).await, Err(Unfinished::Hangs));
        assert_eq!(waiting.await.unwrap(), Err(Unfinished::Hangs));
    }

    #[test]
    fn a_thread_can_wait_too_and_a_panic_is_told() {
        let blocking = Blocking::new("test", 2);
        assert_eq!(blocking.run_and_block("a", LONG, || 1), Ok(1));
        let (release, work) = hanging();
        assert_eq!(blocking.run_and_block("a", SHORT, work), Err(Unfinished::Hangs));
        assert_eq!(blocking.run_and_block("a", LONG, || 1), Err(Unfinished::Hangs));
        drop(release);
        assert_eq!(blocking.run_and_block("b", LONG, || panic!("a defect")), Err(Unfinished::Defect));
        assert_eq!(blocking.run_and_block("b", LONG, || 2), Ok(2));
    }
}
