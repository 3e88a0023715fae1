//! A healthy app of 300 tenants, those who move in beside it, and how punctually its tokens come.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use corptokend::sandbox::{Options, Transport};

use crate::faults::{AppFault, FaultyEndpoint};
use crate::support::Machine;

const LIFETIME_S: u32 = 12;
/// The refresh point at its latest: 0.55 of the life.
const DUE: Duration = Duration::from_millis(6_600);
const POLICY: &str = "refresh = { at = 0.5, jitter = 0.05 }";
const HEALTHY: usize = 300;
const NEW: usize = 20;
const FAULTY: usize = 2000;

pub(crate) struct Fixture {
    pub(crate) machine: Machine,
    born: Instant,
}

/// How punctual the healthy app was over a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Punctuality {
    /// The longest that one token was in use: from its issue to the next one's.
    pub(crate) longest: Duration,
    /// For how long the daemon's threads waited for a core, one after the other.
    pub(crate) stall: Duration,
}

fn ids(count: usize, of: &str) -> Vec<String> {
    (0..count).map(|number| format!("{of}{number:04}")).collect()
}

fn toml_list(ids: &[String]) -> String {
    serde_json::to_string(ids).unwrap()
}

impl Fixture {
    /// The healthy app alone, with a token for each tenant.
    pub(crate) fn new() -> Self {
        let options =
            Options { lifetime_s: LIFETIME_S, issue_log: 100, transport: Transport::Plain, ..Options::default() };
        let born = Instant::now();
        let healthy = ids(HEALTHY, "ding");
        let healthy: Vec<&str> = healthy.iter().map(String::as_str).collect();
        let mut machine = Machine::with(options).app("hr", &healthy, POLICY);
        machine.start();
        Self { machine, born }
    }

    /// Apps with these faults move in, and new tenants of the healthy app come. How long these waited for their tokens,
    /// and how long the daemon waited for a core meanwhile.
    pub(crate) fn add_apps(&mut self, faults: &[(AppFault, FaultyEndpoint)]) -> (Duration, Duration) {
        let tenants = toml_list(&ids(FAULTY, "ding"));
        let mut text = self.machine.config_text();
        for (number, (fault, place)) in faults.iter().enumerate() {
            let secret = if fault.loses_its_secret() { "gone.secret" } else { "hr.secret" };
            text += &format!(
                "[app.a{number}]\nclient_id = \"client-a{number}\"\nclient_secret = {{ file = \"{secret}\" }}\n\
                 endpoint = \"{}\"\nrate = \"15/s\"\n{POLICY}\ncorp_ids = {tenants}\n",
                place.url
            );
        }
        let (old, new) = (ids(HEALTHY, "ding"), ids(NEW, "new"));
        text = text.replace(&toml_list(&old), &toml_list(&[old.clone(), new.clone()].concat()));
        self.machine.write_with_mode("etc/gone.secret", "secret-of-nobody", 0o600);
        let reloaded = self.machine.events("reloaded").len();
        self.machine.save(&text);
        self.machine.wait_until("they moved in", |machine| machine.events("reloaded").len() > reloaded);
        let (moved, stalled) = (Instant::now(), self.waited_for_a_core());
        // What can be read when the config is, and not when it is needed.
        std::fs::remove_file(self.machine.path("etc/gone.secret")).unwrap();
        self.machine.wait_until("the new tenants have tokens", |machine| {
            new.iter().all(|corp_id| machine.path(&format!("tokens/hr/{corp_id}")).exists())
        });
        (moved.elapsed(), self.waited_for_a_core().saturating_sub(stalled))
    }

    /// Watches for a while.
    pub(crate) fn watch(&self, lasting: Duration) -> Punctuality {
        let (began, waited) = (Instant::now(), self.waited_for_a_core());
        std::thread::sleep(lasting);
        let stall = self.waited_for_a_core().saturating_sub(waited);
        Punctuality { longest: self.longest_since(began), stall }
    }

    /// For how long the daemon's threads have been runnable without running, all together (proc(5), `schedstat`; a token passes
    /// through one after the other): what a busy
    /// machine costs the daemon, whoever else may be to blame for the rest.
    fn waited_for_a_core(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.machine.pid())).unwrap();
        let delays = tasks.filter_map(|task| {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').nth(1)?.parse::<u64>().ok()
        });
        Duration::from_nanos(delays.sum())
    }

    /// The longest time from the issue of a token to the next one's, or to now, where that was after `began`.
    fn longest_since(&self, began: Instant) -> Duration {
        let longest = ids(HEALTHY, "ding").into_iter().map(|corp_id| self.longest_of(&corp_id, began));
        longest.max().unwrap_or_default()
    }

    fn longest_of(&self, corp_id: &str, began: Instant) -> Duration {
        let ms = |at: Instant| u64::try_from(at.duration_since(self.born).as_millis()).unwrap();
        let mut moments = self.issued_to(corp_id);
        moments.push(ms(Instant::now()));
        let gaps = moments.windows(2).filter(|pair| pair[1] >= ms(began)).map(|pair| pair[1] - pair[0]);
        Duration::from_millis(gaps.max().unwrap_or_default())
    }

    /// When the healthy app's tenant got its tokens, in milliseconds since the sandbox started.
    fn issued_to(&self, corp_id: &str) -> Vec<u64> {
        let issued = self.machine.sandbox.issued(corp_id);
        issued.iter().filter(|issued| &*issued.client_id == "client-hr").map(|issued| issued.at_ms).collect()
    }

    /// What the log says of the healthy app's tenants whose token was in use for longer than `limit`, for a test that fails.
    pub(crate) fn story_of_late_tokens(&self, began: Instant, limit: Duration) -> String {
        let late = ids(HEALTHY, "ding").into_iter().filter(|corp_id| self.longest_of(corp_id, began) > limit);
        let lines = late.flat_map(|corp_id| {
            let moments: Vec<u64> = self.issued_to(&corp_id);
            let about = format!("\"corp_id\":\"{corp_id}\"");
            let log = self.machine.log();
            let lines = log.lines().filter(|line| line.contains(&about) && line.contains("\"app\":\"hr\""));
            let lines: Vec<String> = lines.map(str::to_owned).collect();
            [format!("{corp_id} got tokens at {moments:?} ms")].into_iter().chain(lines)
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The kinds of failure that the tenants of each app ended in, as `status` says.
    pub(crate) fn kinds(&self) -> BTreeMap<String, BTreeSet<String>> {
        let output = self.machine.run(&["status", "--json"]);
        let whole: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let mut kinds: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for row in whole["tenants"].as_array().unwrap() {
            if let (Some(app), Some(kind)) = (row["app"].as_str(), row["last_error"]["kind"].as_str()) {
                kinds.entry(app.to_owned()).or_default().insert(kind.to_owned());
            }
        }
        kinds
    }

    /// Waits until each of the healthy app's files has held the newest token of its tenant. New ones come all the time.
    pub(crate) fn wait_until_each_held_the_newest(&self) {
        let waiting = RefCell::new(ids(HEALTHY, "ding"));
        self.machine.wait_until("every file has held the newest token", |machine| {
            waiting.borrow_mut().retain(|corp_id| {
                let newest = machine.sandbox.issued(corp_id).last().map(|issued| issued.token.clone());
                machine.token("hr", corp_id) != newest
            });
            waiting.borrow().is_empty()
        });
    }

    /// The longest that a token may be in use: its refresh point, or what it was without neighbours, and a second; and what
    /// a busy machine costs.
    pub(crate) fn limit(alone: Punctuality, now: Punctuality) -> Duration {
        alone.longest.max(DUE) + Duration::from_secs(1) + now.stall
    }
}
