//! The difference of two configs as steps for the engine.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::config::{AppDifference, Config, Fate, Vacated};
use crate::domain::{AppName, Change, CorpId, Freshness, LaneId, Place, Record, RootId, SinkSetId, SinkSpec, TenantId};

use super::outlets::Outlets;
use super::prepare::Candidate;

/// How many tenants are changed in one turn, so that a reload of a million holds nobody up.
pub(super) const STEPS_A_TURN: usize = 1000;

/// Numbers the sinks of a candidate and lists the steps that lead to it, in an order that the engine can take: sink sets,
/// then each app with its tenants. After an error nothing is lost: the next plan has the sets.
///
/// `record` tells what the state knows of a tenant's token; `old` is the config that the difference starts from.
pub(super) fn steps(
    candidate: &Candidate,
    old: Option<&Config>,
    outlets: &mut Outlets,
    record: &dyn Fn(&TenantId) -> Option<Record>,
) -> io::Result<VecDeque<Change>> {
    let device_of = |path: &Path| candidate.devices.get(path).copied().unwrap_or(0);
    let mut plan = Planner { new: &candidate.config, old, outlets, device_of: &device_of, steps: VecDeque::new() };
    for app in &candidate.difference.apps {
        let stale = app.credentials_changed || candidate.new_secrets.contains(&app.name);
        plan.app(app, stale, record)?;
    }
    for name in &candidate.new_secrets {
        if !candidate.difference.apps.iter().any(|app| app.name == *name) {
            plan.policy(name, Freshness::Stale);
        }
    }
    let Planner { outlets, steps, .. } = plan;
    Ok(outlets.take_news().into_iter().chain(steps).collect())
}

/// The step after which all tenants that an app has by then are fetched anew.
pub(super) fn made_stale(config: &Config, name: &AppName) -> Option<Change> {
    let policy = config.apps.get(name)?.policy;
    Some(Change::App { name: name.clone(), policy, freshness: Freshness::Stale })
}

/// The places that tenants get, or keep in another way: withdrawals of them that have not succeeded yet are off.
pub(super) fn reclaimed(candidate: &Candidate, withdrawing: &HashSet<Place>) -> Vec<Place> {
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
    let ids =
        apps.flat_map(|app| app.added.iter().chain(app.resinked.iter().map(|v| &v.corp_id)).map(|id| (&app.name, id)));
    ids.flat_map(|(app, id)| places_of(app, id)).filter(|place| withdrawing.contains(place)).collect()
}

/// The places that are to be emptied because they left the config while the daemon was down.
pub(super) fn vacated(
    candidate: &Candidate,
    last: Option<&Config>,
    outlets: &mut Outlets,
) -> io::Result<Vec<(LaneId, RootId, Place)>> {
    let device_of = |path: &Path| candidate.devices.get(path).copied().unwrap_or(0);
    let mut plan =
        Planner { new: &candidate.config, old: last, outlets, device_of: &device_of, steps: VecDeque::new() };
    let mut places = Vec::new();
    for app in candidate.difference.apps.iter().filter(|_| last.is_some()) {
        for vacated in app.removed.iter().chain(&app.resinked) {
            places.extend(plan.withdrawals(app, vacated)?);
        }
    }
    Ok(places)
}

struct Planner<'a> {
    new: &'a Config,
    old: Option<&'a Config>,
    outlets: &'a mut Outlets,
    device_of: &'a dyn Fn(&Path) -> u64,
    steps: VecDeque<Change>,
}

impl Planner<'_> {
    fn app(
        &mut self,
        app: &AppDifference,
        stale: bool,
        record: &dyn Fn(&TenantId) -> Option<Record>,
    ) -> io::Result<()> {
        if app.fate != Fate::Gone {
            self.policy(&app.name, if stale { Freshness::Stale } else { Freshness::Current });
        }
        for vacated in &app.removed {
            let withdraw = self.withdrawals(app, vacated)?;
            self.steps.push_back(Change::Removed { id: app.id(&vacated.corp_id), withdraw });
        }
        for vacated in &app.resinked {
            let sinks = self.sinks(&app.name, &vacated.corp_id)?;
            let withdraw = self.withdrawals(app, vacated)?;
            self.steps.push_back(Change::Resinked { id: app.id(&vacated.corp_id), sinks, withdraw });
        }
        for corp_id in &app.added {
            let id = app.id(corp_id);
            let sinks = self.sinks(&app.name, corp_id)?;
            let record = record(&id);
            self.steps.push_back(Change::Added { id, sinks, record });
        }
        if app.fate == Fate::Gone {
            self.steps.push_back(Change::AppGone { name: app.name.clone() });
        }
        Ok(())
    }

    fn policy(&mut self, name: &AppName, freshness: Freshness) {
        if let Some(app) = self.new.apps.get(name) {
            self.steps.push_back(Change::App { name: name.clone(), policy: app.policy, freshness });
        }
    }

    fn sinks(&mut self, app: &AppName, corp_id: &CorpId) -> io::Result<SinkSetId> {
        let none: Arc<[SinkSpec]> = Arc::new([]);
        let specs = self.new.apps.get(app).map_or(&none, |app| app.sinks_of(corp_id));
        self.outlets.define(specs, self.device_of)
    }

    /// The places that a tenant leaves, each with the lane that empties it.
    fn withdrawals(&mut self, app: &AppDifference, vacated: &Vacated) -> io::Result<Vec<(LaneId, RootId, Place)>> {
        let Some(old) = self.old.and_then(|old| old.apps.get(&app.name)) else { return Ok(Vec::new()) };
        if vacated.places.is_empty() {
            return Ok(Vec::new());
        }
        let names = old.names_of(&app.name, &vacated.corp_id);
        let mut withdrawals = Vec::new();
        for spec in old.sinks_of(&vacated.corp_id).iter() {
            let place = spec.place(&names);
            if vacated.places.contains(&place) {
                let (lane, root) = self.outlets.whereabouts(spec, self.device_of)?;
                withdrawals.push((lane, root, place));
            }
        }
        Ok(withdrawals)
    }
}
