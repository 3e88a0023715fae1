//! What systemd hears.

use std::time::Duration;

use crate::fixture::{applies, rejects, reload, settle, with_list};
use crate::support::Machine;
use crate::support::service_manager::ServiceManager;

fn watched() -> (Machine, ServiceManager) {
    let mut machine = Machine::new().app("crm", &["ding1", "ding2"], "");
    let manager = ServiceManager::of(&mut machine);
    machine.start();
    (machine, manager)
}

/// `RELOADING=1` with the moment in the same datagram, then `READY=1`. A save that is followed by `corptokend reload` is one
/// reload, or two on a machine so busy that the save had settled by then.
#[track_caller]
fn a_reload_was_reported(manager: &ServiceManager) {
    let states = manager.states();
    assert!(matches!(states.len(), 2 | 4), "{states:?}");
    for reported in states.chunks(2) {
        let lines: Vec<&str> = reported[0].lines().collect();
        assert_eq!(lines[0], "RELOADING=1");
        let moment = lines[1].strip_prefix("MONOTONIC_USEC=").expect("the moment comes with it");
        assert!(moment.parse::<u64>().unwrap() > 0);
        assert_eq!(reported[1].trim_end(), "READY=1");
    }
}

#[test]
fn readiness_is_reported_once_and_after_the_files_are_there() {
    let (mut machine, manager) = watched();
    assert_eq!(manager.states().iter().map(|s| s.trim_end()).collect::<Vec<_>>(), ["READY=1"]);
    assert_eq!(machine.token_files(), ["crm/ding1", "crm/ding2"]);
    machine.wait_until("the counts are reported", |_| manager.status() == "2 fresh");
    manager.forget();
    assert!(machine.stop().success());
    let states = manager.states();
    assert_eq!(states.len(), 1, "{states:?}");
    assert!(states[0].lines().any(|line| line == "STOPPING=1"), "{states:?}");
}

#[test]
fn readiness_is_not_told_before_the_files_are_there() {
    // Longer than a reload takes on a busy machine.
    let options = corptokend::sandbox::Options { latency: Duration::from_secs(6), ..Default::default() };
    let mut machine = Machine::with(options).app("crm", &["ding1"], "");
    let manager = ServiceManager::of(&mut machine);
    machine.launch();
    machine.wait_until("it is asked for", |machine| machine.status_json()["ready"] == false);
    assert!(manager.states().is_empty());
    // A reload in the meantime is not reported as one: systemd still waits for the start.
    reload(&machine, &[]);
    assert!(manager.states().is_empty(), "{:?}", manager.states());
    machine.wait_until("it is ready", |_| manager.states().iter().any(|state| state.trim_end() == "READY=1"));
    assert!(machine.token("crm", "ding1").is_some());
    assert_eq!(manager.states().len(), 1);
}

#[test]
fn a_reload_that_is_applied_is_reported_from_beginning_to_end() {
    let (machine, manager) = watched();
    manager.forget();
    machine.save(&with_list(&machine, &["ding1", "ding2"], &["ding1", "ding2", "ding3"]));
    reload(&machine, &[]);
    machine.wait_until("its end is reported", |_| manager.states().len() >= 2);
    settle();
    a_reload_was_reported(&manager);
    manager.forget();
    applies(&machine, || machine.save(&machine.config_text()));
    machine.wait_until("its end is reported", |_| manager.states().len() >= 2);
    settle();
    a_reload_was_reported(&manager);
}

#[test]
fn the_counts_after_a_reload_are_reported() {
    let (machine, manager) = watched();
    machine.save(&with_list(&machine, &["ding1", "ding2"], &["ding1", "ding2", "ding3"]));
    machine.wait_until("the counts are reported", |_| manager.status() == "3 fresh");
}

#[test]
fn a_reload_that_is_rejected_is_reported_from_beginning_to_end_and_names_the_line() {
    let (machine, manager) = watched();
    manager.forget();
    rejects(&machine, || machine.edit("client_id = ", "clientid = "));
    machine.wait_until("its end is reported", |_| manager.states().len() >= 2);
    machine.wait_until("the line is reported", |_| {
        let status = manager.status();
        status.contains("config rejected") && status.contains("config.toml:") && status.contains("clientid")
    });
    settle();
    a_reload_was_reported(&manager);
    assert_eq!(manager.status().lines().count(), 1);
    manager.forget();
    assert_eq!(machine.run(&["reload"]).status.code(), Some(78));
    machine.wait_until("its end is reported", |_| manager.states().len() >= 2);
    settle();
    a_reload_was_reported(&manager);
    applies(&machine, || machine.save(&machine.config_text()));
    machine.wait_until("all is well", |_| manager.status() == "2 fresh");
}

#[test]
fn a_removal_that_is_held_back_is_reported() {
    let (machine, manager) = watched();
    machine.save("");
    machine.wait_until("it is reported", |_| manager.status().contains("removal of 2 tenants held back"));
}

#[test]
fn files_that_do_not_belong_to_the_config_are_not_told_of() {
    let (machine, manager) = watched();
    manager.forget();
    for n in 0..5 {
        machine.write(&format!("etc/notes-{n}"), "nothing");
        machine.write_with_mode("etc/config.toml", &machine.config_text(), 0o644);
        // Longer than a save takes to settle: a reading that comes upon the next save finds half a file, which is a change.
        std::thread::sleep(Duration::from_millis(700));
    }
    settle();
    assert_eq!(manager.states(), [""; 0]);
}

#[test]
fn the_watchdog_is_fed_while_the_daemon_has_nothing_else_to_do() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    let manager = ServiceManager::of(&mut machine);
    machine.env("WATCHDOG_USEC", "400000");
    machine.start();
    manager.forget();
    std::thread::sleep(Duration::from_secs(2));
    let beats = manager.heard().iter().filter(|text| text.trim_end() == "WATCHDOG=1").count();
    assert!((7..=13).contains(&beats), "{beats} in 2 s");
}

#[test]
fn the_status_line_counts_what_is_published() {
    let mut machine = Machine::new().app("crm", &["ding1", "ding2"], "");
    let manager = ServiceManager::of(&mut machine);
    machine.write("tokens/crm", "in the way");
    machine.start();
    let root = machine.path("tokens").display().to_string();
    machine.wait_until("it says so", |_| {
        let line = manager.status();
        line.starts_with("2 not published; worst: crm/ding")
            && line.contains(&format!("2 places below {root} cannot be published: "))
    });
    std::fs::remove_file(machine.path("tokens/crm")).unwrap();
    machine.wait_until("all is well", |_| manager.status() == "2 fresh");
}
