//! An app `crm` of which something hangs, and beside it an app `hr` with an endpoint, sinks and secret of its own, and
//! short lives: what the one may do to the other.

use std::any::Any;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use corptokend::sandbox::{Issued, Options, Sandbox, SandboxHandle, sequence_of};

use crate::reader::TokenReader;
use crate::support::Machine;
use crate::support::service_manager::ServiceManager;

/// How long tokens live. They are due after half of it, so that they expire only where a refresh is missed altogether.
pub(crate) const LIFETIME_S: u32 = 6;
pub(crate) const REFRESH: Duration = Duration::from_secs(3);
/// A heartbeat is due within so long, or systemd kills the service: the unit's `WatchdogSec=`, shorter.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(4);
const POLICY: &str = "refresh = { at = 0.5, jitter = 0 }";

pub(crate) const HANGING: [&str; 3] = ["ding0", "ding1", "ding2"];
const HEALTHY: [&str; 6] = ["ding3", "ding4", "ding5", "ding6", "ding7", "ding8"];

type Act = Box<dyn Fn(&Machine) + Send>;

/// The machine, with what hangs on it.
pub(crate) struct Fixture {
    /// Makes it hang, and lets it go on.
    pub(crate) hang: Act,
    pub(crate) release: Act,
    /// What hangs. It lets go of whoever hangs in it before the daemon is waited for.
    _keeper: Box<dyn Any + Send>,
    pub(crate) machine: Machine,
    /// A program that the daemon is started by.
    wrapper: Vec<String>,
    /// Where its log goes, in place of the machine's.
    log: Option<std::io::PipeWriter>,
    pub(crate) manager: Option<ServiceManager>,
    pub(crate) reader: TokenReader,
    healthy: Arc<SandboxHandle>,
    born: Instant,
}

/// A machine whose app `crm` is not there yet.
pub(crate) struct Setup {
    pub(crate) machine: Machine,
    healthy: Arc<SandboxHandle>,
    born: Instant,
}

impl Setup {
    pub(crate) fn new() -> Self {
        Self::of(Options::default())
    }

    /// `crm` has an endpoint of this kind, with short lives.
    pub(crate) fn of(options: Options) -> Self {
        let options = Options { lifetime_s: LIFETIME_S, issue_log: 1000, ..options };
        let machine = Machine::with(options.clone());
        let options =
            Options { authority: Some(machine.sandbox.authority()), requests_per_connection: None, ..options };
        let healthy = Arc::new(Sandbox::spawn_thread(options).expect("the sandbox starts"));
        Self { machine, healthy, born: Instant::now() }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.machine.path(below)
    }

    /// Adds both apps; `crm` is TOML for the table of the one that is to hang. A call may take three seconds.
    pub(crate) fn with(self, crm: &str, keeper: impl Any + Send, hang: Act, release: Act) -> Fixture {
        let Self { machine, healthy, born } = self;
        let machine = machine.app("crm", &HANGING, &format!("{POLICY}\n{crm}"));
        let mut machine = machine.app("hr", &HEALTHY, &format!("endpoint = \"{}\"\n{POLICY}", healthy.endpoint()));
        machine.edit("ca_file = \"ca.pem\"", "ca_file = \"ca.pem\"\ntimeout = \"3s\"\nconnect_timeout = \"2s\"");
        let manager = Some(ServiceManager::with_watchdog(&mut machine, WATCHDOG));
        let file = |corp_id: &&str| ((*corp_id).to_owned(), machine.path(&format!("tokens/hr/{corp_id}")));
        let reader = TokenReader::over(HEALTHY.iter().map(file).collect(), Arc::clone(&healthy), born);
        Fixture {
            born,
            hang,
            release,
            _keeper: Box::new(keeper),
            machine,
            wrapper: Vec::new(),
            log: None,
            manager,
            reader,
            healthy,
        }
    }
}

impl Fixture {
    /// The daemon is started by way of this program.
    pub(crate) fn launched_under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// The daemon's log goes there.
    pub(crate) fn logging_to(self, log: std::io::PipeWriter) -> Self {
        Self { log: Some(log), ..self }
    }

    pub(crate) fn launch(&mut self) {
        if let Some(log) = &self.log {
            let command = self.machine.command(&["run"]);
            self.machine.launch_logging_to(command, log.try_clone().unwrap().into());
        } else if self.wrapper.is_empty() {
            self.machine.launch();
        } else {
            self.machine.launch_under(&self.wrapper.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }

    /// The TOML of a sink of `crm` below this directory.
    pub(crate) fn sink(directory: &std::path::Path) -> String {
        format!("[[app.crm.sink]]\nfile = \"{}/{{corp_id}}\"\n", directory.display())
    }

    /// Whether every healthy tenant's file holds a token of its own that has not expired.
    pub(crate) fn healthy_are_served(&self) -> bool {
        HEALTHY.iter().all(|corp_id| {
            let newest = self.healthy.issued(corp_id).last().map(|issued| issued.token.clone());
            newest.is_some() && self.machine.token("hr", corp_id) == newest
        })
    }

    /// What the healthy tenants' files hold.
    pub(crate) fn held_by_the_healthy(&self) -> Vec<Option<String>> {
        HEALTHY.iter().map(|corp_id| self.machine.token("hr", corp_id)).collect()
    }

    /// Whether all of them were renewed since.
    pub(crate) fn healthy_hold_others_than(&self, before: &[Option<String>]) -> bool {
        self.healthy_are_served() && self.held_by_the_healthy().iter().zip(before).all(|(now, before)| now != before)
    }

    /// The tokens that were issued to a tenant of `crm`.
    fn issued(&self, corp_id: &str) -> Vec<Issued> {
        self.machine.sandbox.issued(corp_id)
    }

    /// How many tokens each tenant of `crm` was given.
    pub(crate) fn given(&self) -> Vec<Option<u32>> {
        HANGING.iter().map(|id| self.issued(id).last().and_then(|issued| sequence_of(&issued.token))).collect()
    }

    /// Whether `crm` is as if nothing had been: each tenant has been given a token since these and its files hold one, and
    /// nothing is wrong with anybody.
    pub(crate) fn is_right(&self, file_of: impl Fn(&str) -> PathBuf, before: &[Option<u32>]) -> bool {
        let renewed = HANGING.iter().zip(before).all(|(corp_id, before)| {
            let held = fs::read_to_string(file_of(corp_id)).ok();
            held.as_deref().and_then(sequence_of) > *before
        });
        renewed && {
            let status = self.machine.status_json();
            status["warnings"].as_array().is_some_and(Vec::is_empty)
                && status["state"]["healthy"] == true
                && status["config"]["last_reload_successful"] == true
                && ["pending", "failing", "refused", "expired", "unpublished"]
                    .iter()
                    .all(|bad| status["tenants"][bad].as_u64().unwrap_or_default() == 0)
        }
    }

    /// How many calls for `crm` there were.
    pub(crate) fn calls(&self) -> u64 {
        self.machine.sandbox.totals().calls
    }

    /// How many there may have been, if each was due: one a refresh, one more at either end, and a quarter for points that
    /// are moved together.
    pub(crate) fn calls_due(&self) -> u64 {
        let refreshes = self.born.elapsed().as_secs() * 5 / 4 / REFRESH.as_secs();
        HANGING.len() as u64 * (refreshes + 2)
    }
}
