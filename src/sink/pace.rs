//! A place is reported as touched at once, and then at most once a second: a fight with another writer must not spin.
//!
//! Time is counted in ticks of a timer that only runs while a report is fresh, so no clock is read and an idle lane sleeps.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::domain::{SinkId, Slot, Ticket};

const TICK: Duration = Duration::from_millis(100);

/// A second, and the tick that had already begun.
const PAUSE: u64 = 11;

/// A timer that counts what has elapsed since it was last asked.
#[derive(Debug)]
pub(super) struct Ticker {
    fd: OwnedFd,
    period: Duration,
    runs: bool,
}

impl Ticker {
    pub(super) fn new(period: Duration) -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Self { fd, period, runs: false })
    }

    pub(super) fn runs(&self) -> bool {
        self.runs
    }

    pub(super) fn run(&mut self, wanted: bool) {
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
    pub(super) fn elapsed(&self) -> u64 {
        if !self.runs {
            return 0;
        }
        let mut count = [0; 8];
        rustix::io::read(&self.fd, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The places that were reported within the last second.
#[derive(Debug)]
pub(super) struct Pace {
    ticker: Ticker,
    now: u64,
    recent: HashMap<(Slot, SinkId), Recent>,
}

#[derive(Debug)]
struct Recent {
    until: u64,
    /// Touched again meanwhile: to be reported when the second is over.
    again: Option<Ticket>,
}

impl Pace {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { ticker: Ticker::new(TICK)?, now: 0, recent: HashMap::new() })
    }

    /// A place was touched. Answers whether that is to be reported now; if not, it will be.
    pub(super) fn admits(&mut self, ticket: Ticket, sink: SinkId) -> bool {
        self.ticker.run(true);
        let until = self.now + PAUSE;
        let recent = self.recent.entry((ticket.slot, sink)).or_insert(Recent { until: 0, again: None });
        if recent.until != 0 {
            recent.again = Some(ticket);
            return false;
        }
        recent.until = until;
        true
    }

    /// What was held back until now.
    pub(super) fn due(&mut self) -> Vec<(Ticket, SinkId)> {
        self.now += self.ticker.elapsed();
        let (now, mut due) = (self.now, Vec::new());
        self.recent.retain(|(_, sink), recent| {
            if recent.until > now {
                return true;
            }
            let again = recent.again.take();
            recent.until = now + PAUSE;
            due.extend(again.map(|ticket| (ticket, *sink)));
            again.is_some()
        });
        self.ticker.run(!self.recent.is_empty());
        due
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.ticker.fd()
    }
}
