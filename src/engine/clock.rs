//! What a step of the wall clock changes.

use super::Engine;
use super::tenant::Phase;
use crate::domain::{Now, Record, Slot};

impl Engine {
    /// The wall clock was set: what is told on it is told anew.
    ///
    /// A token that this process obtained has its life on the boot clock, which did not step. One that came from the state
    /// was told on the wall clock; if that clock was wrong when the state was read, it is right now. The earlier of both
    /// expiries is believed, since a call too many costs less than an expired token.
    pub(super) fn clock_stepped(&mut self, now: Now) {
        let slots: Vec<Slot> = self.tenants.slots_from(Slot(0)).collect();
        for slot in slots {
            let tenant = &mut self.tenants[slot];
            let Some(held) = tenant.held.as_mut().filter(|_| !tenant.gone) else { continue };
            let life = held.lifetime_ms();
            if held.restored {
                held.expires_boot = held.expires_boot.min(Record::on_boot_clock(held.expires, now));
            } else {
                held.expires = match held.expires_boot >= now.boot {
                    true => now.wall + held.expires_boot.since(now.boot),
                    false => now.wall - now.boot.since(held.expires_boot),
                };
                held.asked = held.expires - life;
            }
            let (held, waits_for_refresh) = (*held, tenant.phase == Phase::Waiting && tenant.failures == 0);
            if held.restored && waits_for_refresh {
                let due = self.refresh_point(slot, &held).min(self.tenants[slot].due);
                self.tenants[slot].due = due;
            }
            // What shows the expiry, and the kernel's own timeouts, are told on the wall clock.
            let shows = self.outlets.mask(self.tenants[slot].sinks, |outlet| outlet.shows_expiry);
            self.want(slot, shows);
            self.reconsider(now, slot);
        }
    }
}
