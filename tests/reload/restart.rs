//! What changed while the daemon was down.

use crate::fixture::{applies, called, ready, reload, running, settle, wait_for_files, wait_for_token, with_list};
use crate::support::{Machine, SECRET, shown};

#[test]
fn a_tenant_that_was_removed_while_the_daemon_was_down_loses_its_file_at_the_next_start() {
    let mut machine = running(&["ding1", "ding2", "ding3"]);
    machine.stop();
    machine.save(&with_list(&machine, &["ding1", "ding2", "ding3"], &["ding2", "ding3"]));
    machine.start();
    wait_for_files(&machine, &["crm/ding2", "crm/ding3"]);
    assert!(called(&machine).is_empty());
    // It was forgotten, not only hidden.
    machine.save(&machine.config_text());
    wait_for_token(&machine, "crm", "ding1");
    assert_eq!(called(&machine), ["ding1"]);
}

#[test]
fn an_app_that_was_removed_together_with_its_secret_while_the_daemon_was_down_loses_its_files() {
    let mut machine = ready(Machine::new().app("crm", &["ding1", "ding2"], "").app("hr", &["ding3"], ""));
    machine.stop();
    let text = machine.config_text();
    machine.save(&text[..text.find("[app.hr]").unwrap()]);
    std::fs::remove_file(machine.path("etc/hr.secret")).unwrap();
    machine.start();
    wait_for_files(&machine, &["crm/ding1", "crm/ding2"]);
    assert!(called(&machine).is_empty());
}

#[test]
fn all_apps_removed_together_with_their_secrets_while_the_daemon_was_down_are_held_back() {
    let mut machine = running(&["ding1", "ding2"]);
    let before = machine.token("crm", "ding1");
    machine.stop();
    let text = machine.config_text();
    machine.save(&text[..text.find("[app.crm]").unwrap()]);
    std::fs::remove_file(machine.path("etc/crm.secret")).unwrap();
    machine.start();
    settle();
    assert_eq!(machine.token_files(), ["crm/ding1", "crm/ding2"]);
    assert_eq!(machine.token("crm", "ding1"), before);
    assert_eq!(machine.status_json()["config"]["held_back"]["removed"], 2);
}

#[test]
fn sinks_that_changed_while_the_daemon_was_down_are_filled_and_the_old_places_emptied() {
    let mut machine = running(&["ding1", "ding2"]);
    let before = machine.token("crm", "ding1");
    machine.stop();
    machine.save(&machine.config_text().replace("/tokens/{app}/{corp_id}", "/tokens/new/{corp_id}"));
    machine.start();
    wait_for_files(&machine, &["new/ding1", "new/ding2"]);
    assert_eq!(machine.token("new", "ding1"), before);
    assert!(called(&machine).is_empty());
}

#[test]
fn a_secret_that_changed_while_the_daemon_was_down_brings_new_tokens() {
    let mut machine = running(&["ding1", "ding2"]);
    let before = machine.token("crm", "ding1");
    assert!(machine.stop().success());
    machine.sandbox.set_secret("client-crm", "another-secret-of-crm");
    machine.write_with_mode("etc/crm.secret", "another-secret-of-crm", 0o600);
    machine.sandbox.forget_calls();
    machine.start();
    machine.wait_until("all are fetched anew", |machine| called(machine) == ["ding1", "ding2"]);
    machine.wait_until("the new token is there", |machine| machine.token("crm", "ding1") != before);
    assert!(machine.stop().success());
    machine.sandbox.forget_calls();
    machine.start();
    assert!(called(&machine).is_empty(), "the new secret is known by now");
}

#[test]
fn a_client_id_that_changed_while_the_daemon_was_down_brings_new_tokens() {
    let mut machine = ready(Machine::new().app("crm", &["ding1", "ding2"], "").app("hr", &["ding3"], ""));
    machine.stop();
    machine.save(&machine.config_text().replace("client-crm", "client-crm-2"));
    machine.start();
    machine.wait_until("they are fetched", |machine| called(machine) == ["ding1", "ding2"]);
    machine.wait_until("they are published", |machine| {
        let token = machine.token("crm", "ding1").unwrap();
        machine.sandbox.issued("ding1").iter().any(|i| i.token == token && &*i.client_id == "client-crm-2")
    });
}

#[test]
fn a_config_in_error_at_the_start_leaves_the_last_one_running() {
    let mut machine = running(&["ding1", "ding2"]);
    machine.stop();
    let text = with_list(&machine, &["ding1", "ding2"], &["ding1", "ding2", "no spaces"]);
    machine.save(&text);
    let strict = machine.run(&["run", "--strict"]);
    assert_eq!(strict.status.code(), Some(78), "{}", shown(&strict));
    machine.start();
    assert_eq!(machine.token_files(), ["crm/ding1", "crm/ding2"]);
    assert!(called(&machine).is_empty());
    let events = machine.events("config_rejected");
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["level"], "ERROR");
    assert!(events[0]["message"].as_str().unwrap().contains("a corp_id must be"), "{events:?}");
    let status = machine.status_json();
    assert_eq!(status["config"]["last_reload_successful"], false);
    assert!(status["config"]["problems"][0].as_str().unwrap().contains("config.toml:"), "{status}");
    // The next good one is taken as at any time.
    applies(&machine, || machine.save(&with_list(&machine, &["ding1", "ding2"], &["ding1", "ding2", "ding3"])));
    wait_for_token(&machine, "crm", "ding3");
    assert_eq!(called(&machine), ["ding3"]);
    assert_eq!(machine.status_json()["config"]["last_reload_successful"], true);
}

#[test]
fn a_config_that_is_gone_at_the_start_leaves_the_last_one_running() {
    let mut machine = running(&["ding1"]);
    machine.stop();
    // The state's place is known without the config, as under systemd.
    let state = machine.path("state").display().to_string();
    machine.env("STATE_DIRECTORY", &state);
    let text = machine.config_text();
    std::fs::remove_file(machine.config_path()).unwrap();
    machine.launch();
    machine.wait_until("the daemon runs", |machine| machine.events("ready").len() == 2);
    machine.save(&text);
    machine
        .wait_until("the config is taken", |machine| machine.status_json()["config"]["last_reload_successful"] == true);
    assert!(called(&machine).is_empty());
    assert_eq!(machine.token_files(), ["crm/ding1"]);
}

#[test]
fn a_secret_that_is_gone_at_the_start_stops_nobody_elses_tokens() {
    let mut machine = ready(Machine::new().app("crm", &["ding1"], "").app("hr", &["ding2"], ""));
    let before = machine.token("crm", "ding1");
    machine.stop();
    std::fs::remove_file(machine.path("etc/crm.secret")).unwrap();
    std::fs::remove_file(machine.path("tokens/crm/ding1")).unwrap();
    machine.start();
    assert_eq!(machine.token("crm", "ding1"), before);
    assert_eq!(machine.token_files(), ["crm/ding1", "hr/ding2"]);
    assert!(shown(&machine.run(&["status"])).contains("the file that `client_secret` names cannot be read"));
    machine.write_with_mode("etc/crm.secret", SECRET, 0o600);
    machine.wait_until("all is well", |machine| machine.status_json()["config"]["last_reload_successful"] == true);
    assert!(called(&machine).is_empty());
}

#[test]
fn what_was_reloaded_is_what_a_restart_begins_with() {
    let mut machine = running(&["ding1", "ding2"]);
    machine.save(&with_list(&machine, &["ding1", "ding2"], &["ding2", "ding3"]));
    reload(&machine, &[]);
    wait_for_files(&machine, &["crm/ding2", "crm/ding3"]);
    machine.stop();
    machine.save("no config at all");
    machine.sandbox.forget_calls();
    let state = machine.path("state").display().to_string();
    machine.env("STATE_DIRECTORY", &state);
    machine.start();
    assert_eq!(machine.token_files(), ["crm/ding2", "crm/ding3"]);
    assert!(called(&machine).is_empty());
}

/// Nothing is wrong with its text: what is wrong shows only when the endpoint's client is made.
#[test]
fn a_config_that_cannot_be_carried_out_at_the_start_leaves_the_last_one_running() {
    let mut machine = running(&["ding1"]);
    machine.stop();
    machine.write_with_mode("etc/bad.pem", "no certificates here", 0o644);
    machine.edit("ca.pem", "bad.pem");
    let strict = machine.run(&["run", "--strict"]);
    assert_eq!(strict.status.code(), Some(78), "{}", shown(&strict));
    machine.start();
    assert_eq!(machine.token_files(), ["crm/ding1"]);
    assert_eq!(machine.status_json()["config"]["last_reload_successful"], false);
    assert_eq!(machine.events("config_rejected").len(), 1);
}
