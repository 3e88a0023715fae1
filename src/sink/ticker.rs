//! A periodic timer with a descriptor that a lane's thread can poll.

use std::io;
use std::time::Duration;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// A timer that counts what has elapsed since it was last asked.
#[derive(Debug)]
pub(crate) struct Ticker {
    fd: OwnedFd,
    period: Duration,
    runs: bool,
}

impl Ticker {
    pub(crate) fn new(period: Duration) -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Self { fd, period, runs: false })
    }

    pub(crate) fn runs(&self) -> bool {
        self.runs
    }

    pub(crate) fn run(&mut self, wanted: bool) {
        if self.runs == wanted {
            return;
        }
        let period = if wanted { self.period } else { Duration::ZERO };
        let every = Timespec { tv_sec: period.as_secs().cast_signed(), tv_nsec: period.subsec_nanos().into() };
        let setting = Itimerspec { it_interval: every, it_value: every };
        // Only a wrong argument can make this fail.
        self.runs = timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &setting).is_ok() && wanted;
    }

    /// How many periods have passed since the last call.
    pub(crate) fn elapsed(&self) -> u64 {
        if !self.runs {
            return 0;
        }
        let mut count = [0; 8];
        rustix::io::read(&self.fd, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
