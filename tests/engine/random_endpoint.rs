//! An endpoint and a disk that answer at random.

use std::collections::BTreeMap;

use corptokend::domain::*;

/// Numbers that look random and are always the same.
#[derive(Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    pub(crate) fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// How calls and attempts at places go.
pub(crate) struct RandomEndpoint {
    pub(crate) rng: Rng,
    /// Calls that fail, in percent; all with `kind`, or with any.
    pub(crate) failing: u64,
    pub(crate) kind: Option<FailureKind>,
    pub(crate) latency: u64,
    pub(crate) lifetimes: &'static [u32],
    pub(crate) same_token: u64,
    pub(crate) remaining_life: bool,
    pub(crate) sinks_fail: u64,
    pub(crate) given: BTreeMap<TenantId, (Fingerprint, u64)>,
    pub(crate) tokens: u64,
}

pub(crate) const LIFETIMES: [&[u32]; 4] =
    [&[1, 2, 5], &[10, 30, 60], &[600, 7200], &[1, 60, 7200, 86_400, 366 * 86_400]];
const SINK_TROUBLE: [SinkFailureKind; 4] =
    [SinkFailureKind::Full, SinkFailureKind::Denied, SinkFailureKind::Hangs, SinkFailureKind::Other];

impl RandomEndpoint {
    pub(crate) fn call(&mut self, now: Now, id: &TenantId) -> (u64, Result<Grant, Failure>) {
        let after = self.rng.below(self.latency) + 1;
        if self.rng.percent(self.failing) {
            let kind = self.kind.unwrap_or_else(|| self.rng.pick(&FailureKind::ALL));
            let mut failure = Failure::new(kind, "as rng would have it");
            failure.retry_after_s = self.rng.percent(20).then(|| self.rng.below(90) as u32);
            return (after, Err(failure));
        }
        let life = u64::from(self.rng.pick(self.lifetimes));
        let valid = self.given.get(id).copied().filter(|(_, expires)| *expires >= now.boot.0 + 1000);
        let (fingerprint, life) = match valid.filter(|_| self.rng.percent(self.same_token)) {
            Some((same, expires)) if self.remaining_life => (same, (expires - now.boot.0) / 1000),
            Some((same, _)) => (same, life),
            None => {
                self.tokens += 1;
                (Fingerprint(self.tokens), life)
            }
        };
        self.given.insert(id.clone(), (fingerprint, now.boot.0 + life * 1000));
        (after, Ok(Grant { lifetime_s: life as u32, fingerprint }))
    }

    pub(crate) fn attempt(&mut self) -> (u64, Result<Wrote, SinkFailure>) {
        let takes = if self.rng.percent(3) { self.rng.below(20_000) } else { self.rng.below(30) };
        let kind = self.rng.pick(&SINK_TROUBLE);
        let failure = SinkFailure { kind, detail: "as rng would have it".into() };
        (takes, if self.rng.percent(self.sinks_fail) { Err(failure) } else { Ok(Wrote::Replaced) })
    }
}
