//! Where token files cannot be written.

use std::fs;
use std::time::Duration;

use corptokend::sandbox::Options;

use crate::ends_when_told_to;
use crate::support::system::disk::Tmpfs;
use crate::support::{Machine, wait_until};

/// The sink of this tenant fails, with this in its error.
fn fails_with(machine: &Machine, tenant: &str, text: &str) -> bool {
    let sink = machine.tenant_json(tenant)["sinks"][0].clone();
    sink["state"] == "failing" && sink["error"].as_str().is_some_and(|error| error.contains(text))
}

#[test]
fn a_full_disk_is_reported_once_and_when_there_is_room_again_the_same_tokens_are_published() {
    let mut machine = Machine::new().app("crm", &["ding1", "ding2", "ding3"], "");
    let Some(_mount) = Tmpfs::mount(&machine.path("tokens"), "size=64k,mode=0755") else { return };
    fs::create_dir(machine.path("tokens/crm")).unwrap();
    let fill = fs::write(machine.path("tokens/crm/filler"), vec![0; 1 << 20]);
    assert!(fill.is_err(), "it is full");
    machine.start();
    machine.wait_until("the failure is seen", |machine| fails_with(machine, "crm/ding1", "df -h"));
    let status = machine.status_json();
    assert_eq!(status["tenants"], serde_json::json!({ "unpublished": 3 }), "what readers do not see is not fresh");
    assert_eq!(status["worst"]["state"], "unpublished");
    let warning = format!("3 places below {}", machine.path("tokens").display());
    assert!(status["warnings"].to_string().contains(&warning), "{status}");
    assert_eq!(machine.run(&["status"]).status.code(), Some(1));
    assert_eq!(machine.events("ready")[0]["missing"], 3);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(machine.events("sink_failing").len(), 1, "said once, for all three");

    fs::remove_file(machine.path("tokens/crm/filler")).unwrap();
    machine.wait_until("all is published", |machine| machine.token_files() == ["crm/ding1", "crm/ding2", "crm/ding3"]);
    for corp_id in ["ding1", "ding2", "ding3"] {
        assert_eq!(machine.token("crm", corp_id).unwrap(), machine.sandbox.issued(corp_id)[0].token);
    }
    assert_eq!(machine.sandbox.calls().len(), 3, "no call is repeated for a full disk");
    machine.wait_until("the end of it is said", |machine| machine.events("sink_mended").len() == 1);
    machine.wait_until("all is well", |machine| machine.run(&["status"]).status.code() == Some(0));
    assert_eq!(machine.status_json()["warnings"], serde_json::json!([]));
    ends_when_told_to(&mut machine);
}

#[test]
fn on_a_full_disk_the_old_token_stays_whole_and_the_daemon_ends_when_told_to() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    let Some(_mount) = Tmpfs::mount(&machine.path("tokens"), "size=64k,mode=0755") else { return };
    machine.start();
    let old = machine.token("crm", "ding1").unwrap();
    assert!(fs::write(machine.path("tokens/filler"), vec![0; 1 << 20]).is_err());
    // Another secret has the token fetched anew.
    machine.write_with_mode("etc/crm.secret", "another-secret", 0o600);
    machine.wait_until("the new token cannot be written", |machine| fails_with(machine, "crm/ding1", "df -h"));
    assert_eq!(machine.token("crm", "ding1").as_deref(), Some(&*old));
    ends_when_told_to(&mut machine);
    assert_eq!(machine.token_files(), ["crm/ding1", "filler"], "no temporary file stays");
}

#[test]
fn a_token_that_readers_still_have_when_it_expires_counts_as_expired() {
    let options = Options { lifetime_s: 4, ..Options::default() };
    let mut machine = Machine::with(options).app("crm", &["ding1", "ding2"], "");
    let Some(_mount) = Tmpfs::mount(&machine.path("tokens"), "size=64k,mode=0755") else { return };
    machine.start();
    let old = machine.token("crm", "ding1").unwrap();
    assert!(fs::write(machine.path("tokens/filler"), vec![0; 1 << 20]).is_err(), "it is full");
    // Tokens are renewed all the while; none of the new ones comes through.
    machine.wait_until("readers have no token that works", |machine| {
        machine.run(&["status"]).status.code() == Some(2) && machine.status_json()["tenants"]["expired"] == 2
    });
    assert_eq!(machine.token("crm", "ding1"), Some(old));
    let worst = machine.status_json()["worst"].clone();
    assert!(worst["why"].as_str().unwrap().contains("readers have an expired token"), "{worst}");
    assert_eq!(machine.events("expired"), [serde_json::Value::Null; 0], "the daemon's own are fresh");
    machine.sandbox.set_lifetime_s(7200);
    fs::remove_file(machine.path("tokens/filler")).unwrap();
    machine.wait_until("all is well", |machine| machine.run(&["status"]).status.code() == Some(0));
    ends_when_told_to(&mut machine);
}

#[test]
fn a_read_only_file_system_does_not_hold_up_the_others() {
    let mut machine = Machine::new().app("crm", &["ding1"], "").app("hr", &["ding1"], "");
    let elsewhere = machine.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let Some(mount) = Tmpfs::mount(&elsewhere, "size=64k,mode=0755") else { return };
    mount.remount("ro");
    machine =
        machine.app("far", &["ding1"], &format!("[[app.far.sink]]\nfile = \"{}/{{corp_id}}\"", elsewhere.display()));
    machine.start();
    assert_eq!(machine.token_files(), ["crm/ding1", "hr/ding1"], "they do not wait for it");
    machine.wait_until("the failure is seen", |machine| fails_with(machine, "far/ding1", "read-only"));
    mount.remount("rw");
    machine.wait_until("it is published", |machine| machine.path("elsewhere/ding1").exists());
    assert_eq!(machine.sandbox.calls().len(), 3);
    ends_when_told_to(&mut machine);
}

#[test]
fn a_directory_replaced_by_a_link_is_not_followed() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    machine.start();
    let trap = machine.path("trap");
    fs::create_dir(&trap).unwrap();
    // At once, or the directory is made again in between.
    let away = machine.path("away");
    std::os::unix::fs::symlink(&trap, &away).unwrap();
    let exchange = rustix::fs::RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(rustix::fs::CWD, machine.path("tokens/crm"), rustix::fs::CWD, away, exchange).unwrap();
    machine.write_with_mode("etc/crm.secret", "another-secret", 0o600);
    machine.wait_until("the link is seen", |machine| fails_with(machine, "crm/ding1", "tokens/crm"));
    assert_eq!(fs::read_dir(&trap).unwrap().count(), 0, "nothing was written through the link");
    fs::remove_file(machine.path("tokens/crm")).unwrap();
    machine.wait_until("the directory is made again", |machine| {
        let newest = machine.sandbox.issued("ding1").last().map(|issued| issued.token.clone());
        machine.token("crm", "ding1") == newest
    });
    assert_eq!(fs::read_dir(&trap).unwrap().count(), 0);
    ends_when_told_to(&mut machine);
}

#[test]
fn a_file_in_place_of_the_directory_is_reported_and_left_alone() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    machine.write("tokens/crm", "mine");
    machine.start();
    machine.wait_until("the file is seen", |machine| fails_with(machine, "crm/ding1", "tokens/crm"));
    assert_eq!(machine.read("tokens/crm").as_deref(), Some("mine"));
    ends_when_told_to(&mut machine);
}

#[test]
fn a_flood_of_writes_in_a_token_directory_is_reported_in_log_and_status() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    machine.start();
    let open = |name: &str| fs::File::create(machine.path("tokens/crm").join(name)).unwrap();
    let mut files = ["a", "b"].map(open);
    let flood = || {
        for _ in 0..10_000 {
            files.iter_mut().for_each(|file| std::io::Write::write_all(file, b"x").unwrap());
        }
        !machine.events("flood_begins").is_empty()
    };
    wait_until("the flood is reported", flood, || machine.log());
    let reported = &machine.events("flood_begins")[0];
    assert_eq!(reported["directory"], machine.path("tokens/crm").display().to_string());
    assert!(machine.status_json()["warnings"].to_string().contains("without end"), "{}", machine.status_json());
    // The token itself is looked after all the same.
    let token = machine.token("crm", "ding1");
    fs::remove_file(machine.path("tokens/crm/ding1")).unwrap();
    machine.wait_until("the token is there again", |machine| machine.token("crm", "ding1") == token);
    ends_when_told_to(&mut machine);
}
