//! Sinks by number: which sets there are, which roots they have, and which lane serves each root.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::{Input, clock};
use crate::domain::{Change, LaneId, Outlet, RootId, SinkId, SinkKind, SinkSetId, SinkSpec};
use crate::sink::{Claims, Job, Lane, Stopped};

/// How many roots of a lane a message names.
const ROOTS_SHOWN: usize = 3;

/// Which lane a root belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum LaneKey {
    /// A file system, by the device number of its directories.
    FileSystem(u64),
    /// The kernel's keyrings.
    Keyrings,
}

/// Where a root's places lie: the fixed part of a path, or a keyring's name.
#[derive(Debug, Clone)]
pub(super) struct Root {
    pub(super) fixed: Arc<Path>,
    pub(super) lane: LaneId,
}

/// A list of sinks that tenants share.
struct Set {
    specs: Arc<[SinkSpec]>,
    /// The lane and root of each.
    outlets: Box<[Outlet]>,
}

/// All sinks that the running config, or one before it, named.
pub(super) struct Outlets {
    inputs: UnboundedSender<Input>,
    /// Whose each file is; all lanes share it.
    pub(super) claims: Arc<Claims>,
    sets: Vec<Set>,
    set_ids: HashMap<Arc<[SinkSpec]>, SinkSetId>,
    roots: Vec<Root>,
    root_ids: HashMap<Arc<Path>, RootId>,
    lanes: Vec<Lane>,
    lane_ids: HashMap<LaneKey, LaneId>,
    news: Vec<Change>,
    /// Roots below which somebody writes so much that directories are not watched for a while.
    flooded: BTreeSet<Arc<Path>>,
}

impl Outlets {
    pub(super) fn new(inputs: UnboundedSender<Input>) -> Self {
        Self {
            inputs,
            claims: Arc::default(),
            sets: Vec::new(),
            set_ids: HashMap::new(),
            roots: Vec::new(),
            root_ids: HashMap::new(),
            lanes: Vec::new(),
            lane_ids: HashMap::new(),
            news: Vec::new(),
            flooded: BTreeSet::new(),
        }
    }

    /// The sinks of a set.
    pub(super) fn specs(&self, id: SinkSetId) -> &Arc<[SinkSpec]> {
        &self.sets[id.0 as usize].specs
    }

    /// The lane and root of a sink; `None` when the set has no such sink.
    pub(super) fn outlet(&self, id: SinkSetId, sink: SinkId) -> Option<Outlet> {
        self.sets[id.0 as usize].outlets.get(usize::from(sink.0)).copied()
    }

    pub(super) fn root(&self, id: RootId) -> &Root {
        &self.roots[id.0 as usize]
    }

    pub(super) fn lane_count(&self) -> usize {
        self.lanes.len()
    }

    pub(super) fn send(&self, lane: LaneId, jobs: Vec<Job>) {
        self.lanes[usize::from(lane.0)].send(jobs);
    }

    /// How many jobs each lane has before it, and a number that grows as it gets on.
    pub(super) fn progress(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.lanes.iter().map(|lane| (lane.waiting(), lane.progress()))
    }

    /// The roots of a lane, for messages.
    pub(super) fn roots_of(&self, lane: LaneId) -> String {
        let all = self.roots.iter().filter(|root| root.lane == lane);
        let mut shown: Vec<String> = all.map(|root| root.fixed.display().to_string()).take(ROOTS_SHOWN + 1).collect();
        if shown.len() > ROOTS_SHOWN {
            shown[ROOTS_SHOWN] = "others".to_owned();
        }
        shown.join(", ")
    }

    /// Directories that are swept, not watched, because the kernel has no watch left for them.
    pub(super) fn unwatched(&self) -> usize {
        self.lanes.iter().map(Lane::unwatched).sum()
    }

    /// Roots below which somebody writes without end.
    pub(super) fn flooded(&self) -> impl Iterator<Item = &Path> {
        self.flooded.iter().map(|root| &**root)
    }

    pub(super) fn flood_begins(&mut self, root: Arc<Path>, directory: &Path) {
        let (shown, directory) = (root.display(), directory.display());
        tracing::warn!(
            event = "flood_begins", root = %shown, %directory,
            "somebody writes to {directory} without end: for a while it is not watched but swept, within a minute"
        );
        self.flooded.insert(root);
    }

    pub(super) fn flood_ends(&mut self, root: &Path) {
        let shown = root.display();
        tracing::info!(event = "flood_ends", root = %shown, "what is published below {shown} is watched again");
        self.flooded.remove(root);
    }

    /// Whether a lane ended by itself, which is a defect.
    pub(super) fn any_lane_died(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.is_alive())
    }

    /// The number of a set of sinks. The engine must hear of a new one before its number is used: [`take_news`](Self::take_news).
    ///
    /// # Errors
    /// When no thread is to be had for a new lane.
    pub(super) fn define(
        &mut self,
        specs: &Arc<[SinkSpec]>,
        device_of: &dyn Fn(&Path) -> u64,
    ) -> io::Result<SinkSetId> {
        if let Some(&id) = self.set_ids.get(specs) {
            return Ok(id);
        }
        let outlets: io::Result<Box<[Outlet]>> = specs.iter().map(|spec| self.make_outlet(spec, device_of)).collect();
        let outlets = outlets?;
        let id = SinkSetId(u32::try_from(self.sets.len()).unwrap_or(u32::MAX));
        self.sets.push(Set { specs: Arc::clone(specs), outlets: outlets.clone() });
        self.set_ids.insert(Arc::clone(specs), id);
        self.news.push(Change::SinkSet { id, outlets });
        Ok(id)
    }

    /// The sets that the engine has not heard of. They stay here while a plan that needs them cannot be carried out.
    pub(super) fn take_news(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.news)
    }

    /// The lane and root of a sink's places.
    pub(super) fn whereabouts(
        &mut self,
        spec: &SinkSpec,
        device_of: &dyn Fn(&Path) -> u64,
    ) -> io::Result<(LaneId, RootId)> {
        let fixed = fixed_part(spec);
        if let Some(&root) = self.root_ids.get(&*fixed) {
            return Ok((self.root(root).lane, root));
        }
        let key = match &spec.kind {
            SinkKind::File(_) => LaneKey::FileSystem(device_of(&fixed)),
            SinkKind::Keyring(_) => LaneKey::Keyrings,
        };
        let lane = self.lane(key)?;
        let root = RootId(u32::try_from(self.roots.len()).unwrap_or(u32::MAX));
        self.roots.push(Root { fixed: Arc::clone(&fixed), lane });
        self.root_ids.insert(fixed, root);
        Ok((lane, root))
    }

    fn make_outlet(&mut self, spec: &SinkSpec, device_of: &dyn Fn(&Path) -> u64) -> io::Result<Outlet> {
        let (lane, root) = self.whereabouts(spec, device_of)?;
        Ok(Outlet { root, lane, shows_expiry: spec.shows_expiry(), on_expiry: spec.on_expiry })
    }

    fn lane(&mut self, key: LaneKey) -> io::Result<LaneId> {
        if let Some(&id) = self.lane_ids.get(&key) {
            return Ok(id);
        }
        let id = LaneId(u16::try_from(self.lanes.len()).map_err(|_| io::Error::other("too many file systems"))?);
        let inputs = self.inputs.clone();
        // The daemon that no longer listens is one that is ending.
        let report = move |reports| drop(inputs.send(Input::Reported(id, reports)));
        self.lanes.push(match key {
            LaneKey::FileSystem(device) => Lane::files(&format!("files-{device:x}"), Arc::clone(&self.claims), report)?,
            LaneKey::Keyrings => Lane::keyring(clock::wall, report)?,
        });
        self.lane_ids.insert(key, id);
        Ok(id)
    }

    /// Stops all lanes; each gets as much of `patience` as is left.
    pub(super) fn stop(self, patience: Duration) {
        let deadline = clock::now().boot + u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        self.lanes.iter().for_each(Lane::begin_to_stop);
        for lane in self.lanes {
            let left = Duration::from_millis(deadline.since(clock::now().boot));
            if lane.stop(left) == Stopped::Abandoned {
                tracing::warn!(
                    event = "lane_abandoned",
                    "a file system hangs; its publication is left behind, the old file whole"
                );
            }
        }
    }
}

/// What does not depend on the tenant in a sink's path. It names the root in messages, too.
fn fixed_part(spec: &SinkSpec) -> Arc<Path> {
    match &spec.kind {
        SinkKind::File(file) => file.fixed_part().into(),
        SinkKind::Keyring(keyring) => Path::new(&keyring.root.to_string()).into(),
    }
}
