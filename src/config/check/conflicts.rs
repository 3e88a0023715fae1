//! Every place of every tenant: none may write what is not theirs, and no two may write the same one. One pass over all places,
//! and more only where it found something.

use std::collections::HashSet;
use std::ops::ControlFlow;

use super::duplicates::{PlaceKeys, nested_places, same_places};
use super::places::{AppPlaces, SinkPosition, directories, directory_of, each};
use super::reserved::{PlaceFault, ReservedPlaces};
use crate::config::diagnostics::collect::Diagnostics;
use crate::config::diagnostics::report::{Diagnostic, Severity};
use crate::config::diagnostics::sources::Source;
use crate::config::environment::{Environment, Needs};
use crate::config::model::{Config, OwnFiles};
use crate::domain::{Placeholder, TEMPORARY_EXTENSION, is_temporary_name};

/// The longest name of a file, in bytes (NAME_MAX), and the longest path (PATH_MAX, its NUL apart).
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4095;

impl Config {
    /// What must be looked up on the machine before this config's places can be judged by [`Config::conflicts`].
    pub fn needs_of_places(&self) -> Needs {
        let directories = directories(&self.places());
        Needs { own_files: self.own_files.clone(), directories, ..Needs::default() }
    }

    /// The errors that the places of a config are which was put together, and not read from files. They have no place in a
    /// file, since what they are about may stand in none.
    pub fn conflicts(&self, environment: &Environment) -> Vec<Diagnostic> {
        let nowhere = [Source::new("", "")];
        let diagnostics = Diagnostics::new(&nowhere);
        check(&self.places(), &self.own_files, environment, &diagnostics);
        let errors = diagnostics.into_report().diagnostics.into_iter();
        let errors = errors.filter(|diagnostic| diagnostic.severity == Severity::Error);
        errors.map(|diagnostic| Diagnostic { at: None, also: Vec::new(), ..diagnostic }).collect()
    }

    fn places(&self) -> Vec<AppPlaces<'_>> {
        self.apps.iter().map(|(name, app)| AppPlaces::of_config(name, app)).collect()
    }
}

/// Judges all places.
pub(crate) fn check(apps: &[AppPlaces<'_>], own: &OwnFiles, environment: &Environment, diagnostics: &Diagnostics<'_>) {
    names_without_name(apps, diagnostics);
    let reserved = ReservedPlaces::new(own, &environment.reserved);
    let keys = PlaceKeys::new(&environment.directories);
    let mut hashes = Vec::new();
    // A sink that is wrong is wrong for most of its tenants: it is reported once.
    let mut reported: HashSet<SinkPosition> = HashSet::new();
    // Neighbours mostly share their directory.
    let (mut directory, mut of_directory) = (String::new(), None);
    each(apps, &mut |sink, place| {
        hashes.push(keys.hash(place));
        let (here, identity) = (directory_of(place), keys.directory(place));
        if here != directory {
            directory.replace_range(.., here);
            of_directory = reserved.fault_of_directory(here, identity);
        }
        let fault = too_long(place).or_else(|| temporary(place)).or_else(|| reserved.fault(place, identity));
        if let Some((message, help)) = fault.or_else(|| of_directory.clone())
            && reported.insert(sink.position())
        {
            diagnostics.error(sink.span(apps), message).help(help);
        }
        ControlFlow::Continue(())
    });
    hashes.sort_unstable();
    same_places(apps, &hashes, &keys, diagnostics);
    nested_places(apps, &hashes, &keys, diagnostics);
}

/// The daemon removes its temporary files by their names, whosever they are.
fn temporary(place: &str) -> Option<PlaceFault> {
    if place.starts_with(':') || !place.contains(TEMPORARY_EXTENSION) {
        return None;
    }
    let part = place.split('/').find(|part| is_temporary_name(part.as_bytes()))?;
    let text = format!("{part} is a name for temporary files of the daemon, which it removes");
    Some((text, "leave out the dot at its beginning, or its extension"))
}

fn too_long(place: &str) -> Option<PlaceFault> {
    if place.len() <= NAME_MAX {
        return None;
    }
    let part = place.split('/').find(|part| part.len() > NAME_MAX);
    let part = part.map(|part| format!("a part of the place has {} bytes, and {NAME_MAX} is the most", part.len()));
    let whole = || format!("the place has {} bytes, and {PATH_MAX} is the most", place.len());
    let text = part.or_else(|| (place.len() > PATH_MAX).then(whole))?;
    Some((text, "shorten it"))
}

/// `{name}` for a tenant that has none.
fn names_without_name(apps: &[AppPlaces<'_>], diagnostics: &Diagnostics<'_>) {
    for app in apps {
        let mut nameless = (0..app.tenants.len()).filter(|tenant| !app.has_name(*tenant)).filter_map(|tenant| {
            let sink = app.sinks_of(tenant).iter().find(|sink| sink.kind.names(Placeholder::Name))?;
            Some((tenant, sink))
        });
        let Some((tenant, sink)) = nameless.next() else { continue };
        let others = match nameless.count() {
            0 => String::new(),
            more => format!(" (nor have {more} more of the app's tenants)"),
        };
        let (name, corp_id) = (app.name, &app.tenants[tenant]);
        let message = format!("a sink names {{name}}, and the tenant {name}/{corp_id} has no name{others}");
        let diagnostic = diagnostics
            .error(app.span_of(tenant), message)
            .help(format!("add [app.{name}.tenant.{corp_id}] with a name = \"…\", or write {{corp_id}} in the sink"));
        if let Some(at) = sink.at {
            diagnostic.also(at, "{name} is used here");
        }
    }
}
