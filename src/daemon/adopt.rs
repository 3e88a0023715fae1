//! What a state held that could not be read when the daemon started, once it can be.
//!
//! The daemon fetched meanwhile what it could. Who has a token by now has a newer one; the others need not be called for, and
//! get the state's. What left the config while the daemon was down is emptied, as it would have been at the start. A removal
//! that would have been held back then is not carried out now: what it is about is left as it is, loudly.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::plan;
use super::prepare;
use super::reload::Reload;
use super::{Daemon, Input};
use crate::config::{self, Config, Difference, Source, Sources, Surroundings};
use crate::domain::{AppName, Freshness, Memory, Subject};
use crate::engine::Event;
use crate::store::{Late, Restored};

/// How many tenants are looked at in one turn.
const TENANTS_A_TURN: usize = 1000;

/// What was found, compared with what runs.
pub(super) struct Findings {
    restored: Restored,
    /// What is remembered of everybody. Of apps and tenants this process knows better by now.
    memories: Vec<(Subject, Memory)>,
    /// The config that ran last, where it can still be understood, and how the running one differs from it.
    last: Option<Arc<Config>>,
    difference: Difference,
    devices: HashMap<PathBuf, Option<u64>>,
    /// Apps whose credentials are others than then.
    stale: Vec<AppName>,
}

/// Findings that are being taken over.
pub(super) struct Adoption {
    restored: Restored,
    stale: Vec<AppName>,
    /// Which record is next.
    next: usize,
    /// Whether the records of tenants that left are dropped.
    drops_others: bool,
    offered: usize,
}

impl Findings {
    /// Compares what was found with the config that runs. It reads files: not on the scheduler's thread.
    fn new(late: Late, reload: &Compared, surroundings: &Surroundings) -> Self {
        let Late { restored, mut memories, applied } = late;
        memories.retain(|(subject, _)| subject.app().is_none());
        let files = applied.texts.into_iter().map(|(path, text)| Source::new(&path, text)).collect();
        let last = config::check(&Sources::remembered(files), surroundings).config.map(Arc::new);
        let difference = config::diff(last.as_deref(), &reload.config);
        let changed = difference.apps.iter().filter(|app| app.credentials_changed).map(|app| app.name.clone());
        let other = applied.secrets.into_iter().filter(|(app, then)| reload.secrets.get(app) != Some(then));
        let mut stale: Vec<AppName> = changed.chain(other.map(|(app, _)| app)).collect();
        if last.is_none() {
            // Nobody knows with which credentials these tokens were obtained.
            stale = reload.config.apps.keys().cloned().collect();
        }
        let devices = prepare::devices(&reload.config, last.as_deref());
        Self { restored, memories, last, difference, devices, stale }
    }
}

/// What runs.
struct Compared {
    config: Arc<Config>,
    secrets: std::collections::BTreeMap<AppName, crate::domain::Fingerprint>,
}

impl Daemon {
    /// The state can be read at last: what it held is compared with what runs, on a thread of its own.
    pub(super) fn found(&self, late: Late) {
        let Reload { running, .. } = &self.reload;
        let compared = Compared { config: Arc::clone(&self.hands.config), secrets: running.secrets.clone() };
        let (surroundings, inputs) = (self.reload.surroundings().clone(), self.reload.inputs().clone());
        let comparing = std::thread::Builder::new().name("adoption".into()).spawn(move || {
            let findings = Findings::new(late, &compared, &surroundings);
            let _ = inputs.send(Input::Compared(Box::new(findings)));
        });
        if let Err(error) = comparing {
            tracing::error!(event = "state_not_adopted", "what the state held cannot be taken over: {error}");
        }
    }

    /// What the state held was compared with what runs.
    pub(super) fn compared(&mut self, findings: Findings) {
        let Findings { restored, memories, last, difference, devices, stale } = findings;
        let is_held_back = last.is_some() && difference.removes_too_much();
        if is_held_back {
            tracing::error!(
                event = "mass_removal_held_back",
                removed = difference.counts.removed,
                "the state, which could not be read at the start, knows {} tenants that the config does not have; their \
                 places are left as they are",
                difference.counts.removed
            );
        } else if let Some(last) = &last {
            match plan::vacated(&difference, &devices, Some(last), &mut self.hands.outlets) {
                Ok(places) => self.events.push(Event::Vacated(places)),
                Err(error) => tracing::error!(event = "state_not_adopted", "places that were left stay: {error}"),
            }
            self.hands.make_room_for_lanes();
        }
        self.events.push(Event::Recalled(memories));
        self.adoption = Some(Adoption { restored, stale, next: 0, drops_others: !is_held_back, offered: 0 });
    }

    /// Takes over the next of what was found. Returns whether there is more.
    pub(super) fn adopt(&mut self) -> bool {
        // A tenant that is yet to be added has no place for a token.
        let Some(mut adoption) = self.adoption.take_if(|_| !self.reload.has_steps()) else {
            return self.adoption.is_some();
        };
        let (mut current, mut stale) = (Vec::new(), Vec::new());
        for (id, record) in adoption.restored.from(adoption.next).take(TENANTS_A_TURN) {
            match self.hands.config.contains(&id) {
                true if adoption.stale.contains(&id.app) => stale.push((id, record)),
                true => current.push((id, record)),
                false if adoption.drops_others => self.hands.forget(id),
                false => {}
            }
        }
        adoption.next += TENANTS_A_TURN;
        adoption.offered += current.len() + stale.len();
        self.events.push(Event::Found(current, Freshness::Current));
        self.events.push(Event::Found(stale, Freshness::Stale));
        if adoption.next < adoption.restored.len() {
            self.adoption = Some(adoption);
            return true;
        }
        let tenants = adoption.offered;
        tracing::info!(
            event = "state_adopted",
            tenants,
            "the state, which could not be read at the start, held tokens of {tenants} tenants; those that have none get theirs"
        );
        false
    }
}
