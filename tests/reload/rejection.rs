//! A config in error changes nothing.

use crate::fixture::{applies, called, rejects, running, settle, with_list};
use crate::support::{Machine, SECRET, shown};

fn content(machine: &Machine) -> Vec<(String, Option<String>)> {
    let files = machine.token_files().into_iter();
    files.map(|file| (file.clone(), machine.read(&format!("tokens/{file}")))).collect()
}

#[test]
fn a_rejected_config_changes_nothing_and_says_which_line_is_wrong() {
    let machine = running(&["ding1", "ding2"]);
    let before = content(&machine);
    let good = machine.config_text();
    let text = with_list(&machine, &["ding1", "ding2"], &["ding2", "ding3", "no spaces"]);
    let line = text.lines().position(|line| line.contains("no spaces")).unwrap() + 1;
    let column = text.lines().nth(line - 1).unwrap().find("\"no spaces").unwrap() + 1;
    let spot = format!("config.toml:{line}:{column}");
    rejects(&machine, || machine.save(&text));
    settle();

    assert_eq!(content(&machine), before);
    assert!(called(&machine).is_empty());
    let events = machine.events("reload_rejected");
    assert_eq!(events.len(), 1, "it is said once: {events:?}");
    assert!(events[0]["message"].as_str().unwrap().contains(&spot), "{spot}: {events:?}");
    assert_eq!(events[0]["level"], "ERROR");

    let status = machine.status_json();
    assert_eq!(status["config"]["last_reload_successful"], false);
    assert!(status["config"]["problems"][0].as_str().unwrap().contains(&spot), "{status}");
    assert_eq!(status["tenants"]["fresh"], 2);
    let people = shown(&machine.run(&["status"]));
    assert!(people.contains("was rejected") && people.contains(&spot), "{people}");

    applies(&machine, || machine.save(&good));
    let status = machine.status_json();
    assert_eq!(status["config"]["last_reload_successful"], true);
    assert_eq!(status["config"]["problems"].as_array().map(Vec::len), Some(0));
    assert!(called(&machine).is_empty());
    assert_eq!(content(&machine), before);
}

#[test]
fn another_fault_in_a_rejected_config_is_said_anew() {
    let machine = running(&["ding1"]);
    rejects(&machine, || machine.edit("client_id = ", "clientid = "));
    rejects(&machine, || machine.edit("clientid = ", "client_idd = "));
    let events = machine.events("reload_rejected");
    assert!(events[0]["message"].as_str().unwrap().contains("clientid"), "{events:?}");
    assert!(events[1]["message"].as_str().unwrap().contains("client_idd"), "{events:?}");
}

#[test]
fn a_faulty_drop_in_is_named() {
    let machine = running(&["ding1"]);
    std::fs::create_dir(machine.path("etc/config.d")).unwrap();
    rejects(&machine, || machine.write_with_mode("etc/config.d/10-hr.toml", "[app.hr]\nclient_id = \n", 0o644));
    let events = machine.events("reload_rejected");
    assert!(events[0]["message"].as_str().unwrap().contains("config.d/10-hr.toml:2:"), "{events:?}");
}

#[test]
fn a_secret_in_a_rejected_config_is_never_shown() {
    let machine = running(&["ding1"]);
    rejects(&machine, || {
        machine.edit("client_secret = { file = \"crm.secret\" }", &format!("client_secret = \"{SECRET}\""));
    });
    // `run` and the end of the machine look through every output and the log.
    let output = machine.run(&["reload"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(shown(&output).contains("does not belong"), "{}", shown(&output));
    machine.run(&["status"]);
    machine.run(&["status", "--json"]);
}

#[test]
fn a_secret_file_that_is_gone_is_reported_and_the_old_secret_is_not_needed_until_the_next_call() {
    let machine = running(&["ding1"]);
    let before = content(&machine);
    std::fs::rename(machine.path("etc/crm.secret"), machine.path("secret")).unwrap();
    machine.wait_until("it is reported", |machine| shown(&machine.run(&["status"])).contains("client_secret"));
    assert_eq!(content(&machine), before);
    std::fs::rename(machine.path("secret"), machine.path("etc/crm.secret")).unwrap();
    machine.wait_until("all is well", |machine| machine.status_json()["config"]["last_reload_successful"] == true);
    settle();
    assert!(called(&machine).is_empty(), "the same secret is no other secret");
}

#[test]
fn a_config_that_others_can_write_is_rejected() {
    let machine = running(&["ding1"]);
    rejects(&machine, || {
        machine.write_with_mode("etc/config.toml", &with_list(&machine, &["ding1"], &["ding1", "ding2"]), 0o666);
    });
    assert!(machine.events("reload_rejected")[0]["message"].as_str().unwrap().contains("can be written by everybody"));
    assert_eq!(machine.token_files(), ["crm/ding1"]);
}

#[test]
fn a_config_that_is_monstrous_is_rejected_and_the_daemon_lives() {
    let machine = running(&["ding1"]);
    for text in ["[".repeat(200_000), format!("x = {}", "[".repeat(200_000)), format!("x = {}", "{a=".repeat(200_000))]
    {
        rejects(&machine, || machine.save(&text));
    }
    rejects(&machine, || std::fs::write(machine.config_path(), [0xff_u8, 0xfe, 0, 1].repeat(1000)).unwrap());
    assert_eq!(machine.status_json()["tenants"]["fresh"], 1);
    applies(&machine, || machine.save(&machine.config_text()));
}
