//! Carrying over from one config to the next: text that both have, and tenants whose removal is held back.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::merge::{TenantStep, walk};
use super::{in_use, places};
use crate::config::model::{AppConfig, Config};
use crate::domain::{AppName, CorpId, Place};

impl Config {
    /// Takes over the text of tenants that `old` has too, so that two configs are not twice as large as one.
    pub fn share_with(&mut self, old: &Self) {
        for (name, app) in &mut self.apps {
            let Some((old_name, old)) = old.apps.get_key_value(name) else { continue };
            debug_assert_eq!(old_name, name);
            let mut shared = Vec::with_capacity(app.tenants.len());
            walk(&old.tenants, &app.tenants, |step| match step {
                TenantStep::Removed(_) => {}
                TenantStep::Added(id) | TenantStep::Stays(id) => shared.push(id.clone()),
            });
            app.tenants = shared;
            if app.sinks == old.sinks {
                app.sinks = Arc::clone(&old.sinks);
            }
        }
    }
}

/// Puts the tenants that `old` has and `new` has not back into `new`, with the sinks and names they had, so that a removal
/// that is held back changes nothing for them. Those whose places `new` gives to others (they moved to another app, say)
/// are not put back: two must not write one place. Returns how many were.
pub fn keep_removed(new: &mut Config, old: &Config) -> usize {
    let removed = removed(new, old);
    let places: Vec<Vec<Place>> = removed.iter().map(|(name, id)| places(name, &old.apps[*name], id)).collect();
    let taken = in_use(&places.iter().flatten().collect::<HashSet<_>>(), new);
    let mut kept: BTreeMap<&AppName, Vec<CorpId>> = BTreeMap::new();
    for ((name, id), places) in removed.iter().zip(&places) {
        if !places.iter().any(|place| taken.contains(place)) {
            kept.entry(name).or_default().push((*id).clone());
        }
    }
    let count = kept.values().map(Vec::len).sum();
    for (name, ids) in kept {
        let before = &old.apps[name];
        match new.apps.get_mut(name) {
            Some(app) => put_back(app, before, ids),
            None => {
                let overrides = before.overrides.iter().filter(|(id, _)| ids.binary_search(id).is_ok());
                let overrides = overrides.map(|(id, overrides)| (id.clone(), overrides.clone())).collect();
                new.apps.insert(name.clone(), AppConfig { tenants: ids, overrides, ..before.clone() });
            }
        }
    }
    count
}

fn removed<'a>(new: &Config, old: &'a Config) -> Vec<(&'a AppName, &'a CorpId)> {
    let mut removed = Vec::new();
    for (name, before) in &old.apps {
        let now = new.apps.get(name).map_or(&[][..], |app| &app.tenants);
        walk(&before.tenants, now, |step| {
            if let TenantStep::Removed(id) = step {
                removed.push((name, id));
            }
        });
    }
    removed
}

fn put_back(app: &mut AppConfig, before: &AppConfig, ids: Vec<CorpId>) {
    for id in &ids {
        let mut overrides = before.overrides.get(id).cloned().unwrap_or_default();
        let sinks = before.sinks_of(id);
        if *sinks != app.sinks {
            overrides.sinks = Some(Arc::clone(sinks));
        }
        if overrides != crate::config::TenantOverrides::default() {
            app.overrides.insert(id.clone(), overrides);
        }
    }
    app.tenants.extend(ids);
    app.tenants.sort_unstable();
}
