//! The best that any schedule could do: earliest deadline first, by one who knows everything in advance.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// One app's tenants, served one at a time.
pub(crate) struct ReferenceSchedule {
    /// When each tenant's token expires, in milliseconds; it is served after that, since asking earlier wastes life.
    expires: BinaryHeap<Reverse<u64>>,
    spacing_ms: f64,
    lifetime_ms: u64,
    /// When the next call is allowed.
    at: f64,
    /// For how long tenants have been without a token, those that still are apart.
    without_ms: u64,
}

impl ReferenceSchedule {
    /// Tenants whose tokens expire at these moments, and a limit of so many calls a second.
    pub(crate) fn new(expires: impl Iterator<Item = u64>, hertz: f64, lifetime_s: u32) -> Self {
        let (spacing_ms, lifetime_ms) = (1000.0 / hertz, u64::from(lifetime_s) * 1000);
        Self { expires: expires.map(Reverse).collect(), spacing_ms, lifetime_ms, at: 0.0, without_ms: 0 }
    }

    /// Serves until `until`. Returns for how long tenants have been without a token up to then, all together.
    pub(crate) fn without_ms(&mut self, until: u64) -> u64 {
        while let Some(Reverse(expires)) = self.expires.pop() {
            self.at = self.at.max(expires as f64);
            if self.at >= until as f64 {
                self.expires.push(Reverse(expires));
                break;
            }
            self.without_ms += self.at as u64 - expires;
            self.expires.push(Reverse(self.at as u64 + self.lifetime_ms));
            self.at += self.spacing_ms;
        }
        self.without_ms + self.expires.iter().map(|Reverse(expires)| until.saturating_sub(*expires)).sum::<u64>()
    }
}

#[test]
fn what_the_limit_cannot_serve_is_without_a_token() {
    let mut reference = ReferenceSchedule::new((0..300).map(|_| 0), 1.0, 100);
    let settled = reference.without_ms(3_600_000);
    // 100 of 300 can be served.
    let hour = reference.without_ms(7_200_000) - settled;
    assert!(hour.abs_diff(200 * 3_600_000) < 200 * 3_600, "{hour}");
}
