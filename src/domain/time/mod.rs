//! Moments on two clocks, and rates. Deadlines use the boot clock, which never steps and runs during suspend. Expiry uses the wall
//! clock, which may step. Nothing here reads a clock: callers pass the time in.

mod rate;

use std::fmt;
use std::ops::{Add, Sub};

pub use rate::{InvalidRate, Rate};

/// A moment on `CLOCK_BOOTTIME`, in milliseconds since the machine booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootMs(pub u64);

/// A moment on `CLOCK_REALTIME`, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WallMs(pub u64);

/// The same moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// On the boot clock.
    pub boot: BootMs,
    /// On the wall clock.
    pub wall: WallMs,
}

macro_rules! moment {
    ($name:ident) => {
        impl $name {
            /// Milliseconds from `earlier` to `self`; 0 when `earlier` is later.
            pub fn since(self, earlier: Self) -> u64 {
                self.0.saturating_sub(earlier.0)
            }

            /// Whole seconds, rounded down.
            pub fn seconds(self) -> u64 {
                self.0 / 1000
            }
        }

        impl Add<u64> for $name {
            type Output = Self;
            /// Adds milliseconds.
            fn add(self, ms: u64) -> Self {
                Self(self.0.saturating_add(ms))
            }
        }

        impl Sub<u64> for $name {
            type Output = Self;
            /// Takes milliseconds away, stopping at 0.
            fn sub(self, ms: u64) -> Self {
                Self(self.0.saturating_sub(ms))
            }
        }
    };
}

moment!(BootMs);
moment!(WallMs);

impl WallMs {
    /// RFC 3339 in UTC, to the second: `2026-01-31T12:00:00Z`.
    pub fn rfc3339(self) -> String {
        self.to_string()
    }
}

impl fmt::Display for WallMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The year 9999 is the last that RFC 3339 can write.
        let seconds = self.seconds().min(253_402_300_799);
        let moment = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        write!(f, "{}", humantime::format_rfc3339_seconds(moment))
    }
}
