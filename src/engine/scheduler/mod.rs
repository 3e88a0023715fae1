//! When a tenant is due, and what becomes of it when its timer fires.
//!
//! In come answers, changes and the time; out come tenants in the queues of their apps, and timers. [`TimerWheel`] and
//! [`backoff`] know nothing of the engine.

pub(crate) mod backoff;
mod reevaluation;
mod timer_wheel;
mod wall_clock;

use crate::domain::{BootMs, Now, OnExpiry, Slot};
use crate::engine::Engine;
use crate::engine::messages::Notice;
use crate::engine::tenants::{Class, MAX_YIELD_MS, Phase, Standing, TokenInfo};
use backoff::{due_after_ms, millis};
pub(crate) use reevaluation::{Reevaluation, Reevaluations};
pub(crate) use timer_wheel::TimerWheel;
pub(crate) use wall_clock::RecordedTimes;

/// As a rule a tenant that becomes due has been called within so long, and one that is called has its answer: in
/// milliseconds.
const SOON_MS: u64 = 5_000;
/// The turn of a tenant comes that soon where its app's queue is no longer than this.
const SHORT_QUEUE: usize = 64;
/// A tenant whose calls have failed so often in a row lets those go first whose calls do not, for hours at most.
const YIELDS_AFTER: u16 = 3;
/// Refresh points lie on a grid of this part of a token's life, and of at least a second: 7 s where tokens live two hours.
const GRID: u64 = 1000;

impl Engine {
    /// Works out what a tenant's state demands now: its timer fired, or something about it changed.
    pub(crate) fn reevaluate(&mut self, now: Now, slot: Slot) {
        let tenant = &self.tenants[slot];
        if tenant.removed {
            return;
        }
        let (class, _) = self.queue_position(now, slot);
        let enabled = self.apps[tenant.app].policy.enabled;
        match tenant.phase {
            Phase::Waiting if enabled && now.boot >= tenant.due_at => self.enqueue(now, slot),
            Phase::Ready(_) if !enabled => self.leave_queue(slot),
            Phase::Ready(old) if old != class => self.enqueue(now, slot),
            _ => {}
        }
        let tenant = &self.tenants[slot];
        if tenant.token.is_some() && !tenant.is_valid(now.boot) && !tenant.expiry_reported {
            self.token_expired(slot);
        }
        self.update_state(now, slot);
        self.set_timer(now, slot);
    }

    /// A tenant's next call is due at `at`, though not before it may be called again.
    pub(crate) fn schedule(&mut self, now: Now, slot: Slot, at: BootMs) {
        let earliest = self.earliest(slot);
        let tenant = &mut self.tenants[slot];
        tenant.phase = Phase::Waiting;
        tenant.due_at = at.max(earliest);
        self.reevaluate(now, slot);
    }

    /// When a tenant may be called again, however urgent it is.
    fn earliest(&self, slot: Slot) -> BootMs {
        let tenant = &self.tenants[slot];
        match tenant.called_at {
            BootMs(0) => BootMs(0),
            called_at => called_at + millis(self.apps[tenant.app].policy.retry.min),
        }
    }

    /// When the refresh of the token that a tenant has is due. On a grid, and rather early than late, so that neighbours share
    /// wake-ups and commits: a refresh in company costs a fraction of one alone.
    pub(crate) fn refresh_point(&self, slot: Slot, token: &TokenInfo) -> BootMs {
        let tenant = &self.tenants[slot];
        let life = token.lifetime_ms();
        let jitter = backoff::hash([self.seed, tenant.hash.into(), token.requested_at.0]);
        let after = due_after_ms(self.apps[tenant.app].policy.refresh, life, jitter);
        // In this order: a token from the state may have been requested before this machine booted.
        let exact = token.expires_boot - (life - after);
        let grid_s = (life / 1000 / GRID).max(1);
        BootMs(exact.seconds() / grid_s * grid_s * 1000)
    }

    /// Puts a tenant into its app's queue, in the class of this moment.
    fn enqueue(&mut self, now: Now, slot: Slot) {
        self.requeue(now, slot);
        self.update_eligibility(now, self.tenants[slot].app);
    }

    /// The same, without a look at whether its app may call.
    pub(crate) fn requeue(&mut self, now: Now, slot: Slot) {
        let (class, key) = self.queue_position(now, slot);
        let tenant = &mut self.tenants[slot];
        tenant.phase = Phase::Ready(class);
        tenant.stamp = tenant.stamp.wrapping_add(1);
        let app = &mut self.apps[tenant.app];
        app.queue.push(class, key, slot, tenant.stamp);
        if class == Class::Failing {
            app.breaker.note_failed(slot);
        }
    }

    /// The class of a tenant that is due, and its key there: the earlier, the sooner it is called.
    pub(crate) fn queue_position(&self, now: Now, slot: Slot) -> (Class, BootMs) {
        let tenant = &self.tenants[slot];
        let standing = self.standing(slot);
        let fails = standing == Standing::Good && self.tenants.failure(slot).is_some();
        let yields = fails && (tenant.failures >= YIELDS_AFTER || self.prefers_healthy(now, tenant.app));
        match yields && tenant.due_at + MAX_YIELD_MS > now.boot {
            true => (Class::Failing, tenant.called_at),
            false => tenant.queue_position(now.boot, standing),
        }
    }

    /// Takes a tenant out of its app's queue: its entry there is void from here on.
    pub(crate) fn leave_queue(&mut self, slot: Slot) {
        let tenant = &mut self.tenants[slot];
        tenant.phase = Phase::Waiting;
        tenant.stamp = tenant.stamp.wrapping_add(1);
    }

    /// A token expired, and nothing new came in time.
    fn token_expired(&mut self, slot: Slot) {
        self.tenants[slot].expiry_reported = true;
        if let Some(tenant) = self.id(slot) {
            self.notify(Notice::Expired { tenant });
        }
        let mask = self.publisher.mask(self.tenants[slot].sink_set, |sink| sink.on_expiry == OnExpiry::Delete);
        self.mark_dirty(slot, mask);
    }

    /// Sets the timer to the next moment at which time alone changes something for this tenant.
    fn set_timer(&mut self, now: Now, slot: Slot) {
        let tenant = &self.tenants[slot];
        let app = &self.apps[tenant.app];
        let due = (tenant.phase == Phase::Waiting && app.policy.enabled).then_some(tenant.due_at);
        let life = match (tenant.phase, tenant.token) {
            (Phase::Ready(Class::Early), Some(token)) if token.urgent_at() > now.boot => Some(token.urgent_at()),
            (Phase::Ready(Class::Early), Some(token)) if token.expires_boot > now.boot => Some(token.expires_boot),
            (Phase::Ready(Class::NoToken | Class::Early), _) => Some(tenant.due_at + MAX_YIELD_MS),
            (_, token) => token.map(|token| token.expires_boot),
        };
        // The wheel's entry of a timer that is moved stays behind, and costs a look at the tenant when its time comes. That of
        // a tenant which is passed on within seconds should come while it is still at hand, not when its token would expire.
        let soon = match tenant.phase {
            Phase::Ready(_) if app.queue.len() <= SHORT_QUEUE => Some(tenant.due_at + SOON_MS),
            Phase::Calling => Some(tenant.called_at + SOON_MS),
            _ => None,
        };
        let soon = soon.map(|at| BootMs(at.seconds() * 1000));
        let timer = &mut self.tenants[slot].timer;
        match [due, life, soon].into_iter().flatten().filter(|&at| at > now.boot).min() {
            Some(at) => self.timers.set(slot, timer, at),
            None => self.timers.clear(timer),
        }
    }
}
