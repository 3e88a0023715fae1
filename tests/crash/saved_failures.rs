//! Whom a killed daemon must not call, its successor does not call either.

use std::fs;
use std::time::{Duration, Instant};

use corptokend::sandbox::{Fault, Scope, Times};
use serde_json::Value;

use crate::support::reliability;
use crate::support::{Machine, SECRET, corp_ids};

/// Twice the time in which changes are gathered for a commit, and one for the commit.
const COMMITTED: Duration = Duration::from_millis(600);

/// State, last error and its moment of each tenant.
fn standing(machine: &Machine, tenants: &[&str]) -> Vec<(String, Value, Value, Value)> {
    let standing = |tenant: &&str| {
        let row = machine.tenant_json(tenant);
        let error = &row["last_error"];
        ((*tenant).to_owned(), row["state"].clone(), error["kind"].clone(), error["at"].clone())
    };
    tenants.iter().map(standing).collect()
}

/// Kills the daemon and starts another one. Answers with how long that took to be ready.
fn kill_and_start(machine: &mut Machine) -> Duration {
    machine.kill();
    let ready = machine.events("ready").len();
    let began = Instant::now();
    machine.launch();
    machine.wait_until("the daemon is ready", |machine| machine.events("ready").len() > ready);
    began.elapsed()
}

#[test]
fn a_killed_daemon_leaves_word_whom_not_to_call() {
    const KILLS: usize = 5;
    let refused = ["crm/no1", "crm/no2", "crm/no3"];
    let of_broken = corp_ids(30);
    let mut machine = Machine::new().app("crm", &["yes1", "yes2", "no1", "no2", "no3"], "").app("hr", &of_broken, "");
    for corp_id in ["no1", "no2", "no3"] {
        machine.sandbox.inject(Scope::corp(corp_id), Fault::UnauthorizedClient, Times::UntilCleared);
    }
    machine.sandbox.inject(Scope::app("client-hr"), Fault::InvalidClient, Times::UntilCleared);
    machine.start();
    std::thread::sleep(COMMITTED);
    let called = machine.sandbox.calls();
    let probed = called.iter().find(|call| &*call.client_id == "client-hr").expect("the broken app was called");
    let probed = format!("hr/{}", probed.corp_id);
    let watched: Vec<&str> = refused.into_iter().chain([probed.as_str(), "hr/ding0029", "crm/yes1"]).collect();
    let before = standing(&machine, &watched);
    assert_eq!(before[0].2, "unauthorized", "{before:?}");
    assert_eq!(before[3].2, "wrong_credentials", "{before:?}");
    let calls = called.len();
    let mut slowest = Duration::ZERO;
    for _ in 0..KILLS {
        slowest = slowest.max(kill_and_start(&mut machine));
        std::thread::sleep(COMMITTED);
        assert_eq!(standing(&machine, &watched), before);
        assert_eq!(machine.sandbox.calls().len(), calls, "somebody was called before its time");
    }
    // The first probe is due after 30 s, and READY waits for as long when an outcome is missing.
    assert!(slowest < Duration::from_secs(10), "READY waited: {slowest:?}");
    let reported = machine.events("failing").len() + machine.events("app_broken").len();
    assert_eq!(reported, refused.len() + 1, "each trouble is reported once, not at each start");

    // Another secret while the daemon is down: whatever the old one led to is void.
    machine.kill();
    machine.sandbox.clear_faults();
    for app in ["crm", "hr"] {
        machine.write_with_mode(&format!("etc/{app}.secret"), &format!("{SECRET}-new"), 0o600);
    }
    machine.start();
    machine.wait_until("all have tokens", |machine| machine.token_files().len() == 5 + of_broken.len());
    assert!(machine.stop().success());
    reliability::leave(
        "a_killed_daemon_leaves_word_whom_not_to_call",
        "`kill -9` while tenants are refused and the secret of an app is wrong",
        "the next process calls none of them before its time, shows the same states and errors, and does not wait for them to be ready; another secret is tried at once",
        &format!(
            "{KILLS} kills, 3 refused tenants, a broken app of 30: 0 calls; ready within {} ms",
            slowest.as_millis()
        ),
    );
}

#[test]
fn a_ban_outlives_the_daemon_that_met_it() {
    let mut machine = Machine::new().app("crm", &["ding1", "ding2"], "");
    machine.start();
    machine.sandbox.inject(Scope::everyone(), Fault::Punish, Times::UntilCleared);
    machine.edit("\"ding2\"", "\"ding2\",\"ding3\"");
    machine.wait_until("the address is banned", |machine| !machine.status_json()["api_paused_until"].is_null());
    let until = machine.status_json()["api_paused_until"].as_str().unwrap().to_owned();
    std::thread::sleep(COMMITTED);
    machine.sandbox.clear_faults();
    let calls = machine.sandbox.calls().len();
    machine.kill();
    fs::remove_dir_all(machine.path("tokens/crm")).unwrap();
    let began = Instant::now();
    machine.start();
    machine.wait_until("what is known is published", |machine| machine.token_files() == ["crm/ding1", "crm/ding2"]);
    let still = machine.status_json()["api_paused_until"].as_str().expect("it is still banned").to_owned();
    // Told in whole seconds, which the milliseconds between both clocks may round otherwise.
    let seconds = |text: &str| humantime::parse_rfc3339(text).unwrap();
    let (early, late) = (seconds(&until).min(seconds(&still)), seconds(&until).max(seconds(&still)));
    assert!(late.duration_since(early).unwrap() <= Duration::from_secs(1), "{until} and {still}");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(machine.sandbox.calls().len(), calls, "a call during the ban");
    assert_eq!(machine.tenant_json("crm/ding3")["last_error"]["kind"], "banned");
    let watched = began.elapsed().as_secs();
    assert!(machine.stop().success());
    reliability::leave(
        "a_ban_outlives_the_daemon_that_met_it",
        "`kill -9` while the address is banned",
        "no call until the ban is over, which `status` shows; tokens are published from the state",
        &format!("0 calls in {watched} s after the restart; the end of the ban is reported as before, to the second"),
    );
}
