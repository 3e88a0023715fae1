//! What a state held that could not be read when the daemon started, once it can be.
//!
//! In the meantime, the daemon fetched what it could. A tenant that has a token by now has a newer one; the others get the state's,
//! and need no call. Places that left the config while the daemon was down are withdrawn, as they would have been at the start. A
//! mass removal, which would have been held back at the start, is not carried out either, and logged.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::executor::Executor;
use super::candidate::{self, Devices};
use super::{Message, Reload, plan};
use crate::config::{self, Config, Difference, Process};
use crate::domain::{AppName, Fingerprint, Freshness, SavedKey, SavedState};
use crate::engine::Event;
use crate::environment;
use crate::store::{Contents, Snapshot};

/// How many tenants are looked at in one turn.
const TENANTS_A_TURN: usize = 1000;

/// What was found, compared with what runs.
pub(crate) struct LateFindings {
    restored: Snapshot,
    /// What it says of endpoints.
    saved: Vec<(SavedKey, SavedState)>,
    /// What it says of apps and tenants, which this process knows better by now.
    outdated: Vec<SavedKey>,
    /// The config that ran last, where it can still be understood, and how the running one differs from it.
    last: Option<Arc<Config>>,
    difference: Difference,
    devices: Devices,
    /// Which client secret each app had then.
    secrets: Vec<(AppName, Fingerprint)>,
    /// Apps whose credentials are others than then.
    stale: Vec<AppName>,
    /// The config that it was compared with.
    running: Arc<Config>,
}

/// Tokens that are being taken over.
struct TokenRestore {
    restored: Snapshot,
    stale: Vec<AppName>,
    /// Which record is next.
    next: usize,
    /// Whether the records of tenants that left are dropped.
    drops_others: bool,
    offered: usize,
}

impl LateFindings {
    /// Compares what was found with the config that runs. Reads files, so not on the scheduler's thread.
    fn new(late: Contents, now: &Current, process: &Process) -> Self {
        let Contents { snapshot: restored, saved, applied } = late;
        let (saved, outdated): (Vec<_>, Vec<_>) = saved.into_iter().partition(|(key, _)| key.app().is_none());
        let outdated = outdated.into_iter().map(|(key, _)| key).collect();
        let last = environment::check(&environment::remembered(&applied.texts), process).config.map(Arc::new);
        let mut findings = Self {
            restored,
            saved,
            outdated,
            difference: Difference::default(),
            last,
            devices: Devices::new(),
            secrets: applied.secrets,
            stale: Vec::new(),
            running: Arc::clone(&now.config),
        };
        findings.compare(now);
        findings
    }

    /// Compares with another config.
    fn compare(&mut self, now: &Current) {
        let last = self.last.as_deref();
        self.difference = config::diff(last, &now.config);
        let changed = self.difference.apps.iter().filter(|app| app.credentials_changed).map(|app| app.name.clone());
        let other = self.secrets.iter().filter(|(app, then)| now.secrets.get(app) != Some(then));
        self.stale = changed.chain(other.map(|(app, _)| app.clone())).collect();
        if last.is_none() {
            // Nobody knows with which credentials these tokens were obtained.
            self.stale = now.config.apps.keys().cloned().collect();
        }
        self.devices = candidate::devices(&now.config, last);
        self.running = Arc::clone(&now.config);
    }
}

/// What runs when the comparison begins.
struct Current {
    config: Arc<Config>,
    secrets: BTreeMap<AppName, Fingerprint>,
}

/// What is still to be taken over of a state that could be read late.
#[derive(Default)]
pub(super) struct LateState(Option<TokenRestore>);

impl LateState {
    /// What the state held was compared with what runs: everything but the tokens is taken over here.
    fn adopt(&mut self, findings: LateFindings, executor: &mut Executor, events: &mut Vec<Event>) {
        let LateFindings { restored, saved, outdated, last, difference, devices, stale, .. } = findings;
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
            match plan::vacated(&difference, &devices, Some(last), &mut executor.sinks) {
                Ok(places) => events.push(Event::Vacated(places)),
                Err(error) => tracing::error!(event = "state_not_adopted", "places that were left stay: {error}"),
            }
            executor.count_lanes();
        }
        events.push(Event::Restored(saved));
        // Failures of a former process would count at the next start. Those of this one are saved anew.
        outdated.into_iter().for_each(|key| executor.save(key, None));
        events.push(Event::SavedStateLost);
        self.0 = Some(TokenRestore { restored, stale, next: 0, drops_others: !is_held_back, offered: 0 });
    }

    /// Takes over the next tokens. Returns whether there is more.
    fn restore_next(&mut self, executor: &mut Executor, events: &mut Vec<Event>) -> bool {
        let Some(restore) = &mut self.0 else { return false };
        let (mut current, mut stale) = (Vec::new(), Vec::new());
        for (id, record) in restore.restored.from(restore.next).take(TENANTS_A_TURN) {
            match executor.config.config.contains(&id) {
                true if restore.stale.contains(&id.app) => stale.push((id, record)),
                true => current.push((id, record)),
                false if restore.drops_others => executor.delete_record(id),
                false => {}
            }
        }
        restore.next += TENANTS_A_TURN;
        restore.offered += current.len() + stale.len();
        events.push(Event::TokensFound(current, Freshness::Current));
        events.push(Event::TokensFound(stale, Freshness::Stale));
        if restore.next < restore.restored.len() {
            return true;
        }
        let tenants = restore.offered;
        tracing::info!(
            event = "state_adopted",
            tenants,
            "the state, which could not be read at the start, held tokens of {tenants} tenants; those that have none get theirs"
        );
        self.0 = None;
        false
    }

    /// Whether there is anything to take over.
    fn is_pending(&self) -> bool {
        self.0.is_some()
    }
}

impl Reload {
    /// The state can be read at last: what it holds is compared with what runs.
    pub(crate) fn state_can_be_read(&self, config: &Arc<Config>, late: Contents) {
        let process = self.process.clone();
        self.compare(config, move |now| LateFindings::new(late, now, &process));
    }

    /// Compares on a thread of its own.
    fn compare(&self, config: &Arc<Config>, compare: impl FnOnce(&Current) -> LateFindings + Send + 'static) {
        let now = Current { config: Arc::clone(config), secrets: self.running.secrets.clone() };
        let send = Arc::clone(&self.send);
        let comparing = move || send(Message::Compared(Box::new(compare(&now))));
        if let Err(error) = std::thread::Builder::new().name("late-state".into()).spawn(comparing) {
            tracing::error!(event = "state_not_adopted", "what the state held cannot be taken over: {error}");
        }
    }

    /// What the state holds was compared with what runs.
    pub(super) fn compared(&mut self, mut findings: LateFindings, executor: &mut Executor, events: &mut Vec<Event>) {
        if Arc::ptr_eq(&findings.running, &executor.config.config) {
            return self.late_state.adopt(findings, executor, events);
        }
        // A reload came in the meantime: what left by one config may be there by the other, and must not be withdrawn.
        self.compare(&executor.config.config, move |now| {
            findings.compare(now);
            findings
        });
    }

    /// Takes over the next tokens of a state that could be read late. Returns whether there are more.
    pub(crate) fn restore_late_state(&mut self, executor: &mut Executor, events: &mut Vec<Event>) -> bool {
        // A tenant that is yet to be added has no slot for a token.
        if self.has_steps() { self.late_state.is_pending() } else { self.late_state.restore_next(executor, events) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{FailureKind, OriginId, Wait, WallMs};
    use crate::store::Applied;

    fn text(tenants: &str) -> String {
        format!(
            "[app.crm]\nclient_id = \"c\"\nclient_secret = {{ env = \"NO_SUCH\" }}\nsink = [{{ file = \"/tokens/{{corp_id}}\" }}]\n{tenants}"
        )
    }

    fn running(tenants: &str) -> Current {
        let sources = environment::remembered([&("/etc/corptokend/config.toml".into(), text(tenants))]);
        let config = environment::check(&sources, &Process::default()).config.unwrap();
        Current { config: Arc::new(config), secrets: BTreeMap::new() }
    }

    #[test]
    fn what_a_reload_brings_back_while_it_is_compared_has_not_left() {
        let both = "tenant.ding1 = {}\ntenant.ding2 = {}\n";
        let texts = vec![("/etc/corptokend/config.toml".into(), text(both))];
        let late = Contents {
            snapshot: Snapshot::default(),
            saved: Vec::new(),
            applied: Applied { texts, secrets: Vec::new() },
        };
        let one = running("tenant.ding1 = {}\n");
        let mut findings = LateFindings::new(late, &one, &Process::default());
        assert_eq!(findings.difference.counts.removed, 1);
        assert!(Arc::ptr_eq(&findings.running, &one.config));
        let two = running(both);
        findings.compare(&two);
        assert_eq!(findings.difference.counts.removed, 0);
        assert!(Arc::ptr_eq(&findings.running, &two.config), "it is not compared again and again");
    }

    #[test]
    fn what_it_says_of_apps_and_tenants_is_outdated_and_what_it_says_of_endpoints_is_not() {
        let wait = Wait { told: WallMs(0), until: WallMs(300_000) };
        let (ban, breaker) = (SavedKey::Ban(OriginId(1)), SavedKey::Breaker("crm".parse().unwrap()));
        let kind = FailureKind::WrongCredentials;
        let memories = vec![
            (ban.clone(), SavedState::Paused(wait)),
            (breaker.clone(), SavedState::Broken { kind, probes: 1, probe: wait }),
        ];
        let late = Contents { snapshot: Snapshot::default(), saved: memories, applied: Applied::default() };
        let findings = LateFindings::new(late, &running("tenant.ding1 = {}\n"), &Process::default());
        assert_eq!(findings.saved, [(ban, SavedState::Paused(wait))]);
        assert_eq!(findings.outdated, [breaker]);
    }
}
