//! Sinks by number: which sets there are, which roots they have, and which lane serves each root.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::{AppName, Change, LaneId, Outlet, RootId, SinkId, SinkKind, SinkSetId, SinkSpec};
use crate::sink::{Claims, Job, Lane, LaneReport, Stopped};
use crate::system::clock;

/// How many roots of a lane a message names.
const ROOTS_SHOWN: usize = 3;

/// How many lanes there are at most for file systems; further ones share them.
const MOST_LANES: usize = 64;

/// And how many for what could not be looked at. A mount that is dead may have the directories of a thousand apps.
const MOST_UNSEEN: usize = 16;

/// Takes what a lane reports, on the lane's thread.
pub(crate) type ReportTo = Arc<dyn Fn(LaneId, Vec<LaneReport>) + Send + Sync>;

/// Which lane a root belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum LaneKey {
    /// A file system, by the device number of its directories.
    FileSystem(u64),
    /// Whatever a root lies on that could not be looked at: it may hang, and then holds up nobody but itself.
    Unseen(Arc<Path>),
    /// The kernel's keyrings.
    Keyrings,
}

/// Where a root's places lie: the fixed part of a path, or a keyring's name.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    pub(crate) fixed: Arc<Path>,
}

/// The directory of an app's places in a root ([`SinkSpec::home`]): it may be on a file system of its own, or become so.
#[derive(Debug, Clone, Copy)]
struct Home {
    root: RootId,
    lane: LaneId,
}

/// A list of sinks that tenants share.
struct Set {
    specs: Arc<[SinkSpec]>,
    homes: Homes,
    /// The lane and root of each.
    outlets: Box<[Outlet]>,
}

/// The home of each of a list of sinks.
type Homes = Box<[Arc<Path>]>;

/// All sinks that the running config, or one before it, named.
pub(crate) struct Outlets {
    report: ReportTo,
    /// Whose each file is; all lanes share it.
    pub(crate) claims: Arc<Claims>,
    sets: Vec<Set>,
    set_ids: HashMap<(Arc<[SinkSpec]>, Homes), SinkSetId>,
    roots: Vec<Root>,
    root_ids: HashMap<Arc<Path>, RootId>,
    homes: BTreeMap<Arc<Path>, Home>,
    lanes: Vec<Lane>,
    lane_ids: HashMap<LaneKey, LaneId>,
    news: Vec<Change>,
    /// Roots below which somebody writes so much that directories are not watched for a while.
    flooded: BTreeSet<Arc<Path>>,
}

impl Outlets {
    pub(crate) fn new(report: ReportTo) -> Self {
        Self {
            report,
            claims: Arc::default(),
            sets: Vec::new(),
            set_ids: HashMap::new(),
            roots: Vec::new(),
            root_ids: HashMap::new(),
            homes: BTreeMap::new(),
            lanes: Vec::new(),
            lane_ids: HashMap::new(),
            news: Vec::new(),
            flooded: BTreeSet::new(),
        }
    }

    /// The sinks of a set.
    pub(crate) fn specs(&self, id: SinkSetId) -> &Arc<[SinkSpec]> {
        &self.sets[id.0 as usize].specs
    }

    /// The lane and root of a sink; `None` when the set has no such sink.
    pub(crate) fn outlet(&self, id: SinkSetId, sink: SinkId) -> Option<Outlet> {
        self.sets[id.0 as usize].outlets.get(usize::from(sink.0)).copied()
    }

    pub(crate) fn root(&self, id: RootId) -> &Root {
        &self.roots[id.0 as usize]
    }

    pub(crate) fn lane_count(&self) -> usize {
        self.lanes.len()
    }

    pub(crate) fn send(&self, lane: LaneId, jobs: Vec<Job>) {
        self.lanes[usize::from(lane.0)].send(jobs);
    }

    /// How many jobs each lane has before it, and a number that grows as it gets on.
    pub(crate) fn progress(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.lanes.iter().map(|lane| (lane.waiting(), lane.progress()))
    }

    /// Where a lane publishes, for messages: roots, and of one that lies on several file systems its apps' directories.
    pub(crate) fn roots_of(&self, lane: LaneId) -> String {
        let is_elsewhere = |root| self.homes.values().any(|home| home.root == root && home.lane != lane);
        let all = self.homes.iter().filter(|(_, home)| home.lane == lane);
        let named = all.map(|(path, home)| if is_elsewhere(home.root) { path } else { &self.root(home.root).fixed });
        let mut shown: Vec<String> = Vec::new();
        for name in named.map(|path| path.display().to_string()) {
            if !shown.contains(&name) {
                shown.push(name);
            }
            if shown.len() > ROOTS_SHOWN {
                shown[ROOTS_SHOWN] = "others".to_owned();
                break;
            }
        }
        shown.join(", ")
    }

    /// Directories that are swept, not watched, because the kernel has no watch left for them.
    pub(crate) fn unwatched(&self) -> usize {
        self.lanes.iter().map(Lane::unwatched).sum()
    }

    /// Roots below which somebody writes without end.
    pub(crate) fn flooded(&self) -> impl Iterator<Item = &Path> {
        self.flooded.iter().map(|root| &**root)
    }

    pub(crate) fn flood_begins(&mut self, root: Arc<Path>, directory: &Path) {
        let (shown, directory) = (root.display(), directory.display());
        tracing::warn!(
            event = "flood_begins", root = %shown, %directory,
            "somebody writes to {directory} without end: for a while it is not watched but looked at now and then, within a minute"
        );
        self.flooded.insert(root);
    }

    pub(crate) fn flood_ends(&mut self, root: &Path) {
        let shown = root.display();
        tracing::info!(event = "flood_ends", root = %shown, "what is published below {shown} is watched again");
        self.flooded.remove(root);
    }

    /// Whether a lane ended by itself, which is a defect.
    pub(crate) fn any_lane_died(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.is_alive())
    }

    /// The number of a set of sinks. The engine must hear of a new one before its number is used: [`take_news`](Self::take_news).
    ///
    /// # Errors
    /// When no thread is to be had for a new lane.
    pub(crate) fn define(
        &mut self,
        specs: &Arc<[SinkSpec]>,
        app: &AppName,
        device_of: &dyn Fn(&Path) -> Option<u64>,
    ) -> io::Result<SinkSetId> {
        let homes: Homes = specs.iter().map(|spec| spec.home(app).into()).collect();
        let key = (Arc::clone(specs), homes);
        if let Some(&id) = self.set_ids.get(&key) {
            return Ok(id);
        }
        let both = specs.iter().zip(&key.1);
        let outlets: io::Result<Box<[Outlet]>> =
            both.map(|(spec, home)| self.make_outlet(spec, home, device_of)).collect();
        let outlets = outlets?;
        let id = SinkSetId(u32::try_from(self.sets.len()).unwrap_or(u32::MAX));
        self.sets.push(Set { specs: Arc::clone(specs), homes: key.1.clone(), outlets: outlets.clone() });
        self.set_ids.insert(key, id);
        self.news.push(Change::SinkSet { id, outlets });
        Ok(id)
    }

    /// Looks again which file system each home lies on: something may have been mounted, or unmounted, since. The engine
    /// must hear of it: [`take_news`](Self::take_news).
    ///
    /// # Errors
    /// When no thread is to be had for a new lane.
    pub(crate) fn judge_again(&mut self, device_of: &dyn Fn(&Path) -> Option<u64>) -> io::Result<()> {
        let homes: Vec<Arc<Path>> = self.homes.keys().cloned().collect();
        for home in homes {
            if let Some(device) = device_of(&home) {
                self.move_to(&home, device)?;
            }
        }
        Ok(())
    }

    /// A file system of this number is mounted here. The engine must hear of it, as of [`judge_again`](Self::judge_again).
    ///
    /// # Errors
    /// When no thread is to be had for a new lane.
    pub(crate) fn mounted(&mut self, at: &Path, device: u64) -> io::Result<()> {
        self.judge_again(&|home| home.starts_with(at).then_some(device))
    }

    /// Lets the lane of this file system serve a home. What is under way in the lane before it ends there.
    fn move_to(&mut self, home: &Arc<Path>, device: u64) -> io::Result<()> {
        let lane = self.lane(LaneKey::FileSystem(device))?;
        let is_news = self.homes.get_mut(home).is_some_and(|known| std::mem::replace(&mut known.lane, lane) != lane);
        if !is_news {
            return Ok(());
        }
        for (number, set) in (0..).zip(&mut self.sets) {
            let its = set.outlets.iter_mut().zip(&set.homes).filter(|(_, its)| *its == home);
            let moved = its.map(|(outlet, _)| outlet.lane = lane).count() > 0;
            if moved {
                self.news.push(Change::SinkSet { id: SinkSetId(number), outlets: set.outlets.clone() });
            }
        }
        let shown = home.display();
        tracing::info!(event = "sink_moved", home = %shown, "{shown} lies on another file system than before");
        Ok(())
    }

    /// The sets that the engine has not heard of. They stay here while a plan that needs them cannot be carried out.
    pub(crate) fn take_news(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.news)
    }

    /// The lane and root of an app's places of a sink.
    pub(crate) fn whereabouts(
        &mut self,
        spec: &SinkSpec,
        home: &Arc<Path>,
        device_of: &dyn Fn(&Path) -> Option<u64>,
    ) -> io::Result<(LaneId, RootId)> {
        if let Some(home) = self.homes.get(home) {
            return Ok((home.lane, home.root));
        }
        let lane = self.lane(match &spec.kind {
            SinkKind::File(_) => device_of(home).map_or_else(|| LaneKey::Unseen(Arc::clone(home)), LaneKey::FileSystem),
            SinkKind::Keyring(_) => LaneKey::Keyrings,
        })?;
        let root = self.root_id(fixed_part(spec));
        self.homes.insert(Arc::clone(home), Home { root, lane });
        Ok((lane, root))
    }

    fn root_id(&mut self, fixed: Arc<Path>) -> RootId {
        let next = RootId(u32::try_from(self.roots.len()).unwrap_or(u32::MAX));
        let id = *self.root_ids.entry(Arc::clone(&fixed)).or_insert(next);
        if id == next {
            self.roots.push(Root { fixed });
        }
        id
    }

    fn make_outlet(
        &mut self,
        spec: &SinkSpec,
        home: &Arc<Path>,
        device_of: &dyn Fn(&Path) -> Option<u64>,
    ) -> io::Result<Outlet> {
        let (lane, root) = self.whereabouts(spec, home, device_of)?;
        Ok(Outlet { root, lane, shows_expiry: spec.shows_expiry(), on_expiry: spec.on_expiry })
    }

    fn lane(&mut self, key: LaneKey) -> io::Result<LaneId> {
        if let Some(&id) = self.lane_ids.get(&key) {
            return Ok(id);
        }
        if let Some(shared) = self.lane_to_share(&key) {
            self.lane_ids.insert(key, shared);
            return Ok(shared);
        }
        let id = LaneId(u16::try_from(self.lanes.len()).map_err(|_| io::Error::other("too many file systems"))?);
        let to = Arc::clone(&self.report);
        let report = move |reports| to(id, reports);
        self.lanes.push(match &key {
            LaneKey::Unseen(_) => Lane::files("files-unseen", Arc::clone(&self.claims), report)?,
            LaneKey::FileSystem(device) => Lane::file_system(*device, Arc::clone(&self.claims), report)?,
            LaneKey::Keyrings => Lane::keyring(clock::wall, report)?,
        });
        self.lane_ids.insert(key, id);
        Ok(id)
    }

    /// Where there are lanes enough of this kind: the one that has the least to do. What may hang never shares a lane with a
    /// file system that was seen.
    fn lane_to_share(&self, key: &LaneKey) -> Option<LaneId> {
        let most = match key {
            LaneKey::FileSystem(_) => MOST_LANES,
            LaneKey::Unseen(_) => MOST_UNSEEN,
            LaneKey::Keyrings => return None,
        };
        let is_alike = |other: &LaneKey| std::mem::discriminant(other) == std::mem::discriminant(key);
        let alike = self.lane_ids.iter().filter(|(other, _)| is_alike(other)).map(|(_, id)| *id);
        let alike: BTreeSet<LaneId> = alike.collect();
        let least = alike.iter().copied().min_by_key(|id| (self.lanes[usize::from(id.0)].waiting(), *id));
        least.filter(|_| alike.len() >= most)
    }

    /// Stops all lanes; each gets as much of `patience` as is left.
    pub(crate) fn stop(self, patience: Duration) {
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::domain::{FileSink, Format, OnExpiry, Placeholder, Template};

    fn sink(path: &str) -> SinkSpec {
        let path = Template::parse(path, Placeholder::IN_PATHS).unwrap();
        let (mode, dir_mode) = (0o640, 0o750);
        let file = FileSink { path, format: Format::Raw, mode, dir_mode, owner: None, group: None, trust_dir: false };
        SinkSpec { kind: SinkKind::File(file), on_expiry: OnExpiry::Keep }
    }

    fn outlets() -> Outlets {
        Outlets::new(Arc::new(|_, _| {}))
    }

    #[test]
    fn apps_of_one_root_have_lanes_of_their_own_where_their_directories_are_file_systems_of_their_own() {
        let (mut outlets, specs) = (outlets(), Arc::from([sink("/srv/{app}/{corp_id}")]));
        let device_of = |home: &Path| Some(if home.ends_with("crm") { 2 } else { 1 });
        let set = |outlets: &mut Outlets, app: &str| {
            let id = outlets.define(&specs, &app.parse().unwrap(), &device_of).unwrap();
            outlets.outlet(id, SinkId(0)).unwrap()
        };
        let [crm, hr, bot] = ["crm", "hr", "bot"].map(|app| set(&mut outlets, app));
        assert!(crm.root == hr.root && hr.root == bot.root, "what fails is told by root");
        assert!(crm.lane != hr.lane && hr.lane == bot.lane);
        assert_eq!(
            (outlets.roots_of(crm.lane), outlets.roots_of(hr.lane)),
            ("/srv/crm".into(), "/srv/bot, /srv/hr".into())
        );

        outlets.take_news();
        outlets.mounted(Path::new("/srv/hr"), 3).unwrap();
        let news = outlets.take_news();
        assert!(matches!(&news[..], [Change::SinkSet { outlets, .. }] if outlets[0].lane != hr.lane), "{news:?}");
        assert_eq!(outlets.roots_of(hr.lane), "/srv/bot");
        outlets.mounted(Path::new("/srv"), 1).unwrap();
        assert_eq!((outlets.roots_of(hr.lane), outlets.take_news().len()), ("/srv".into(), 2));
    }

    #[test]
    fn a_dead_mount_of_many_apps_shares_no_lane_with_a_file_system_that_was_seen() {
        let mut outlets = outlets();
        let mut lanes = |path: &str, apps: std::ops::Range<u32>| -> BTreeSet<LaneId> {
            let specs = Arc::from([sink(path)]);
            let device_of = |home: &Path| home.starts_with("/srv").then_some(1);
            let lane_of = |number: u32| {
                let app = format!("app{number}").parse().unwrap();
                let id = outlets.define(&specs, &app, &device_of).unwrap();
                outlets.outlet(id, SinkId(0)).unwrap().lane
            };
            apps.map(lane_of).collect()
        };
        let healthy = lanes("/srv/{app}/{corp_id}", 0..5);
        let dead = lanes("/mnt/dead/{app}/{corp_id}", 0..1000);
        assert!(healthy.is_disjoint(&dead) && dead.len() == MOST_UNSEEN, "{healthy:?} {dead:?}");
    }

    #[test]
    fn file_systems_without_number_share_a_bounded_number_of_threads() {
        let mut outlets = outlets();
        for number in 0..200 {
            let specs = Arc::from([sink(&format!("/srv/{number}/{{corp_id}}"))]);
            outlets.define(&specs, &"crm".parse().unwrap(), &|_| Some(number)).unwrap();
        }
        assert_eq!(outlets.lane_count(), MOST_LANES);
        assert_eq!(outlets.homes.len(), 200);
        assert!(outlets.homes.contains_key(&*PathBuf::from("/srv/199")));
    }
}
