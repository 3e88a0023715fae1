//! `corptokend reload`.

use crate::support::{Machine, shown};

#[test]
fn without_a_daemon_it_exits_1() {
    let machine = Machine::new().app("crm", &["ding1"], "");
    let output = machine.run(&["reload"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(shown(&output).starts_with("error: no daemon listens on "), "{}", shown(&output));
}

#[test]
fn what_was_applied_is_counted_once_it_is_in_force() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    machine.start();
    machine.edit("[\"ding1\"]", "[\"ding1\", \"ding2\"]");
    let output = machine.run(&["reload"]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "applied: 1 added, 0 removed, 0 changed\n");
    assert!(machine.log().contains("config applied; tenants: 1 added, 0 removed, 0 changed"), "{}", machine.log());
    machine.wait_until("the new tenant has its token", |machine| machine.token("crm", "ding2").is_some());
}

#[test]
fn a_rejected_config_exits_78_with_the_report_and_changes_nothing() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    machine.start();
    machine.edit("corp_ids", "corp_idz");
    let output = machine.run(&["reload"]);
    assert_eq!(output.status.code(), Some(78), "{}", shown(&output));
    let text = shown(&output);
    assert!(text.starts_with("error: ") && text.lines().next().is_some_and(|line| line.contains("corp_idz")), "{text}");
    let status = machine.status_json();
    assert_eq!(status["config"]["last_reload_successful"], false);
    assert!(status["config"]["problems"][0].as_str().unwrap().contains("corp_idz"));
    assert_eq!(machine.tenant_json("crm/ding1")["state"], "fresh");
}

#[test]
fn a_mass_removal_waits_for_its_word() {
    let mut machine = Machine::new().app("crm", &["ding1", "ding2", "ding3", "ding4"], "");
    machine.start();
    machine.edit("\"ding1\",\"ding2\",\"ding3\",", "");
    let output = machine.run(&["reload"]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(shown(&output).contains("warning: the removal of 3 tenants is held back"), "{}", shown(&output));
    assert_eq!(machine.token_files().len(), 4);
    let output = machine.run(&["reload", "--allow-mass-removal"]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    machine.wait_until("they are gone", |machine| machine.token_files() == ["crm/ding4"]);
}
