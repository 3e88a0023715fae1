//! A token that could not be renewed in time, in every kind of sink.

use std::time::Duration;

use corptokend::sandbox::{Fault, Options, Scope, Times};

use crate::support::Machine;
use crate::support::machine::sinks::{KINDS, holding, sinks};
use crate::support::reliability;
use crate::support::system::keyring::{TestKeyring, timeout_of};

const LIFETIME_S: u32 = 5;
const TENANT: &str = "ding1";

#[test]
fn an_expired_token_stays_or_goes_in_every_kind_of_sink_as_on_expiry_says() {
    let ring = TestKeyring::named("expiry");
    let ring = ring.as_ref();
    let files = &KINDS[..5];
    let all = if ring.is_some() { &KINDS[..] } else { files };
    // What is said, and where an expired token stays.
    let apps: [(&str, &str, &[&str]); 3] =
        [("keep", "on_expiry = \"keep\"", all), ("drop", "on_expiry = \"delete\"", &[]), ("silent", "", files)];

    let mut machine = Machine::with(Options { lifetime_s: LIFETIME_S, issue_log: 1000, ..Options::default() });
    for (app, on_expiry, _) in apps {
        let text = format!("retry = {{ min = \"1s\", max = \"1s\" }}\n{on_expiry}\n{}", sinks(&machine, app, ring));
        machine = machine.app(app, &[TENANT], &text);
    }
    let newest = |machine: &Machine, app: &str| {
        let issued = machine.sandbox.issued(TENANT);
        issued.iter().rfind(|issued| *issued.client_id == *format!("client-{app}")).unwrap().token.clone()
    };
    machine.start();
    machine.sandbox.inject(Scope::everyone(), Fault::ServerError, Times::UntilCleared);
    // No token is given any more; what was given is published.
    let last = apps.map(|(app, ..)| newest(&machine, app));
    for ((app, ..), token) in apps.iter().zip(&last) {
        machine.wait_until(&format!("{app}: all hold it while it is valid"), |machine| {
            holding(machine, app, TENANT, token, ring) == all
        });
    }
    if let Some(ring) = ring {
        let timeout = |app: &str| timeout_of(&ring.find("user", &format!("{app}.{TENANT}")).unwrap()).unwrap();
        assert_eq!(timeout("keep"), "perm");
        assert_ne!(timeout("silent"), "perm");
    }
    machine.wait_until("all have expired", |machine| machine.events("expired").len() == apps.len());
    for ((app, _, stays), token) in apps.iter().zip(&last) {
        machine.wait_until(&format!("{app}: only {stays:?} are left"), |machine| {
            holding(machine, app, TENANT, token, ring) == *stays
        });
    }
    // Long enough for whatever else might go, or come back.
    std::thread::sleep(Duration::from_millis(1500));
    for ((app, _, stays), token) in apps.iter().zip(&last) {
        assert_eq!(holding(&machine, app, TENANT, token, ring), *stays, "{app}: after it expired");
    }
    assert_eq!(machine.status_json()["repairs"]["silent"], 0, "a key that expires was not touched");
    machine.sandbox.set_lifetime_s(7200);
    machine.sandbox.clear_faults();
    for (app, ..) in apps {
        machine.wait_until(&format!("{app} is whole again"), |machine| {
            holding(machine, app, TENANT, &newest(machine, app), ring) == all
        });
    }
    assert!(machine.stop().success());
    reliability::leave(
        "an_expired_token_stays_or_goes_in_every_kind_of_sink_as_on_expiry_says",
        "a token expires before it can be renewed, with `on_expiry` keep, delete and unsaid",
        "it stays, goes, or, unsaid, stays in files and goes from keyrings; all come back with the next token",
        &format!("{} kinds of sink, 3 apps", all.len()),
    );
}
