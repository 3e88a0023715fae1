//! Places that two sinks claim by two paths. The first sink keeps the place as long as it leads there, which only the running
//! config and the file system tell. So a sink that leaves the config need not give its claim up.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;

use crate::config::Config;
use crate::domain::Place;
use crate::environment;
use crate::sink::{Claims, PlaceConflict};
use crate::system::blocking::Blocking;
use crate::system::permissions::Identity;

/// Looks at directories, on threads that may hang.
static DIRECTORIES: LazyLock<Blocking<Option<Identity>>> = LazyLock::new(|| Blocking::new("place", 64));

/// Checks whether the sinks that hold contested places still lead there.
pub(crate) struct PlaceConflicts {
    claims: Arc<Claims>,
    /// Contests since the config changed last.
    known: HashSet<PlaceConflict>,
    /// One check at a time: a million places take a second of a core.
    check: Option<JoinHandle<()>>,
}

impl PlaceConflicts {
    pub(crate) fn new(claims: Arc<Claims>) -> Self {
        Self { claims, known: HashSet::new(), check: None }
    }

    /// A place was refused to a second sink.
    pub(crate) fn refused(&mut self, config: &Arc<Config>) {
        if self.is_checking() {
            return;
        }
        let new = self.claims.conflicts();
        self.known.extend(new.iter().cloned());
        self.begin(new, config);
    }

    /// Another config runs: sinks that held places may have left.
    pub(crate) fn config_changed(&mut self, config: &Arc<Config>) {
        if self.is_checking() {
            return;
        }
        let mut all = std::mem::take(&mut self.known);
        all.extend(self.claims.conflicts());
        self.begin(all.into_iter().collect(), config);
    }

    /// Whether a check is under way. Whoever is refused until it ends is refused again at the next attempt.
    fn is_checking(&self) -> bool {
        self.check.as_ref().is_some_and(|check| !check.is_finished())
    }

    fn begin(&mut self, conflicts: Vec<PlaceConflict>, config: &Arc<Config>) {
        if conflicts.is_empty() {
            return;
        }
        let (claims, config) = (Arc::clone(&self.claims), Arc::clone(config));
        // Without a thread, the next refusal begins again.
        let thread = std::thread::Builder::new().name("places".into());
        self.check = thread.spawn(move || release_stale_claims(&claims, &conflicts, &config)).ok();
    }
}

/// Releases the claims of sinks that no longer lead to the place.
fn release_stale_claims(claims: &Claims, conflicts: &[PlaceConflict], config: &Config) {
    let mut open: HashMap<&OsStr, Vec<&PlaceConflict>> = HashMap::new();
    for conflict in conflicts {
        open.entry(&conflict.entry.1).or_default().push(conflict);
    }
    let places = config.apps.iter().flat_map(|(name, app)| {
        app.tenants.iter().flat_map(move |corp_id| {
            let names = app.names_of(name, corp_id);
            app.sinks_of(corp_id).iter().map(move |sink| sink.place(&names))
        })
    });
    for place in places {
        let Place::File(path) = place else { continue };
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { continue };
        if let Some(conflicts) = open.get_mut(name) {
            conflicts.retain(|conflict| !holds(claims, conflict, directory));
        }
    }
    open.values().flatten().for_each(|conflict| claims.settle(conflict));
}

/// Whether it is by way of this directory that the place is held.
fn holds(claims: &Claims, conflict: &PlaceConflict, directory: &Path) -> bool {
    let own = directory.to_owned();
    let look = move || Identity::at(&own).ok();
    // A directory that does not answer may still be the one.
    claims.holder(directory) == conflict.holder
        && environment::run_one(&DIRECTORIES, directory, look).map_or(true, |is| is == Some(conflict.entry.0))
}
