//! Lanes and places: what is published where, and how that fails or hangs.

use std::collections::{BTreeMap, BTreeSet};

use corptokend::domain::{
    Fingerprint, LaneId, Now, Place, RootId, SinkFailure, SinkFailureKind, SinkId, SinkPolicy, SinkSetId, TenantId,
    Ticket, WallMs, WithdrawalId, Wrote,
};

use super::clock::Clock;
use super::tenants::{Names, PerTenant, TenantNo};

/// How long an attempt takes in milliseconds, and what it brings.
pub type Attempt = (u64, Result<Wrote, SinkFailure>);
type Try = Box<dyn FnMut(Now, RootId, &TenantId) -> Attempt>;

/// What a place holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Content {
    pub fingerprint: Fingerprint,
    pub expires_at: WallMs,
    pub ticket: Ticket,
}

/// Something that a lane does, and what its place holds afterwards.
#[derive(Debug, Clone)]
pub struct Job {
    pub what: JobKind,
    pub lane: LaneId,
    pub root: RootId,
    pub no: TenantNo,
    pub content: Option<Content>,
    pub outcome: Result<Wrote, SinkFailure>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum JobKind {
    Publish(Ticket, SinkId),
    Withdraw(WithdrawalId),
}

/// A lane: it works in order, and may hang.
#[derive(Debug, Default, Clone)]
pub struct Lane {
    busy_until: u64,
    pub hangs: bool,
    /// The engine has heard that it hangs.
    pub is_told: bool,
    /// What is done but for the lane's hanging.
    pub stuck: Vec<Job>,
}

#[derive(Default)]
pub struct Sinks {
    pub sets: BTreeMap<SinkSetId, Vec<SinkPolicy>>,
    pub lanes: Vec<Lane>,
    /// What a scenario wants to become of attempts.
    attempt: Option<Try>,
    /// Below which roots every attempt fails.
    pub failing: BTreeSet<RootId>,
    /// Since when nothing has hindered publications in a lane, or below a root.
    pub lane_well_since: BTreeMap<LaneId, u64>,
    pub root_well_since: BTreeMap<RootId, u64>,
    contents: BTreeMap<RootId, PerTenant<Option<Content>>>,
}

/// The place of a tenant below a root.
pub fn place(root: RootId, id: &TenantId) -> Place {
    Place::File(format!("/{}/{id}", root.0).into())
}

/// Whose place it is, below which root.
pub fn owner(place: &Place) -> (RootId, TenantId) {
    let text = place.to_string();
    let mut parts = text[1..].splitn(2, '/');
    let (root, id) = (parts.next().expect("a root"), parts.next().expect("a tenant"));
    (RootId(root.parse().expect("a number")), id.parse().expect("a tenant"))
}

impl Sinks {
    /// Lets attempts go as a scenario wants it from here on.
    pub fn attempt_with(&mut self, attempt: impl FnMut(Now, RootId, &TenantId) -> Attempt + 'static) {
        self.attempt = Some(Box::new(attempt));
    }

    pub fn policy(&self, sinks: SinkSetId, sink: SinkId) -> SinkPolicy {
        self.sets[&sinks][usize::from(sink.0)]
    }

    /// A lane is given an attempt. Returns when it ends, in milliseconds of the run, unless the lane hangs, and how.
    pub fn begin(&mut self, clock: Clock, lane: LaneId, root: RootId, id: &TenantId) -> Attempt {
        let (takes, outcome) = match &mut self.attempt {
            Some(attempt) => attempt(clock.now(), root, id),
            None if self.failing.contains(&root) => (0, Err(full())),
            None => (0, Ok(Wrote::Replaced)),
        };
        let lane = self.lane(lane);
        lane.busy_until = lane.busy_until.max(clock.t) + takes;
        (lane.busy_until, outcome)
    }

    pub fn lane(&mut self, lane: LaneId) -> &mut Lane {
        let number = usize::from(lane.0);
        if number >= self.lanes.len() {
            self.lanes.resize_with(number + 1, Lane::default);
        }
        &mut self.lanes[number]
    }

    /// The process is gone. What hangs still does for its successor.
    pub fn crash(&mut self) {
        for lane in &mut self.lanes {
            *lane = Lane { hangs: lane.hangs, ..Lane::default() };
        }
    }

    /// The machine starts anew: everything lay in memory.
    pub fn clear(&mut self) {
        self.contents.clear();
    }

    pub fn content(&self, root: RootId, no: TenantNo) -> Option<&Content> {
        self.contents.get(&root)?[no].as_ref()
    }

    pub fn set_content(&mut self, root: RootId, no: TenantNo, content: Option<Content>) -> Option<Content> {
        std::mem::replace(&mut self.contents.entry(root).or_default()[no], content)
    }

    /// The roots below which a tenant's place holds something.
    pub fn shown(&self, no: TenantNo) -> impl Iterator<Item = (RootId, &Content)> {
        self.contents.iter().filter_map(move |(root, all)| Some((*root, all[no].as_ref()?)))
    }

    /// All places that hold something.
    pub fn places(&self, names: &Names) -> BTreeMap<Place, Content> {
        let all =
            self.contents.iter().flat_map(|(root, all)| all.iter().map(move |(no, content)| (*root, no, content)));
        all.filter_map(|(root, no, content)| Some((place(root, &names.id(no)), (*content)?))).collect()
    }
}

fn full() -> SinkFailure {
    SinkFailure { kind: SinkFailureKind::Full, detail: "no space left".into() }
}
