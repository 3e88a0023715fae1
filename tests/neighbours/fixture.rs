//! A healthy app of 300 tenants, those who move in beside it, and how punctually its tokens come.

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
    /// How long the machine kept us waiting, at most.
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

    /// Apps with these faults move in, and new tenants of the healthy app come. How long these waited for their tokens.
    pub(crate) fn add_apps(&mut self, faults: &[(AppFault, FaultyEndpoint)]) -> Duration {
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
        let moved = Instant::now();
        // What can be read when the config is, and not when it is needed.
        std::fs::remove_file(self.machine.path("etc/gone.secret")).unwrap();
        self.machine.wait_until("the new tenants have tokens", |machine| {
            new.iter().all(|corp_id| machine.path(&format!("tokens/hr/{corp_id}")).exists())
        });
        moved.elapsed()
    }

    /// Watches for a while.
    pub(crate) fn watch(&self, lasting: Duration) -> Punctuality {
        let began = Instant::now();
        let mut stall = Duration::ZERO;
        let nap = Duration::from_millis(20);
        while began.elapsed() < lasting {
            let slept = Instant::now();
            std::thread::sleep(nap);
            stall = stall.max(slept.elapsed().saturating_sub(nap));
        }
        Punctuality { longest: self.longest_since(began), stall }
    }

    /// The longest time from the issue of a token to the next one's, or to now, where that was after `began`.
    fn longest_since(&self, began: Instant) -> Duration {
        let ms = |at: Instant| u64::try_from(at.duration_since(self.born).as_millis()).unwrap();
        let (from, now) = (ms(began), ms(Instant::now()));
        let longest = ids(HEALTHY, "ding").into_iter().filter_map(|corp_id| {
            let issued = self.machine.sandbox.issued(&corp_id);
            let of_us = issued.iter().filter(|issued| &*issued.client_id == "client-hr");
            let mut moments: Vec<u64> = of_us.map(|issued| issued.at_ms).collect();
            moments.push(now);
            moments.windows(2).filter(|pair| pair[1] >= from).map(|pair| pair[1] - pair[0]).max()
        });
        Duration::from_millis(longest.max().unwrap_or_default())
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

    /// All of the healthy app's files hold the newest tokens of their tenants.
    pub(crate) fn all_hold_the_newest(&self) -> bool {
        ids(HEALTHY, "ding").iter().all(|corp_id| {
            let newest = self.machine.sandbox.issued(corp_id).last().map(|issued| issued.token.clone());
            self.machine.token("hr", corp_id) == newest
        })
    }

    /// The longest that a token may be in use: its refresh point, or what it was without neighbours, and a second.
    pub(crate) fn limit(alone: Punctuality, now: Punctuality) -> Duration {
        alone.longest.max(DUE) + Duration::from_secs(1) + 2 * now.stall
    }
}
