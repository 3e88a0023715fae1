//! Drift: places that somebody else changed. They are set right at once, and ever more slowly where that goes on.
//!
//! A place that is changed again and again is contested. The first few repairs come at once, each of the next later than the
//! one before, up to a minute; so a contest costs next to nothing, and the place is right a minute after its end at the latest.
//! A place that was left alone for a minute starts anew. Only places that drifted lately are known here.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{BootMs, Now, RootId, SinkId, Slot, Ticket, Wrote};
use crate::engine::Engine;
use crate::engine::messages::Notice;

/// So many repairs of a place in a row come at once.
const AT_ONCE: u16 = 5;
/// How long the next one waits for the one before it, in milliseconds. Each further one waits twice as long.
const FIRST_WAIT_MS: u64 = 1_000;
/// The longest wait for a repair, in milliseconds.
const LONGEST_WAIT_MS: u64 = 60_000;
/// A place that was left alone for so long after it was set right starts anew, in milliseconds.
const QUIET_MS: u64 = 60_000;
/// How many repairs below a root are reported one by one...
const REPORTED_SINGLY: u32 = 10;
/// ...within so many milliseconds; of the others the number is reported at their end.
const SPELL_MS: u64 = 60_000;

/// A place that drifted lately.
#[derive(Debug, Clone, Copy)]
struct DriftedPlace {
    root: RootId,
    /// How often it was set right, each time soon after the time before. Drift that was none does not count.
    streak: u16,
    /// It drifted again after the first few repairs.
    is_contested: bool,
    /// It drifted, and is not known to be right since.
    is_wrong: bool,
    /// When it was last right.
    right_at: BootMs,
    /// What the alarm is set to, if it is.
    alarm: Option<BootMs>,
}

/// A sink root below which places drifted lately.
#[derive(Debug, Default)]
struct DriftedRoot {
    /// When the spell of repairs ends in which the next two are counted.
    until: Option<BootMs>,
    reported: u32,
    unreported: u32,
    /// How many of its places are contested.
    contested: u32,
}

/// What an alarm is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Place(Slot, SinkId),
    Root(RootId),
}

/// When a place is set right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repair {
    Now,
    Later,
}

/// The places that drifted lately.
#[derive(Debug, Default)]
pub(super) struct Drift {
    places: BTreeMap<(Slot, SinkId), DriftedPlace>,
    roots: BTreeMap<RootId, DriftedRoot>,
    alarms: BTreeSet<(BootMs, Alarm)>,
}

impl DriftedPlace {
    /// When it may be set right again.
    fn not_before(&self) -> BootMs {
        match self.streak.checked_sub(AT_ONCE) {
            None => self.right_at,
            Some(more) => self.right_at + (FIRST_WAIT_MS << more.min(10)).min(LONGEST_WAIT_MS),
        }
    }
}

impl Drift {
    pub(super) fn next_at(&self) -> Option<BootMs> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// Whether a place is known to be wrong, and left so for now.
    pub(super) fn has_drifted(&self, slot: Slot, sink: SinkId) -> bool {
        self.places.get(&(slot, sink)).is_some_and(|place| place.is_wrong)
    }

    /// Whether any of a tenant's places is known to be wrong.
    pub(super) fn any_drifted(&self, slot: Slot) -> bool {
        !self.places.is_empty() && self.places.range(all_of(slot)).any(|(_, place)| place.is_wrong)
    }

    /// A place drifted. Returns when it is set right, and whether that is the first contest below the root.
    fn drifted(&mut self, now: BootMs, slot: Slot, sink: SinkId, root: RootId) -> (Repair, bool) {
        let new = DriftedPlace { root, streak: 0, is_contested: false, is_wrong: false, right_at: now, alarm: None };
        let place = self.places.entry((slot, sink)).or_insert(new);
        if place.is_wrong {
            // What is in flight may have come before this.
            return (if place.alarm.is_some() { Repair::Later } else { Repair::Now }, false);
        }
        place.is_wrong = true;
        let (at, goes_on) = (place.not_before(), place.streak >= AT_ONCE);
        let begins = goes_on && !std::mem::replace(&mut place.is_contested, goes_on);
        let waits = at > now;
        self.set_alarm(slot, sink, waits.then_some(at));
        let root = self.roots.entry(root).or_default();
        root.contested += u32::from(begins);
        (if waits { Repair::Later } else { Repair::Now }, begins && root.contested == 1)
    }

    /// A place is right. Returns whether it had drifted, and was changed back.
    pub(super) fn is_right(&mut self, now: BootMs, slot: Slot, sink: SinkId, wrote: Wrote) -> bool {
        let Some(place) = self.places.get_mut(&(slot, sink)).filter(|place| place.is_wrong) else { return false };
        place.is_wrong = false;
        place.right_at = now;
        let was_repaired = wrote != Wrote::Unchanged;
        place.streak = place.streak.saturating_add(was_repaired.into());
        self.set_alarm(slot, sink, Some(now + QUIET_MS));
        was_repaired
    }

    /// A place was set right. Returns whether that is reported on its own.
    fn count_repair(&mut self, now: BootMs, id: RootId) -> bool {
        let root = self.roots.entry(id).or_default();
        if root.until.is_none() {
            let until = now + SPELL_MS;
            root.until = Some(until);
            self.alarms.insert((until, Alarm::Root(id)));
        }
        let is_single = root.reported < REPORTED_SINGLY;
        *if is_single { &mut root.reported } else { &mut root.unreported } += 1;
        is_single
    }

    /// A place is nobody's any more, or was left alone for a while. Returns its root if that ends the last contest there.
    fn forget(&mut self, slot: Slot, sink: SinkId) -> Option<RootId> {
        self.set_alarm(slot, sink, None);
        let place = self.places.remove(&(slot, sink))?;
        let root = self.roots.get_mut(&place.root)?;
        root.contested -= u32::from(place.is_contested);
        let is_over = place.is_contested && root.contested == 0;
        self.drop_root_if_quiet(place.root);
        is_over.then_some(place.root)
    }

    fn drop_root_if_quiet(&mut self, id: RootId) {
        if self.roots.get(&id).is_some_and(|root| root.contested == 0 && root.until.is_none()) {
            self.roots.remove(&id);
        }
    }

    fn set_alarm(&mut self, slot: Slot, sink: SinkId, at: Option<BootMs>) {
        let Some(place) = self.places.get_mut(&(slot, sink)) else { return };
        if let Some(before) = std::mem::replace(&mut place.alarm, at) {
            self.alarms.remove(&(before, Alarm::Place(slot, sink)));
        }
        if let Some(at) = at {
            self.alarms.insert((at, Alarm::Place(slot, sink)));
        }
    }
}

fn all_of(slot: Slot) -> std::ops::RangeInclusive<(Slot, SinkId)> {
    (slot, SinkId(0))..=(slot, SinkId(u8::MAX))
}

impl Engine {
    /// Sink roots below which somebody else keeps changing what was published, and how many places it is about.
    pub fn contested(&self) -> impl Iterator<Item = (RootId, u32)> + '_ {
        let contested = |(id, root): (&RootId, &DriftedRoot)| (root.contested > 0).then_some((*id, root.contested));
        self.publisher.drift.roots.iter().filter_map(contested)
    }

    /// Somebody else changed what was published under this ticket. The token may have been renewed since, so the ticket need
    /// not be that of the token that is held; looking once too often at a place does no harm.
    pub(crate) fn drifted(&mut self, now: Now, ticket: Ticket, sink: SinkId) {
        let slot = ticket.slot;
        let Some(tenant) = self.tenants.get(slot).filter(|tenant| !tenant.removed && tenant.token.is_some()) else {
            return;
        };
        let Some(root) = self.publisher.policy(tenant.sink_set, sink).map(|policy| policy.root) else { return };
        let (repair, is_news) = self.publisher.drift.drifted(now.boot, slot, sink, root);
        if repair == Repair::Now {
            self.mark_dirty(slot, 1 << sink.0);
        }
        self.update_visible(slot);
        if let Some(tenant) = self.id(slot).filter(|_| is_news) {
            self.notify(Notice::SinkContested { root, tenant, sink });
        }
    }

    /// A place equals the record. If it had drifted, and something was changed about it, it was repaired.
    pub(super) fn note_repair(&mut self, now: Now, slot: Slot, sink: SinkId, root: RootId, wrote: Wrote) {
        if !self.publisher.drift.is_right(now.boot, slot, sink, wrote) {
            return;
        }
        let app = self.tenants[slot].app;
        self.apps[app].repairs += 1;
        if self.publisher.drift.count_repair(now.boot, root)
            && let Some(tenant) = self.id(slot)
        {
            self.notify(Notice::SinkRepaired { root, tenant, sink });
        }
    }

    /// The places of a tenant are not its concern any more.
    pub(super) fn forget_drift(&mut self, slot: Slot) {
        let sinks: Vec<SinkId> = self.publisher.drift.places.range(all_of(slot)).map(|((_, sink), _)| *sink).collect();
        sinks.into_iter().for_each(|sink| self.forget_place(slot, sink));
    }

    fn forget_place(&mut self, slot: Slot, sink: SinkId) {
        if let Some(root) = self.publisher.drift.forget(slot, sink) {
            self.notify(Notice::SinkUncontested { root });
        }
    }

    /// Sets right what has waited for long enough, and forgets what was left alone.
    pub(super) fn repair_drift(&mut self, now: Now) {
        while let Some(&(at, alarm)) = self.publisher.drift.alarms.first().filter(|(at, _)| *at <= now.boot) {
            self.publisher.drift.alarms.remove(&(at, alarm));
            match alarm {
                Alarm::Place(slot, sink) => self.wake_place(slot, sink),
                Alarm::Root(root) => self.end_spell(root),
            }
        }
    }

    fn wake_place(&mut self, slot: Slot, sink: SinkId) {
        let Some(place) = self.publisher.drift.places.get_mut(&(slot, sink)) else { return };
        place.alarm = None;
        if place.is_wrong {
            self.mark_dirty(slot, 1 << sink.0);
        } else {
            self.forget_place(slot, sink);
        }
    }

    fn end_spell(&mut self, id: RootId) {
        let drift = &mut self.publisher.drift;
        let Some(root) = drift.roots.get_mut(&id) else { return };
        let repairs = std::mem::take(&mut root.unreported);
        (root.until, root.reported) = (None, 0);
        drift.drop_root_if_quiet(id);
        if repairs > 0 {
            self.notify(Notice::SinksRepaired { root: id, repairs });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Slot = Slot(1);
    const SINK: SinkId = SinkId(0);
    const ROOT: RootId = RootId(2);

    #[test]
    fn a_place_that_is_changed_on_and_on_is_set_right_ever_more_slowly_and_starts_anew_after_a_quiet_minute() {
        let (mut drift, mut now) = (Drift::default(), BootMs(1_000_000));
        for _ in 0..AT_ONCE {
            assert_eq!(drift.drifted(now, SLOT, SINK, ROOT), (Repair::Now, false));
            assert!(drift.is_right(now, SLOT, SINK, Wrote::Replaced));
        }
        let mut waits = Vec::new();
        for round in 0..8 {
            assert_eq!(drift.drifted(now, SLOT, SINK, ROOT), (Repair::Later, round == 0), "told once");
            assert!(drift.has_drifted(SLOT, SINK) && drift.any_drifted(SLOT) && !drift.any_drifted(Slot(2)));
            let at = drift.next_at().unwrap();
            waits.push(at.since(now) / 1_000);
            now = at;
            assert!(drift.is_right(now, SLOT, SINK, Wrote::Repaired));
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(drift.next_at(), Some(now + QUIET_MS));
        assert_eq!(drift.forget(SLOT, SINK), Some(ROOT), "the contest is over");
        assert_eq!(drift.drifted(now, SLOT, SINK, ROOT), (Repair::Now, false));
    }

    #[test]
    fn many_repairs_are_counted_after_the_first_few() {
        let mut drift = Drift::default();
        let single = (0..100).filter(|_| drift.count_repair(BootMs(5_000), ROOT)).count();
        assert_eq!(single as u32, REPORTED_SINGLY);
        assert_eq!(drift.roots[&ROOT].unreported, 100 - REPORTED_SINGLY);
        assert_eq!(drift.next_at(), Some(BootMs(5_000 + SPELL_MS)));
    }
}
