//! How one config differs from the next, tenant by tenant, in plain data. Sorted lists are walked side by side, so that a
//! million tenants of which one is new cost a million short comparisons and no memory.

pub(crate) mod mass_removal;
mod merge;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use crate::config::model::{AppConfig, Config};
use crate::domain::{AppName, AppPolicy, CorpId, OnRemove, Place, Placeholder, SinkSpec, TenantId};
use merge::{TenantStep, walk};

/// What happens to an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is new.
    Added,
    /// It stays, perhaps with other settings.
    Stays,
    /// It is gone, and so are its tenants.
    Gone,
}

/// A tenant, and the places that no longer belong to it and are to be emptied. They are empty where `on_remove` was
/// `keep`, and never hold a place that the new config gives to any tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vacated {
    /// Which tenant of the app.
    pub corp_id: CorpId,
    /// The places to be emptied.
    pub places: Vec<Place>,
}

/// What changed about one app.
#[derive(Debug, Clone, PartialEq)]
pub struct AppDifference {
    /// Which app.
    pub name: AppName,
    /// What became of it.
    pub fate: Fate,
    /// Its new policy, where that changed or the app is new.
    pub policy: Option<AppPolicy>,
    /// Whether all its tenants must be fetched anew: another client_id, another place of the secret, another endpoint.
    pub credentials_changed: bool,
    /// Whether calls are made in another way (proxy, timeouts, certificates, address) or to another endpoint.
    pub connection_changed: bool,
    /// Tenants that are new here, sorted.
    pub added: Vec<CorpId>,
    /// Tenants that stay and are to be published again, their sinks or names having changed; sorted.
    pub sinks_changed: Vec<Vacated>,
    /// Tenants that are gone from here, sorted. One that came under another app is gone here and added there.
    pub removed: Vec<Vacated>,
}

/// The size of a change, in numbers of tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChangeCounts {
    /// Before.
    pub old: usize,
    /// After.
    pub new: usize,
    /// New ones.
    pub added: usize,
    /// Those that are gone.
    pub removed: usize,
    /// Those whose sinks or names changed.
    pub sinks_changed: usize,
    /// Those that are fetched anew, their app's credentials having changed.
    pub refetched: usize,
}

/// How one config differs from the next. Apps of which nothing changed are not in it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Difference {
    /// The apps, sorted by name.
    pub apps: Vec<AppDifference>,
    /// In numbers.
    pub counts: ChangeCounts,
}

impl Difference {
    /// Whether no app and no tenant changed.
    pub fn is_empty(&self) -> bool {
        self.apps.is_empty()
    }

    /// Whether all tenants would go, or more than half of four or more: what an emptied or truncated file, or a package
    /// upgrade's wrong answer, looks like.
    pub fn removes_too_much(&self) -> bool {
        let ChangeCounts { old, removed, .. } = self.counts;
        removed > 0 && (removed == old || (old >= 4 && removed * 2 > old))
    }
}

/// How `new` differs from `old`; without an old one, everything is new.
pub fn diff(old: Option<&Config>, new: &Config) -> Difference {
    let mut difference = Difference::default();
    let mut names: Vec<&AppName> = old.iter().flat_map(|old| old.apps.keys()).chain(new.apps.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let before = old.and_then(|old| Some((old, old.apps.get(name)?)));
        let after = new.apps.get(name).map(|app| (new, app));
        let app = app_difference(name, before, after);
        difference.counts.old += before.map_or(0, |(_, app)| app.tenants.len());
        difference.counts.new += after.map_or(0, |(_, app)| app.tenants.len());
        let nothing = app.fate == Fate::Stays
            && app.policy.is_none()
            && !(app.credentials_changed || app.connection_changed)
            && app.added.is_empty()
            && app.sinks_changed.is_empty()
            && app.removed.is_empty();
        if nothing {
            continue;
        }
        difference.counts.added += app.added.len();
        difference.counts.removed += app.removed.len();
        difference.counts.sinks_changed += app.sinks_changed.len();
        if app.credentials_changed {
            difference.counts.refetched += after.map_or(0, |(_, now)| now.tenants.len()) - app.added.len();
        }
        difference.apps.push(app);
    }
    spare_places_in_use(&mut difference, new);
    difference
}

type Side<'a> = Option<(&'a Config, &'a AppConfig)>;

fn app_difference(name: &AppName, before: Side<'_>, after: Side<'_>) -> AppDifference {
    let mut difference = AppDifference {
        name: name.clone(),
        fate: Fate::Stays,
        policy: None,
        credentials_changed: false,
        connection_changed: false,
        added: Vec::new(),
        sinks_changed: Vec::new(),
        removed: Vec::new(),
    };
    match (before, after) {
        (Some((_, old)), None) => {
            difference.fate = Fate::Gone;
            difference.removed = old.tenants.iter().map(|id| vacated(name, old, id)).collect();
        }
        (None, Some((_, new))) => {
            difference.fate = Fate::Added;
            difference.policy = Some(new.policy);
            difference.added = new.tenants.clone();
        }
        (Some((old_config, old)), Some((new_config, new))) => {
            difference.policy = (old.policy != new.policy).then_some(new.policy);
            difference.credentials_changed = (&old.client_id, &old.client_secret, &old.endpoint)
                != (&new.client_id, &new.client_secret, &new.endpoint);
            difference.connection_changed = old_config.connection(old) != new_config.connection(new);
            tenants(name, old, new, &mut difference);
        }
        (None, None) => {}
    }
    difference
}

fn tenants(name: &AppName, old: &AppConfig, new: &AppConfig, difference: &mut AppDifference) {
    let shared_changed = published_otherwise(&old.sinks, &new.sinks, old, new, None);
    walk(&old.tenants, &new.tenants, |step| match step {
        TenantStep::Removed(id) => difference.removed.push(vacated(name, old, id)),
        TenantStep::Added(id) => difference.added.push(id.clone()),
        TenantStep::Stays(id) => {
            let overrides = !(old.overrides.is_empty() && new.overrides.is_empty())
                && (old.overrides.contains_key(id) || new.overrides.contains_key(id));
            let changed = if overrides {
                published_otherwise(old.sinks_of(id), new.sinks_of(id), old, new, Some(id))
            } else {
                shared_changed
            };
            if changed {
                let mut vacated = vacated(name, old, id);
                vacated.places.retain(|place| !places(name, new, id).contains(place));
                difference.sinks_changed.push(vacated);
            }
        }
    });
}

/// Whether a tenant is published elsewhere, or with another content. `id` is one with settings of its own, if it has any.
fn published_otherwise(
    was: &[SinkSpec],
    is: &[SinkSpec],
    old: &AppConfig,
    new: &AppConfig,
    id: Option<&CorpId>,
) -> bool {
    let names = |placeholder| is.iter().any(|sink| sink.kind.names(placeholder));
    let name_of =
        |app: &'_ AppConfig| id.and_then(|id| app.overrides.get(id)).and_then(|overrides| overrides.name.clone());
    was != is
        || (old.client_id != new.client_id && names(Placeholder::ClientId))
        || (name_of(old) != name_of(new) && names(Placeholder::Name))
}

/// The places of one tenant.
pub(crate) fn places(name: &AppName, app: &AppConfig, id: &CorpId) -> Vec<Place> {
    let names = app.names_of(name, id);
    app.sinks_of(id).iter().map(|sink| sink.place(&names)).collect()
}

fn vacated(name: &AppName, old: &AppConfig, id: &CorpId) -> Vacated {
    let places = match old.on_remove {
        OnRemove::Delete => places(name, old, id),
        OnRemove::Keep => Vec::new(),
    };
    Vacated { corp_id: id.clone(), places }
}

/// A place that one tenant leaves may be another's from now on (a tenant that came under another app, two that changed
/// names): emptying it would delete the new owner's token.
fn spare_places_in_use(difference: &mut Difference, new: &Config) {
    let vacated = || difference.apps.iter().flat_map(|app| app.removed.iter().chain(&app.sinks_changed));
    let left: HashSet<&Place> = vacated().flat_map(|tenant| &tenant.places).collect();
    if left.is_empty() {
        return;
    }
    let in_use = in_use(&left, new);
    if in_use.is_empty() {
        return;
    }
    for app in &mut difference.apps {
        for tenant in app.removed.iter_mut().chain(&mut app.sinks_changed) {
            tenant.places.retain(|place| !in_use.contains(place));
        }
    }
}

/// Those of `places` that `config` gives to a tenant.
pub(crate) fn in_use(places: &HashSet<&Place>, config: &Config) -> HashSet<Place> {
    let mut found = HashSet::new();
    for (name, app) in &config.apps {
        for id in &app.tenants {
            let names = app.names_of(name, id);
            let theirs = app.sinks_of(id).iter().map(|sink| sink.place(&names));
            found.extend(theirs.filter(|place| places.contains(place)));
        }
    }
    found
}

impl AppDifference {
    /// The whole name of one of the app's tenants.
    pub fn id(&self, corp_id: &CorpId) -> TenantId {
        TenantId { app: self.name.clone(), corp_id: corp_id.clone() }
    }
}
