//! What a step of the wall clock changes.

use crate::domain::{BootMs, Now, Record, Slot};
use crate::engine::Engine;
use crate::engine::messages::Action;
use crate::engine::tenants::{Held, Phase};

/// A time in the database that is off by less is not worth a write, in milliseconds.
const WORTH_MS: u64 = 1000;
/// How many tenants' times are told anew in one go.
const BATCH: usize = 1000;
/// How long others have their turn between two of them, in milliseconds.
const PAUSE_MS: u64 = 20;

/// How far the database has been told of the clock's last step.
#[derive(Debug)]
pub(crate) struct Retelling {
    /// How far the wall clock was ahead of the boot clock when its times were told, in milliseconds.
    lead: u64,
    /// With which tenant it goes on, and when; `None`: all have been told.
    next: Option<(Slot, BootMs)>,
}

impl Retelling {
    pub(crate) fn new(now: Now) -> Self {
        Self { lead: lead(now), next: None }
    }

    /// Begins again if the clock went so far that it is worth it. Returns whether it is.
    fn begin(&mut self, now: Now) -> bool {
        let is_worth_it = lead(now).abs_diff(self.lead) >= WORTH_MS;
        if is_worth_it {
            *self = Self { lead: lead(now), next: Some((Slot(0), now.boot)) };
        }
        is_worth_it
    }

    pub(crate) fn next_at(&self) -> Option<BootMs> {
        self.next.map(|(_, at)| at)
    }
}

/// Wraps around where the wall clock is that early, which makes a step of it look larger than it is.
fn lead(now: Now) -> u64 {
    now.wall.0.wrapping_sub(now.boot.0)
}

impl Held {
    /// Tells its life on the wall clock of today. Returns whether the difference is worth telling.
    pub(crate) fn tell_anew(&mut self, now: Now) -> bool {
        if self.expires_boot == BootMs(0) {
            return false; // from before this machine booted: that is all that is known on the boot clock
        }
        let (before, life) = (self.expires_at, self.lifetime_ms());
        self.expires_at = match self.expires_boot >= now.boot {
            true => now.wall + self.expires_boot.since(now.boot),
            false => now.wall - now.boot.since(self.expires_boot),
        };
        self.requested_at = self.expires_at - life;
        self.expires_at.0.abs_diff(before.0) >= WORTH_MS
    }

    fn record(&self) -> Record {
        Record { requested_at: self.requested_at, expires_at: self.expires_at, fingerprint: self.fingerprint }
    }
}

impl Engine {
    /// The wall clock was set: what is told on it is told anew.
    ///
    /// A token that this process obtained has its life on the boot clock, which did not step. One that came from the state
    /// was told on the wall clock; if that clock was wrong when the state was read, it is right now. The earlier of both
    /// expiries is believed, since a call too many costs less than an expired token.
    pub(crate) fn clock_stepped(&mut self, now: Now) {
        let slots: Vec<Slot> = self.tenants.slots_from(Slot(0)).collect();
        for slot in slots {
            let in_trouble = self.troubles.contains_key(&slot);
            let tenant = &mut self.tenants[slot];
            let Some(held) = tenant.held.as_mut().filter(|_| !tenant.gone) else { continue };
            // Where asking before the expiry is known to bring nothing, it still does not.
            let pointless = tenant.due >= held.expires_boot;
            if held.restored {
                held.expires_boot = held.expires_boot.min(Record::on_boot_clock(held.expires_at, now));
            }
            held.tell_anew(now);
            let (held, waits_for_refresh) = (*held, tenant.phase == Phase::Waiting && !in_trouble);
            if held.restored && waits_for_refresh {
                let due = if pointless { held.expires_boot } else { self.refresh_point(slot, &held) };
                self.tenants[slot].due = due.min(self.tenants[slot].due);
            }
            // What shows the expiry, and the kernel's own timeouts, are told on the wall clock.
            let shows = self.publisher.mask(self.tenants[slot].sink_set, |sink| sink.shows_expiry);
            self.mark_dirty(slot, shows);
            self.reconsider(now, slot);
        }
        if self.retelling.begin(now) {
            self.remember_anew(now);
        }
    }

    /// Tells the database the times of the next tenants anew, if the clock was set. Not of all at once: a million take a
    /// while, and another step may come before the last is told.
    pub(crate) fn retell(&mut self, now: Now) {
        let Some((from, _)) = self.retelling.next.filter(|(_, at)| *at <= now.boot) else { return };
        let slots: Vec<Slot> = self.tenants.slots_from(from).take(BATCH).collect();
        let last = slots.last().filter(|_| slots.len() == BATCH);
        self.retelling.next = last.map(|last| (Slot(last.0 + 1), now.boot + PAUSE_MS));
        let mut amended = Vec::new();
        for slot in slots {
            if self.tenants[slot].gone {
                continue;
            }
            if let (Some(held), Some(id)) = (self.tenants[slot].held, self.id(slot)) {
                amended.push((id, held.record()));
            }
            if self.tenants[slot].remembered {
                self.remember_failure(now, slot);
            }
        }
        if !amended.is_empty() {
            self.outbox.push_back(Action::UpdateRecords(amended));
        }
    }

    /// A token's life turned out to be another than the database has it.
    pub(crate) fn amend(&mut self, slot: Slot) {
        if let (Some(held), Some(id)) = (self.tenants[slot].held, self.id(slot)) {
            self.outbox.push_back(Action::UpdateRecords(vec![(id, held.record())]));
        }
    }
}
