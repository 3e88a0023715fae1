//! The difference of two configs as steps for the engine, each made when it is taken: as a list, those of a million
//! tenants would be 80 MB.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::vec::IntoIter;

use crate::config::{AppConfig, AppDifference, Config, Difference, Fate, Vacated};
use crate::domain::{AppName, Change, CorpId, Freshness, LaneId, Place, RootId, SinkSetId, SinkSpec, TenantId};
use crate::store::Snapshot;

use super::super::sinks::registry::SinkRegistry;
use super::candidate::Candidate;

/// How many tenants are changed in one turn, so that a reload of a million delays nobody.
pub(crate) const STEPS_A_TURN: usize = 1000;

/// The steps that lead from one config to the next, in an order that the engine can take: sink sets, then each app with its
/// tenants.
pub(crate) struct Plan {
    /// Steps that can be taken before the next tenant's.
    ready: VecDeque<Change>,
    apps: IntoIter<AppSteps>,
    app: Option<AppSteps>,
    /// What follows after the tenants.
    last: VecDeque<Change>,
    /// What the state knows of the tenants' tokens, and where the next one is looked for.
    restored: Snapshot,
    next_restored: usize,
}

impl Plan {
    /// Numbers the sinks of a candidate and plans what leads to it from `old`. After an error nothing is lost: the next plan
    /// has the sets.
    pub(crate) fn new(
        candidate: &mut Candidate,
        old: Option<&Arc<Config>>,
        registry: &mut SinkRegistry,
    ) -> io::Result<Self> {
        // A directory that cannot be looked at now stays in its lane.
        registry.update_lanes(&|home| candidate.devices.get(home).copied().flatten())?;
        let difference = std::mem::take(&mut candidate.difference);
        let (mut apps, mut last) = (Vec::new(), VecDeque::new());
        for name in &candidate.new_secrets {
            if !difference.apps.iter().any(|app| app.name == *name) {
                last.extend(policy(&candidate.config, name, Freshness::Stale));
            }
        }
        for app in difference.apps {
            let stale = app.credentials_changed || candidate.new_secrets.contains(&app.name);
            let first = match app.fate {
                Fate::Gone => None,
                Fate::Added | Fate::Stays => {
                    let freshness = if stale { Freshness::Stale } else { Freshness::Current };
                    policy(&candidate.config, &app.name, freshness)
                }
            };
            apps.push(AppSteps { first, ..AppSteps::new(app, candidate, old, registry)? });
        }
        let ready = registry.take_changes().into();
        Ok(Self { ready, apps: apps.into_iter(), app: None, last, restored: Snapshot::default(), next_restored: 0 })
    }

    /// What the state knows of the tenants that are added.
    pub(crate) fn restoring(self, restored: Snapshot) -> Self {
        Self { restored, ..self }
    }

    /// All tenants that an app has in the end are fetched anew.
    pub(crate) fn make_stale(&mut self, config: &Config, name: &AppName) {
        self.last.extend(policy(config, name, Freshness::Stale));
    }

    fn finish(&mut self, step: Change) -> Change {
        let Change::Added { id, sinks, record: None } = step else { return step };
        let found = self.restored.find(self.next_restored, &id);
        // The state has them in nearly the same order, so the next one is mostly found without a search.
        self.next_restored = found.map_or(self.next_restored, |at| at + 1);
        Change::Added { id, sinks, record: found.map(|at| self.restored.record(at)) }
    }
}

impl Iterator for Plan {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(step) = self.ready.pop_front().or_else(|| self.app.as_mut()?.next()) {
                return Some(self.finish(step));
            }
            self.app = self.apps.next();
            if self.app.is_none() {
                return self.last.pop_front();
            }
        }
    }
}

fn policy(config: &Config, name: &AppName, freshness: Freshness) -> Option<Change> {
    let app = config.apps.get(name)?;
    let path = config.connection(app).path();
    Some(Change::App { name: name.clone(), policy: app.policy, path, freshness })
}

/// One app's steps.
struct AppSteps {
    name: AppName,
    first: Option<Change>,
    removed: IntoIter<Vacated>,
    sinks_changed: IntoIter<Vacated>,
    added: IntoIter<CorpId>,
    last: Option<Change>,
    sinks: BySinks<SinkSetId>,
    left: VacatedPlaces,
}

impl AppSteps {
    fn new(
        app: AppDifference,
        candidate: &Candidate,
        old: Option<&Arc<Config>>,
        registry: &mut SinkRegistry,
    ) -> io::Result<Self> {
        let device_of = |path: &Path| candidate.devices.get(path).copied().flatten();
        let left = VacatedPlaces::new(&app, old, registry, &device_of)?;
        let ids = app.added.iter().chain(app.sinks_changed.iter().map(|vacated| &vacated.corp_id));
        let sinks = match candidate.config.apps.get(&app.name) {
            Some(new) => BySinks::new(new, ids, |specs| registry.define(specs, &app.name, &device_of))?,
            None => BySinks::default(),
        };
        let last = (app.fate == Fate::Gone).then(|| Change::AppGone { name: app.name.clone() });
        let AppDifference { name, removed, sinks_changed, added, .. } = app;
        let (removed, sinks_changed, added) = (removed.into_iter(), sinks_changed.into_iter(), added.into_iter());
        Ok(Self { name, first: None, removed, sinks_changed, added, last, sinks, left })
    }

    fn id(&self, corp_id: CorpId) -> TenantId {
        TenantId { app: self.name.clone(), corp_id }
    }
}

impl Iterator for AppSteps {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        if let Some(vacated) = self.removed.next() {
            let withdraw = self.left.withdrawals(&self.name, &vacated);
            return Some(Change::Removed { id: self.id(vacated.corp_id), withdraw });
        }
        if let Some(vacated) = self.sinks_changed.next() {
            let withdraw = self.left.withdrawals(&self.name, &vacated);
            let sinks = *self.sinks.of(&vacated.corp_id)?;
            return Some(Change::SinksChanged { id: self.id(vacated.corp_id), sinks, withdraw });
        }
        if let Some(corp_id) = self.added.next() {
            let sinks = *self.sinks.of(&corp_id)?;
            return Some(Change::Added { id: self.id(corp_id), sinks, record: None });
        }
        self.last.take()
    }
}

/// What follows from a tenant's sinks: the same for all but the few that have sinks of their own.
struct BySinks<T> {
    shared: Option<T>,
    own: BTreeMap<CorpId, T>,
}

impl<T> Default for BySinks<T> {
    fn default() -> Self {
        Self { shared: None, own: BTreeMap::new() }
    }
}

impl<T> BySinks<T> {
    /// For these tenants of an app; `of` is called once for the sinks that they share.
    fn new<'a>(
        app: &AppConfig,
        ids: impl Iterator<Item = &'a CorpId>,
        mut of: impl FnMut(&Arc<[SinkSpec]>) -> io::Result<T>,
    ) -> io::Result<Self> {
        let mut all = Self::default();
        for id in ids {
            match app.overrides.get(id).and_then(|overrides| overrides.sinks.as_ref()) {
                Some(own) => drop(all.own.insert(id.clone(), of(own)?)),
                None if all.shared.is_none() => all.shared = Some(of(&app.sinks)?),
                None => {}
            }
        }
        Ok(all)
    }

    fn of(&self, id: &CorpId) -> Option<&T> {
        self.own.get(id).or(self.shared.as_ref())
    }
}

/// The lane and root of each of a list of sinks.
type Locations = Vec<(LaneId, RootId)>;

/// The places that an app's tenants leave.
struct VacatedPlaces {
    old: Option<Arc<Config>>,
    whereabouts: BySinks<Locations>,
}

impl VacatedPlaces {
    fn new(
        app: &AppDifference,
        old: Option<&Arc<Config>>,
        registry: &mut SinkRegistry,
        device_of: &dyn Fn(&Path) -> Option<u64>,
    ) -> io::Result<Self> {
        let leaving = app.removed.iter().chain(&app.sinks_changed).filter(|vacated| !vacated.places.is_empty());
        let whereabouts = match old.and_then(|old| old.apps.get(&app.name)) {
            Some(settings) => BySinks::new(settings, leaving.map(|vacated| &vacated.corp_id), |specs| {
                let whereabouts =
                    |spec: &SinkSpec| registry.lane_and_root(spec, &spec.home(&app.name).into(), device_of);
                specs.iter().map(whereabouts).collect()
            })?,
            None => BySinks::default(),
        };
        Ok(Self { old: old.cloned(), whereabouts })
    }

    /// The places that a tenant leaves, each with the lane that withdraws it.
    fn withdrawals(&self, app: &AppName, vacated: &Vacated) -> Vec<(LaneId, RootId, Place)> {
        let old = self.old.as_ref().and_then(|old| old.apps.get(app)).filter(|_| !vacated.places.is_empty());
        let (Some(old), Some(whereabouts)) = (old, self.whereabouts.of(&vacated.corp_id)) else { return Vec::new() };
        let names = old.names_of(app, &vacated.corp_id);
        let places = old.sinks_of(&vacated.corp_id).iter().map(|spec| spec.place(&names));
        let known = whereabouts.iter().zip(places).map(|(&(lane, root), place)| (lane, root, place));
        known.filter(|(_, _, place)| vacated.places.contains(place)).collect()
    }
}

/// The places among `withdrawing` that the candidate gives to tenants, so that they are not withdrawn.
pub(crate) fn reclaimed(candidate: &Candidate, withdrawing: &HashSet<Place>) -> Vec<Place> {
    let places_of = |app: &AppName, corp_id: &CorpId| match candidate.config.apps.get(app) {
        Some(settings) => {
            let names = settings.names_of(app, corp_id);
            settings.sinks_of(corp_id).iter().map(|sink| sink.place(&names)).collect()
        }
        None => Vec::new(),
    };
    if withdrawing.is_empty() {
        return Vec::new();
    }
    let apps = candidate.difference.apps.iter();
    let ids = apps
        .flat_map(|app| app.added.iter().chain(app.sinks_changed.iter().map(|v| &v.corp_id)).map(|id| (&app.name, id)));
    ids.flat_map(|(app, id)| places_of(app, id)).filter(|place| withdrawing.contains(place)).collect()
}

/// The places to withdraw because they left the config while the daemon was down.
pub(crate) fn vacated(
    difference: &Difference,
    devices: &HashMap<PathBuf, Option<u64>>,
    last: Option<&Arc<Config>>,
    registry: &mut SinkRegistry,
) -> io::Result<Vec<(LaneId, RootId, Place)>> {
    let device_of = |path: &Path| devices.get(path).copied().flatten();
    let mut places = Vec::new();
    for app in difference.apps.iter().filter(|_| last.is_some()) {
        let left = VacatedPlaces::new(app, last, registry, &device_of)?;
        places.extend(
            app.removed.iter().chain(&app.sinks_changed).flat_map(|vacated| left.withdrawals(&app.name, vacated)),
        );
    }
    Ok(places)
}
