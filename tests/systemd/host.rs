//! A machine with the package installed and configured, and the words in which the tests speak of it.

use std::process::Output;

use crate::endpoint::{self, Endpoint};
use crate::machine::Machine;
use crate::support::{system_allows, wait_until};

pub(crate) const CONFIG: &str = "/etc/corptokend/config.toml";
pub(crate) const SECRET: &str = "/etc/corptokend/crm.secret";
pub(crate) const DROP_INS: &str = "/etc/systemd/system/corptokend.service.d";
pub(crate) const CORPS: &[&str] = &["dingaaaa", "dingbbbb", "dingcccc"];

/// A machine with the package installed and configured, not yet started, and the endpoint that it calls.
pub(crate) struct Host {
    pub(crate) machine: Machine,
    pub(crate) endpoint: Endpoint,
}

impl Host {
    /// Boots and configures [`CORPS`]; `None`, said loudly, where that cannot be done and need not be.
    pub(crate) fn boot() -> Option<Self> {
        let machine = match Machine::boot() {
            Ok(machine) => machine,
            Err(why) => {
                system_allows(&format!("a container with systemd: {why}"), false);
                return None;
            }
        };
        let host = Self { machine, endpoint: Endpoint::start() };
        host.machine.write("/etc/corptokend/ca.pem", 0o644, &host.endpoint.ca_pem());
        host.machine.write(SECRET, 0o640, endpoint::SECRET);
        host.machine.ok(&["chgrp", "corptokend", SECRET]);
        host.configure(CORPS, "");
        Some(host)
    }

    /// Writes the whole config, by renaming, as an editor does.
    pub(crate) fn configure(&self, corp_ids: &[&str], more: &str) {
        let secret = format!("client_secret = {{ file = \"{SECRET}\" }}\n");
        self.configure_with(corp_ids, &(secret + more));
    }

    pub(crate) fn configure_with(&self, corp_ids: &[&str], app: &str) {
        let url = self.endpoint.url();
        let client_id = endpoint::CLIENT_ID;
        let text = format!(
            "[api]\nca_file = \"/etc/corptokend/ca.pem\"\n[defaults]\nendpoint = \"{url}\"\n\
             [app.crm]\nclient_id = \"{client_id}\"\ncorp_ids = {corp_ids:?}\n{app}"
        );
        self.machine.write(CONFIG, 0o644, &text);
    }

    pub(crate) fn start(&self) {
        self.machine.ok(&["systemctl", "start", "corptokend"]);
    }

    pub(crate) fn token(&self, corp_id: &str) -> Option<String> {
        self.machine.read(&token_path(corp_id))
    }

    /// Each of [`CORPS`] with its token, which must be there.
    pub(crate) fn tokens(&self) -> Vec<String> {
        CORPS.iter().map(|corp| self.token(corp).unwrap_or_else(|| panic!("no token for {corp}"))).collect()
    }

    /// Waits for something to become true.
    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, holds: impl FnMut() -> bool) {
        wait_until(what, holds, || self.machine.journal());
    }
}

pub(crate) fn token_path(corp_id: &str) -> String {
    format!("/run/corptokend/tokens/crm/{corp_id}")
}

pub(crate) fn both(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
