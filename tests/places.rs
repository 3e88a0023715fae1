//! The daemon, and places that links and mounts make one while it runs.
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use support::{Machine, SECRET, shown};

/// A machine on which `crm` publishes to `tokens/crm`, and `hr` by way of a link, which leads to `elsewhere`.
fn machine(name_of_hr: &str) -> Machine {
    let machine = Machine::new();
    let dir = machine.dir.path().display().to_string();
    fs::create_dir(machine.path("elsewhere")).unwrap();
    fs::create_dir(machine.path("tokens/crm")).unwrap();
    symlink("elsewhere", machine.path("link")).unwrap();
    let sink = |file: &str| format!("[[app.{{}}.sink]]\nfile = \"{dir}/{file}\"").replace("{}", "hr");
    machine.app("crm", &["ding1"], "on_remove = \"keep\"").app("hr", &["ding1"], &sink(name_of_hr))
}

/// Lets the link lead to another place, as `ln -sfn` does, and removes what was published before, so that the daemon publishes
/// by way of the link again.
fn lead(machine: &Machine, target: &str) {
    symlink(target, machine.path("new")).unwrap();
    fs::rename(machine.path("new"), machine.path("link")).unwrap();
    for entry in fs::read_dir(machine.path("elsewhere")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

/// Whether `hr`'s sink fails because its place is another's.
fn is_refused(machine: &Machine) -> bool {
    machine.events("sink_failing").iter().any(|event| event["kind"] == "taken")
}

#[test]
fn a_second_path_to_a_place_is_refused_until_the_first_sink_leaves() {
    let mut machine = machine("link/{corp_id}");
    machine.start();
    let crm = machine.token("crm", "ding1").unwrap();
    lead(&machine, "tokens/crm");
    machine.wait_until("the second one is refused", is_refused);
    assert_eq!(machine.token("crm", "ding1").as_deref(), Some(&*crm));
    let status = shown(&machine.run(&["status", "hr/ding1"]));
    assert!(status.contains("the place of another sink"), "{status}");

    // A config that names both is refused, and shows where each stands.
    let check = machine.run(&["check"]);
    assert_eq!(check.status.code(), Some(78));
    let text = shown(&check);
    assert!(text.contains("two sinks would write the same place, which a link or a mount makes one"), "{text}");
    assert!(text.contains("of crm/ding1 and of hr/ding1") && text.contains("the other one"), "{text}");

    // The first one goes, and leaves its file (`on_remove = "keep"` tells no lane).
    machine.edit("corp_ids = [\"ding1\"]\non_remove = \"keep\"", "corp_ids = []\non_remove = \"keep\"");
    let reloaded = machine.run(&["reload"]);
    assert_eq!(reloaded.status.code(), Some(0), "{}", shown(&reloaded));
    machine.wait_until("the second one has the place", |machine| {
        machine.token("crm", "ding1").is_some_and(|token| token != crm)
    });
    let now = machine.token("crm", "ding1").unwrap();
    assert!(machine.sandbox.issued("ding1").iter().any(|issued| issued.token == now), "a whole token of hr's");
    machine.wait_until("status says so", |machine| machine.run(&["status", "hr/ding1"]).status.code() == Some(0));
}

#[test]
fn a_link_that_leads_to_the_daemons_own_files_replaces_none_of_them() {
    for (name, target, own) in [
        ("hr.secret", "etc", "etc/hr.secret"),
        ("crm.secret", "etc", "etc/crm.secret"),
        ("config.toml", "etc", "etc/config.toml"),
        ("state.redb", "state", "state/state.redb"),
        ("control.sock", "run", "run/control.sock"),
    ] {
        let mut machine = machine(&format!("link/{name}"));
        machine.start();
        let before = fs::symlink_metadata(machine.path(own)).unwrap();
        lead(&machine, target);
        machine.wait_until("the sink is refused", is_refused);
        let after = fs::symlink_metadata(machine.path(own)).unwrap();
        assert_eq!((before.ino(), before.mode()), (after.ino(), after.mode()), "{own}");
        for secret in ["etc/hr.secret", "etc/crm.secret"] {
            assert_eq!(machine.read(secret).as_deref(), Some(SECRET));
        }
        let check = shown(&machine.run(&["check"]));
        assert!(check.contains("the sink would overwrite") || check.contains("watched for changes"), "{own}: {check}");
        assert!(machine.stop().success());
    }
}
