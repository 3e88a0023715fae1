//! A sink of every kind for each tenant of an app, and what stands there.

use super::Machine;
use crate::support::system::keyring::TestKeyring;

/// Every kind of sink: the formats of files, and the keyring.
pub const KINDS: [&str; 6] = ["raw", "line", "json", "env", "template", "key"];

/// The sinks of an app, as TOML. Without a ring there is none of the last kind.
pub fn sinks(machine: &Machine, app: &str, ring: Option<&TestKeyring>) -> String {
    let dir = machine.dir.path().display();
    let files = KINDS[..5].iter().map(|kind| {
        let format = match *kind {
            "template" => "template = \"TOKEN={token}\\n\"".to_owned(),
            format => format!("format = \"{format}\""),
        };
        format!("[[app.{app}.sink]]\nfile = \"{dir}/tokens/{{app}}/{{corp_id}}.{kind}\"\n{format}\n")
    });
    let key = ring.map(|ring| format!("[[app.{app}.sink]]\nkeyring = \"@u/{}/{{app}}.{{corp_id}}\"\n", ring.0));
    files.chain(key).collect()
}

/// What stands in a tenant's sink of this kind.
pub fn content(machine: &Machine, app: &str, corp_id: &str, kind: &str, ring: Option<&TestKeyring>) -> Option<String> {
    match kind {
        "key" => ring?.print(&format!("{app}.{corp_id}")),
        kind => machine.read(&format!("tokens/{app}/{corp_id}.{kind}")),
    }
}

/// Each kind, and whether the tenant's sink of that kind holds this token.
pub fn holding(
    machine: &Machine,
    app: &str,
    corp_id: &str,
    token: &str,
    ring: Option<&TestKeyring>,
) -> Vec<&'static str> {
    let holds = |kind: &&str| content(machine, app, corp_id, kind, ring).is_some_and(|text| text.contains(token));
    KINDS.into_iter().filter(holds).collect()
}
