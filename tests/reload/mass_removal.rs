//! What looks like an accident is held back.

use corptokend::sandbox::Options;

use crate::fixture::{applies, called, ready, reload, running, settle, wait_for_files, with_list};
use crate::support::{Machine, shown};

const FOUR: [&str; 4] = ["ding1", "ding2", "ding3", "ding4"];
const FOUR_FILES: [&str; 4] = ["crm/ding1", "crm/ding2", "crm/ding3", "crm/ding4"];

#[track_caller]
fn is_held_back(machine: &Machine, removed: usize, files: &[&str]) {
    machine.wait_until("it is held back", |m| m.status_json()["config"]["held_back"]["removed"] == removed);
    settle();
    assert_eq!(machine.token_files(), files);
    let events = machine.events("mass_removal_held_back");
    assert_eq!(events.last().unwrap()["removed"], removed);
    assert_eq!(events.last().unwrap()["level"], "ERROR");
    let people = shown(&machine.run(&["status"]));
    assert!(people.contains("held back") && people.contains("--allow-mass-removal"), "{people}");
}

#[test]
fn an_emptied_config_is_held_back_until_the_operator_says_that_it_is_meant() {
    let machine = running(&["ding1", "ding2"]);
    machine.save(&with_list(&machine, &["ding1", "ding2"], &[]));
    is_held_back(&machine, 2, &["crm/ding1", "crm/ding2"]);
    let output = machine.run(&["reload"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(shown(&output).contains("held back"), "{}", shown(&output));
    settle();
    assert_eq!(machine.token_files(), ["crm/ding1", "crm/ding2"]);

    reload(&machine, &["--allow-mass-removal"]);
    wait_for_files(&machine, &[]);
    assert!(machine.status_json()["config"]["held_back"].is_null());
    assert!(called(&machine).is_empty());
}

#[test]
fn a_truncated_file_is_held_back_too() {
    let machine = running(&["ding1", "ding2"]);
    machine.save("");
    is_held_back(&machine, 2, &["crm/ding1", "crm/ding2"]);
    assert_eq!(machine.run(&["status"]).status.code(), Some(1), "somebody believes that they are gone");
}

#[test]
fn more_than_half_of_four_is_held_back_and_exactly_half_is_not() {
    let machine = running(&FOUR);
    machine.save(&with_list(&machine, &FOUR, &["ding4"]));
    is_held_back(&machine, 3, &FOUR_FILES);
    machine.save(&with_list(&machine, &FOUR, &["ding1", "ding4"]));
    wait_for_files(&machine, &["crm/ding1", "crm/ding4"]);
    assert!(machine.status_json()["config"]["held_back"].is_null());
}

#[test]
fn two_of_three_may_go_and_three_of_three_may_not() {
    let machine = running(&["ding1", "ding2", "ding3"]);
    machine.save(&with_list(&machine, &["ding1", "ding2", "ding3"], &[]));
    is_held_back(&machine, 3, &["crm/ding1", "crm/ding2", "crm/ding3"]);
    machine.save(&with_list(&machine, &["ding1", "ding2", "ding3"], &["ding2"]));
    wait_for_files(&machine, &["crm/ding2"]);
}

#[test]
fn what_else_a_config_says_is_applied_while_its_removal_is_held_back() {
    let machine = running(&FOUR);
    machine.save(&with_list(&machine, &FOUR, &["ding4", "ding5"]));
    is_held_back(&machine, 3, &["crm/ding1", "crm/ding2", "crm/ding3", "crm/ding4", "crm/ding5"]);
    assert_eq!(called(&machine), ["ding5"]);
}

#[test]
fn tenants_whose_removal_is_held_back_are_renewed() {
    let options = Options { lifetime_s: 4, ..Options::default() };
    let machine = ready(Machine::with(options).app("crm", &["ding1", "ding2"], ""));
    machine.save("[api]\nca_file = \"ca.pem\"\n");
    machine.wait_until("it is held back", |machine| !machine.events("mass_removal_held_back").is_empty());
    machine.sandbox.forget_calls();
    let before = machine.token("crm", "ding1");
    machine.wait_until("they are renewed", |machine| {
        called(machine).len() >= 4 && machine.token("crm", "ding1") != before
    });
    assert_eq!(machine.events("mass_removal_held_back").len(), 1, "it is said once");
}

#[test]
fn a_file_that_is_restored_ends_it() {
    let machine = running(&["ding1", "ding2"]);
    machine.save("");
    is_held_back(&machine, 2, &["crm/ding1", "crm/ding2"]);
    applies(&machine, || machine.save(&machine.config_text()));
    assert!(machine.status_json()["config"]["held_back"].is_null());
    assert!(!shown(&machine.run(&["status"])).contains("held back"));
    assert!(called(&machine).is_empty());
    // What is held back a second time is said a second time.
    machine.save("");
    machine.wait_until("it is held back again", |machine| machine.events("mass_removal_held_back").len() == 2);
}

#[test]
fn a_whole_app_that_goes_is_held_back_with_its_settings() {
    let machine = ready(Machine::new().app("big", &FOUR, "").app("hr", &["ding1"], ""));
    let text = machine.config_text();
    let (from, to) = (text.find("[app.big]").unwrap(), text.find("[app.hr]").unwrap());
    machine.save(&format!("{}{}", &text[..from], &text[to..]));
    is_held_back(&machine, 4, &["big/ding1", "big/ding2", "big/ding3", "big/ding4", "hr/ding1"]);
    reload(&machine, &["--allow-mass-removal"]);
    wait_for_files(&machine, &["hr/ding1"]);
    machine.wait_until("the app is gone", |machine| machine.status_json()["apps"]["big"].is_null());
}

#[test]
fn a_removal_that_is_held_back_is_so_after_a_restart_too() {
    let mut machine = running(&["ding1", "ding2"]);
    machine.save(&with_list(&machine, &["ding1", "ding2"], &[]));
    is_held_back(&machine, 2, &["crm/ding1", "crm/ding2"]);
    assert!(machine.stop().success());
    machine.start();
    is_held_back(&machine, 2, &["crm/ding1", "crm/ding2"]);
    assert!(called(&machine).is_empty());
}

#[test]
fn a_config_that_was_emptied_while_the_daemon_was_down_is_held_back_at_the_start() {
    let mut machine = running(&["ding1", "ding2"]);
    let before = machine.token("crm", "ding1");
    machine.stop();
    let empty = with_list(&machine, &["ding1", "ding2"], &[]);
    machine.save(&empty);
    machine.start();
    is_held_back(&machine, 2, &["crm/ding1", "crm/ding2"]);
    assert_eq!(machine.token("crm", "ding1"), before);
    assert!(called(&machine).is_empty());
    reload(&machine, &["--allow-mass-removal"]);
    wait_for_files(&machine, &[]);
    machine.wait_until("the directory that was made is gone", |machine| !machine.path("tokens/crm").exists());
    machine.stop();
    machine.start();
    assert_eq!(machine.token_files(), [""; 0]);
    assert_eq!(machine.events("mass_removal_held_back").len(), 1);
    assert!(called(&machine).is_empty());
}

/// All tenants of before would go, and that is what counts: whoever reads the old files goes on reading good tokens.
#[test]
fn the_only_app_that_gets_another_name_is_served_under_both_until_that_is_confirmed() {
    let machine = running(&["ding1", "ding2"]);
    machine.save(&machine.config_text().replace("[app.crm]", "[app.sales]"));
    is_held_back(&machine, 2, &["crm/ding1", "crm/ding2", "sales/ding1", "sales/ding2"]);
    reload(&machine, &["--allow-mass-removal"]);
    wait_for_files(&machine, &["sales/ding1", "sales/ding2"]);
    assert_eq!(called(&machine), ["ding1", "ding2"]);
}

/// The app of the tenants that are kept got the client_id of another, and the paths name it.
#[test]
fn tenants_that_are_kept_never_write_where_others_do() {
    let sinks = |machine: &Machine| {
        let path = machine.path("by-id/{client_id}/{corp_id}");
        format!("[[defaults.sink]]\nfile = \"{}\"\n", path.display())
    };
    let mut machine = Machine::new().app("crm", &FOUR, "").app("hr", &["ding1"], "");
    let default = format!("[[defaults.sink]]\nfile = \"{}\"\n", machine.path("tokens/{app}/{corp_id}").display());
    let good = machine.config_text().replace(&default, &sinks(&machine));
    machine.save(&good);
    machine.start();
    machine.sandbox.forget_calls();
    let hrs = machine.read("by-id/client-hr/ding1").unwrap();
    // All of crm's tenants are gone from its list, and it is called as hr was.
    let text = good.replace(&crate::fixture::list(&FOUR), "corp_ids = []").replace("\"client-hr\"", "\"client-other\"");
    let text = text.replace("\"client-crm\"", "\"client-hr\"").replace("\"client-other\"", "\"client-hr\"");
    crate::fixture::rejects(&machine, || machine.save(&text));
    let status = machine.status_json();
    let problem = status["config"]["problems"][0].as_str().unwrap().to_owned();
    assert!(
        problem.contains("held back") && problem.contains("crm/ding1") && problem.contains("hr/ding1"),
        "{problem}"
    );
    settle();
    assert_eq!(machine.read("by-id/client-hr/ding1").unwrap(), hrs);
    assert_eq!(machine.names_in("by-id/client-crm"), FOUR, "nothing changes");
    reload(&machine, &["--allow-mass-removal"]);
    machine.wait_until("they are gone", |machine| !machine.path("by-id/client-crm").exists());
    assert!(machine.read("by-id/client-hr/ding1").is_some());
}
