//! Places whose last publication or withdrawal failed, and when they are tried again.
//!
//! A failing place waits with its root. The root has the backoff and the log line, so a full disk is one retry and one line,
//! not 100,000. A root is known here for just as long as one of its places fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::fair_queue::{Item, Queued};
use crate::domain::{BootMs, LaneId, Retry, RootId, SinkFailure, SinkFailureKind, SinkId, Slot};
use crate::engine::AppIx;
use crate::engine::messages::REMIND_MS;
use crate::engine::scheduler::backoff;

/// Backoff of a failing sink root. An attempt costs a system call or two, so it is made sooner than one at an endpoint.
const RETRY: Retry = Retry { min: Duration::from_secs(1), max: Duration::from_secs(30) };
/// How many failing places of a root are tried at once.
const RETRY_BATCH: usize = 256;
/// How many failing places of a root have a message of their own. On a full disk a million places fail, and each message
/// is about 200 bytes.
const OWN_MESSAGES: usize = 1000;

/// All sink roots with failing places.
#[derive(Debug, Default)]
pub(super) struct RetryQueue {
    roots: BTreeMap<RootId, FailingRoot>,
    /// Their `retry_at`.
    retries: BTreeSet<(BootMs, RootId)>,
}

/// A sink root with failing places.
#[derive(Debug, Default)]
struct FailingRoot {
    /// Places that wait for the next round.
    waiting: BTreeMap<Item, FailingPlace>,
    /// Places that are being tried again.
    retried: BTreeMap<Item, FailingPlace>,
    /// Where in `waiting` the next round begins.
    next: Option<Item>,
    /// Rounds that failed in a row.
    failures: u16,
    /// When the next round begins; there is one as long as something waits.
    retry_at: Option<BootMs>,
    /// Each kind of failure that was met, the last one last; its places can fail in different ways.
    kinds: Vec<MetKind>,
}

/// A place whose last attempt failed.
#[derive(Debug)]
struct FailingPlace {
    /// Places below one root may lie on several file systems.
    lane: LaneId,
    /// Whose place it is, as long as it is somebody's.
    app: Option<AppIx>,
    kind: SinkFailureKind,
    /// What the attempt said, unless too many other places of the root fail as well.
    message: Option<Box<SinkFailure>>,
}

/// A kind of failure that places of a root met.
#[derive(Debug)]
struct MetKind {
    reported_at: BootMs,
    /// The failure of this kind that was met last.
    last: SinkFailure,
}

/// What follows from the success of a place that had failed.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// The root has no failing place any more.
    pub(super) is_complete: bool,
    /// The root's other places, which are tried at once.
    pub(super) retried: Vec<Queued>,
}

impl FailingRoot {
    /// Notes a failure. Returns whether it is worth a log line: when its kind is new, and once an hour.
    fn is_news(&mut self, now: BootMs, failure: &SinkFailure) -> bool {
        let before = self.kinds.iter().position(|met| met.last.kind == failure.kind);
        let reported = before.map(|at| self.kinds.remove(at).reported_at).filter(|at| now.since(*at) < REMIND_MS);
        self.kinds.push(MetKind { reported_at: reported.unwrap_or(now), last: failure.clone() });
        reported.is_none()
    }

    /// What the last attempt at this place said; of too many places only the kind is known, and what the last failure of
    /// that kind said.
    fn failure_of(&self, item: Item) -> Option<&SinkFailure> {
        let place = self.waiting.get(&item).or_else(|| self.retried.get(&item))?;
        let of_its_kind = || self.kinds.iter().find(|met| met.last.kind == place.kind).map(|met| &met.last);
        place.message.as_deref().or_else(of_its_kind)
    }

    /// Takes up to `most` waiting places for another try, each in its turn.
    fn next_round(&mut self, root: RootId, most: usize) -> Vec<Queued> {
        let from = self.next.unwrap_or(Item::Sink(Slot(0), SinkId(0)));
        let all = self.waiting.range(from..).chain(self.waiting.range(..from));
        let queued =
            |(item, place): (&Item, &FailingPlace)| Queued { lane: place.lane, root, app: place.app, item: *item };
        let round: Vec<Queued> = all.take(most).map(queued).collect();
        for queued in &round {
            self.retried.extend(self.waiting.remove_entry(&queued.item));
        }
        self.next = self.waiting.range(from..).next().map(|(item, _)| *item);
        round
    }

    fn contains(&self, item: Item) -> bool {
        self.retried.contains_key(&item) || self.waiting.contains_key(&item)
    }

    fn len(&self) -> usize {
        self.waiting.len() + self.retried.len()
    }
}

impl RetryQueue {
    pub(super) fn next_at(&self) -> Option<BootMs> {
        self.retries.first().map(|(at, _)| *at)
    }

    /// What the last attempt at a place said, if that failed.
    pub(super) fn failure_of(&self, root: RootId, item: Item) -> Option<&SinkFailure> {
        self.roots.get(&root)?.failure_of(item)
    }

    /// The roots below which something fails: how many places, and what the last failure said.
    pub(super) fn failing(&self) -> impl Iterator<Item = (RootId, usize, &SinkFailure)> {
        self.roots.iter().filter_map(|(id, root)| Some((*id, root.len(), &root.kinds.last()?.last)))
    }

    /// The places that are to be tried again by now.
    pub(super) fn due(&mut self, now: BootMs) -> Vec<Queued> {
        let mut due = Vec::new();
        while let Some(&(at, id)) = self.retries.first().filter(|(at, _)| *at <= now) {
            self.retries.remove(&(at, id));
            let Some(root) = self.roots.get_mut(&id) else { continue };
            root.retry_at = None;
            // A root whose lane does not move needs no more to do. What others have in that lane does not count.
            let more = RETRY_BATCH.saturating_sub(root.retried.len());
            due.append(&mut root.next_round(id, more));
            self.arm(now, id);
        }
        due
    }

    /// A place failed: it is tried again later. Returns the wait in milliseconds if that is worth a log line.
    pub(super) fn failed(&mut self, now: BootMs, place: Queued, failure: &SinkFailure) -> Option<u64> {
        let Queued { lane, root: id, app, item } = place;
        let root = self.roots.entry(id).or_default();
        let had_one = root.retried.remove(&item).is_some_and(|place| place.message.is_some());
        let message = (had_one || root.len() < OWN_MESSAGES).then(|| Box::new(failure.clone()));
        root.waiting.insert(item, FailingPlace { lane, app, kind: failure.kind, message });
        let is_news = root.is_news(now, failure);
        let at = self.arm(now, id);
        is_news.then(|| at.map_or(0, |at| at.since(now)))
    }

    /// A place succeeded. If it had failed, the root's others are tried at once.
    pub(super) fn succeeded(&mut self, id: RootId, item: Item) -> Recovery {
        if !self.roots.get(&id).is_some_and(|root| root.contains(item)) {
            return Recovery::default();
        }
        let is_complete = self.forget(id, item);
        self.disarm(id);
        let retried = self.roots.get_mut(&id).map(|root| {
            root.failures = 0;
            root.next_round(id, usize::MAX)
        });
        Recovery { is_complete, retried: retried.unwrap_or_default() }
    }

    /// A place need not be tried again, if it failed. Returns whether the root has no failing place any more thereby.
    pub(super) fn forget(&mut self, id: RootId, item: Item) -> bool {
        let Some(root) = self.roots.get_mut(&id) else { return false };
        root.waiting.remove(&item);
        root.retried.remove(&item);
        let (is_over, nothing_waits) = (root.len() == 0, root.waiting.is_empty());
        if nothing_waits {
            self.disarm(id);
        }
        if is_over {
            self.roots.remove(&id);
        }
        is_over
    }

    /// Failing places below a root are served by other lanes from here on, where `lane_of` tells so.
    pub(super) fn move_lanes(&mut self, id: RootId, lane_of: impl Fn(Item) -> Option<LaneId>) {
        let Some(root) = self.roots.get_mut(&id) else { return };
        for (item, place) in root.waiting.iter_mut().chain(&mut root.retried) {
            place.lane = lane_of(*item).unwrap_or(place.lane);
        }
    }

    /// Sets when a root's waiting places are tried again, if there are any and it is not set.
    fn arm(&mut self, now: BootMs, id: RootId) -> Option<BootMs> {
        let root = self.roots.get_mut(&id).filter(|root| !root.waiting.is_empty())?;
        if root.retry_at.is_none() {
            let hash = backoff::hash([id.0.into(), root.failures.into(), now.0]);
            let at = now + backoff::wait_ms(RETRY, root.failures, hash);
            root.failures = root.failures.saturating_add(1);
            root.retry_at = Some(at);
            self.retries.insert((at, id));
        }
        root.retry_at
    }

    fn disarm(&mut self, id: RootId) {
        if let Some(at) = self.roots.get_mut(&id).and_then(|root| root.retry_at.take()) {
            self.retries.remove(&(at, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: RootId = RootId(3);

    fn place(slot: u32) -> Queued {
        Queued { lane: LaneId(1), root: ROOT, app: Some(AppIx(0)), item: Item::Sink(Slot(slot), SinkId(0)) }
    }

    fn full() -> SinkFailure {
        SinkFailure { kind: SinkFailureKind::Full, detail: "no space".into() }
    }

    #[test]
    fn a_full_disk_is_one_log_line_and_a_batch_of_retries_a_round() {
        let (mut queue, now) = (RetryQueue::default(), BootMs(1_000_000));
        let lines = (0..10_000).filter(|slot| queue.failed(now, place(*slot), &full()).is_some()).count();
        assert_eq!((lines, queue.retries.len()), (1, 1));
        let at = queue.next_at().unwrap();
        assert!(at >= now + 1_000 && queue.due(at - 1).is_empty());
        let round = queue.due(at);
        assert_eq!(round.len(), RETRY_BATCH);
        // None of them came back: nothing more is sent there.
        let next = queue.next_at().unwrap();
        assert!(queue.due(next).is_empty());
    }

    #[test]
    fn each_failing_place_has_its_turn() {
        let (mut queue, mut now) = (RetryQueue::default(), BootMs(1_000_000));
        (0..1_000).for_each(|slot| _ = queue.failed(now, place(slot), &full()));
        let mut tried = BTreeSet::new();
        for _ in 0..4 {
            now = queue.next_at().unwrap();
            for place in queue.due(now) {
                tried.insert(place.item);
                queue.failed(now, place, &full());
            }
        }
        assert_eq!(tried.len(), 1_000);
    }

    #[test]
    fn when_one_place_succeeds_all_are_tried_at_once_and_the_last_ends_the_failure() {
        let (mut queue, now) = (RetryQueue::default(), BootMs(1_000_000));
        (0..300).for_each(|slot| _ = queue.failed(now, place(slot), &full()));
        let untouched = queue.succeeded(ROOT, place(300).item);
        assert!(!untouched.is_complete && untouched.retried.is_empty(), "it had not failed");
        let recovery = queue.succeeded(ROOT, place(0).item);
        assert_eq!((recovery.is_complete, recovery.retried.len()), (false, 299));
        assert_eq!(queue.next_at(), None);
        let complete = (1..300).filter(|slot| queue.succeeded(ROOT, place(*slot).item).is_complete).count();
        assert_eq!((complete, queue.failing().count()), (1, 0));
    }

    #[test]
    fn of_too_many_failing_places_only_the_kind_is_kept() {
        let (mut queue, now) = (RetryQueue::default(), BootMs(1_000_000));
        let slots = OWN_MESSAGES as u32 + 1;
        for slot in 0..slots {
            let failure = SinkFailure { kind: SinkFailureKind::Full, detail: format!("no space for {slot}").into() };
            queue.failed(now, place(slot), &failure);
        }
        let message = |slot| queue.failure_of(ROOT, place(slot).item).unwrap().detail.to_string();
        assert_eq!((message(7), message(slots - 1)), ("no space for 7".into(), format!("no space for {}", slots - 1)));
    }
}
