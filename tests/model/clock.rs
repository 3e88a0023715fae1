//! The machine's clocks, on virtual time.

use corptokend::domain::{BootMs, Now, WallMs};

/// The wall clock at the beginning of a run.
const WALL_MS: u64 = 1_700_000_000_000;

/// Milliseconds of the run are `t`: they go on through suspends and reboots. The boot clock starts again with the machine, and
/// the wall clock can be set.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    pub t: u64,
    /// Where the boot clock's zero lies.
    booted: u64,
    /// What the wall clock shows beyond what it should.
    wall_offset: i64,
}

impl Clock {
    pub fn new(boot_ms: u64) -> Self {
        Self { t: boot_ms, booted: 0, wall_offset: 0 }
    }

    pub fn now(&self) -> Now {
        let wall = (WALL_MS + self.t).saturating_add_signed(self.wall_offset);
        Now { boot: BootMs(self.t - self.booted), wall: WallMs(wall) }
    }

    /// When the boot clock shows `boot`.
    pub fn at(&self, boot: BootMs) -> u64 {
        boot.0 + self.booted
    }

    /// The wall clock is set forwards or backwards.
    pub fn step_wall(&mut self, ms: i64) {
        self.wall_offset += ms;
    }

    pub fn set_wall(&mut self, wall: WallMs) {
        self.wall_offset = wall.0 as i64 - (WALL_MS + self.t) as i64;
    }

    /// The machine starts anew, and its first process runs after `boot_ms`.
    pub fn reboot(&mut self, boot_ms: u64) {
        self.booted = self.t;
        self.t += boot_ms;
    }
}
