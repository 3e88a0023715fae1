//! Waiting for what must happen.

use std::time::{Duration, Instant};

/// How long a test waits for what must happen. It costs nothing where it happens, and a busy machine is no reason to fail;
/// what must happen *soon* is asserted for itself.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `condition` holds; `report` says what there is instead when it does not come.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool, report: impl FnOnce() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}\n{}", report());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for what must happen within this time on an idle machine, and returns how long it took. The time is counted in naps,
/// which take longer on a machine that keeps everybody waiting.
#[track_caller]
pub fn wait_soon(what: &str, within: Duration, condition: impl Fn() -> bool) -> Duration {
    const NAP: Duration = Duration::from_millis(5);
    let (begun, mut slept) = (Instant::now(), Duration::ZERO);
    while !condition() {
        assert!(slept < within, "waited {:?} in vain until {what}", begun.elapsed());
        std::thread::sleep(NAP);
        slept += NAP;
    }
    begun.elapsed()
}
