//! What a step of the wall clock changes: the times of tokens, and of what is saved, are told on the new clock.

use crate::domain::{BootMs, Now, Record, Slot};
use crate::engine::Engine;
use crate::engine::messages::Action;
use crate::engine::tenants::{Phase, TokenInfo};

/// A time in the database that is off by less is not worth a write, in milliseconds.
const WORTH_MS: u64 = 1000;
/// How many tenants' times are updated in the database in one go.
const BATCH: usize = 1000;
/// How long others have their turn between two of them, in milliseconds.
const PAUSE_MS: u64 = 20;

/// On which wall clock the times in the database are, and how far an update of them has come.
#[derive(Debug)]
pub(crate) struct RecordedTimes {
    /// How far the wall clock was ahead of the boot clock when they were told, in milliseconds.
    lead: u64,
    /// With which tenant the update goes on, and when; `None`: it is done.
    next: Option<(Slot, BootMs)>,
}

impl RecordedTimes {
    pub(crate) fn new(now: Now) -> Self {
        Self { lead: lead(now), next: None }
    }

    /// Begins an update if the clock went so far that it is worth one. Returns whether it is.
    fn begin_update(&mut self, now: Now) -> bool {
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

impl TokenInfo {
    /// Tells its life on today's wall clock. Returns whether the difference is worth a write.
    pub(crate) fn rebase(&mut self, now: Now) -> bool {
        if self.expires_boot == BootMs(0) {
            return false; // it expired before this machine booted: that is all that is known on the boot clock
        }
        let (before, life) = (self.expires_at, self.lifetime_ms());
        self.expires_at = match self.expires_boot >= now.boot {
            true => now.wall + self.expires_boot.since(now.boot),
            false => now.wall - now.boot.since(self.expires_boot),
        };
        self.requested_at = self.expires_at - life;
        self.expires_at.0.abs_diff(before.0) >= WORTH_MS
    }
}

impl Engine {
    /// The wall clock was set.
    ///
    /// A token that this process obtained has its life on the boot clock, which did not step. One from the state has it on
    /// the wall clock; if that was wrong when the state was read, it is right now. The earlier of both expiries is believed,
    /// since a call too many costs less than an expired token.
    pub(crate) fn clock_stepped(&mut self, now: Now) {
        let slots: Vec<Slot> = self.tenants.slots_from(Slot(0)).collect();
        for slot in slots {
            let fails = self.tenants.failure(slot).is_some();
            let tenant = &mut self.tenants[slot];
            let Some(token) = tenant.token.as_mut().filter(|_| !tenant.removed) else { continue };
            // Where asking before the expiry is known to bring nothing, it still does not.
            let waits_for_expiry = tenant.due_at >= token.expires_boot;
            if token.restored {
                token.expires_boot = token.expires_boot.min(Record::on_boot_clock(token.expires_at, now));
            }
            token.rebase(now);
            let (token, waits_for_refresh) = (*token, tenant.phase == Phase::Waiting && !fails);
            if token.restored && waits_for_refresh {
                let due_at = if waits_for_expiry { token.expires_boot } else { self.refresh_point(slot, &token) };
                self.tenants[slot].due_at = due_at.min(self.tenants[slot].due_at);
            }
            // What shows the expiry, and the kernel's own timeouts, are on the wall clock.
            let mask = self.publisher.mask(self.tenants[slot].sink_set, |sink| sink.shows_expiry);
            self.mark_dirty(slot, mask);
            self.reevaluate(now, slot);
        }
        if self.recorded_times.begin_update(now) {
            self.save_groups(now);
        }
    }

    /// Updates the times of the next tenants in the database, if the clock was set. Not of all at once: a million take a
    /// while, and another step may come before the last is written.
    pub(crate) fn continue_update_of_times(&mut self, now: Now) {
        let Some((from, _)) = self.recorded_times.next.filter(|(_, at)| *at <= now.boot) else { return };
        let slots: Vec<Slot> = self.tenants.slots_from(from).take(BATCH).collect();
        let last = slots.last().filter(|_| slots.len() == BATCH);
        self.recorded_times.next = last.map(|last| (Slot(last.0 + 1), now.boot + PAUSE_MS));
        let mut records = Vec::new();
        for slot in slots {
            if self.tenants[slot].removed {
                continue;
            }
            if let (Some(token), Some(id)) = (self.tenants[slot].token, self.id(slot)) {
                records.push((id, token.record()));
            }
            if self.tenants[slot].is_saved {
                self.save_failure(now, slot);
            }
        }
        if !records.is_empty() {
            self.outbox.push_back(Action::UpdateRecords(records));
        }
    }

    /// The life of a tenant's token turned out to differ from its record in the database.
    pub(crate) fn update_record(&mut self, slot: Slot) {
        if let (Some(token), Some(id)) = (self.tenants[slot].token, self.id(slot)) {
            self.outbox.push_back(Action::UpdateRecords(vec![(id, token.record())]));
        }
    }
}
