//! What is known of a token without knowing the token.

use std::fmt;

use crate::domain::time::{BootMs, Now, WallMs};

/// The longest life that an answer may promise, in seconds: 366 days. The endpoint documents 7,200; more than a year is
/// a defect or a trap, and is refused.
pub const MAX_LIFETIME_S: u32 = 366 * 24 * 3600;

/// The first 8 bytes of a SHA-256. It tells tokens apart. The first 8 hex digits are shown, and identify a token in a log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// The fingerprint of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        let mut first = [0; 8];
        first.copy_from_slice(&digest.as_ref()[..8]);
        Self(u64::from_be_bytes(first))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0 >> 32)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The part of a successful answer that the engine sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The answer's `expires_in`, in seconds: 1 to [`MAX_LIFETIME_S`].
    pub lifetime_s: u32,
    /// Which token it was.
    pub fingerprint: Fingerprint,
}

/// A token that was accepted: when it was asked for, and for how long it is good. The life is counted from before the
/// call, so that the daemon's idea of the expiry is never later than the endpoint's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// When the call was sent.
    pub requested_at: WallMs,
    /// When the token stops working.
    pub expires_at: WallMs,
    /// Which token.
    pub fingerprint: Fingerprint,
}

impl Record {
    /// The life that the answer promised, in seconds.
    pub fn lifetime_s(&self) -> u32 {
        u32::try_from(self.expires_at.since(self.requested_at) / 1000).unwrap_or(u32::MAX)
    }

    /// Where a moment of this record's wall-clock life lies on the boot clock, as seen from `now`.
    pub fn on_boot_clock(moment: WallMs, now: Now) -> BootMs {
        if moment >= now.wall { now.boot + moment.since(now.wall) } else { now.boot - now.wall.since(moment) }
    }
}
