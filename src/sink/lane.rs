//! A lane: one thread that does its jobs in order. What hangs in the kernel hangs one lane and nobody else.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;

use super::job::LaneReport;

/// How many jobs are done between two syncs and reports.
const CHUNK: usize = 64;

/// The handle of a lane that takes jobs of one kind. Dropped without [`Lane::stop`], the lane ends after the job that it is at.
#[derive(Debug)]
pub struct Lane<J> {
    jobs: Sender<Vec<J>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Disconnected when the thread ends.
    ended: Receiver<Infallible>,
}

/// How a lane came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The publication that had begun has ended. Jobs that had not begun were dropped.
    Ended,
    /// The lane is stuck in the kernel, and its thread was left behind; the place holds what it held.
    Abandoned,
    /// The lane's thread had panicked.
    Died,
}

/// What the handle and the thread both see.
#[derive(Debug)]
pub(crate) struct Shared {
    wake: OwnedFd,
    stopping: AtomicBool,
    begun: AtomicU64,
    pub(crate) unwatched: AtomicUsize,
}

impl<J: Send + 'static> Lane<J> {
    /// Hands jobs over; they are done in this order. Never blocks. After the lane has ended, they are dropped.
    pub fn send(&self, batch: Vec<J>) {
        if !batch.is_empty() {
            let _ = self.jobs.send(batch);
            self.shared.wake();
        }
    }

    /// A number that grows as the lane gets on with its jobs.
    pub fn progress(&self) -> u64 {
        self.shared.begun.load(Ordering::Relaxed)
    }

    /// How many directories are swept each minute because the kernel has no watch left for them.
    pub fn unwatched(&self) -> usize {
        self.shared.unwatched.load(Ordering::Relaxed)
    }

    /// Whether the lane's thread still runs.
    pub fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Tells the lane to stop, and does not wait for it: so that a lane which hangs takes no time from the others.
    pub fn begin_to_stop(&self) {
        self.shared.stop();
    }

    /// Lets the publication that began end, waiting at most `patience` for it, and stops.
    pub fn stop(mut self, patience: Duration) -> Stopped {
        self.shared.stop();
        match self.ended.recv_timeout(patience) {
            Err(RecvTimeoutError::Timeout) => Stopped::Abandoned,
            Ok(_) | Err(RecvTimeoutError::Disconnected) => match self.thread.take().map(JoinHandle::join) {
                Some(Err(_)) => Stopped::Died,
                Some(Ok(())) | None => Stopped::Ended,
            },
        }
    }

    /// `make` runs in the new thread, since what a lane works with is its thread's own.
    pub(crate) fn start<W: Work<Job = J>>(
        name: &str,
        shared: Arc<Shared>,
        make: impl FnOnce() -> W + Send + 'static,
        report: impl Fn(Vec<LaneReport>) + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, inbox) = channel();
        let (alive, ended) = channel();
        let seen = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _alive: Sender<Infallible> = alive;
            run(&seen, &inbox, &mut make(), &report);
        })?;
        Ok(Self { jobs, shared, thread: Some(thread), ended })
    }
}

impl<J> Drop for Lane<J> {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Shared {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            stopping: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            unwatched: AtomicUsize::new(0),
        }))
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake();
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn get_on(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    fn wake(&self) {
        // It can only be full, and then the lane is awake.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// What a lane does: with files, or with keys.
pub(crate) trait Work {
    /// What it is asked to do.
    type Job: Send + 'static;

    /// Does jobs until there are none, or until `stop` says so. The reports are final: what they say is on the disk.
    fn work(&mut self, jobs: &mut dyn Iterator<Item = Self::Job>) -> Vec<LaneReport>;

    /// What to wake up for, jobs apart.
    fn wake_on(&self) -> Vec<BorrowedFd<'_>>;

    /// Looks after whatever one of [`Work::wake_on`] woke the lane for.
    fn look_around(&mut self) -> Vec<LaneReport>;
}

fn run<W: Work>(shared: &Shared, inbox: &Receiver<Vec<W::Job>>, worker: &mut W, report: &impl Fn(Vec<LaneReport>)) {
    loop {
        for batch in inbox.try_iter() {
            let mut jobs = batch.into_iter();
            while !shared.is_stopping() && jobs.len() > 0 {
                let chunk = jobs.by_ref().take(CHUNK).take_while(|_| !shared.is_stopping());
                let reports = worker.work(&mut chunk.inspect(|_| shared.get_on()));
                shared.get_on();
                say(report, reports);
            }
        }
        if shared.is_stopping() {
            return;
        }
        say(report, worker.look_around());
        wait(shared, worker);
    }
}

fn say(report: &impl Fn(Vec<LaneReport>), reports: Vec<LaneReport>) {
    if !reports.is_empty() {
        report(reports);
    }
}

fn wait(shared: &Shared, worker: &impl Work) {
    let mut fds = vec![PollFd::new(&shared.wake, PollFlags::IN)];
    let others = worker.wake_on();
    fds.extend(others.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
    // Whatever ends the wait, the loop looks at everything.
    let _: Result<usize, Errno> = poll(&mut fds, None);
    let mut count = [0; 8];
    let _ = rustix::io::read(shared.wake.as_fd(), &mut count);
}
