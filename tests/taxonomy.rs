//! Whatever the endpoint answers, the daemon says what it was, publishes nothing of it, and gets over it.
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

#[path = "api/taxonomy.rs"]
mod cases;
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use corptokend::domain::{Blame, FailureKind};
use corptokend::sandbox::{Fault, Options, Protocols, Scope, Times};
use serde_json::Value;

use cases::Case;
use support::{Machine, SECRET, corp_ids};

/// Renewals are due soon, and tokens last long enough for a test to see that they stay.
const SOON: &str = "refresh = { at = 0.05, jitter = 0 }\nretry = { min = \"1s\", max = \"2s\" }";
const LIFETIME_S: u32 = 40;

/// A case and the tenant that it affects.
struct Affected {
    case: Case,
    app: String,
    corp_id: String,
    /// Its token when the trouble began.
    token: String,
}

impl Affected {
    fn tenant(&self) -> String {
        format!("{}/{}", self.app, self.corp_id)
    }

    fn name(&self) -> &'static str {
        self.case.0
    }

    fn kind(&self) -> FailureKind {
        self.case.2
    }
}

/// Tenants that no case affects. Others are served all the while, so what fails is not taken for the endpoint's doing.
const WELL: [&str; 3] = ["well1", "well2", "well3"];

/// Each case gets an app of its own, beside one that is well.
fn machine(cases: &[Case], protocols: Protocols) -> (Machine, Vec<(String, String)>) {
    let options = Options { lifetime_s: LIFETIME_S, protocols, ..Options::default() };
    let mut machine = Machine::with(options).app("crm", &WELL, SOON);
    let places: Vec<(String, String)> =
        (0..cases.len()).map(|number| (format!("own{number:03}"), format!("ding{number:03}"))).collect();
    for (app, corp_id) in &places {
        machine = machine.app(app, &[corp_id], SOON);
    }
    (machine, places)
}

fn rows(machine: &Machine) -> BTreeMap<String, Value> {
    let output = machine.run(&["status", "--json"]);
    let whole: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let rows = whole["tenants"].as_array().cloned().unwrap_or_default();
    rows.into_iter().map(|row| (row["tenant"].as_str().unwrap_or_default().to_owned(), row)).collect()
}

fn all(machine: &Machine, whom: &[&Affected], condition: impl Fn(&Value) -> bool) -> bool {
    let rows = rows(machine);
    whom.iter().all(|affected| rows.get(&affected.tenant()).is_some_and(&condition))
}

/// No secret, no token and nothing of an answer's body is in the log, in status, or in a file where it does not belong.
fn shows_no_secret(machine: &Machine, affected: &[Affected]) {
    let status =
        support::shown(&machine.run(&["status", "--json"])) + &support::shown(&machine.run(&["status", "--all"]));
    let texts = [("the log", machine.log()), ("status", status)];
    for (place, text) in texts {
        for affected in affected {
            for issued in machine.sandbox.issued(&affected.corp_id) {
                assert!(!text.contains(&issued.token), "{place} shows a token of {}", affected.name());
            }
        }
        for canary in ["canary", SECRET, "<html", "<!DOCTYPE"] {
            assert!(!text.contains(canary), "{place} shows {canary:?}");
        }
    }
    let stray: Vec<String> =
        std::fs::read_dir(machine.path("run")).unwrap().flatten().map(|e| e.path().display().to_string()).collect();
    assert_eq!(stray.len(), 1, "the control socket, and nothing else: {stray:?}");
}

/// Injects the fault of each case for a tenant that has a good token.
fn inject(machine: &mut Machine, cases: Vec<Case>, places: Vec<(String, String)>) -> Vec<Affected> {
    machine.start();
    for ((_, fault, _, _), (_, corp_id)) in cases.iter().zip(&places) {
        machine.sandbox.inject(Scope::corp(corp_id), fault.clone(), Times::UntilCleared);
    }
    // What was under way has come and is published once the next call has failed.
    machine.wait_until("every tenant has its failure", |machine| {
        let row_of = rows(machine);
        places.iter().all(|(app, corp_id)| {
            row_of
                .get(&format!("{app}/{corp_id}"))
                .is_some_and(|row| !row["last_error"].is_null() && row["sinks"][0]["state"] == "published")
        })
    });
    let token = |machine: &Machine, app: &str, corp_id: &str| machine.token(app, corp_id).expect("it had a good start");
    let affected = cases.into_iter().zip(places);
    affected
        .map(|(case, (app, corp_id))| Affected { token: token(machine, &app, &corp_id), case, app, corp_id })
        .collect()
}

#[track_caller]
fn each_is_reported_once_and_leaves_the_old_token(machine: &Machine, affected: &[Affected]) {
    machine.wait_until("every tenant has its failure", |machine| {
        all(machine, &affected.iter().collect::<Vec<_>>(), |row| !row["last_error"].is_null())
    });
    // Some more attempts, which are no news.
    std::thread::sleep(Duration::from_secs(3));
    let rows = rows(machine);
    for affected in affected {
        let (name, row) = (affected.name(), &rows[&affected.tenant()]);
        assert_eq!(row["last_error"]["kind"], affected.kind().as_str(), "{name}: {row}");
        let state = if matches!(affected.kind().blame(), Blame::App | Blame::Tenant) { "refused" } else { "failing" };
        assert_eq!(row["state"], state, "{name}: {row}");
        assert_eq!(
            machine.token(&affected.app, &affected.corp_id).as_ref(),
            Some(&affected.token),
            "{name}: the old token stays"
        );
        let reported =
            |event: &str, key: &str, whose: &str| machine.events(event).iter().filter(|e| e[key] == whose).count();
        let lines = reported("failing", "corp_id", &affected.corp_id) + reported("app_broken", "app", &affected.app);
        assert_eq!(lines, 1, "{name}: said once");
    }
    assert_eq!(machine.token_files().len(), affected.len() + WELL.len(), "no litter");
    shows_no_secret(machine, affected);
}

#[track_caller]
fn each_recovers(machine: &Machine, affected: &[Affected]) {
    machine.sandbox.clear_faults();
    let (refused, transient): (Vec<&Affected>, Vec<&Affected>) =
        affected.iter().partition(|affected| matches!(affected.kind().blame(), Blame::App | Blame::Tenant));
    let is_well = |row: &Value| row["state"] == "fresh" && row["last_error"].is_null();
    machine.wait_until("what was transient has passed", |machine| all(machine, &transient, is_well));
    // The slow retry of those that were refused is cut short by another secret.
    for app in affected.iter().map(|affected| &affected.app) {
        machine.write_with_mode(&format!("etc/{app}.secret"), &format!("{SECRET}-new"), 0o600);
    }
    machine.wait_until("the refused are served", |machine| all(machine, &refused, is_well));
    for affected in affected {
        let new = || machine.token(&affected.app, &affected.corp_id).filter(|token| *token != affected.token);
        machine.wait_until(&format!("{}: the new token is published", affected.name()), |_| new().is_some());
        let token = new().unwrap();
        assert!(
            machine.sandbox.issued(&affected.corp_id).iter().any(|issued| issued.token == token),
            "{}",
            affected.name()
        );
    }
}

fn ends_in_its_refusal(cases: Vec<Case>) {
    let (mut machine, places) = machine(&cases, Protocols::Both);
    let affected = inject(&mut machine, cases, places);
    each_is_reported_once_and_leaves_the_old_token(&machine, &affected);
    each_recovers(&machine, &affected);
    assert!(machine.stop().success());
}

/// Throttling and bans are not one tenant's.
fn is_of_one_tenant_or_app(case: &Case) -> bool {
    !matches!(case.2.blame(), Blame::AppTooFast | Blame::EveryoneTooFast | Blame::Banned)
}

#[test]
fn every_error_of_the_endpoint_ends_in_its_refusal_and_passes() {
    ends_in_its_refusal(cases::taxonomy().into_iter().filter(is_of_one_tenant_or_app).collect());
}

#[test]
fn every_malformed_answer_ends_in_its_refusal_and_passes() {
    let cases = cases::malformed(SECRET);
    assert!(cases.len() >= 25);
    ends_in_its_refusal(cases);
}

#[test]
fn an_answer_that_never_comes_whole_ends_in_its_refusal_and_passes() {
    let cases = cases::broken();
    // Over HTTP/2, where all share a connection, a reset affects them all.
    let (mut machine, places) = machine(&cases, Protocols::Http1);
    machine.edit("ca_file = \"ca.pem\"", "ca_file = \"ca.pem\"\ntimeout = \"1s\"");
    let affected = inject(&mut machine, cases, places);
    each_is_reported_once_and_leaves_the_old_token(&machine, &affected);
    each_recovers(&machine, &affected);
}

#[test]
fn a_wrong_secret_costs_a_probe_for_five_hundred_tenants_and_the_right_one_serves_them_all_at_once() {
    let apps = [("client-crm".to_owned(), "the-right-one".to_owned())].into();
    let options = Options { apps, ..Options::default() };
    let mut machine = Machine::with(options).app("crm", &corp_ids(500), "rate = \"200/s\"");
    machine.start();
    let calls = machine.sandbox.calls().len();
    assert!((1..=40).contains(&calls), "{calls} calls: one, and those that were under way when its answer came");
    let counts = machine.status_json()["tenants"].clone();
    assert_eq!(counts["refused"], 500, "{counts}");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(machine.sandbox.calls().len(), calls, "nobody else is tried");
    assert_eq!(machine.events("app_broken").len(), 1);
    assert_eq!(machine.events("failing").len(), 0, "no tenant is blamed");

    machine.write_with_mode("etc/crm.secret", "the-right-one", 0o600);
    machine.wait_until("all are served", |machine| machine.status_json()["tenants"]["fresh"] == 500);
    machine.wait_until("all are published", |machine| machine.token_files().len() == 500);
    assert_eq!(machine.sandbox.calls().len(), calls + 500, "one call for each");
    assert_eq!(machine.events("app_mended").len(), 1);
    assert!(!machine.log().contains("the-right-one"));
}

#[test]
fn a_ban_stops_every_call_of_every_app_and_takes_no_token_away() {
    for (fault, kind) in [(Fault::BlockPage, "blocked"), (Fault::Punish, "banned")] {
        let options = Options { lifetime_s: LIFETIME_S, ..Options::default() };
        let mut machine = Machine::with(options).app("crm", &["ding1", "ding2"], SOON).app("hr", &["ding1"], SOON);
        machine.start();
        let tokens = [("crm", "ding1"), ("crm", "ding2"), ("hr", "ding1")].map(|(a, c)| machine.token(a, c));
        machine.sandbox.inject(Scope::everyone(), fault.clone(), Times::UntilCleared);
        machine.wait_until("the ban is noticed", |machine| !machine.events("paused").is_empty());
        // Calls of the others may have been under way when the first was answered; they end as it did.
        std::thread::sleep(Duration::from_secs(1));
        machine.sandbox.clear_faults();
        machine.sandbox.forget_calls();
        // Not even another secret makes it call, nor does a new tenant.
        machine.edit("\"ding2\"", "\"ding2\",\"ding3\"");
        machine.write_with_mode("etc/hr.secret", &format!("{SECRET}-new"), 0o600);
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(machine.sandbox.calls().len(), 0, "{fault:?}");
        assert_eq!(tokens, [("crm", "ding1"), ("crm", "ding2"), ("hr", "ding1")].map(|(a, c)| machine.token(a, c)));
        assert!(machine.status_json()["api_paused_until"].is_string());
        let affected = rows(&machine).into_values().find(|row| row["last_error"]["kind"] == kind);
        assert!(affected.is_some(), "status tells whose call it was: {:?}", rows(&machine));
        let status = support::shown(&machine.run(&["status"]));
        assert!(status.contains("the endpoint banned this address"), "{status}");
        assert!(status.contains("has banned this machine's address"), "{status}");
        assert_eq!(machine.events("paused").len(), 1, "said once");
        assert!(machine.stop().success());
    }
}

#[test]
fn an_app_that_is_throttled_slows_down_and_all_are_served() {
    let options = Options { per_app_limit: Some(20), ..Options::default() };
    let mut machine = Machine::with(options).app("crm", &corp_ids(60), "rate = \"60/s\"").app("hr", &["ding1"], "");
    machine.launch();
    machine.wait_until("status tells of it", |machine| {
        rows(machine).values().any(|row| {
            row["last_error"]["kind"] == "app_throttled"
                && row["last_error"]["code"] == "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"
        })
    });
    let once = machine.run(&["once"]);
    assert_eq!(once.status.code(), Some(0), "it waits for those that are throttled: {}", support::shown(&once));
    let states = machine.status_json()["tenants"].clone();
    assert_eq!(states["fresh"], 61, "{states}");
    let slowed = machine.events("slowed_down");
    assert!(!slowed.is_empty() && slowed.iter().all(|event| event["app"] == "crm"), "{slowed:?}");
    assert_eq!(slowed[0]["code"], "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi");
    assert_eq!(machine.events("failing").len(), 0, "no tenant is blamed");
    let calls = machine.sandbox.calls().len();
    assert!(calls < 61 + 60, "{calls} calls for 61 tokens: it slowed down");
}

#[test]
fn an_endpoint_too_busy_for_anybody_slows_everybody_down() {
    let options = Options { lifetime_s: LIFETIME_S, ..Options::default() };
    let mut machine = Machine::with(options).app("crm", &["ding1"], SOON).app("hr", &["ding1"], SOON);
    machine.sandbox.inject(Scope::app("client-crm"), Fault::ApiThrottled, Times::Next(1));
    machine.launch();
    machine.wait_until("all are served", |machine| machine.status_json()["tenants"]["fresh"] == 2);
    let slowed = machine.events("slowed_down");
    assert_eq!(slowed.len(), 1, "{slowed:?}");
    assert_eq!(slowed[0]["app"], "everybody");
}
