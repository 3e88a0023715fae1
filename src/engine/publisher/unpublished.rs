//! Tenants whose readers do not see the current token.
//!
//! A token is fresh for its readers once it is published. A tenant is *behind* while one of its sinks is not known to hold its
//! token. It counts as unpublished as soon as an attempt fails, and where nothing fails, when that lasts longer than a token may
//! take on its way. If the token that the sinks still show stops working meanwhile, its readers have an expired one, and so the
//! tenant counts as expired.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{BootMs, Now, Slot};
use crate::engine::Engine;
use crate::engine::tenants::Visible;

/// How long a token may be on its way to its sinks before the tenant counts as unpublished, in milliseconds: longer than a commit
/// is waited for. It is noticed within twice that.
const MOMENT_MS: u64 = 5_000;

/// The tenants whose readers do not see the current token.
#[derive(Debug, Default)]
pub(super) struct Unpublished {
    /// Tenants that fell behind since the last look, and those from before it, each with the number of the token that it
    /// had then.
    young: Vec<(Slot, u32)>,
    old: Vec<(Slot, u32)>,
    /// Of tenants that are behind: the number of the token with which that began. A later token does not end it: a tenant that
    /// is renewed every few seconds would be fresh for ever, while its readers have nothing.
    since: BTreeMap<Slot, u32>,
    /// When those were told apart; `None`: not since the first of them came.
    looked: Option<BootMs>,
    /// Of tenants that are behind: until when the token works that their sinks showed before.
    shown_until: BTreeMap<Slot, BootMs>,
    /// The same, of those that count as unpublished.
    lapses: BTreeSet<(BootMs, Slot)>,
}

impl Unpublished {
    /// Those that fell behind more than [`MOMENT_MS`] ago, once each.
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

    fn falls_behind(&mut self, slot: Slot, seq: u32) {
        if self.young.is_empty() && self.old.is_empty() {
            self.looked = None;
        }
        self.young.push((slot, seq));
        self.since.insert(slot, seq);
    }

    /// The next tenant that is behind, and whose sinks show a token that stopped working.
    fn next_lapse(&mut self, now: BootMs) -> Option<Slot> {
        let &(at, slot) = self.lapses.first().filter(|(at, _)| *at <= now)?;
        self.lapses.remove(&(at, slot));
        Some(slot)
    }

    fn is_unpublished(&mut self, slot: Slot) {
        if let Some(until) = self.shown_until.get(&slot) {
            self.lapses.insert((*until, slot));
        }
    }

    pub(super) fn forget(&mut self, slot: Slot) {
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
        if let Some(held) = tenant.token.filter(|_| tenant.sinks.visible == Visible::Current) {
            self.publisher.unpublished.shown_until.insert(slot, held.expires_boot);
        }
    }

    /// Brings what a tenant's readers see up to date.
    pub(crate) fn update_visible(&mut self, slot: Slot) {
        let tenant = &self.tenants[slot];
        let has_drifted = || self.publisher.drift.any_drifted(slot);
        let is_behind = tenant.token.is_some() && !tenant.removed && (tenant.sinks.any_behind() || has_drifted());
        let seq = tenant.token.map_or(0, |held| held.seq);
        let (states, unpublished) = (&mut self.tenants[slot].sinks, &mut self.publisher.unpublished);
        match states.visible {
            Visible::Current if is_behind && !states.any_failing() => {
                states.visible = Visible::OnItsWay;
                unpublished.falls_behind(slot, seq);
            }
            Visible::Current | Visible::OnItsWay if is_behind && states.any_failing() => {
                states.visible = Visible::Outdated;
                unpublished.is_unpublished(slot);
            }
            _ if !is_behind => {
                states.visible = Visible::Current;
                unpublished.forget(slot);
            }
            _ => {}
        }
    }

    /// A tenant left: nobody reads its token any more.
    pub(crate) fn forget_readers(&mut self, slot: Slot) {
        self.tenants[slot].sinks.visible = Visible::Current;
        self.publisher.unpublished.forget(slot);
    }

    /// Counts tenants as unpublished whose tokens take too long on their way, and as expired whose readers have nothing that
    /// works.
    pub(crate) fn count_unpublished(&mut self, now: Now) {
        for (slot, seq) in self.publisher.unpublished.overdue(now.boot) {
            let is_on_its_way = self.tenants.get(slot).is_some_and(|tenant| tenant.sinks.visible == Visible::OnItsWay);
            // Its readers may have seen the current token in between.
            if !is_on_its_way || self.publisher.unpublished.since.get(&slot) != Some(&seq) {
                continue;
            }
            self.tenants[slot].sinks.visible = Visible::Outdated;
            self.publisher.unpublished.is_unpublished(slot);
            self.update_state(now, slot);
        }
        while let Some(slot) = self.publisher.unpublished.next_lapse(now.boot) {
            self.tenants[slot].sinks.visible = Visible::Expired;
            self.update_state(now, slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_for_a_moment_only_is_not_told() {
        let mut unpublished = Unpublished::default();
        assert!(unpublished.overdue(BootMs(0)).is_empty());
        // Nobody came by for a long time before.
        unpublished.falls_behind(Slot(1), 7);
        assert!(unpublished.overdue(BootMs(100_000)).is_empty());
        assert!(unpublished.overdue(BootMs(104_999)).is_empty());
        assert!(unpublished.overdue(BootMs(105_000)).is_empty(), "it may just have begun");
        unpublished.falls_behind(Slot(2), 7);
        assert_eq!(unpublished.overdue(BootMs(110_000)), [(Slot(1), 7)]);
        assert_eq!(unpublished.overdue(BootMs(120_000)), [(Slot(2), 7)], "nobody came by for twice that long");
        assert!(unpublished.overdue(BootMs(130_000)).is_empty());
    }
}
