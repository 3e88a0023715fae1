//! What an edit does to tenants: added, removed, moved.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::fixture::{applies, called, list, ready, running, settle, wait_for_files, wait_for_token, with_list};
use crate::support::Machine;

#[test]
fn an_added_tenant_is_the_only_one_that_is_called_for() {
    let machine = running(&["ding1", "ding2"]);
    let inode = fs::metadata(machine.path("tokens/crm/ding1")).unwrap().ino();
    machine.save(&with_list(&machine, &["ding1", "ding2"], &["ding0", "ding1", "ding2", "ding3"]));
    wait_for_files(&machine, &["crm/ding0", "crm/ding1", "crm/ding2", "crm/ding3"]);
    settle();
    assert_eq!(called(&machine), ["ding0", "ding3"]);
    assert_eq!(fs::metadata(machine.path("tokens/crm/ding1")).unwrap().ino(), inode, "nobody else notices");
}

#[test]
fn a_removed_tenants_file_goes_and_so_do_the_directories_that_were_made_for_it() {
    let machine = ready(Machine::new().app("crm", &["ding1", "ding2"], "").app("hr", &["ding1"], ""));
    machine.save(&machine.config_text().replace(&list(&["ding1", "ding2"]), &list(&["ding2"])));
    wait_for_files(&machine, &["crm/ding2", "hr/ding1"]);
    let text = machine.config_text();
    let hr = text.find("[app.hr]").unwrap();
    machine.save(&text[..hr]);
    wait_for_files(&machine, &["crm/ding1", "crm/ding2"]);
    machine.wait_until("the directory is gone", |machine| !machine.path("tokens/hr").exists());
    assert!(machine.path("tokens").exists());
    assert_eq!(called(&machine), ["ding1"], "the one that came back was forgotten, so it is fetched anew");
}

#[test]
fn a_removed_tenants_file_stays_where_on_remove_says_keep() {
    let machine = ready(Machine::new().app("crm", &["ding1", "ding2"], "on_remove = \"keep\""));
    let before = machine.token("crm", "ding1");
    applies(&machine, || machine.save(&with_list(&machine, &["ding1", "ding2"], &["ding2"])));
    settle();
    assert_eq!(machine.token("crm", "ding1"), before);
    assert!(machine.tenant_json("crm/ding1").is_null());
}

#[test]
fn a_tenant_that_goes_and_comes_back_at_once_has_its_file() {
    let machine = running(&["ding1", "ding2"]);
    for _ in 0..5 {
        machine.save(&with_list(&machine, &["ding1", "ding2"], &["ding2"]));
        crate::fixture::reload(&machine, &[]);
        machine.save(&machine.config_text());
        crate::fixture::reload(&machine, &[]);
    }
    wait_for_token(&machine, "crm", "ding1");
    settle();
    let token = wait_for_token(&machine, "crm", "ding1");
    assert_eq!(machine.sandbox.issued("ding1").last().unwrap().token, token);
}

#[test]
fn a_tenant_that_moves_to_another_place_is_published_there_without_a_call() {
    let machine = running(&["ding1", "ding2"]);
    let before = machine.token("crm", "ding1");
    let dir = machine.path("elsewhere");
    fs::create_dir(&dir).unwrap();
    let sink = format!("[[app.crm.sink]]\nfile = \"{}/{{corp_id}}.token\"\n", dir.display());
    machine.save(&(machine.config_text() + &sink));
    wait_for_files(&machine, &[]);
    machine.wait_until("it is published there", |machine| machine.read("elsewhere/ding2.token").is_some());
    machine.wait_until("it is published there", |machine| machine.read("elsewhere/ding1.token") == before);
    assert!(!machine.path("tokens/crm").exists());
    assert!(called(&machine).is_empty());
}

#[test]
fn one_tenant_can_move_alone() {
    let machine = running(&["ding1", "ding2"]);
    let before = machine.token("crm", "ding1");
    fs::create_dir(machine.path("acme")).unwrap();
    let own = format!(
        "[app.crm.tenant.ding1]\nname = \"acme\"\n[[app.crm.tenant.ding1.sink]]\nfile = \"{}/acme/{{name}}\"\n",
        machine.dir.path().display()
    );
    let text = with_list(&machine, &["ding1", "ding2"], &["ding2"]) + &own;
    machine.save(&text);
    wait_for_files(&machine, &["crm/ding2"]);
    machine.wait_until("it is published there", |machine| machine.read("acme/acme") == before);
    // Another name is another file.
    machine.save(&text.replace("name = \"acme\"", "name = \"emca\""));
    machine
        .wait_until("it moved", |machine| machine.read("acme/emca") == before && machine.read("acme/acme").is_none());
    assert!(called(&machine).is_empty());
}

#[test]
fn another_format_or_mode_is_published_without_a_call() {
    let machine = running(&["ding1"]);
    let token = machine.token("crm", "ding1").unwrap();
    let file = format!("file = \"{}/tokens/{{app}}/{{corp_id}}\"", machine.dir.path().display());
    machine.edit(&file, &format!("{file}\nformat = \"json\"\nmode = \"0604\""));
    machine.wait_until("it is JSON", |machine| {
        machine.token("crm", "ding1").is_some_and(|text| {
            serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|json| json["access_token"] == token)
        })
    });
    let mode = fs::metadata(machine.path("tokens/crm/ding1")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o604);
    machine.edit("mode = \"0604\"", "mode = \"0600\"");
    machine.wait_until("the mode is another", |machine| {
        fs::metadata(machine.path("tokens/crm/ding1")).is_ok_and(|file| file.permissions().mode() & 0o7777 == 0o600)
    });
    assert!(called(&machine).is_empty());
}

#[test]
fn a_sink_that_is_added_is_filled_and_one_that_is_dropped_is_emptied() {
    let machine = running(&["ding1", "ding2"]);
    let before = machine.token("crm", "ding1").unwrap();
    let dir = machine.dir.path().display();
    let both = format!(
        "[[app.crm.sink]]\nfile = \"{dir}/tokens/{{app}}/{{corp_id}}\"\n\
         [[app.crm.sink]]\nfile = \"{dir}/tokens/second/{{corp_id}}\"\nformat = \"line\"\n"
    );
    machine.save(&(machine.config_text() + &both));
    wait_for_files(&machine, &["crm/ding1", "crm/ding2", "second/ding1", "second/ding2"]);
    assert_eq!(machine.token("second", "ding1").unwrap(), format!("{before}\n"));
    machine.save(&machine.config_text());
    wait_for_files(&machine, &["crm/ding1", "crm/ding2"]);
    assert_eq!(machine.token("crm", "ding1").unwrap(), before);
    assert!(called(&machine).is_empty());
}

#[test]
fn rates_refresh_and_limits_change_without_calls() {
    let machine = running(&["ding1", "ding2"]);
    let due = machine.tenant_json("crm/ding1")["next_refresh_in_s"].as_i64().unwrap();
    applies(&machine, || {
        let text =
            machine.config_text().replace("rate = \"1000/s\"", "rate = \"7/s\"\nrefresh = { at = 0.2, jitter = 0.0 }");
        machine.save(
            &text.replace("total = \"10000/s\"", "total = \"300/s\"").replace("[api]\n", "[api]\ntimeout = \"7s\"\n"),
        );
    });
    settle();
    assert!(called(&machine).is_empty());
    let sooner = machine.tenant_json("crm/ding1")["next_refresh_in_s"].as_i64().unwrap();
    assert!(sooner <= 1440 && due > 4000, "{due} s, then {sooner} s");
    assert_eq!(machine.run(&["status"]).status.code(), Some(0));
}

#[test]
fn a_refresh_point_that_has_passed_brings_a_call_and_a_later_one_does_not() {
    let machine = ready(Machine::with(corptokend::sandbox::Options { lifetime_s: 40, ..Default::default() }).app(
        "crm",
        &["ding1"],
        "refresh = { at = 0.9, jitter = 0.0 }",
    ));
    let before = machine.token("crm", "ding1");
    std::thread::sleep(std::time::Duration::from_secs(3));
    machine.edit("at = 0.9", "at = 0.05");
    machine.wait_until("it is renewed", |machine| machine.token("crm", "ding1") != before);
}

#[test]
fn a_disabled_app_makes_no_calls_and_its_files_stay() {
    let options = corptokend::sandbox::Options { lifetime_s: 4, ..Default::default() };
    let machine = ready(Machine::with(options).app("crm", &["ding1"], "enabled = true").app("hr", &["ding2"], ""));
    applies(&machine, || machine.edit("enabled = true", "enabled = false"));
    assert_eq!(machine.tenant_json("crm/ding1")["state"], "disabled");
    machine.sandbox.forget_calls();
    machine.wait_until("the other app was renewed", |machine| called(machine).len() > 1);
    assert!(!called(&machine).contains(&"ding1".to_owned()));
    assert!(machine.token("crm", "ding1").is_some());
    machine.edit("enabled = false", "enabled = true");
    machine.wait_until("it is called again", |machine| called(machine).contains(&"ding1".to_owned()));
}

#[test]
fn an_app_that_gets_another_name_moves_with_its_tenants() {
    let machine = ready(Machine::new().app("crm", &["ding1"], "").app("hr", &["ding1", "ding2"], ""));
    machine.save(&machine.config_text().replace("[app.crm]", "[app.sales]"));
    wait_for_files(&machine, &["hr/ding1", "hr/ding2", "sales/ding1"]);
    machine.wait_until("the directory is gone", |machine| !machine.path("tokens/crm").exists());
    settle();
    assert_eq!(called(&machine), ["ding1"]);
    assert_eq!(machine.run(&["status"]).status.code(), Some(0));
}

/// Two apps that publish to one directory, and a tenant that comes under the other app: another token in the same file.
#[test]
fn a_tenant_that_comes_under_another_app_never_misses_its_file() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let machine = Machine::new();
    let sink =
        |app: &str| format!("[[app.{app}.sink]]\nfile = \"{}/tokens/{{corp_id}}\"\n", machine.dir.path().display());
    let (crm, hr) = (sink("crm"), sink("hr"));
    let mut machine = machine.app("crm", &["ding1", "ding2"], &crm).app("hr", &["ding3"], &hr);
    machine.start();
    let mut text = machine.config_text();
    let (path, stop) = (machine.path("tokens/ding1"), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !stop.load(Ordering::Relaxed) {
                let token = fs::read_to_string(&path).expect("the file is never missing");
                assert!(!token.is_empty(), "it is never empty");
                reads += 1;
            }
            reads
        });
        let moves = [
            (list(&["ding1", "ding2"]), list(&["ding2"]), list(&["ding3"]), list(&["ding1", "ding3"]), "client-hr"),
            (list(&["ding2"]), list(&["ding1", "ding2"]), list(&["ding1", "ding3"]), list(&["ding3"]), "client-crm"),
        ];
        for (from, to, from_other, to_other, owner) in moves.iter().cycle().take(4) {
            machine.sandbox.forget_calls();
            text = text.replace(from_other.as_str(), "OTHER").replace(from.as_str(), to).replace("OTHER", to_other);
            applies(&machine, || machine.save(&text));
            machine.wait_until("the file holds a token of its new app", |machine| {
                let token = machine.read("tokens/ding1").unwrap();
                machine.sandbox.issued("ding1").iter().any(|i| i.token == token && &*i.client_id == *owner)
            });
            assert_eq!(called(&machine), ["ding1"]);
            settle();
        }
        stop.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 100);
    });
    assert_eq!(machine.token_files(), ["ding1", "ding2", "ding3"]);
}

/// What is deleted by others is put back, in the sinks of now.
#[test]
fn files_of_a_new_sink_are_mended_and_those_of_an_old_one_are_not() {
    let machine = running(&["ding1", "ding2"]);
    let before = machine.token("crm", "ding1");
    applies(&machine, || {
        let text = machine.config_text().replace("/tokens/{app}/{corp_id}", "/tokens/new/{corp_id}");
        machine.save(&text);
    });
    wait_for_files(&machine, &["new/ding1", "new/ding2"]);
    fs::remove_file(machine.path("tokens/new/ding1")).unwrap();
    machine.wait_until("it is back", |machine| machine.token("new", "ding1") == before);
    assert_eq!(machine.token_files(), ["new/ding1", "new/ding2"]);
}

#[test]
fn a_setting_that_takes_a_restart_says_so_until_then() {
    let mut machine = running(&["ding1"]);
    let warned = |machine: &Machine| {
        let status = machine.status_json();
        status["warnings"].as_array().unwrap().iter().any(|w| w.as_str().unwrap().contains("[log]"))
    };
    assert!(!warned(&machine));
    applies(&machine, || machine.edit("level = \"debug\"", "level = \"info\""));
    assert!(warned(&machine), "{}", machine.status_json());
    applies(&machine, || machine.edit(&list(&["ding1"]), &list(&["ding1", "ding2"])));
    assert!(warned(&machine), "it is still so");
    assert_eq!(machine.events("config_warning").len(), 1, "it is logged once");
    machine.stop();
    machine.start();
    assert!(!warned(&machine));
}
