//! Where the state cannot be used.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use corptokend::sandbox::{Fault, Scope, Times};

use crate::ends_when_told_to;
use crate::support::system::disk::Tmpfs;
use crate::support::{Machine, corp_ids, shown};

#[test]
fn garbage_is_set_aside_and_all_are_served() {
    let mut machine = Machine::new().app("crm", &["ding1", "ding2"], "");
    machine.write("state/state.redb", "this is no database");
    machine.start();
    assert_eq!(machine.token_files(), ["crm/ding1", "crm/ding2"]);
    assert_eq!(machine.status_json()["state"]["healthy"], true);
    assert_eq!(machine.events("state_set_aside").len(), 1);
    let aside: Vec<_> = fs::read_dir(machine.path("state")).unwrap().flatten().map(|entry| entry.path()).collect();
    let copy = aside.iter().find(|path| fs::read(path).is_ok_and(|bytes| bytes == b"this is no database"));
    let copy = copy.unwrap_or_else(|| panic!("no copy among {aside:?}"));
    assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    ends_when_told_to(&mut machine);

    machine.sandbox.forget_calls();
    machine.start();
    assert!(machine.sandbox.calls().is_empty(), "the state that was begun anew is kept");
    ends_when_told_to(&mut machine);
}

#[test]
fn a_missing_directory_is_made() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    fs::remove_dir(machine.path("state")).unwrap();
    machine.start();
    assert_eq!(machine.token_files(), ["crm/ding1"]);
    assert_eq!(machine.path("state").metadata().unwrap().permissions().mode() & 0o777, 0o700);
    ends_when_told_to(&mut machine);
}

#[test]
fn state_that_cannot_be_opened_never_stops_publication() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    fs::remove_dir(machine.path("state")).unwrap();
    machine.write("state", "a file where a directory should be");
    machine.start();
    assert_eq!(machine.token_files(), ["crm/ding1"]);
    let state = machine.status_json()["state"].clone();
    assert_eq!(state["healthy"], false, "{state}");
    let text = shown(&machine.run(&["status"]));
    assert!(text.contains("error: tokens cannot be kept over a restart"), "{text}");

    fs::remove_file(machine.path("state")).unwrap();
    machine.wait_until("the state is mended", |machine| machine.status_json()["state"]["healthy"] == true);
    ends_when_told_to(&mut machine);
    machine.sandbox.forget_calls();
    machine.start();
    assert!(machine.sandbox.calls().is_empty(), "what was in memory was kept after all");
    ends_when_told_to(&mut machine);
}

#[test]
fn state_that_may_not_be_read_never_stops_publication() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    if !crate::support::system_allows("giving directories away", crate::support::is_root()) {
        return;
    }
    for given in ["etc", "tokens", "run"] {
        machine.give_to_nobody(given);
    }
    // It is root's, and the daemon is not root.
    machine.write_with_mode("state/state.redb", "", 0o600);
    let Some(command) = machine.command_as_nobody(&["run"]) else { return };
    machine.launch_command(command);
    machine.wait_until("the token is published", |machine| machine.token("crm", "ding1").is_some());
    let state = machine.status_json()["state"].clone();
    assert_eq!(state["healthy"], false, "{state}");
    assert!(state["reason"].as_str().unwrap().contains("ermission denied"), "{state}");
    ends_when_told_to(&mut machine);
}

/// A disk for the state alone, filled to the brim. `None`, loudly, where mounting is not allowed.
fn full_disk(machine: &mut Machine) -> Option<Tmpfs> {
    let mount = Tmpfs::mount(&machine.path("state"), "size=2m,mode=0700")?;
    machine.start();
    assert!(fs::write(machine.path("state/ballast"), vec![1; 4 << 20]).is_err(), "it is full");
    Some(mount)
}

/// Adds tenants until that does not fit into the state any more, which tokens of this length make quick.
fn outgrow(machine: &mut Machine) {
    let ids: Vec<String> = (0..2000).map(|n| format!("\"ding-more-{n}\"")).collect();
    machine.edit("corp_ids = [", &format!("corp_ids = [{}, ", ids.join(", ")));
    machine.wait_until("nothing more fits", |machine| machine.status_json()["state"]["healthy"] == false);
}

#[test]
fn a_state_that_cannot_be_written_is_read_on_and_nobody_is_called_for_files_that_are_deleted() {
    let ten = corp_ids(10);
    let mut machine = Machine::new().app("crm", &ten, "");
    let Some(_mount) = full_disk(&mut machine) else { return };
    let tokens: Vec<_> = ten.iter().map(|corp_id| machine.token("crm", corp_id)).collect();
    outgrow(&mut machine);
    machine.wait_until("all are served all the same", |machine| {
        machine.status_json()["tenants"] == serde_json::json!({ "fresh": 2010 })
    });
    machine.sandbox.forget_calls();
    // The endpoint would not help: whoever is called for now has no token for a long time.
    machine.sandbox.inject(Scope::everyone(), Fault::ServerError, Times::UntilCleared);
    for corp_id in &ten {
        fs::remove_file(machine.path(&format!("tokens/crm/{corp_id}"))).unwrap();
    }
    machine.wait_until("the files are restored", |machine| {
        ten.iter().zip(&tokens).all(|(corp_id, token)| machine.token("crm", corp_id) == *token)
    });
    assert!(machine.sandbox.calls().is_empty(), "{} calls", machine.sandbox.calls().len());
    machine.sandbox.clear_faults();
    fs::remove_file(machine.path("state/ballast")).unwrap();
    machine.wait_until("there is room again, in time", |machine| machine.run(&["status"]).status.success());
    ends_when_told_to(&mut machine);
}
