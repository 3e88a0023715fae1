//! `corptokend check`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use corptokend::sandbox::{Fault, Scope, Times};
use serde_json::Value;

use crate::support::{Machine, is_root, shown, system_allows};

fn json(machine: &Machine, args: &[&str]) -> (Value, Option<i32>) {
    let output = machine.run(&[&["check", "--json"], args].concat());
    let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("not JSON: {}", shown(&output)));
    (value, output.status.code())
}

#[test]
fn a_valid_config_shows_its_capacity_and_calls_nobody() {
    let machine = Machine::new().app("crm", &["ding1", "ding2"], "rate = \"15/s\"").app("hr", &["ding1"], "");
    let output = machine.run(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(output.stderr.is_empty(), "{}", shown(&output));
    let text = shown(&output);
    assert!(text.starts_with(&format!("{}: valid; 2 apps, 3 tenants\n", machine.config_path().display())), "{text}");
    assert!(text.contains("crm: 2 tenants; 15/s keeps 75600 fresh"), "{text}");
    assert!(machine.sandbox.calls().is_empty());
    assert!(machine.token_files().is_empty(), "nothing is written where sinks are tried");
    assert!(!machine.path("state/state.redb").exists());
}

#[test]
fn an_invalid_config_exits_78_with_each_problem_on_stderr() {
    let machine = Machine::new().app("crm", &["ding1", "no spaces"], "rte = \"15/s\"\nenabled = 7");
    let output = machine.run(&["check"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(output.stdout.is_empty());
    let text = shown(&output);
    assert!(text.starts_with("error: "), "{text}");
    for part in ["a corp_id must be", "rte", "enabled", "^^^"] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}

#[test]
fn a_config_that_is_not_there_is_named() {
    let machine = Machine::new();
    let output = machine.run(&["check", "--config", "/nowhere/config.toml"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(shown(&output).starts_with("error: ") && shown(&output).contains("/nowhere/config.toml"));
}

#[test]
fn what_is_beyond_the_capacity_is_a_warning_with_figures() {
    let machine = Machine::new().app(
        "crm",
        &["a", "b", "c", "d", "e", "f", "g"],
        "rate = \"1/m\"\nrefresh = { at = 0.05, jitter = 0 }",
    );
    let output = machine.run(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("warning: "), "{}", shown(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("valid, with 1 warning;"), "{text}");
    assert!(text.contains("crm: 7 tenants; 1/m keeps 6 fresh, so renewals come up to 60 s late"), "{text}");
}

#[test]
fn a_sink_that_cannot_be_written_is_an_error_whose_remedy_works() {
    if !system_allows("giving directories away", is_root()) {
        return;
    }
    let machine = Machine::new().app("crm", &["ding1"], "");
    for given in ["state", "etc"] {
        machine.give_to_nobody(given);
    }
    for directory in ["", "state", "etc"] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(machine.path(directory), mode).unwrap();
    }
    let output = machine.run(&["check"]);
    assert_eq!(output.status.code(), Some(78), "{}", shown(&output));
    let text = shown(&output);
    assert!(text.contains("app crm: ") && text.contains("cannot be published to"), "{text}");
    let remedy = text.split('`').nth(1).unwrap_or_else(|| panic!("no command that mends it in:\n{text}"));
    let mended = std::process::Command::new("sh").args(["-c", remedy]).status().unwrap();
    assert!(mended.success(), "{remedy}");
    let output = machine.run(&["check"]);
    assert_eq!(output.status.code(), Some(0), "after {remedy}: {}", shown(&output));
}

#[test]
fn root_judges_the_config_as_the_daemons_user_who_has_to_read_it() {
    if !system_allows("another user", is_root()) {
        return;
    }
    let machine = Machine::new().app("crm", &["ding1"], "");
    for given in ["state", "tokens", "etc/crm.secret"] {
        machine.give_to_nobody(given);
    }
    fs::set_permissions(machine.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(machine.run(&["check"]).status.code(), Some(0));
    fs::set_permissions(machine.config_path(), fs::Permissions::from_mode(0o600)).unwrap();
    let output = machine.run(&["check"]);
    assert_eq!(output.status.code(), Some(78), "{}", shown(&output));
    assert!(shown(&output).contains("cannot be read"), "{}", shown(&output));
}

#[test]
fn with_a_daemon_it_tells_what_a_reload_would_do_and_changes_nothing() {
    let mut machine = Machine::new().app("crm", &["ding1", "ding2", "ding3"], "").app("hr", &["ding1"], "");
    machine.start();
    assert!(shown(&machine.run(&["check"])).contains("the running daemon has nothing to reload"));
    // Another file than the one that is watched would be another daemon's; this one is saved, and asked about at once.
    machine.signal("STOP");
    machine.edit("\"ding3\"", "\"ding4\", \"ding5\"");
    machine.edit("client-hr", "client-hr2");
    machine.signal("CONT");
    let output = machine.run(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(
        shown(&output).contains("a reload would add 2, remove 1, change 1 and fetch 3 tenants"),
        "{}",
        shown(&output)
    );
}

#[test]
fn online_makes_one_real_call_and_publishes_nothing() {
    let machine = Machine::new().app("crm", &["ding1", "ding2"], "");
    let output = machine.run(&["check", "--online"]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    let issued = machine.sandbox.issued("ding1");
    assert_eq!((machine.sandbox.calls().len(), issued.len()), (1, 1));
    let text = shown(&output);
    assert!(text.contains("crm/ding1: ") && text.contains("good for 7200 s"), "{text}");
    assert!(text.contains("the token that was in use may have ended"), "{text}");
    assert!(!text.contains(&issued[0].token), "a token is shown");
    assert!(machine.token_files().is_empty() && !machine.path("state/state.redb").exists());

    assert_eq!(machine.run(&["check", "--online", "crm/ding2"]).status.code(), Some(0));
    assert_eq!(machine.sandbox.issued("ding2").len(), 1);
}

#[test]
fn a_real_call_that_fails_exits_69_and_says_why() {
    let machine = Machine::new().app("crm", &["ding1"], "");
    machine.sandbox.inject(Scope::everyone(), Fault::UnauthorizedClient, Times::UntilCleared);
    let output = machine.run(&["check", "--online"]);
    assert_eq!(output.status.code(), Some(69));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.starts_with("error: crm/ding1: ") && errors.contains("unauthorized.client"), "{errors}");

    let output = machine.run(&["check", "--online", "crm/ding9"]);
    assert_eq!(output.status.code(), Some(69));
    assert!(shown(&output).contains("error: crm/ding9 is not in the config"), "{}", shown(&output));
}

#[test]
fn the_json_of_a_valid_config_has_the_documented_keys() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    let (value, code) = json(&machine, &[]);
    assert_eq!(code, Some(0));
    documented(&value, "check");
    documented(&value["capacity"], "capacity");
    documented(&value["capacity"]["total"], "figures");
    documented(&value["capacity"]["apps"][0], "app figures");
    assert_eq!((&value["valid"], &value["apps"], &value["tenants"]), (&true.into(), &1.into(), &1.into()));
    assert!(value["reload"].is_null() && value["online"].is_null());

    machine.start();
    machine.sandbox.inject(Scope::everyone(), Fault::ServerError, Times::Next(1));
    let (value, code) = json(&machine, &["--online"]);
    assert_eq!(code, Some(69));
    documented(&value["reload"], "reload");
    documented(&value["online"], "online");
    assert_eq!(value["online"]["kind"], "server_error");
    assert_eq!(value["online"]["code"], "server.error");
    let (value, _) = json(&machine, &["--online"]);
    documented(&value["online"], "online");
    assert_eq!(value["online"]["lifetime_s"], 7200);
}

#[test]
fn the_json_of_an_invalid_config_has_the_documented_keys() {
    let machine = Machine::new().app("crm", &["ding1", "ding1"], "");
    let (value, code) = json(&machine, &[]);
    assert_eq!(code, Some(78));
    documented(&value, "check");
    documented(&value["problems"][0], "problem");
    documented(&value["problems"][0]["also"][0], "place");
    assert_eq!(value["valid"], false);
    assert!(value["tenants"].is_null() && value["capacity"].is_null());
}

/// The object has the keys that `docs/json.md` lists under this heading, and no others.
#[track_caller]
pub(crate) fn documented(value: &Value, heading: &str) {
    let page = include_str!("../../docs/json.md");
    let section = page.split("\n## ").find(|section| section.lines().next() == Some(heading));
    let section = section.unwrap_or_else(|| panic!("docs/json.md says nothing of {heading}"));
    let key = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    let mut keys: Vec<String> = section.lines().filter_map(key).collect();
    keys.sort();
    let object = value.as_object().unwrap_or_else(|| panic!("{heading} is no object: {value}"));
    let found: Vec<&String> = object.keys().collect();
    assert_eq!(found, keys.iter().collect::<Vec<_>>(), "{heading}");
}
