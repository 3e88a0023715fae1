//! `corptokend status`.

use corptokend::sandbox::{Fault, Options, Scope, Times};

use crate::check::documented;
use crate::support::{Machine, shown};

fn status(machine: &Machine) -> (String, Option<i32>) {
    let output = machine.run(&["status"]);
    (shown(&output), output.status.code())
}

#[test]
fn all_fresh_is_0() {
    let mut machine = Machine::new().app("crm", &["ding1", "ding2"], "");
    machine.start();
    let (text, code) = status(&machine);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("2 tenants: 2 fresh"), "{text}");
}

#[test]
fn a_refused_tenant_is_1_and_comes_first() {
    let mut machine = Machine::new().app("crm", &["ding1", "ding2"], "");
    machine.sandbox.inject(Scope::corp("ding2"), Fault::UnauthorizedClient, Times::UntilCleared);
    machine.start();
    let (text, code) = status(&machine);
    assert_eq!(code, Some(1), "{text}");
    let row = |tenant: &str| text.lines().position(|line| line.starts_with(tenant));
    assert!(row("crm/ding2") < row("crm/ding1"), "{text}");
    assert!(text.contains("unauthorized.client") && text.contains("requestid"), "{text}");

    assert_eq!(machine.run(&["status", "crm/ding1"]).status.code(), Some(0), "one that was asked for by name");
    assert_eq!(machine.run(&["status", "crm/ding2"]).status.code(), Some(1));
    assert_eq!(machine.run(&["status", "crm/ding9"]).status.code(), Some(1), "one that does not exist");
}

#[test]
fn an_expired_tenant_is_2() {
    let options = Options { lifetime_s: 2, ..Options::default() };
    let mut machine = Machine::with(options).app("crm", &["ding1"], "");
    machine.start();
    machine.sandbox.inject(Scope::everyone(), Fault::ServerError, Times::UntilCleared);
    machine.wait_until("it expired", |machine| status(machine).1 == Some(2));
    let (text, _) = status(&machine);
    assert!(text.contains("1 expired") && text.contains("ago"), "{text}");
    assert!(machine.token("crm", "ding1").is_some(), "the last token stays published");
}

#[test]
fn no_daemon_is_3() {
    let machine = Machine::new().app("crm", &["ding1"], "");
    let (text, code) = status(&machine);
    assert_eq!(code, Some(3));
    assert!(text.starts_with("error: no daemon listens on "), "{text}");
}

#[test]
fn a_user_without_permission_gets_77() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    machine.start();
    let Some(output) = machine.run_as_nobody(&["status"]) else { return };
    assert_eq!(output.status.code(), Some(77), "{}", shown(&output));
    assert!(shown(&output).starts_with("error: no permission for "), "{}", shown(&output));
    let output = machine.run_as_nobody(&["reload"]).unwrap();
    assert_eq!(output.status.code(), Some(77), "{}", shown(&output));
}

#[test]
fn the_json_has_the_documented_keys() {
    let mut machine = Machine::new().app("crm", &["ding1", "ding2"], "");
    machine.sandbox.inject(Scope::corp("ding2"), Fault::UnauthorizedClient, Times::UntilCleared);
    machine.start();
    let output = machine.run(&["status", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    documented(&value["status"], "status");
    documented(&value["status"]["config"], "config");
    documented(&value["status"]["state"], "state");
    let row = machine.tenant_json("crm/ding2");
    documented(&row, "tenant");
    documented(&row["last_error"], "last_error");
    documented(&row["sinks"][0], "sink");
    assert_eq!(row["last_error"]["kind"], "unauthorized");
}

/// A daemon that was stopped goes on when this is dropped, or it could not be ended.
struct Stopped<'a>(&'a Machine);

impl<'a> Stopped<'a> {
    fn new(machine: &'a Machine) -> Self {
        machine.signal("STOP");
        Self(machine)
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.signal("CONT");
    }
}

#[test]
fn commands_say_of_a_daemon_that_stands_still_that_it_does_and_do_not_wait_for_ever() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    machine.start();
    let stopped = Stopped::new(&machine);
    let words = format!("its process {} is stopped", machine.pid());
    let began = std::time::Instant::now();
    // Side by side, for each waits for ten seconds.
    let commands = [("status", 3), ("reload", 1), ("once", 1), ("check", 0)].map(|(command, code)| {
        let piped = std::process::Stdio::piped;
        (command, code, machine.command(&[command]).stdout(piped()).stderr(piped()).spawn().unwrap())
    });
    for (command, code, child) in commands {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{command}: {}", shown(&output));
        assert!(shown(&output).contains(&words), "{command}: {}", shown(&output));
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(60), "{:?}", began.elapsed());
    drop(stopped);
    assert_eq!(machine.run(&["status"]).status.code(), Some(0), "it goes on");
}
