//! What the daemon says of itself: its log, and `status`.

use corptokend::sandbox::sequence_of;

use super::Machine;
use crate::support::wait;

impl Machine {
    /// Everything that the daemons of this machine logged.
    pub fn log(&self) -> String {
        self.read("log").unwrap_or_default()
    }

    /// The log's events of this name, as JSON.
    pub fn events(&self, name: &str) -> Vec<serde_json::Value> {
        let lines = self.log();
        let events = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        events.filter(|event| event["event"] == name).collect()
    }

    /// `GET /v1/status`; null when no daemon answers.
    pub fn status_json(&self) -> serde_json::Value {
        self.whole_status()["status"].clone()
    }

    /// The row of one tenant; null when there is none.
    pub fn tenant_json(&self, tenant: &str) -> serde_json::Value {
        let whole = self.whole_status();
        let rows = whole["tenants"].as_array().cloned().unwrap_or_default();
        rows.into_iter().find(|row| row["tenant"] == tenant).unwrap_or_default()
    }

    fn whole_status(&self) -> serde_json::Value {
        let output = self.run(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Waits until `condition` holds.
    #[track_caller]
    pub fn wait_until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        wait::wait_until(what, || condition(self), || format!("the log:\n{}", tail(&self.log())));
    }

    /// How many tokens the endpoint has given to each of these organisations.
    pub fn issued(&self, corp_ids: &[&str]) -> Vec<usize> {
        corp_ids.iter().map(|corp_id| self.sandbox.issued(corp_id).len()).collect()
    }

    /// Whether each of these organisations' files of the app holds a token that was given after so many.
    pub fn all_hold_newer(&self, app: &str, corp_ids: &[&str], before: &[usize]) -> bool {
        corp_ids.iter().zip(before).all(|(corp_id, &before)| {
            let held = self.token(app, corp_id);
            self.sandbox.issued(corp_id)[before..].iter().any(|issued| Some(&issued.token) == held.as_ref())
        })
    }

    /// Whether the tenant's file holds the newest token that the app was given for it.
    pub fn holds_newest(&self, app: &str, corp_id: &str) -> bool {
        let issued = self.sandbox.issued(corp_id);
        let newest = issued.iter().rfind(|issued| *issued.client_id == *format!("client-{app}"));
        newest.is_some_and(|newest| self.token(app, corp_id).is_some_and(|held| held == newest.token))
    }

    /// The sequence number of the token in the tenant's file.
    pub fn sequence(&self, app: &str, corp_id: &str) -> Option<u32> {
        self.token(app, corp_id).as_deref().and_then(sequence_of)
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
