//! The only module that reads a clock ([`now`]), the timers of the loop, and whether the wall clock can be trusted (`trust`).

mod server_dates;
pub mod trust;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::domain::{BootMs, Now, WallMs};

/// What is added to the machine's wall clock, in milliseconds; 0 as long as it is trusted.
///
/// One for the whole process, like the clock: the scheduler, the store and the keyrings must agree on the time.
static FORWARD_MS: AtomicU64 = AtomicU64::new(0);

/// The part of it that is certain: the last commit was in the past. What endpoints say beyond that is no proof.
static PROVEN_MS: AtomicU64 = AtomicU64::new(0);

/// This moment, on both clocks.
pub fn now() -> Now {
    let boot = BootMs(millis(clock_gettime(ClockId::Boottime)));
    Now { boot, wall: machine_wall() + FORWARD_MS.load(Ordering::Relaxed) }
}

/// As [`now`], but the wall clock is put forward only as far as is certain. What is written as a proof of the time, such as the time of
/// a commit, is read from this clock: a guess that was too late would make every right clock look wrong later.
pub fn proven() -> Now {
    Now { wall: machine_wall() + PROVEN_MS.load(Ordering::Relaxed), ..now() }
}

/// The machine's wall clock, trusted or not.
pub fn machine_wall() -> WallMs {
    WallMs(millis(clock_gettime(ClockId::Realtime)))
}

/// The age of a time stamp of a file (a time since 1970), in milliseconds; `None` if it lies in the future.
pub fn machine_age_ms(since_1970: Duration) -> Option<u64> {
    machine_wall().0.checked_sub(u64::try_from(since_1970.as_millis()).ok()?)
}

/// Puts the wall clock forward to `now`, which is certainly not after the true time.
pub fn put_forward_to_certain(now: WallMs) {
    PROVEN_MS.store(now.since(machine_wall()), Ordering::Relaxed);
    put_forward(now);
}

/// Puts the wall clock forward to `now`, which is likely.
pub fn put_forward(now: WallMs) {
    FORWARD_MS.store(now.since(machine_wall()), Ordering::Relaxed);
}

/// The machine's wall clock is trusted again.
pub fn trust() {
    FORWARD_MS.store(0, Ordering::Relaxed);
    PROVEN_MS.store(0, Ordering::Relaxed);
}

/// This moment, on the wall clock.
pub fn wall() -> WallMs {
    now().wall
}

/// The time on CLOCK_MONOTONIC, which systemd uses, in microseconds.
pub fn monotonic_usec() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let (seconds, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    seconds * 1_000_000 + nanos / 1000
}

fn millis(time: Timespec) -> u64 {
    let (seconds, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    seconds * 1000 + nanos / 1_000_000
}

/// A timer on CLOCK_BOOTTIME: it counts time asleep, and fires at once on waking if it is overdue.
pub struct BootAlarm {
    fd: AsyncFd<OwnedFd>,
    set_to: Option<BootMs>,
}

impl BootAlarm {
    /// A timer that is not set. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When no timer is to be had.
    pub fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self { fd: watched(fd)?, set_to: None })
    }

    /// Sets it, or with `None` switches it off.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set(&mut self, at: Option<BootMs>) -> io::Result<()> {
        if self.set_to == at {
            return Ok(());
        }
        // All zero switches the timer off, so a time in the past becomes the first after boot.
        let value = at.map_or(Timespec::default(), |at| timespec(at.0.max(1)));
        timerfd_settime(
            self.fd.get_ref(),
            TimerfdTimerFlags::ABSTIME,
            &Itimerspec { it_interval: Timespec::default(), it_value: value },
        )?;
        self.set_to = at;
        Ok(())
    }

    /// Completes when it fires; it is not set any more then.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn rings(&mut self) -> io::Result<()> {
        let mut ready = self.fd.readable().await?;
        let mut count = [0; 8];
        let _ = rustix::io::read(ready.get_inner(), &mut count);
        ready.clear_ready();
        self.set_to = None;
        Ok(())
    }
}

/// Completes whenever the wall clock is set.
pub struct Steps(AsyncFd<OwnedFd>);

impl Steps {
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When no timer is to be had.
    pub fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        arm(&fd)?;
        Ok(Self(watched(fd)?))
    }

    /// Completes when the wall clock was set.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn happens(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut count = [0; 8];
            let outcome = rustix::io::read(ready.get_inner(), &mut count);
            ready.clear_ready();
            arm(self.0.get_ref())?;
            if outcome == Err(rustix::io::Errno::CANCELED) {
                return Ok(());
            }
        }
    }
}

/// A timer that never fires, but is cancelled when the clock is set (timerfd_create(2), `TFD_TIMER_CANCEL_ON_SET`).
fn arm(fd: &OwnedFd) -> io::Result<()> {
    let never = Timespec { tv_sec: i64::MAX / 2_000_000_000, tv_nsec: 0 };
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    timerfd_settime(fd, flags, &Itimerspec { it_interval: Timespec::default(), it_value: never })?;
    Ok(())
}

#[expect(
    deprecated,
    reason = "an OwnedFd keeps its number while it lives, which is all that the unsafe successor asks for"
)]
fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

fn timespec(ms: u64) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(ms % 1000 * 1_000_000).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_alarm_goes_off_when_it_is_due_and_at_once_when_it_is_overdue() {
        let start = now().boot;
        let mut alarm = BootAlarm::new().unwrap();
        alarm.set(Some(start + 30)).unwrap();
        alarm.rings().await.unwrap();
        assert!(now().boot >= start + 30);
        alarm.set(Some(BootMs(0))).unwrap();
        alarm.rings().await.unwrap();
    }
}
