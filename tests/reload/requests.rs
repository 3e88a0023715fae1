//! SIGHUP, `corptokend reload`, `corptokend check`.

use std::time::{Duration, Instant};

use crate::fixture::{applies, called, reload, running, settle, wait_for_files, with_list};
use crate::support::{Machine, shown};

#[test]
fn a_hangup_reads_the_config_again_even_if_nothing_changed() {
    let machine = running(&["ding1"]);
    applies(&machine, || machine.signal("HUP"));
    assert!(called(&machine).is_empty());
    assert_eq!(machine.token_files(), ["crm/ding1"]);
}

#[test]
fn reload_waits_for_the_verdict_and_does_not_wait_for_things_to_settle() {
    let machine = running(&["ding1", "ding2"]);
    let asked = Instant::now();
    machine.run(&["status"]);
    let answer = asked.elapsed();
    machine.save(&with_list(&machine, &["ding1", "ding2"], &["ding1", "ding3"]));
    let started = Instant::now();
    let output = machine.run(&["reload"]);
    let took = started.elapsed();
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(shown(&output).contains("1 added, 1 removed, 0 changed"), "{}", shown(&output));
    assert!(took < Duration::from_secs(2) + 10 * answer, "{took:?}, where an answer takes {answer:?}");
    wait_for_files(&machine, &["crm/ding1", "crm/ding3"]);
    settle();
    assert_eq!(machine.events("reloaded").len(), 1, "what was asked for is not done again for the file's change");
}

#[test]
fn reload_of_a_config_in_error_exits_78_and_shows_every_problem() {
    let machine = running(&["ding1"]);
    machine.edit("client_id = ", "clientid = ");
    let output = machine.run(&["reload"]);
    assert_eq!(output.status.code(), Some(78));
    let text = shown(&output);
    assert!(text.contains("rejected") && text.contains("config.toml:") && text.contains("clientid"), "{text}");
    assert!(text.contains("client_id"), "what would be right is said: {text}");
}

#[test]
fn reloads_asked_for_at_once_are_all_answered() {
    let machine = running(&["ding1"]);
    machine.save(&with_list(&machine, &["ding1"], &["ding1", "ding2"]));
    let children: Vec<_> = (0..8)
        .map(|_| {
            let mut command = machine.command(&["reload"]);
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    wait_for_files(&machine, &["crm/ding1", "crm/ding2"]);
    assert_eq!(called(&machine), ["ding2"]);
}

#[test]
fn check_tells_what_a_reload_would_do_and_does_nothing() {
    let machine = Machine::new().app("crm", &["ding1", "ding2", "ding3"], "").app("hr", &["ding1"], "");
    let machine = crate::fixture::ready(machine);
    // Beside the config, so that the daemon does not take it by itself.
    let text = with_list(&machine, &["ding1", "ding2", "ding3"], &["ding1", "ding2", "ding4"]);
    let text = text.replace("client_id = \"client-hr\"", "client_id = \"client-hr-2\"");
    machine.save(&text);
    let output = machine.run(&["check", "--json"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    let reload = &found["reload"];
    let figures = ["add", "remove", "fetch", "held_back"].map(|name| reload[name].as_u64().unwrap_or(99));
    // It may have been applied meanwhile, for the file is watched: then there is nothing left to do.
    if machine.events("reloaded").is_empty() {
        assert_eq!(figures, [1, 1, 2, 0], "{reload}");
    }
    wait_for_files(&machine, &["crm/ding1", "crm/ding2", "crm/ding4", "hr/ding1"]);
    machine.wait_until("the other app is fetched anew", |machine| called(machine) == ["ding1", "ding4"]);
    let again = machine.run(&["check", "--json"]);
    let found: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(found["reload"]["add"], 0);
    assert_eq!(found["reload"]["fetch"], 0);
    reload_after_a_dry_run_is_still_needed(&machine);
}

/// A dry run changes nothing: neither tenants, nor what `status` says of the last reload.
fn reload_after_a_dry_run_is_still_needed(machine: &Machine) {
    let before = machine.events("reloaded").len();
    let checked = machine.run(&["check"]);
    assert!(shown(&checked).contains("nothing to reload"), "{}", shown(&checked));
    assert_eq!(machine.events("reloaded").len(), before);
    reload(machine, &[]);
    assert_eq!(machine.events("reloaded").len(), before + 1);
}

#[test]
fn check_shows_that_a_removal_would_be_held_back() {
    let machine = running(&["ding1", "ding2"]);
    machine.save(&with_list(&machine, &["ding1", "ding2"], &[]));
    let output = machine.run(&["check"]);
    assert!(shown(&output).contains("hold back the removal of 2"), "{}", shown(&output));
    assert_eq!(machine.token_files(), ["crm/ding1", "crm/ding2"]);
}
