//! Other secrets and other client_ids: fetched anew, and the old token stays until that succeeds.

use std::fs;
use std::os::unix::fs::symlink;

use corptokend::sandbox::{Fault, Scope, Times};

use crate::fixture::{called, ready, settle};
use crate::support::{Machine, SECRET};

fn two_apps() -> Machine {
    ready(Machine::new().app("crm", &["ding1", "ding2"], "").app("hr", &["ding3"], ""))
}

fn new_secret(machine: &Machine) {
    machine.write_with_mode("etc/.new", &format!("{SECRET}-2"), 0o600);
    fs::rename(machine.path("etc/.new"), machine.path("etc/crm.secret")).unwrap();
}

#[track_caller]
fn exactly_the_apps_tenants_are_fetched_anew(machine: &Machine) {
    machine.wait_until("its tenants are fetched", |machine| called(machine).len() >= 2);
    machine.wait_until("they are published", |machine| {
        ["ding1", "ding2"].iter().all(|id| {
            let issued = machine.sandbox.issued(id);
            machine.token("crm", id) == Some(issued.last().unwrap().token.clone())
        })
    });
    settle();
    assert_eq!(called(machine), ["ding1", "ding2"]);
}

#[test]
fn a_secret_file_with_another_content_brings_new_tokens_for_exactly_that_app() {
    let machine = two_apps();
    new_secret(&machine);
    exactly_the_apps_tenants_are_fetched_anew(&machine);
}

#[test]
fn a_secret_file_saved_in_place_is_noticed_too() {
    let machine = two_apps();
    machine.write("etc/crm.secret", &format!("{SECRET}-2\n"));
    exactly_the_apps_tenants_are_fetched_anew(&machine);
}

#[test]
fn a_secret_file_that_is_touched_but_not_changed_brings_no_call() {
    let machine = two_apps();
    machine.write("etc/crm.secret", &format!("{SECRET}\n"));
    settle();
    assert!(called(&machine).is_empty());
    assert!(machine.events("reloaded").is_empty());
}

/// A secret in a directory of its own, behind a `..data` link, as Kubernetes mounts them.
#[test]
fn a_mounted_secret_that_is_swapped_is_noticed_again_and_again() {
    let machine = Machine::new().app("crm", &["ding1", "ding2"], "").app("hr", &["ding3"], "");
    let version = |number: u32| {
        let name = format!("secrets/..2026_{number}");
        fs::create_dir_all(machine.path(&name)).unwrap();
        machine.write_with_mode(&format!("{name}/crm"), &format!("{SECRET}-{number}"), 0o600);
        symlink(format!("..2026_{number}"), machine.path("secrets/..data_tmp")).unwrap();
        fs::rename(machine.path("secrets/..data_tmp"), machine.path("secrets/..data")).unwrap();
    };
    version(1);
    symlink("..data/crm", machine.path("secrets/crm")).unwrap();
    machine.edit("crm.secret", "../secrets/crm");
    let mut machine = machine;
    machine.start();
    for number in [2, 3] {
        machine.sandbox.forget_calls();
        let name = format!("secrets/..2026_{number}");
        fs::create_dir_all(machine.path(&name)).unwrap();
        machine.write_with_mode(&format!("{name}/crm"), &format!("{SECRET}-{number}"), 0o600);
        symlink(format!("..2026_{number}"), machine.path("secrets/..data_tmp")).unwrap();
        fs::rename(machine.path("secrets/..data_tmp"), machine.path("secrets/..data")).unwrap();
        exactly_the_apps_tenants_are_fetched_anew(&machine);
    }
}

/// It lies in a directory of its own, so that only its own watch can tell.
#[test]
fn a_secret_that_is_gone_for_a_while_is_noticed_when_it_is_another() {
    let machine = Machine::new().app("crm", &["ding1", "ding2"], "").app("hr", &["ding3"], "");
    fs::create_dir(machine.path("secrets")).unwrap();
    machine.write_with_mode("secrets/crm", SECRET, 0o600);
    machine.edit("crm.secret", "../secrets/crm");
    let machine = ready(machine);
    fs::remove_file(machine.path("secrets/crm")).unwrap();
    machine.wait_until("it is reported", |machine| machine.status_json()["config"]["last_reload_successful"] == false);
    machine.write_with_mode("secrets/crm", &format!("{SECRET}-2"), 0o600);
    exactly_the_apps_tenants_are_fetched_anew(&machine);
    assert_eq!(machine.status_json()["config"]["last_reload_successful"], true);
}

#[test]
fn a_new_apps_secret_may_come_after_its_config() {
    let machine = two_apps();
    fs::create_dir(machine.path("secrets")).unwrap();
    let app = "[app.new]\nclient_id = \"c\"\nclient_secret = { file = \"../secrets/new\" }\ncorp_ids = [\"ding9\"]\n";
    crate::fixture::rejects(&machine, || machine.save(&(machine.config_text() + app)));
    machine.write_with_mode("secrets/.tmp", SECRET, 0o600);
    fs::rename(machine.path("secrets/.tmp"), machine.path("secrets/new")).unwrap();
    crate::fixture::wait_for_token(&machine, "new", "ding9");
    assert_eq!(called(&machine), ["ding9"]);
}

#[test]
fn another_client_id_brings_new_tokens_for_exactly_that_app() {
    let machine = two_apps();
    machine.edit("client-crm", "client-crm-2");
    exactly_the_apps_tenants_are_fetched_anew(&machine);
    assert!(machine.sandbox.calls().iter().all(|call| &*call.client_id == "client-crm-2"));
}

#[test]
fn another_place_of_the_secret_brings_new_tokens_for_exactly_that_app() {
    let machine = two_apps();
    machine.write_with_mode("etc/second.secret", &format!("{SECRET}-2"), 0o600);
    machine.edit("crm.secret", "second.secret");
    exactly_the_apps_tenants_are_fetched_anew(&machine);
    machine.sandbox.forget_calls();
    // It is the one that counts from here on.
    machine.write("etc/second.secret", &format!("{SECRET}-3"));
    exactly_the_apps_tenants_are_fetched_anew(&machine);
}

#[test]
fn credentials_that_are_refused_leave_the_old_token_in_place() {
    let machine = two_apps();
    let before = machine.token("crm", "ding1").unwrap();
    machine.sandbox.inject(
        Scope { client_id: Some("client-crm".into()), corp_id: None },
        Fault::InvalidClient,
        Times::UntilCleared,
    );
    new_secret(&machine);
    machine.wait_until("it was tried", |machine| !machine.sandbox.calls().is_empty());
    settle();
    assert_eq!(machine.token("crm", "ding1").unwrap(), before);
    assert!(machine.sandbox.calls().len() <= 2, "one probe for the whole app: {:?}", called(&machine));
    assert_eq!(machine.run(&["status"]).status.code(), Some(1));
    // The right secret ends it at once, without waiting for the next probe.
    machine.sandbox.clear_faults();
    machine.sandbox.forget_calls();
    machine.write("etc/crm.secret", SECRET);
    exactly_the_apps_tenants_are_fetched_anew(&machine);
    assert_ne!(machine.token("crm", "ding1").unwrap(), before);
    assert_eq!(machine.run(&["status"]).status.code(), Some(0));
}

#[test]
fn an_answer_to_the_old_credentials_does_not_count_as_one_to_the_new() {
    let machine = two_apps();
    machine.sandbox.inject(
        Scope { client_id: Some("client-crm".into()), corp_id: None },
        Fault::Delay(std::time::Duration::from_millis(1500)),
        Times::UntilCleared,
    );
    new_secret(&machine);
    machine.wait_until("it is being asked", |machine| !machine.events("reloaded").is_empty());
    machine.edit("client-crm", "client-crm-2");
    machine.wait_until("the new app is asked", |machine| {
        machine.sandbox.calls().iter().filter(|call| &*call.client_id == "client-crm-2").count() == 2
    });
    machine.wait_until("its tokens are published", |machine| {
        ["ding1", "ding2"].iter().all(|id| {
            let token = machine.token("crm", id).unwrap();
            machine.sandbox.issued(id).iter().any(|i| i.token == token && &*i.client_id == "client-crm-2")
        })
    });
    settle();
    let token = machine.token("crm", "ding1").unwrap();
    assert!(machine.sandbox.issued("ding1").iter().any(|i| i.token == token && &*i.client_id == "client-crm-2"));
}
