//! What the tests of reloading share.

use std::time::Duration;

use crate::support::Machine;

/// How long changes are gathered, and a good deal more.
pub(crate) const SETTLED: Duration = Duration::from_millis(700);

/// A daemon that is ready, with one app of these organisations; the calls that this took are forgotten.
pub(crate) fn running(corp_ids: &[&str]) -> Machine {
    ready(Machine::new().app("crm", corp_ids, ""))
}

/// Starts it; the calls that this took are forgotten.
pub(crate) fn ready(mut machine: Machine) -> Machine {
    machine.start();
    machine.sandbox.forget_calls();
    machine
}

/// The list of organisations as it stands in the config.
pub(crate) fn list(corp_ids: &[&str]) -> String {
    format!("corp_ids = {}", serde_json::to_string(corp_ids).unwrap())
}

/// The config with this list of organisations in place of that one.
pub(crate) fn with_list(machine: &Machine, from: &[&str], to: &[&str]) -> String {
    let text = machine.config_text();
    assert!(text.contains(&list(from)), "{from:?} is in the config");
    text.replace(&list(from), &list(to))
}

/// Makes a change, and waits until the daemon has noticed and applied it.
#[track_caller]
pub(crate) fn applies(machine: &Machine, change: impl FnOnce()) {
    let before = machine.events("reloaded").len();
    change();
    machine.wait_until("the change is applied", |machine| machine.events("reloaded").len() > before);
}

/// Makes a change, and waits until the daemon has noticed and rejected it.
#[track_caller]
pub(crate) fn rejects(machine: &Machine, change: impl FnOnce()) {
    let before = machine.events("reload_rejected").len();
    change();
    machine.wait_until("the change is rejected", |machine| machine.events("reload_rejected").len() > before);
}

/// Has the daemon reload, and expects it to be applied.
#[track_caller]
pub(crate) fn reload(machine: &Machine, args: &[&str]) {
    let output = machine.run(&[&["reload"], args].concat());
    assert_eq!(output.status.code(), Some(0), "{}", crate::support::shown(&output));
}

/// For which organisations there were calls, sorted.
pub(crate) fn called(machine: &Machine) -> Vec<String> {
    let mut called: Vec<String> = machine.sandbox.calls().iter().map(|call| call.corp_id.to_string()).collect();
    called.sort();
    called
}

#[track_caller]
pub(crate) fn wait_for_token(machine: &Machine, app: &str, corp_id: &str) -> String {
    machine.wait_until(&format!("{app}/{corp_id} has a token file"), |m| m.token(app, corp_id).is_some());
    machine.token(app, corp_id).unwrap()
}

#[track_caller]
pub(crate) fn wait_for_files(machine: &Machine, files: &[&str]) {
    machine.wait_until(&format!("the token files are {files:?}"), |m| m.token_files() == files);
}

/// Lets so much time pass that anything that was going to happen has happened.
pub(crate) fn settle() {
    std::thread::sleep(SETTLED);
}
