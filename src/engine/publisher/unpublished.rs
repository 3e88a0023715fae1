//! Whose token readers do not see.
//!
//! A token is fresh for its readers once it is published. A tenant is *dirty* while one of its sinks is not known to hold
//! its token; it counts as unpublished as soon as an attempt fails, and where nothing fails, when that lasts longer than a
//! token may take on its way. If the token that the sinks still show stops working meanwhile, its readers have an expired
//! one, and so it counts.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{BootMs, Now, Slot};
use crate::engine::Engine;

/// How long a token may be on its way to its sinks before that is worth telling, in milliseconds: longer than a commit is
/// waited for. It is noticed within twice that.
const MOMENT_MS: u64 = 5_000;

/// What readers of a tenant's sinks see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Seen {
    /// The token that it has, or there is none.
    #[default]
    Current,
    /// Not yet the token that it has.
    OnItsWay,
    /// Another token or none: publication fails, or takes too long.
    Outdated,
    /// The same, and the token that they see does not work any more.
    Expired,
}

/// The tenants whose readers do not see the current token.
#[derive(Debug, Default)]
pub(crate) struct Unseen {
    /// Tenants that became dirty since the last look, and those from before it, each with the number of the token that it
    /// had then.
    young: Vec<(Slot, u32)>,
    old: Vec<(Slot, u32)>,
    /// Of dirty tenants: the number of the token with which that began. A later token does not end it: whoever is renewed
    /// every few seconds would be fresh for ever, while his readers have nothing.
    since: BTreeMap<Slot, u32>,
    /// When those were told apart; `None`: not since the first of them came.
    looked: Option<BootMs>,
    /// Of dirty tenants: until when the token works that their sinks showed before.
    shown_until: BTreeMap<Slot, BootMs>,
    /// The same, of those that count as unpublished.
    lapses: BTreeSet<(BootMs, Slot)>,
}

impl Unseen {
    /// Those that became dirty more than [`MOMENT_MS`] ago, once each.
    fn overdue(&mut self, now: BootMs) -> Vec<(Slot, u32)> {
        let since = now.since(*self.looked.get_or_insert(now));
        if since < MOMENT_MS {
            return Vec::new();
        }
        self.looked = Some(now);
        let mut overdue = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        if since >= 2 * MOMENT_MS {
            overdue.append(&mut self.old);
        }
        overdue
    }

    fn watch(&mut self, slot: Slot, seq: u32) {
        if self.young.is_empty() && self.old.is_empty() {
            self.looked = None;
        }
        self.young.push((slot, seq));
        self.since.insert(slot, seq);
    }

    /// The token that the sinks of a dirty tenant showed first stops working.
    fn next_lapse(&mut self, now: BootMs) -> Option<Slot> {
        let &(at, slot) = self.lapses.first().filter(|(at, _)| *at <= now)?;
        self.lapses.remove(&(at, slot));
        Some(slot)
    }

    fn outdated(&mut self, slot: Slot) {
        if let Some(until) = self.shown_until.get(&slot) {
            self.lapses.insert((*until, slot));
        }
    }

    pub(crate) fn forget(&mut self, slot: Slot) {
        self.since.remove(&slot);
        if let Some(until) = self.shown_until.remove(&slot) {
            self.lapses.remove(&(until, slot));
        }
    }
}

impl Engine {
    /// A tenant is about to get another token than its sinks show. Of several that were never published, the first counts.
    pub(crate) fn note_shown(&mut self, slot: Slot) {
        let tenant = &self.tenants[slot];
        if let Some(held) = tenant.held.filter(|_| tenant.seen == Seen::Current) {
            self.unseen.shown_until.insert(slot, held.expires_boot);
        }
    }

    /// Brings what is known of a tenant's readers up to date.
    pub(crate) fn look_at_sinks(&mut self, slot: Slot) {
        let (dirty, tenant) = (self.is_dirty(slot), &mut self.tenants[slot]);
        match tenant.seen {
            Seen::Current if dirty && tenant.failing == 0 => {
                tenant.seen = Seen::OnItsWay;
                let seq = tenant.held.map_or(0, |held| held.seq);
                self.unseen.watch(slot, seq);
            }
            Seen::Current | Seen::OnItsWay if dirty && tenant.failing != 0 => {
                tenant.seen = Seen::Outdated;
                self.unseen.outdated(slot);
            }
            _ if !dirty => {
                tenant.seen = Seen::Current;
                self.unseen.forget(slot);
            }
            _ => {}
        }
    }

    fn is_dirty(&self, slot: Slot) -> bool {
        let tenant = &self.tenants[slot];
        let under_way = tenant.wanted | tenant.failing | (tenant.flying & !tenant.orphaned);
        tenant.held.is_some() && !tenant.gone && (under_way != 0 || self.repairs.owes(slot))
    }

    /// Counts those as unpublished whose tokens take too long on their way, and those as expired whose readers have nothing
    /// that works.
    pub(crate) fn count_unseen(&mut self, now: Now) {
        for (slot, seq) in self.unseen.overdue(now.boot) {
            let is_on_its_way = self.tenants.get(slot).is_some_and(|tenant| tenant.seen == Seen::OnItsWay);
            // It may have been clean in between.
            if !is_on_its_way || self.unseen.since.get(&slot) != Some(&seq) {
                continue;
            }
            self.tenants[slot].seen = Seen::Outdated;
            self.unseen.outdated(slot);
            self.settle(now, slot);
        }
        while let Some(slot) = self.unseen.next_lapse(now.boot) {
            self.tenants[slot].seen = Seen::Expired;
            self.settle(now, slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_for_a_moment_only_is_not_told() {
        let mut unseen = Unseen::default();
        assert!(unseen.overdue(BootMs(0)).is_empty());
        // Nobody came by for a long time before.
        unseen.watch(Slot(1), 7);
        assert!(unseen.overdue(BootMs(100_000)).is_empty());
        assert!(unseen.overdue(BootMs(104_999)).is_empty());
        assert!(unseen.overdue(BootMs(105_000)).is_empty(), "it may just have begun");
        unseen.watch(Slot(2), 7);
        assert_eq!(unseen.overdue(BootMs(110_000)), [(Slot(1), 7)]);
        assert_eq!(unseen.overdue(BootMs(120_000)), [(Slot(2), 7)], "nobody came by for twice that long");
        assert!(unseen.overdue(BootMs(130_000)).is_empty());
    }
}
