//! The service as operators meet it: on a booted systemd, with the unit, the users and the directories of a package.
//!
//! Needs root and Debian's systemd-container, keyutils and util-linux. Where these are missing the tests say so and pass;
//! with `CORPTOKEND_REQUIRE_SYSTEM=1` they fail.
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod endpoint;
mod host;
mod machine;
#[path = "../support/mod.rs"]
mod support;

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use host::{CONFIG, CORPS, DROP_INS, Host, SECRET, both, token_path};

#[test]
fn the_service_is_ready_only_when_every_token_is_there() {
    let Some(host) = Host::boot() else { return };
    host.endpoint.answer_after(Duration::from_millis(700));
    host.machine.ok(&["systemctl", "start", "--no-block", "corptokend"]);
    let mut waited = false;
    host.wait_until("the service is active", || {
        let state = host.machine.show("ActiveState");
        assert_ne!(state, "failed", "{}", host.machine.journal());
        waited |= state == "activating" && host.token(CORPS[0]).is_none();
        state == "active"
    });
    assert_eq!(host.tokens().len(), CORPS.len());
    assert!(waited, "nothing was seen of the start, so nothing is known of its order");
    assert_eq!(host.endpoint.calls(), CORPS.len());
    let status = host.machine.show("StatusText");
    assert!(status.contains('3') && status.contains("fresh"), "{status:?}");
}

#[test]
fn a_tenant_added_by_editing_the_config_gets_its_token_and_costs_one_call() {
    let Some(host) = Host::boot() else { return };
    host.start();
    let before = host.tokens();
    host.configure(&["dingaaaa", "dingbbbb", "dingcccc", "dingnew"], "");
    host.wait_until("the new tenant has a token", || host.token("dingnew").is_some());
    assert_eq!(host.tokens(), before);
    assert_eq!(host.endpoint.calls(), CORPS.len() + 1);
}

#[test]
fn readers_read_the_tokens_and_others_read_nothing() {
    let Some(host) = Host::boot() else { return };
    host.machine.ok(&["useradd", "--groups", "corptokend-readers", "legacy"]);
    host.machine.ok(&["useradd", "stranger"]);
    host.start();
    let token = host.token(CORPS[0]).expect("the service is ready");
    let path = token_path(CORPS[0]);
    assert_eq!(both(&host.machine.run_as("legacy", &["cat", &path])), token);
    assert!(!host.machine.run_as("legacy", &["test", "-w", &path]).status.success(), "a reader may not write");
    assert!(!host.machine.run_as("stranger", &["cat", &path]).status.success(), "a stranger read a token");
    for hidden in [SECRET, CONFIG, "/var/lib/corptokend/state.redb"] {
        assert!(host.machine.path(hidden).exists(), "{hidden} is not where it is looked for");
        assert!(!host.machine.run_as("legacy", &["cat", hidden]).status.success(), "a reader read {hidden}");
    }
    assert_eq!(host.machine.ok(&["stat", "--format=%U:%G %a", &path]), "corptokend:corptokend-readers 640\n");
}

#[test]
fn the_control_socket_is_for_administrators() {
    let Some(host) = Host::boot() else { return };
    host.machine.ok(&["useradd", "--groups", "corptokend-admin", "admin"]);
    host.machine.ok(&["useradd", "--groups", "corptokend-readers", "legacy"]);
    host.start();
    let seen = host.machine.run_as("admin", &["corptokend", "status", "--json"]);
    assert!(seen.status.success() && both(&seen).contains(CORPS[0]), "{}", both(&seen));
    assert_eq!(host.machine.run_as("legacy", &["corptokend", "status"]).status.code(), Some(77));
}

#[test]
fn a_reload_of_a_bad_config_fails_with_the_report_and_harms_nothing() {
    let Some(host) = Host::boot() else { return };
    host.start();
    let (before, pid) = (host.tokens(), host.machine.show("MainPID"));
    host.configure(CORPS, "rates = \"5/s\"\n");
    let reload = host.machine.run(&["systemctl", "reload", "corptokend"]);
    assert!(!reload.status.success(), "a reload of a bad config succeeded");
    let journal = host.machine.journal();
    assert!(journal.contains("config.toml:9:1") && journal.contains("rates"), "{journal}");
    host.wait_until("the status says which line is wrong", || {
        host.machine.show("StatusText").contains("config.toml:9")
    });
    assert_eq!(host.machine.show("ActiveState"), "active");
    assert_eq!((host.tokens(), host.machine.show("MainPID")), (before, pid));

    host.configure(CORPS, "rate = \"5/s\"\n");
    host.machine.ok(&["systemctl", "reload", "corptokend"]);
    host.wait_until("the status complains no more", || !host.machine.show("StatusText").contains("config.toml"));
    assert_eq!(host.machine.show("ActiveState"), "active");
    assert_eq!(host.endpoint.calls(), CORPS.len());
}

#[test]
fn a_killed_daemon_is_back_at_once_without_a_call() {
    let Some(host) = Host::boot() else { return };
    host.start();
    let (before, pid) = (host.tokens(), host.machine.show("MainPID"));
    host.machine.ok(&["kill", "-KILL", &pid]);
    host.wait_until("the service was started again", || {
        assert_eq!(host.tokens(), before);
        host.machine.show("NRestarts") == "1" && host.machine.show("ActiveState") == "active"
    });
    assert_ne!(host.machine.show("MainPID"), pid);
    assert_eq!(host.endpoint.calls(), CORPS.len());
}

#[test]
fn a_boot_with_nothing_in_run_brings_the_tokens_back_without_a_call() {
    let Some(host) = Host::boot() else { return };
    host.start();
    let before = host.tokens();
    host.machine.ok(&["systemctl", "stop", "corptokend"]);
    host.machine.ok(&["rm", "-r", "/run/corptokend"]);
    host.machine.ok(&["systemd-tmpfiles", "--create", "corptokend.conf"]);
    host.start();
    assert_eq!(host.tokens(), before);
    assert_eq!(host.endpoint.calls(), CORPS.len());
}

#[test]
fn a_daemon_that_hangs_is_replaced_and_one_that_works_is_not() {
    let Some(host) = Host::boot() else { return };
    let impatient = "[Service]\nWatchdogSec=2s\nTimeoutAbortSec=1s\n";
    host.machine.write(&format!("{DROP_INS}/watchdog.conf"), 0o644, impatient);
    host.machine.ok(&["systemctl", "daemon-reload"]);
    host.start();
    let pid = host.machine.show("MainPID");
    sleep(Duration::from_secs(4));
    assert_eq!(host.machine.show("MainPID"), pid, "{}", host.machine.journal());
    host.machine.ok(&["kill", "-STOP", &pid]);
    host.wait_until("another daemon is there", || {
        host.machine.show("MainPID") != pid && host.machine.show("ActiveState") == "active"
    });
    assert!(host.machine.journal().contains("watchdog"), "{}", host.machine.journal());
}

#[test]
fn it_stops_within_ten_seconds_with_a_call_under_way_and_leaves_the_tokens() {
    let Some(host) = Host::boot() else { return };
    host.start();
    let before = host.tokens();
    host.endpoint.answer_after(Duration::from_secs(60));
    host.configure(&["dingaaaa", "dingbbbb", "dingcccc", "dingnew"], "");
    host.wait_until("the call is under way", || host.endpoint.calls() == CORPS.len() + 1);
    let stop = host.machine.run(&["timeout", "10", "systemctl", "stop", "corptokend"]);
    assert!(stop.status.success(), "it did not stop\n{}", host.machine.journal());
    assert_eq!(host.machine.show("Result"), "success");
    assert_eq!(host.tokens(), before);
}

#[test]
fn a_bad_config_at_the_first_start_is_said_once_and_not_tried_again() {
    let Some(host) = Host::boot() else { return };
    host.configure(CORPS, "rates = \"5/s\"\n");
    assert!(!host.machine.run(&["systemctl", "start", "corptokend"]).status.success());
    assert_eq!(host.machine.show("ExecMainStatus"), "78");
    // Longer than RestartSec=.
    sleep(Duration::from_millis(1500));
    assert_eq!((host.machine.show("ActiveState"), host.machine.show("NRestarts")), ("failed".into(), "0".into()));
}

#[test]
fn root_checks_the_config_before_the_first_start_and_leaves_nothing_behind() {
    let Some(host) = Host::boot() else { return };
    host.machine.ok(&["corptokend", "check", "--online"]);
    assert_eq!((host.endpoint.calls(), host.token(CORPS[0])), (1, None));
    host.start();
    assert_eq!(host.tokens().len(), CORPS.len());
}

#[test]
fn what_root_does_once_belongs_to_the_service() {
    let Some(host) = Host::boot() else { return };
    host.start();
    host.machine.ok(&["systemctl", "stop", "corptokend"]);
    host.configure(&["dingaaaa", "dingbbbb", "dingcccc", "dingnew"], "");
    host.machine.ok(&["corptokend", "once"]);
    let owners =
        host.machine.ok(&["stat", "--format=%U:%G %a", &token_path("dingnew"), "/var/lib/corptokend/state.redb"]);
    assert_eq!(owners, "corptokend:corptokend-readers 640\ncorptokend:corptokend 600\n");
    host.start();
    assert_eq!(host.endpoint.calls(), CORPS.len() + 1);
}

#[test]
fn a_key_in_the_user_keyring_is_published_from_within_the_unit() {
    let Some(host) = Host::boot() else { return };
    // Keyrings are the kernel's, so other machines on it share them.
    let ring = format!("corptokend-test-{}", std::process::id());
    host.configure(CORPS, &format!("[[app.crm.sink]]\nkeyring = \"@u/{ring}/{{corp_id}}\"\n"));
    host.start();
    let find = |kind: &str, name: &str, within: &str| {
        both(&host.machine.run_as("corptokend", &["keyctl", "search", within, kind, name])).trim().to_owned()
    };
    let keyring = find("keyring", &ring, "@u");
    let key = find("user", CORPS[0], &keyring);
    let token = both(&host.machine.run_as("corptokend", &["keyctl", "pipe", &key]));
    assert!(host.endpoint.issued(CORPS[0], &token), "the key does not hold the token: {token:?}");
    let described = both(&host.machine.run_as("corptokend", &["keyctl", "rdescribe", &key]));
    assert!(described.starts_with("user;"), "{described:?}");

    host.configure(&CORPS[..2], &format!("[[app.crm.sink]]\nkeyring = \"@u/{ring}/{{corp_id}}\"\n"));
    host.wait_until("the key of a tenant that left is gone", || {
        !host.machine.run_as("corptokend", &["keyctl", "search", &keyring, "user", CORPS[2]]).status.success()
    });
    host.machine.run_as("corptokend", &["keyctl", "unlink", &keyring, "@u"]);
}

#[test]
fn the_drop_ins_that_are_shipped_as_examples_work() {
    let Some(host) = Host::boot() else { return };
    let drop_in = |name: &str| {
        let path = format!("{}/systemd/corptokend.service.d/{name}.example", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
    };
    let uncommented: String = drop_in("20-sinks.conf")
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    host.machine.write(&format!("{DROP_INS}/10-credentials.conf"), 0o644, &drop_in("10-credentials.conf"));
    host.machine.write(&format!("{DROP_INS}/20-sinks.conf"), 0o644, &uncommented);
    host.machine.write("/etc/corptokend/secrets/crm", 0o600, endpoint::SECRET);
    host.machine.ok(&["useradd", "legacy"]);
    host.machine.ok(&["install", "-d", "-o", "corptokend", "-g", "legacy", "-m", "0750", "/srv/legacy"]);
    host.machine.ok(&["systemctl", "daemon-reload"]);
    host.configure_with(
        CORPS,
        "client_secret = { credential = \"crm\" }\n[[app.crm.sink]]\nfile = \"/srv/legacy/{corp_id}\"\n\
         mode = \"0400\"\nowner = \"legacy\"\ngroup = \"legacy\"\n",
    );
    host.start();
    let path = format!("/srv/legacy/{}", CORPS[0]);
    assert_eq!(host.machine.ok(&["stat", "--format=%U:%G %a", &path]), "legacy:legacy 400\n");
    let token = both(&host.machine.run_as("legacy", &["cat", &path]));
    assert!(host.endpoint.issued(CORPS[0], &token), "{token:?}");
}

#[test]
fn systemd_finds_little_to_fault_in_the_units_sandbox() {
    let Some(host) = Host::boot() else { return };
    host.machine.ok(&["systemd-analyze", "verify", "--man=no", "corptokend.service"]);
    let inside = host.machine.ok(&["systemd-analyze", "security", "--no-pager", "corptokend.service"]);
    assert!(exposure(&inside) <= 2.0, "{inside}");
}

#[test]
fn the_unit_file_alone_is_judged_alike() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/corptokend.service");
    let Ok(output) = Command::new("systemd-analyze").args(["security", "--offline=yes", "--no-pager", unit]).output()
    else {
        assert!(std::env::var_os("CORPTOKEND_REQUIRE_SYSTEM").is_none_or(|v| v != "1"), "no systemd-analyze");
        eprintln!("\n*** SKIPPED, nothing was tested: systemd-analyze is not installed ***\n");
        return;
    };
    assert!(exposure(&both(&output)) <= 2.0, "{}", both(&output));
}

/// The figure in `→ Overall exposure level for corptokend.service: 1.8 OK`; 0 is none and 10 is everything.
fn exposure(report: &str) -> f64 {
    let (_, tail) = report.split_once("Overall exposure level for corptokend.service: ").expect("an overall figure");
    tail.split_whitespace().next().and_then(|figure| figure.parse().ok()).expect("a number")
}

/// What `RestrictSUIDSGID=` would take away (docs/decisions/0034).
#[test]
fn directories_made_below_one_with_the_setgid_bit_pass_its_group_on() {
    let Some(host) = Host::boot() else { return };
    host.machine.ok(&["groupadd", "legacy"]);
    host.machine.ok(&["install", "-d", "-o", "corptokend", "-g", "legacy", "-m", "2755", "/srv/legacy"]);
    let drop_in = "[Service]\nReadWritePaths=/srv/legacy\nSupplementaryGroups=legacy\n";
    host.machine.write(&format!("{DROP_INS}/sinks.conf"), 0o644, drop_in);
    host.machine.ok(&["systemctl", "daemon-reload"]);
    host.configure(CORPS, "[[app.crm.sink]]\nfile = \"/srv/legacy/{app}/{corp_id}/token\"\ndir_mode = \"0750\"\n");
    host.start();
    let below = format!("/srv/legacy/crm/{}", CORPS[0]);
    let paths = ["/srv/legacy/crm".to_owned(), below.clone(), format!("{below}/token")];
    let [app, corp, token] = paths.each_ref().map(|path| host.machine.ok(&["stat", "--format=%G %a", path]));
    assert_eq!((app.trim(), corp.trim(), token.trim()), ("legacy 2750", "legacy 2750", "legacy 640"));
}

#[test]
fn the_journal_has_an_events_fields_as_its_own() {
    let Some(host) = Host::boot() else { return };
    host.start();
    let entry = || {
        let filter = ["APP=crm", "CORP_ID=dingaaaa", "EVENT=rotated"];
        let text = host.machine.ok(&[&["journalctl", "--no-pager", "--output=json"][..], &filter].concat());
        serde_json::from_str::<serde_json::Value>(text.lines().next()?).ok()
    };
    host.wait_until("the journal has the entry", || entry().is_some());
    let entry = entry().unwrap();
    for (field, value) in [
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "corptokend"),
        ("_SYSTEMD_UNIT", "corptokend.service"),
        ("_TRANSPORT", "journal"),
    ] {
        assert_eq!(entry[field], value, "{entry}");
    }
    assert!(entry["MESSAGE"].as_str().is_some_and(|text| text.starts_with("crm/dingaaaa: ")), "{entry}");
}

#[test]
fn a_journal_that_stands_still_holds_nothing_up_and_gets_everything_later() {
    /// More lines than wait in the journal's socket (`net.unix.max_dgram_qlen`, which systemd sets to 512).
    const MANY: usize = 800;
    let Some(host) = Host::boot() else { return };
    let many = support::corp_ids(MANY);
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    host.configure(&many[..1], "rate = \"1000/s\"\n");
    host.start();
    let journald = host.machine.ok(&["systemctl", "show", "--value", "--property=MainPID", "systemd-journald"]);
    host.machine.ok(&["kill", "-STOP", journald.trim()]);
    host.configure(&many, "rate = \"1000/s\"\n");
    let there = |corp: &&str| host.machine.path(&token_path(corp)).exists();
    // Whatever comes of it, journald goes on.
    let published = (0..6000).any(|_| {
        sleep(Duration::from_millis(20));
        many.iter().all(there)
    });
    // The daemon hears of a publication a moment after readers do.
    let status = || host.machine.run(&["corptokend", "status"]);
    let fresh = (0..100).map(|_| status()).find(|status| status.status.code() == Some(0));
    let status = fresh.unwrap_or_else(status);
    host.machine.ok(&["kill", "-CONT", journald.trim()]);
    assert!(published, "not within two minutes: every tenant's token\n{}", host.machine.journal());
    assert_eq!(status.status.code(), Some(0), "{}", both(&status));
    let entries = || host.machine.ok(&["journalctl", "--no-pager", "--output=cat", "EVENT=rotated"]).lines().count();
    host.wait_until("the journal has every line", || entries() == MANY);
}
