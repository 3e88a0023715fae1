//! Somebody without privileges and without a home, as in a container or a user service.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::{Machine, shown};

/// The four lines, and where the simulated endpoint is.
fn four_lines(machine: &Machine) -> String {
    let endpoint = machine.sandbox.endpoint();
    format!(
        "[app.crm]\nclient_id = \"ding123\"\nclient_secret = {{ file = \"crm.secret\" }}\ncorp_ids = [\"ding1\"]\n\
         [api]\nca_file = \"ca.pem\"\n[defaults]\nendpoint = \"{endpoint}\"\n"
    )
}

/// A machine whose directories belong to `nobody`, and where the defaults follow the environment.
fn machine() -> Machine {
    let machine = Machine::new().app("crm", &["ding1"], "");
    machine.save(&four_lines(&machine));
    for given in ["etc", "state", "run"] {
        machine.give_to_nobody(given);
        fs::set_permissions(machine.path(given), fs::Permissions::from_mode(0o700)).unwrap();
    }
    machine
}

fn as_nobody(machine: &Machine, args: &[&str]) -> Option<Command> {
    let mut command = machine.command_as_nobody(args)?;
    command.env_remove("HOME").env("STATE_DIRECTORY", machine.path("state"));
    command.env("RUNTIME_DIRECTORY", machine.path("run"));
    Some(command)
}

#[test]
fn four_lines_are_a_whole_config() {
    if !crate::support::system_allows("giving directories away", crate::support::is_root()) {
        return;
    }
    let mut machine = machine();
    let Some(mut once) = as_nobody(&machine, &["once"]) else { return };
    let output = once.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    let token = machine.read("run/tokens/crm/ding1").expect("the token is below $RUNTIME_DIRECTORY");
    assert_eq!(machine.sandbox.issued("ding1")[0].token, token);
    assert_eq!(machine.path("state/state.redb").metadata().unwrap().permissions().mode() & 0o777, 0o600);

    machine.sandbox.forget_calls();
    let daemon = as_nobody(&machine, &["run"]).unwrap();
    machine.launch_command(daemon);
    machine.wait_until("the daemon listens", |machine| machine.path("run/control.sock").exists());
    for args in [&["status"][..], &["check"], &["reload"], &["once"]] {
        let output = as_nobody(&machine, args).unwrap().output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", shown(&output));
    }
    assert!(machine.sandbox.calls().is_empty(), "the token of `once` was still good");
    assert_eq!(machine.stop().code(), Some(0));
}

#[test]
fn a_config_or_secret_that_may_not_be_read_is_told() {
    let machine = Machine::new().app("crm", &["ding1"], "");
    fs::set_permissions(machine.path("etc"), fs::Permissions::from_mode(0o755)).unwrap();
    let Some(output) = machine.run_as_nobody(&["check"]) else { return };
    assert_eq!(output.status.code(), Some(78), "{}", shown(&output));
    assert!(shown(&output).contains("the file that `client_secret` names"), "{}", shown(&output));
    fs::set_permissions(machine.path("etc"), fs::Permissions::from_mode(0o700)).unwrap();
    for command in ["check", "run", "once"] {
        let output = machine.run_as_nobody(&[command]).unwrap();
        assert_eq!(output.status.code(), Some(78), "{command}: {}", shown(&output));
        assert!(shown(&output).contains("ermission denied"), "{command}: {}", shown(&output));
    }
}

/// A usual layout: `/srv` is root's, and `/srv/crm` the daemon's.
#[test]
fn check_tries_the_directory_that_a_publication_would_open_and_not_the_one_above() {
    if !crate::support::system_allows("giving directories away", crate::support::is_root()) {
        return;
    }
    let machine = machine();
    let sink = format!("[[defaults.sink]]\nfile = \"{}srv/{{app}}/{{corp_id}}\"\n", machine.path("").display());
    machine.save(&format!("{}{sink}", four_lines(&machine)));
    fs::create_dir_all(machine.path("srv/crm")).unwrap();
    machine.give_to_nobody("srv/crm");
    machine.give_to_nobody("etc");
    let Some(mut check) = as_nobody(&machine, &["check"]) else { return };
    let told = check.output().unwrap();
    assert_eq!(told.status.code(), Some(0), "{}", shown(&told));
    let once = as_nobody(&machine, &["once"]).unwrap().output().unwrap();
    assert!(once.status.success(), "a publication succeeds there: {}", shown(&once));
    // For another app nothing is there yet, and nobody may make it.
    machine.edit("[app.crm]", "[app.hr]");
    machine.give_to_nobody("etc");
    let told = as_nobody(&machine, &["check"]).unwrap().output().unwrap();
    assert_eq!(told.status.code(), Some(78), "{}", shown(&told));
    assert!(shown(&told).contains("app hr:") && shown(&told).contains("cannot be published to"), "{}", shown(&told));
}
