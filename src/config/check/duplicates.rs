//! Two sinks on one place, and a file below what another sink makes a file of. At a million tenants this must stay linear, so
//! places are compared by hash first.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;
use std::path::Path;

use super::places::{AppPlaces, SinkPosition, TenantSink, directory_of, each, name_of};
use crate::config::diagnostics::collect::Diagnostics;
use crate::system::permissions::Identity;

/// As many conflicts of each kind are reported. The rest is reported once these are mended.
const MOST: usize = 100;

/// The keys by which places are compared: device, inode and name where the directory exists, since links and mounts count;
/// otherwise the path.
pub(crate) struct PlaceKeys<'e> {
    hasher: RandomState,
    directories: &'e HashMap<String, Identity>,
}

impl<'e> PlaceKeys<'e> {
    pub(crate) fn new(directories: &'e HashMap<String, Identity>) -> Self {
        Self { hasher: RandomState::new(), directories }
    }

    /// The directory of a place, if it was looked at.
    pub(crate) fn directory(&self, place: &str) -> Option<Identity> {
        self.directories.get(directory_of(place)).copied()
    }

    pub(crate) fn hash(&self, place: &str) -> u64 {
        match self.directory(place) {
            Some(directory) => self.hasher.hash_one((directory, name_of(place))),
            None => self.hasher.hash_one(place),
        }
    }

    /// Equal for equal places, and for no others.
    fn exact(&self, place: &str) -> (Option<Identity>, String) {
        match self.directory(place) {
            Some(directory) => (Some(directory), name_of(place).to_owned()),
            None => (None, place.to_owned()),
        }
    }
}

/// Two sinks, or two tenants of one sink, that would write the same place.
pub(crate) fn same_places(apps: &[AppPlaces<'_>], hashes: &[u64], keys: &PlaceKeys<'_>, diagnostics: &Diagnostics<'_>) {
    let twice: Vec<u64> = hashes.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    if twice.is_empty() {
        return;
    }
    let mut first: HashMap<_, (TenantSink<'_>, String)> = HashMap::new();
    // The first pair of each pair of sinks stands for all: a fixed path gives one conflict per tenant.
    let mut conflicts: Vec<Conflict<'_>> = Vec::new();
    let mut known: HashMap<(SinkPosition, SinkPosition), usize> = HashMap::new();
    each(apps, &mut |later, place| {
        if twice.binary_search(&keys.hash(place)).is_err() {
            return ControlFlow::Continue(());
        }
        let key = keys.exact(place);
        let Some((earlier, there)) = first.get(&key) else {
            first.insert(key, (later, place.to_owned()));
            return ControlFlow::Continue(());
        };
        match known.entry((earlier.position(), later.position())) {
            Entry::Occupied(conflict) => conflicts[*conflict.get()].more += 1,
            Entry::Vacant(new) => {
                new.insert(conflicts.len());
                conflicts.push(Conflict { earlier: *earlier, later, by_one_path: there == place, more: 0 });
            }
        }
        // More conflicts would not tell the operator more.
        if conflicts.len() < MOST { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    for conflict in conflicts {
        conflict.report(apps, diagnostics);
    }
}

/// Two sinks on one place.
struct Conflict<'a> {
    earlier: TenantSink<'a>,
    later: TenantSink<'a>,
    /// Whether they give the place one path. If not, a link or a mount makes one place of two.
    by_one_path: bool,
    /// How many more places they have in common.
    more: usize,
}

impl Conflict<'_> {
    /// The message does not quote the place, which may come from a secret in the wrong key; the two lines show it where it is
    /// harmless.
    fn report(&self, apps: &[AppPlaces<'_>], diagnostics: &Diagnostics<'_>) {
        let Self { earlier, later, by_one_path, more } = self;
        let (one, two) = (earlier.tenant_id(apps), later.tenant_id(apps));
        let others = if *more > 0 { format!(" (and {more} more)") } else { String::new() };
        let whose = if one == two { format!("both of {one}") } else { format!("of {one} and of {two}") };
        let how = if *by_one_path { "" } else { ", which a link or a mount makes one" };
        let message = format!("two sinks would write the same place{how}: {whose}{others}");
        let help = if earlier.is_of_sibling(later) {
            "put {corp_id} into the path, so that each tenant has its own"
        } else {
            "give each its own place, for example with {app} and {corp_id}"
        };
        let (here, there) = (later.span(apps), earlier.span(apps));
        let diagnostic = diagnostics.error(here, message).help(help);
        if here != there {
            diagnostic.also(there, "the other one");
        }
    }
}

/// A file below what another sink makes a file of.
pub(crate) fn nested_places(
    apps: &[AppPlaces<'_>],
    hashes: &[u64],
    keys: &PlaceKeys<'_>,
    diagnostics: &Diagnostics<'_>,
) {
    let mut found: Vec<(TenantSink<'_>, String)> = Vec::new();
    let mut known: HashSet<SinkPosition> = HashSet::new();
    let mut last_directory = String::new();
    each(apps, &mut |tenant, place| {
        let directory = directory_of(place);
        if directory == last_directory {
            return ControlFlow::Continue(());
        }
        last_directory.replace_range(.., directory);
        for ancestor in Path::new(directory).ancestors().filter_map(Path::to_str) {
            let taken = hashes.binary_search(&keys.hash(ancestor)).is_ok();
            if taken && known.insert(tenant.position()) {
                found.push((tenant, ancestor.to_owned()));
            }
        }
        if found.len() < MOST { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if found.is_empty() {
        return;
    }
    let mut above: HashMap<_, Option<TenantSink<'_>>> =
        found.iter().map(|(_, place)| (keys.exact(place), None)).collect();
    each(apps, &mut |tenant, place| {
        if let Some(owner) = above.get_mut(&keys.exact(place)) {
            owner.get_or_insert(tenant);
        }
        ControlFlow::Continue(())
    });
    for (tenant, place) in &found {
        // Two places with one hash are not one place.
        let Some(owner) = above[&keys.exact(place)] else { continue };
        let (below, file) = (tenant.tenant_id(apps), owner.tenant_id(apps));
        let message = format!("the sink of {below} lies below a file, which a sink of {file} makes");
        let diagnostic = diagnostics.error(tenant.span(apps), message).help("publish one of the two elsewhere");
        diagnostic.also(owner.span(apps), "the file");
    }
}
