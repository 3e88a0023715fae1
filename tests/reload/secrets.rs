//! A secret that stands in the wrong place of a config is never shown: not on a terminal, not in JSON, not in the log, not to
//! systemd. Every place there is, without a daemon: `tests/config/canaries.rs`.

use crate::fixture::reload;
use crate::support::service_manager::ServiceManager;
use crate::support::{Machine, shown};

const CANARY: &str = "cAnArY7_s3cr3t";

/// All that the commands tell of the config on disk, which is in error.
#[track_caller]
fn reported(machine: &Machine) -> String {
    let commands: [(&[&str], i32); 7] = [
        (&["check"], 78),
        (&["check", "--json"], 78),
        (&["reload"], 78),
        (&["status"], 1),
        (&["status", "--json"], 1),
        (&["once"], 0),
        (&["run"], 78),
    ];
    let reported = commands.iter().map(|(args, code)| {
        let output = machine.run(args);
        // A second daemon finds the state taken.
        assert!(output.status.code() == Some(*code) || args[0] == "run", "{args:?}: {}", shown(&output));
        shown(&output)
    });
    reported.collect()
}

#[test]
fn a_secret_in_the_wrong_place_is_shown_nowhere() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    let manager = ServiceManager::of(&mut machine);
    machine.start();
    let good = machine.config_text();
    let source = "{ file = \"crm.secret\" }";
    for (from, to) in [
        (source, format!("{{ env = \"{CANARY}\" }}")),
        (source, format!("{{ credential = \"{CANARY}\" }}")),
        (source, format!("{{ file = \"{CANARY}\" }}")),
        (source, format!("{{ file = \"/nowhere/{CANARY}\" }}")),
        (source, format!("\"{CANARY}\"")),
        ("ca_file = \"ca.pem\"", format!("ca_file = \"{CANARY}\"")),
        ("client_id = ", format!("{CANARY} = 1\nclient_id = ")),
        ("level = \"debug\"", format!("level = \"{CANARY}\"")),
        ("[app.crm]", format!("[{CANARY}]\n[app.crm]")),
    ] {
        machine.save(&good.replace(from, &to));
        let reported = reported(&machine);
        assert!(!reported.contains(CANARY), "{to}: {reported}");
        assert!(reported.contains("config.toml:"), "the place is reported: {reported}");
    }
    machine.wait_until("systemd hears of it", |_| manager.heard().concat().contains("config rejected"));
    machine.save(&good);
    reload(&machine, &[]);
    assert!(!manager.heard().concat().contains(CANARY), "{:?}", manager.heard());
    assert!(!machine.log().contains(CANARY), "{}", machine.log());
}

/// A source that was there when the config was applied, and is gone when it is used.
#[test]
fn a_secret_file_that_is_gone_when_it_is_used_is_not_named() {
    let options = corptokend::sandbox::Options { lifetime_s: 4, ..Default::default() };
    let mut machine = Machine::with(options).app("crm", &["ding1"], "");
    let secret = machine.read("etc/crm.secret").unwrap();
    machine.write_with_mode(&format!("etc/{CANARY}"), &secret, 0o600);
    machine.edit("crm.secret", CANARY);
    machine.start();
    std::fs::remove_file(machine.path(&format!("etc/{CANARY}"))).unwrap();
    machine.wait_until("it is reported", |machine| machine.tenant_json("crm/ding1")["last_error"].is_object());
    let output = shown(&machine.run(&["status"]));
    let reported = format!("{output}{}{}", machine.tenant_json("crm/ding1"), machine.log());
    assert!(reported.contains("client_secret"), "{reported}");
    assert!(!reported.contains(CANARY), "{reported}");
}
