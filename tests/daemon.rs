//! The daemon from outside: files appear, stay, are renewed, and go.
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod support;

use support::{Machine, shown};

#[test]
fn every_tenant_gets_its_file_and_exactly_one_call() {
    let mut machine = Machine::new().app("crm", &["ding1", "ding2"], "").app("hr", &["ding1"], "");
    machine.start();
    for (app, corp_id) in [("crm", "ding1"), ("crm", "ding2"), ("hr", "ding1")] {
        let token = machine.token(app, corp_id).expect("the file is there when the daemon is ready");
        let issued = machine.sandbox.issued(corp_id);
        assert!(issued.iter().any(|issued| issued.token == token), "{app}/{corp_id}: {token}");
    }
    assert_eq!(machine.sandbox.calls().len(), 3);
    assert_eq!(machine.token_files(), ["crm/ding1", "crm/ding2", "hr/ding1"]);
    assert_eq!(machine.run(&["status"]).status.code(), Some(0));
    assert!(machine.stop().success());
    assert!(!machine.path("run/control.sock").exists());
}

#[test]
fn a_restart_with_valid_state_calls_nobody_and_restores_missing_files() {
    let mut machine = Machine::new().app("crm", &["ding1", "ding2"], "");
    machine.start();
    let before = machine.token("crm", "ding1");
    machine.kill();
    std::fs::remove_file(machine.path("tokens/crm/ding1")).unwrap();
    machine.sandbox.forget_calls();
    machine.start();
    assert_eq!(machine.token("crm", "ding1"), before);
    assert_eq!(machine.sandbox.calls().len(), 0);
}

#[test]
fn a_second_daemon_on_the_same_state_says_so_and_exits() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    machine.start();
    let output = machine.run(&["run"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(shown(&output).contains("another corptokend"), "{}", shown(&output));
}

#[test]
fn a_bad_config_at_the_first_start_exits_78_with_every_problem() {
    let machine = Machine::new().app("crm", &["ding1", "no spaces"], "rte = \"15/s\"");
    let output = machine.run(&["run"]);
    assert_eq!(output.status.code(), Some(78), "{}", shown(&output));
    let text = shown(&output);
    assert!(text.contains("no spaces") && text.contains("rte"), "{text}");
}
