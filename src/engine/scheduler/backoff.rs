//! How long to wait after the n-th failure, and how far a due point is moved so that a herd spreads out.

use std::time::Duration;

use crate::domain::{Refresh, Retry};

/// Mixes numbers into one that looks random and is always the same (splitmix64's finalizer).
pub(crate) fn hash(parts: [u64; 3]) -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for part in parts {
        state = (state ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^= state >> 31;
    }
    state
}

/// A number in `0.0..1.0`, from a hash.
fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// `min + random(0, min(max, min·2ⁿ) − min)`, in milliseconds, where n counts failures from 0 (so the first wait is `min`).
pub(crate) fn wait_ms(retry: Retry, failures: u16, hash: u64) -> u64 {
    let (min, max) = (millis(retry.min), millis(retry.max));
    let ceiling = min.saturating_mul(1_u64.checked_shl(failures.into()).unwrap_or(u64::MAX)).min(max).max(min);
    min + (unit(hash) * (ceiling - min) as f64) as u64
}

/// How long after it was asked for a token of this lifetime is due for refresh, in milliseconds.
pub(crate) fn due_after_ms(refresh: Refresh, lifetime_ms: u64, hash: u64) -> u64 {
    let fraction = refresh.at + refresh.jitter * (2.0 * unit(hash) - 1.0);
    (lifetime_ms as f64 * fraction.clamp(0.0, 1.0)) as u64
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_from_min_towards_max_and_never_leaves_them() {
        let retry = Retry { min: Duration::from_secs(1), max: Duration::from_secs(300) };
        assert_eq!(wait_ms(retry, 0, 123), 1000);
        for failures in 0..=u16::MAX {
            let wait = wait_ms(retry, failures, hash([1, 2, failures.into()]));
            assert!((1_000..=300_000).contains(&wait), "{failures}: {wait}");
        }
        let average = |failures| (0..1000).map(|t| wait_ms(retry, failures, hash([7, t, 0]))).sum::<u64>() / 1000;
        assert!(average(3) < average(5) && average(5) < average(20));
    }

    #[test]
    fn due_points_spread_over_the_jitter() {
        let refresh = Refresh { at: 0.7, jitter: 0.05 };
        let due: Vec<u64> = (0..10_000).map(|t| due_after_ms(refresh, 7_200_000, hash([1, t, 0]))).collect();
        assert!(due.iter().all(|at| (4_680_000..=5_400_000).contains(at)));
        assert!(due.iter().min().unwrap() < &4_690_000 && due.iter().max().unwrap() > &5_390_000);
    }
}
