//! Sinks by number: which sets there are, which roots they have, and which lane serves each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::lanes::{LaneKey, Lanes, ReportTo};
use crate::domain::{AppName, Change, LaneId, RootId, SinkId, SinkKind, SinkPolicy, SinkSetId, SinkSpec};
use crate::sink::Claims;

/// How many roots of a lane a message names.
const ROOTS_SHOWN: usize = 3;

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
    policies: Box<[SinkPolicy]>,
}

/// The home of each of a list of sinks.
type Homes = Box<[Arc<Path>]>;

/// All sinks that the running config, or one before it, named.
pub(crate) struct SinkRegistry {
    /// Which sink has which file; all lanes share it.
    pub(crate) claims: Arc<Claims>,
    pub(crate) lanes: Lanes,
    sets: Vec<Set>,
    set_ids: HashMap<(Arc<[SinkSpec]>, Homes), SinkSetId>,
    /// The fixed part of each root's paths, or a keyring's name.
    roots: Vec<Arc<Path>>,
    root_ids: HashMap<Arc<Path>, RootId>,
    homes: BTreeMap<Arc<Path>, Home>,
    /// Changes that the engine was not told of.
    changes: Vec<Change>,
    /// Roots below which somebody writes so much that directories are not watched for a while.
    flooded: BTreeSet<Arc<Path>>,
}

impl SinkRegistry {
    pub(crate) fn new(report: ReportTo) -> Self {
        let claims = Arc::<Claims>::default();
        Self {
            lanes: Lanes::new(report, Arc::clone(&claims)),
            claims,
            sets: Vec::new(),
            set_ids: HashMap::new(),
            roots: Vec::new(),
            root_ids: HashMap::new(),
            homes: BTreeMap::new(),
            changes: Vec::new(),
            flooded: BTreeSet::new(),
        }
    }

    /// The sinks of a set.
    pub(crate) fn specs(&self, id: SinkSetId) -> &Arc<[SinkSpec]> {
        &self.sets[id.0 as usize].specs
    }

    /// What the engine knows of a sink.
    pub(crate) fn policy(&self, id: SinkSetId, sink: SinkId) -> SinkPolicy {
        self.sets[id.0 as usize].policies[usize::from(sink.0)]
    }

    /// The fixed part of a root's paths, or a keyring's name.
    pub(crate) fn root(&self, id: RootId) -> &Arc<Path> {
        &self.roots[id.0 as usize]
    }

    /// Where a lane publishes, for messages: roots, and of one that lies on several file systems its apps' directories.
    pub(crate) fn roots_of(&self, lane: LaneId) -> String {
        let is_elsewhere = |root| self.homes.values().any(|home| home.root == root && home.lane != lane);
        let all = self.homes.iter().filter(|(_, home)| home.lane == lane);
        let named = all.map(|(path, home)| if is_elsewhere(home.root) { path } else { self.root(home.root) });
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

    /// The number of a set of sinks. The engine must be told of a new one before its number is used: [`take_changes`](Self::take_changes).
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
        let policies: io::Result<Box<[SinkPolicy]>> =
            both.map(|(spec, home)| self.make_policy(spec, home, device_of)).collect();
        let policies = policies?;
        let id = SinkSetId(u32::try_from(self.sets.len()).unwrap_or(u32::MAX));
        self.sets.push(Set { specs: Arc::clone(specs), homes: key.1.clone(), policies: policies.clone() });
        self.set_ids.insert(key, id);
        self.changes.push(Change::SinkSet { id, sinks: policies });
        Ok(id)
    }

    /// Looks again which file system each home lies on: something may have been mounted, or unmounted, since. The engine
    /// must be told of it: [`take_changes`](Self::take_changes).
    ///
    /// # Errors
    /// When no thread is to be had for a new lane.
    pub(crate) fn update_lanes(&mut self, device_of: &dyn Fn(&Path) -> Option<u64>) -> io::Result<()> {
        let homes: Vec<Arc<Path>> = self.homes.keys().cloned().collect();
        for home in homes {
            if let Some(device) = device_of(&home) {
                self.move_to(&home, device)?;
            }
        }
        Ok(())
    }

    /// A file system of this number is mounted here. The engine must be told of it, as after [`update_lanes`](Self::update_lanes).
    ///
    /// # Errors
    /// When no thread is to be had for a new lane.
    pub(crate) fn mounted(&mut self, at: &Path, device: u64) -> io::Result<()> {
        self.update_lanes(&|home| home.starts_with(at).then_some(device))
    }

    /// Lets the lane of this file system serve a home. What is in flight in its lane ends there.
    fn move_to(&mut self, home: &Arc<Path>, device: u64) -> io::Result<()> {
        let lane = self.lanes.get_or_start(LaneKey::FileSystem(device))?;
        let is_news = self.homes.get_mut(home).is_some_and(|known| std::mem::replace(&mut known.lane, lane) != lane);
        if !is_news {
            return Ok(());
        }
        for (number, set) in (0..).zip(&mut self.sets) {
            let its = set.policies.iter_mut().zip(&set.homes).filter(|(_, its)| *its == home);
            let moved = its.map(|(policy, _)| policy.lane = lane).count() > 0;
            if moved {
                self.changes.push(Change::SinkSet { id: SinkSetId(number), sinks: set.policies.clone() });
            }
        }
        let shown = home.display();
        tracing::info!(event = "sink_moved", home = %shown, "{shown} lies on another file system than before");
        Ok(())
    }

    /// The sets that the engine was not told of. They stay here as long as no plan that needs them can be applied.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The lane and root of an app's places of a sink.
    pub(crate) fn lane_and_root(
        &mut self,
        spec: &SinkSpec,
        home: &Arc<Path>,
        device_of: &dyn Fn(&Path) -> Option<u64>,
    ) -> io::Result<(LaneId, RootId)> {
        if let Some(home) = self.homes.get(home) {
            return Ok((home.lane, home.root));
        }
        let lane = self.lanes.get_or_start(match &spec.kind {
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
            self.roots.push(fixed);
        }
        id
    }

    fn make_policy(
        &mut self,
        spec: &SinkSpec,
        home: &Arc<Path>,
        device_of: &dyn Fn(&Path) -> Option<u64>,
    ) -> io::Result<SinkPolicy> {
        let (lane, root) = self.lane_and_root(spec, home, device_of)?;
        Ok(SinkPolicy { root, lane, shows_expiry: spec.shows_expiry(), on_expiry: spec.on_expiry })
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
    use super::super::lanes::MOST_UNSEEN;
    use super::*;
    use crate::domain::{FileSink, OnExpiry};

    fn sink(path: &str) -> SinkSpec {
        SinkSpec { kind: SinkKind::File(FileSink::with_defaults(path).into()), on_expiry: OnExpiry::Keep }
    }

    fn registry() -> SinkRegistry {
        SinkRegistry::new(Arc::new(|_, _| {}))
    }

    #[test]
    fn apps_of_one_root_have_lanes_of_their_own_where_their_directories_are_file_systems_of_their_own() {
        let (mut sinks, specs) = (registry(), Arc::from([sink("/srv/{app}/{corp_id}")]));
        let device_of = |home: &Path| Some(if home.ends_with("crm") { 2 } else { 1 });
        let set = |sinks: &mut SinkRegistry, app: &str| {
            let id = sinks.define(&specs, &app.parse().unwrap(), &device_of).unwrap();
            sinks.policy(id, SinkId(0))
        };
        let [crm, hr, bot] = ["crm", "hr", "bot"].map(|app| set(&mut sinks, app));
        assert!(crm.root == hr.root && hr.root == bot.root, "what fails is told by root");
        assert!(crm.lane != hr.lane && hr.lane == bot.lane);
        assert_eq!(
            (sinks.roots_of(crm.lane), sinks.roots_of(hr.lane)),
            ("/srv/crm".into(), "/srv/bot, /srv/hr".into())
        );

        sinks.take_changes();
        sinks.mounted(Path::new("/srv/hr"), 3).unwrap();
        let news = sinks.take_changes();
        assert!(matches!(&news[..], [Change::SinkSet { sinks, .. }] if sinks[0].lane != hr.lane), "{news:?}");
        assert_eq!(sinks.roots_of(hr.lane), "/srv/bot");
        sinks.mounted(Path::new("/srv"), 1).unwrap();
        assert_eq!((sinks.roots_of(hr.lane), sinks.take_changes().len()), ("/srv".into(), 2));
    }

    #[test]
    fn a_dead_mount_of_many_apps_shares_no_lane_with_a_file_system_that_was_seen() {
        let mut sinks = registry();
        let mut lanes = |path: &str, apps: std::ops::Range<u32>| -> BTreeSet<LaneId> {
            let specs = Arc::from([sink(path)]);
            let device_of = |home: &Path| home.starts_with("/srv").then_some(1);
            let lane_of = |number: u32| {
                let app = format!("app{number}").parse().unwrap();
                let id = sinks.define(&specs, &app, &device_of).unwrap();
                sinks.policy(id, SinkId(0)).lane
            };
            apps.map(lane_of).collect()
        };
        let healthy = lanes("/srv/{app}/{corp_id}", 0..5);
        let dead = lanes("/mnt/dead/{app}/{corp_id}", 0..1000);
        assert!(healthy.is_disjoint(&dead) && dead.len() == MOST_UNSEEN, "{healthy:?} {dead:?}");
    }
}
