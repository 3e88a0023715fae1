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
