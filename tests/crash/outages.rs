//! An endpoint that is away for a while. Thirty minutes are to a token of two hours what three seconds are to one of twelve.

use std::time::{Duration, Instant};

use corptokend::sandbox::{Fault, Options, Scope, Times};

use crate::support::Machine;
use crate::support::readers::{FileAttributes, Readers};
use crate::support::reliability;
use crate::support::system::keyring::TestKeyring;

const LIFETIME_S: u32 = 12;
const TENANTS: [&str; 8] = ["ding0", "ding1", "ding2", "ding3", "ding4", "ding5", "ding6", "ding7"];
/// Scaled down too, as far as the floor of one second allows.
const RETRY: &str = "retry = { min = \"1s\", max = \"2s\" }";

/// Three apps: one keeps expired files, one deletes them, one has keys.
fn machine(ring: Option<&TestKeyring>) -> Machine {
    let options = Options { lifetime_s: LIFETIME_S, issue_log: 1000, ..Options::default() };
    let machine = Machine::with(options).app("keep", &TENANTS, RETRY);
    let machine = machine.app("drop", &TENANTS, &format!("{RETRY}\non_expiry = \"delete\""));
    match ring {
        Some(TestKeyring(name)) => {
            machine.app("keys", &TENANTS, &format!("{RETRY}\n[[app.keys.sink]]\nkeyring = \"@u/{name}/{{corp_id}}\""))
        }
        None => machine,
    }
}

/// Waits until the tokens are `age` old: until so long after the newest was issued.
fn wait_for_age(born: Instant, machine: &Machine, age: Duration) {
    let newest = TENANTS.iter().flat_map(|corp_id| machine.sandbox.issued(corp_id)).map(|issued| issued.at_ms).max();
    let at = born + Duration::from_millis(newest.unwrap()) + age;
    std::thread::sleep(at.saturating_duration_since(Instant::now()));
}

fn all_hold(machine: &Machine, app: &str) -> bool {
    TENANTS.iter().all(|corp_id| machine.token(app, corp_id).is_some())
}

/// Whether each file holds the newest token of its tenant, and that is still valid.
fn all_fresh(machine: &Machine) -> bool {
    ["keep", "drop"].iter().all(|app| TENANTS.iter().all(|corp_id| machine.holds_newest(app, corp_id)))
}

#[test]
fn half_an_hours_outage_is_outlived_by_every_token() {
    let mut machine = machine(None);
    let born = Instant::now();
    machine.start();
    let paths: Vec<_> = ["keep", "drop"]
        .iter()
        .flat_map(|app| TENANTS.map(|corp_id| machine.path(&format!("tokens/{app}/{corp_id}"))))
        .collect();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let readers = Readers::watch(1, &paths, FileAttributes { mode: 0o640, uid, gid });
    // From just before the first is due, so that none gets through.
    wait_for_age(born, &machine, Duration::from_millis(6_500));
    let before = machine.sandbox.calls().len();
    machine.sandbox.inject(Scope::everyone(), Fault::ServerError, Times::UntilCleared);
    std::thread::sleep(Duration::from_secs(3));
    machine.sandbox.clear_faults();
    let during = machine.sandbox.calls().len() - before;
    machine
        .wait_until("every tenant has a new token", |machine| machine.events("rotated").len() >= 2 * 2 * TENANTS.len());
    machine.wait_until("every file holds it", all_fresh);
    assert!(machine.stop().success());
    readers.finish().assert_flawless(&machine.sandbox);
    assert!(during > 0, "the outage was noticed");
    assert_eq!(machine.events("expired"), [serde_json::Value::Null; 0]);
    reliability::leave(
        "half_an_hours_outage_is_outlived_by_every_token",
        "the endpoint is away for 30 minutes at lifetimes of 2 hours (scaled: 3 s and 12 s)",
        "readers notice nothing; no token expires",
        &format!("{} tenants, {during} calls in vain, 0 expired", 2 * TENANTS.len()),
    );
}

#[test]
fn a_long_outage_withdraws_what_expired_where_asked_to_and_ends_at_once() {
    let ring = TestKeyring::named("outage");
    let mut machine = machine(ring.as_ref());
    let born = Instant::now();
    machine.start();
    let holds_keys =
        |all: bool| ring.as_ref().is_none_or(|ring| TENANTS.iter().all(|id| ring.print(id).is_some() == all));
    assert!(holds_keys(true), "the keys are there");
    machine.sandbox.inject(Scope::everyone(), Fault::ServerError, Times::UntilCleared);
    let (begun, calls) = (Instant::now(), machine.sandbox.calls().len());
    // As long as they are valid, all stay.
    let oldest = TENANTS.iter().flat_map(|id| machine.sandbox.issued(id)).map(|issued| issued.at_ms).min().unwrap();
    let valid_until = born + Duration::from_millis(oldest) + Duration::from_secs(u64::from(LIFETIME_S) - 1);
    while Instant::now() < valid_until {
        assert!(all_hold(&machine, "keep") && all_hold(&machine, "drop"), "a valid token was withdrawn");
        std::thread::sleep(Duration::from_millis(20));
    }
    machine.wait_until("expired files are withdrawn", |machine| {
        TENANTS.iter().all(|corp_id| machine.token("drop", corp_id).is_none())
    });
    machine.wait_until("expired keys are withdrawn", |_| holds_keys(false) || ring.is_none());
    assert!(all_hold(&machine, "keep"), "a kept token was withdrawn");
    std::thread::sleep(Duration::from_secs(4));
    let lasted = begun.elapsed();
    let during = machine.sandbox.calls().len() - calls;
    machine.sandbox.clear_faults();
    let recovered = Instant::now();
    machine.wait_until("every file is fresh", |machine| all_fresh(machine) && holds_keys(true));
    let recovered = recovered.elapsed();
    let tenants = TENANTS.len() * if ring.is_some() { 3 } else { 2 };
    assert_eq!(machine.events("expired").len(), tenants, "each expiry is reported once");
    // Those that were under way, and then one a second at most.
    let most = tenants + usize::try_from(lasted.as_secs() + 1).unwrap();
    assert!(during <= most, "{during} calls in {lasted:?}");
    // Probes are 15 s apart at most, and a busy machine.
    assert!(recovered < Duration::from_secs(20), "recovery took {recovered:?}");
    assert!(machine.stop().success());
    reliability::leave(
        "a_long_outage_withdraws_what_expired_where_asked_to_and_ends_at_once",
        "the endpoint is away for longer than a token lives",
        "valid tokens stay; expired ones stay or go as `on_expiry` says, keys go; reported once; one call a second at most is in vain; all recover at once, with the next probe",
        &format!(
            "{tenants} tenants, {} s: {during} calls in vain; all recovered within {} ms",
            lasted.as_secs(),
            recovered.as_millis()
        ),
    );
}
