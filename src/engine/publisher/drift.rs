//! Places that somebody else touched: they are set right at once, and ever more slowly where that goes on.
//!
//! A place that is changed again and again is fought over. The first few repairs come at once, each of the next later than
//! the one before, up to a minute; so a fight costs next to nothing, and the place is right a minute after its end at the
//! latest. A place that was left alone for a minute starts anew. Only places that were touched lately are known here.

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
/// How many repairs below a root are said one by one...
const SAID_SINGLY: u32 = 10;
/// ...within so many milliseconds; of the others the number is said at their end.
const SPELL_MS: u64 = 60_000;

/// A place that was touched lately.
#[derive(Debug, Clone, Copy)]
struct Place {
    root: RootId,
    /// How often it was set right, each time soon after the time before. A touch that changed nothing does not count.
    streak: u16,
    /// It was touched again after the first few.
    fought_over: bool,
    /// It was touched, and is not known to be right since.
    owed: bool,
    /// When it was last right.
    right: BootMs,
    /// What the alarm is set to, if it is.
    alarm: Option<BootMs>,
}

/// A sink root below which places were set right lately.
#[derive(Debug, Default)]
struct Root {
    /// When the spell of repairs ends in which the next two are counted.
    until: Option<BootMs>,
    said: u32,
    unsaid: u32,
    /// Places that are fought over.
    fights: u32,
}

/// What an alarm is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Place(Slot, SinkId),
    Root(RootId),
}

/// What to do about a touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Touch {
    /// The place is set right now.
    Mend,
    /// The place is set right later.
    Wait,
}

/// What is known of places that somebody else touches.
#[derive(Debug, Default)]
pub(crate) struct Repairs {
    places: BTreeMap<(Slot, SinkId), Place>,
    roots: BTreeMap<RootId, Root>,
    alarms: BTreeSet<(BootMs, Alarm)>,
}

impl Place {
    /// When it may be set right again.
    fn not_before(&self) -> BootMs {
        match self.streak.checked_sub(AT_ONCE) {
            None => self.right,
            Some(more) => self.right + (FIRST_WAIT_MS << more.min(10)).min(LONGEST_WAIT_MS),
        }
    }
}

impl Repairs {
    pub(crate) fn next_at(&self) -> Option<BootMs> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// Whether a place is known to be wrong, and left so for now.
    pub(crate) fn holds_back(&self, slot: Slot, sink: SinkId) -> bool {
        self.places.get(&(slot, sink)).is_some_and(|place| place.owed)
    }

    /// Whether any of a tenant's places is known to be wrong.
    pub(crate) fn owes(&self, slot: Slot) -> bool {
        let all = (slot, SinkId(0))..=(slot, SinkId(u8::MAX));
        !self.places.is_empty() && self.places.range(all).any(|(_, place)| place.owed)
    }

    /// Returns what to do, and whether that is the first fight below the root.
    fn touched(&mut self, now: BootMs, slot: Slot, sink: SinkId, root: RootId) -> (Touch, bool) {
        let new = Place { root, streak: 0, fought_over: false, owed: false, right: now, alarm: None };
        let place = self.places.entry((slot, sink)).or_insert(new);
        if place.owed {
            // What is under way may have come before this touch.
            return (if place.alarm.is_some() { Touch::Wait } else { Touch::Mend }, false);
        }
        place.owed = true;
        let (at, goes_on) = (place.not_before(), place.streak >= AT_ONCE);
        let began = goes_on && !std::mem::replace(&mut place.fought_over, goes_on);
        let waits = at > now;
        self.set_alarm(slot, sink, waits.then_some(at));
        let root = self.roots.entry(root).or_default();
        root.fights += u32::from(began);
        (if waits { Touch::Wait } else { Touch::Mend }, began && root.fights == 1)
    }

    /// A place is right again. Returns whether it had been touched, and was changed back.
    pub(crate) fn settled(&mut self, now: BootMs, slot: Slot, sink: SinkId, wrote: Wrote) -> bool {
        let Some(place) = self.places.get_mut(&(slot, sink)).filter(|place| place.owed) else { return false };
        place.owed = false;
        place.right = now;
        let mended = wrote != Wrote::Unchanged;
        place.streak = place.streak.saturating_add(mended.into());
        self.set_alarm(slot, sink, Some(now + QUIET_MS));
        mended
    }

    /// A place was set right. Returns whether that is to be said on its own.
    fn count(&mut self, now: BootMs, id: RootId) -> bool {
        let root = self.roots.entry(id).or_default();
        if root.until.is_none() {
            let until = now + SPELL_MS;
            root.until = Some(until);
            self.alarms.insert((until, Alarm::Root(id)));
        }
        let single = root.said < SAID_SINGLY;
        *if single { &mut root.said } else { &mut root.unsaid } += 1;
        single
    }

    /// A place is nobody's any more, or nobody touched it for a while. Returns its root if that ends the last fight there.
    fn forget(&mut self, slot: Slot, sink: SinkId) -> Option<RootId> {
        self.set_alarm(slot, sink, None);
        let place = self.places.remove(&(slot, sink))?;
        let root = self.roots.get_mut(&place.root)?;
        root.fights -= u32::from(place.fought_over);
        let over = place.fought_over && root.fights == 0;
        self.drop_root_if_quiet(place.root);
        over.then_some(place.root)
    }

    fn drop_root_if_quiet(&mut self, id: RootId) {
        if self.roots.get(&id).is_some_and(|root| root.fights == 0 && root.until.is_none()) {
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

impl Engine {
    /// Sink roots below which somebody else keeps changing what was published, and how many places it is about.
    pub fn contested(&self) -> impl Iterator<Item = (RootId, u32)> + '_ {
        self.repairs.roots.iter().filter(|(_, root)| root.fights > 0).map(|(id, root)| (*id, root.fights))
    }

    /// Somebody else changed what was published under this ticket. The token may have been renewed since, so the ticket need
    /// not be that of the token that is held; looking once too often at a place does no harm.
    pub(crate) fn touched(&mut self, now: Now, ticket: Ticket, sink: SinkId) {
        let slot = ticket.slot;
        let Some(tenant) = self.tenants.get(slot).filter(|tenant| !tenant.gone && tenant.held.is_some()) else {
            return;
        };
        let Some(root) = self.outlet(tenant.sinks, sink).map(|outlet| outlet.root) else { return };
        let (touch, is_news) = self.repairs.touched(now.boot, slot, sink, root);
        if touch == Touch::Mend {
            self.want(slot, 1_u16 << sink.0);
        }
        self.look_at_sinks(slot);
        if let Some(tenant) = self.id(slot).filter(|_| is_news) {
            self.say(Notice::SinkContested { root, tenant, sink });
        }
    }

    /// A place equals the record. If it had been touched, and something was changed about it, it was mended.
    pub(crate) fn note_repair(&mut self, now: Now, slot: Slot, sink: SinkId, root: RootId, wrote: Wrote) {
        if !self.repairs.settled(now.boot, slot, sink, wrote) {
            return;
        }
        let app = self.tenants[slot].app;
        self.app_mut(app).repairs += 1;
        if self.repairs.count(now.boot, root)
            && let Some(tenant) = self.id(slot)
        {
            self.say(Notice::SinkRepaired { root, tenant, sink });
        }
    }

    /// The places of a tenant are not its concern any more.
    pub(crate) fn forget_repairs(&mut self, slot: Slot) {
        let all = (slot, SinkId(0))..=(slot, SinkId(u8::MAX));
        let sinks: Vec<SinkId> = self.repairs.places.range(all).map(|((_, sink), _)| *sink).collect();
        sinks.into_iter().for_each(|sink| self.forget_repair(slot, sink));
    }

    fn forget_repair(&mut self, slot: Slot, sink: SinkId) {
        if let Some(root) = self.repairs.forget(slot, sink) {
            self.say(Notice::SinkUncontested { root });
        }
    }

    /// Sets right what has waited for long enough, and forgets what was left alone.
    pub(crate) fn wake_repairs(&mut self, now: Now) {
        while let Some(&(at, alarm)) = self.repairs.alarms.first().filter(|(at, _)| *at <= now.boot) {
            self.repairs.alarms.remove(&(at, alarm));
            match alarm {
                Alarm::Place(slot, sink) => self.wake_place(slot, sink),
                Alarm::Root(root) => self.end_spell(root),
            }
        }
    }

    fn wake_place(&mut self, slot: Slot, sink: SinkId) {
        let Some(place) = self.repairs.places.get_mut(&(slot, sink)) else { return };
        place.alarm = None;
        if place.owed {
            self.want(slot, 1_u16 << sink.0);
        } else {
            self.forget_repair(slot, sink);
        }
    }

    fn end_spell(&mut self, id: RootId) {
        let Some(root) = self.repairs.roots.get_mut(&id) else { return };
        let unsaid = std::mem::take(&mut root.unsaid);
        (root.until, root.said) = (None, 0);
        if unsaid > 0 {
            self.say(Notice::SinksRepaired { root: id, repairs: unsaid });
        }
        self.repairs.drop_root_if_quiet(id);
    }
}
