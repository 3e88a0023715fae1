//! When a tenant is looked at next, and its place in its app's queue.

pub(crate) mod backoff;
mod reevaluation;
mod timer_wheel;
mod wall_clock;

pub(crate) use reevaluation::{Revisit, Revisits};
pub(crate) use timer_wheel::Wheel;
pub(crate) use wall_clock::Retelling;

use crate::domain::{BootMs, Now, OnExpiry, Slot};
use crate::engine::Engine;
use crate::engine::messages::Notice;
use crate::engine::tenants::{Class, Held, PATIENCE_MS, Phase, Standing};
use backoff::{due_after_ms, millis};

/// A tenant that becomes due has been called by then, and one that is called has its answer: as a rule, in milliseconds.
const SOON_MS: u64 = 5_000;
/// The turn of a tenant comes that soon where its app's queue is no longer than this.
const SHORT_QUEUE: usize = 64;
/// A tenant whose calls have failed so often in a row lets those go first whose calls do not, for hours at most.
const YIELDS_AFTER: u16 = 3;
/// Refresh points lie on a grid of this part of a token's life, and of at least a second: 7 s where tokens live two hours.
const GRID: u64 = 1000;

impl Engine {
    /// Looks at a tenant again: its timer fired, or something about it changed.
    pub(crate) fn reconsider(&mut self, now: Now, slot: Slot) {
        let tenant = &self.tenants[slot];
        if tenant.gone {
            return;
        }
        let (class, _) = self.place(now, slot);
        let enabled = self.app(tenant.app).policy.enabled;
        match tenant.phase {
            Phase::Waiting if enabled && now.boot >= tenant.due => self.enqueue(now, slot),
            Phase::Ready(_) if !enabled => self.leave_queue(slot),
            Phase::Ready(old) if old != class => self.enqueue(now, slot),
            _ => {}
        }
        let tenant = &self.tenants[slot];
        if tenant.held.is_some() && !tenant.is_valid(now.boot) && !tenant.expiry_said {
            self.expire(slot);
        }
        self.settle(now, slot);
        self.set_timer(now, slot);
    }

    /// A tenant's next call is wanted at `at`, though not before it may be called again.
    pub(crate) fn schedule(&mut self, now: Now, slot: Slot, at: BootMs) {
        let earliest = self.earliest(slot);
        let tenant = &mut self.tenants[slot];
        tenant.phase = Phase::Waiting;
        tenant.due = at.max(earliest);
        self.reconsider(now, slot);
    }

    /// When a tenant may be called again, however urgent it is.
    pub(crate) fn earliest(&self, slot: Slot) -> BootMs {
        let tenant = &self.tenants[slot];
        match tenant.called {
            BootMs(0) => BootMs(0),
            called => called + millis(self.app(tenant.app).policy.retry.min),
        }
    }

    /// When the refresh of the token that a tenant holds is due. On a grid, and rather early than late, so that neighbours share
    /// wake-ups and commits: a refresh in company costs a fraction of one alone.
    pub(crate) fn refresh_point(&self, slot: Slot, held: &Held) -> BootMs {
        let tenant = &self.tenants[slot];
        let life = held.lifetime_ms();
        let jitter = backoff::hash([self.seed, tenant.hash.into(), held.requested_at.0]);
        let after = due_after_ms(self.app(tenant.app).policy.refresh, life, jitter);
        // In this order: a token from the state may have been asked for before this machine booted.
        let exact = held.expires_boot - (life - after);
        let grid_s = (life / 1000 / GRID).max(1);
        BootMs(exact.seconds() / grid_s * grid_s * 1000)
    }

    /// Puts a tenant into its app's queue, in the class of this moment.
    fn enqueue(&mut self, now: Now, slot: Slot) {
        self.requeue(now, slot);
        self.regate(now, self.tenants[slot].app);
    }

    /// The same, where the app's place in the competition is worked out elsewhere.
    pub(crate) fn requeue(&mut self, now: Now, slot: Slot) {
        let (class, key) = self.place(now, slot);
        let tenant = &mut self.tenants[slot];
        tenant.phase = Phase::Ready(class);
        tenant.stamp = tenant.stamp.wrapping_add(1);
        let (ix, stamp) = (tenant.app, tenant.stamp);
        let app = self.app_mut(ix);
        app.queue.push(class, key, slot, stamp);
        if class == Class::Tried {
            app.endpoint.note_tried(slot);
        }
    }

    /// The class of a tenant that is due, and its key there: the earlier, the sooner it is called.
    pub(crate) fn place(&self, now: Now, slot: Slot) -> (Class, BootMs) {
        let tenant = &self.tenants[slot];
        let standing = self.standing(slot);
        let fails = standing == Standing::Good && self.troubles.contains_key(&slot);
        let yields = fails && (tenant.failures >= YIELDS_AFTER || self.prefers_untroubled(now, tenant.app));
        match yields && tenant.due + PATIENCE_MS > now.boot {
            true => (Class::Tried, tenant.called),
            false => tenant.place(now.boot, standing),
        }
    }

    /// Takes a tenant out of its app's queue.
    pub(crate) fn leave_queue(&mut self, slot: Slot) {
        let tenant = &mut self.tenants[slot];
        tenant.phase = Phase::Waiting;
        tenant.stamp = tenant.stamp.wrapping_add(1);
    }

    /// A token's life is over, and nothing new came in time.
    fn expire(&mut self, slot: Slot) {
        self.tenants[slot].expiry_said = true;
        if let Some(tenant) = self.id(slot) {
            self.say(Notice::Expired { tenant });
        }
        let mask = self.publisher.mask(self.tenants[slot].sink_set, |sink| sink.on_expiry == OnExpiry::Delete);
        self.mark_dirty(slot, mask);
    }

    /// Sets the timer to the next moment at which time alone changes something for this tenant.
    fn set_timer(&mut self, now: Now, slot: Slot) {
        let tenant = &self.tenants[slot];
        let app = self.app(tenant.app);
        let due = (tenant.phase == Phase::Waiting && app.policy.enabled).then_some(tenant.due);
        let life = match (tenant.phase, tenant.held) {
            (Phase::Ready(Class::Early), Some(held)) if held.urgent_at() > now.boot => Some(held.urgent_at()),
            (Phase::Ready(Class::Early), Some(held)) if held.expires_boot > now.boot => Some(held.expires_boot),
            (Phase::Ready(Class::Without | Class::Early), _) => Some(tenant.due + PATIENCE_MS),
            (_, held) => held.map(|held| held.expires_boot),
        };
        // The wheel's entry of a timer that is moved stays behind, and costs a look at the tenant when its time comes. That of
        // a tenant which is passed on within seconds should come while it is still at hand, not when its token would expire.
        let soon = match tenant.phase {
            Phase::Ready(_) if app.queue.len() <= SHORT_QUEUE => Some(tenant.due + SOON_MS),
            Phase::Calling => Some(tenant.called + SOON_MS),
            _ => None,
        };
        let soon = soon.map(|at| BootMs(at.seconds() * 1000));
        match [due, life, soon].into_iter().flatten().filter(|&at| at > now.boot).min() {
            Some(at) => self.wheel.set(&mut self.tenants, slot, at),
            None => self.wheel.clear(&mut self.tenants, slot),
        }
    }
}
