//! Tokens that live too short to be kept fresh within the limits. `docs/decisions/0049-tokens-nobody-can-use.md` says why
//! their tenants wait as failing ones do.

use crate::domain::{Failure, FailureKind, Now, Slot};
use crate::engine::Engine;
use crate::engine::apps::App;
use crate::engine::scheduler::backoff::millis;
use crate::engine::tenants::Held;

/// What a demand is counted in: so many lives in a billion milliseconds.
const SPAN_MS: u64 = 1_000_000_000;
/// The part of an app's rate that may be spent on keeping tokens fresh. The rest is for newcomers and for failures.
const USABLE: f64 = 0.9;

impl Held {
    /// How many lives as this one's follow each other in [`SPAN_MS`].
    pub(crate) fn lives(&self) -> u64 {
        SPAN_MS / self.lifetime_ms().max(1)
    }
}

impl App {
    /// Whether a token of such a life cannot be kept fresh: the app's tenants need more calls than its rate allows, and this
    /// one more than its share of them. Lives beyond `retry.max` are never too short, since waiting would not spare a call.
    fn lives_too_short(&self, held: &Held) -> bool {
        let calls_a_life = 1.0 / self.policy.refresh.at.max(0.01);
        let available = self.policy.rate.hertz() * SPAN_MS as f64 / 1000.0 * USABLE;
        let share = available / f64::from(self.tenants.max(1));
        held.lifetime_ms() < millis(self.policy.retry.max)
            && self.demand as f64 * calls_a_life > available
            && held.lives() as f64 * calls_a_life > share
    }
}

impl Engine {
    /// Whether the token that a tenant has just got lives too short to be kept fresh.
    pub(crate) fn lives_too_short(&self, slot: Slot) -> bool {
        let tenant = &self.tenants[slot];
        tenant.held.is_some_and(|held| self.app(tenant.app).lives_too_short(&held))
    }

    /// A tenant whose tokens live too short waits as one whose calls fail, though no less than for its refresh point.
    pub(crate) fn wait_out_short_life(&mut self, now: Now, slot: Slot) {
        let Some(held) = self.tenants[slot].held else { return };
        let life_s = held.lifetime_ms() / 1000;
        let why = format!(
            "tokens live {life_s} s: too short to keep them fresh within the app's `rate`; it is published all \
             the same, and the next call waits as after a failure"
        );
        let failure = Failure::new(FailureKind::ShortLived, why);
        let wait = self.count_failure(now, slot, &failure);
        let at = self.refresh_point(slot, &held).max(now.boot + wait);
        self.schedule_after_answer(now, slot, at);
        self.remember_failure(now, slot);
        self.complain(now, slot, failure);
    }
}
