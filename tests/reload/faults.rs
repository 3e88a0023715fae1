//! Kills, floods and broken file systems in the middle of it.

use std::cell::Cell;
use std::fs;
use std::time::{Duration, Instant};

use corptokend::sandbox::{Fault, Scope, Times};

use crate::fixture::{applies, called, list, ready, rejects, reload, running, settle, wait_for_token};
use crate::support::Machine;
use crate::support::system::disk::Tmpfs;

fn many(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| format!("ding{n:05}")).collect()
}

fn names(ids: &[String]) -> Vec<&str> {
    ids.iter().map(String::as_str).collect()
}

/// A machine whose list of organisations is a drop-in that is quickly replaced.
fn with_drop_in(ids: &[String]) -> Machine {
    let machine = Machine::new().app("crm", &[""; 0], "");
    fs::create_dir(machine.path("etc/config.d")).unwrap();
    save_list(&machine, ids);
    machine
}

fn save_list(machine: &Machine, ids: &[String]) {
    let text = format!("[app.crm]\n{}\n", list(&names(ids)));
    machine.write_with_mode("etc/config.d/.new", &text, 0o644);
    fs::rename(machine.path("etc/config.d/.new"), machine.path("etc/config.d/tenants.toml")).unwrap();
}

#[track_caller]
fn has_exactly(machine: &Machine, ids: &[String]) {
    let wanted: Vec<String> = ids.iter().map(|id| format!("crm/{id}")).collect();
    machine.wait_until("the files are those of the config", |machine| machine.token_files() == wanted);
}

#[test]
fn edits_while_a_reload_is_being_applied_are_all_taken_in_turn() {
    let machine = ready(with_drop_in(&many(0, 600)));
    let edits = [many(0, 900), many(100, 900), many(100, 1000), many(300, 1000)];
    for ids in &edits {
        save_list(&machine, ids);
        let mut child = machine.command(&["reload"]).stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(15));
        drop(child.try_wait());
        std::thread::spawn(move || child.wait());
    }
    has_exactly(&machine, &edits[3]);
    settle();
    has_exactly(&machine, &edits[3]);
    assert_eq!(machine.run(&["status"]).status.code(), Some(0));
}

#[test]
fn an_edit_while_the_first_tokens_are_still_being_fetched_is_applied_at_once() {
    let mut machine = with_drop_in(&many(0, 400));
    machine.edit("rate = \"1000/s\"", "rate = \"40/s\"");
    machine.launch();
    machine
        .wait_until("it runs", |machine| machine.status_json()["tenants"]["pending"].as_u64().is_some_and(|n| n > 300));
    let ids = [many(0, 10), many(380, 400)].concat();
    save_list(&machine, &ids);
    reload(&machine, &["--allow-mass-removal"]);
    has_exactly(&machine, &ids);
    machine.wait_until("it is ready", |machine| machine.status_json()["ready"] == true);
    assert!(
        machine.sandbox.calls().len() < 300,
        "those that left are not called for: {}",
        machine.sandbox.calls().len()
    );
}

#[test]
fn tenants_that_leave_while_they_are_being_called_for_leave_nothing_behind() {
    let machine = running(&["ding0"]);
    machine.sandbox.inject(Scope::everyone(), Fault::Delay(Duration::from_millis(800)), Times::UntilCleared);
    for _ in 0..3 {
        machine.save(&machine.config_text().replace(&list(&["ding0"]), &list(&["ding0", "ding1", "ding2"])));
        reload(&machine, &[]);
        std::thread::sleep(Duration::from_millis(100));
        machine.save(&machine.config_text());
        reload(&machine, &["--allow-mass-removal"]);
    }
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(machine.token_files(), ["crm/ding0"]);
    assert_eq!(machine.status_json()["tenants"]["fresh"], 1);
}

/// Whenever it is killed, the next start ends with what the config says, and with nothing else.
#[test]
fn a_kill_during_a_reload_leaves_no_file_behind_that_the_config_does_not_name() {
    let (odd, even) = (many(0, 300), many(140, 440));
    let mut machine = ready(with_drop_in(&odd));
    for (round, delay) in [0, 15, 40, 80, 130, 200, 300, 400].into_iter().enumerate() {
        let ids = if round % 2 == 0 { &even } else { &odd };
        save_list(&machine, ids);
        let mut asked = machine.command(&["reload"]).stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        machine.kill();
        let _ = asked.wait();
        for id in &many(140, 300) {
            assert!(
                machine.token("crm", id).is_some_and(|token| !token.is_empty()),
                "{id} stayed, and so does its file"
            );
        }
        machine.start();
        has_exactly(&machine, ids);
    }
}

#[test]
fn a_config_of_five_megabytes_is_read_without_holding_anybody_up() {
    let machine = running(&["ding1"]);
    let padding = format!("# {}\n", "x".repeat(98)).repeat(52_000);
    assert!(padding.len() > 5_000_000);
    let text = machine.config_text().replace(&list(&["ding1"]), &list(&["ding1", "ding2"]));
    machine.save(&(padding + &text));
    let slowest = Cell::new(Duration::ZERO);
    machine.wait_until("it is applied", |machine| {
        let started = Instant::now();
        machine.status_json();
        slowest.set(slowest.get().max(started.elapsed()));
        !machine.events("reloaded").is_empty()
    });
    assert!(slowest.get() < Duration::from_secs(2), "{:?}", slowest.get());
    wait_for_token(&machine, "crm", "ding2");
    assert_eq!(called(&machine), ["ding2"]);
}

#[test]
fn a_secret_that_nobody_may_read_any_more_is_reported_and_forgiven() {
    use std::os::unix::fs::PermissionsExt;
    let machine = running(&["ding1"]);
    let before = machine.token("crm", "ding1");
    let chmod = |mode| fs::set_permissions(machine.path("etc/crm.secret"), fs::Permissions::from_mode(mode)).unwrap();
    // Root reads whatever the mode says, so that only a mode that is too loose can be reported here.
    rejects(&machine, || chmod(0o644));
    assert!(machine.events("reload_rejected")[0]["message"].as_str().unwrap().contains("crm.secret"));
    applies(&machine, || chmod(0o600));
    assert_eq!(machine.token("crm", "ding1"), before);
    assert!(called(&machine).is_empty());
}

#[test]
fn a_full_file_system_holds_up_nobody_else_and_is_filled_once_there_is_room() {
    let machine = Machine::new();
    fs::create_dir(machine.path("tokens/small")).unwrap();
    let Some(small) = Tmpfs::mount(&machine.path("tokens/small"), "size=64k,mode=755") else { return };
    let machine = ready(machine.app("crm", &["ding1"], ""));
    fs::write(machine.path("tokens/small/ballast"), vec![0; 60_000]).unwrap();
    fs::write(machine.path("tokens/small/rest"), vec![0; 60_000]).unwrap_err();
    let sink = format!(
        "[[app.crm.sink]]\nfile = \"{0}/tokens/crm/{{corp_id}}\"\n[[app.crm.sink]]\nfile = \"{0}/tokens/small/{{corp_id}}\"\n",
        machine.dir.path().display()
    );
    let text = machine.config_text().replace(&list(&["ding1"]), &list(&["ding1", "ding2"])) + &sink;
    machine.save(&text);
    wait_for_token(&machine, "crm", "ding2");
    machine.wait_until("it is reported", |machine| !machine.events("sink_failing").is_empty());
    assert!(machine.token("small", "ding1").is_none(), "no half file is ever there");
    assert_eq!(called(&machine), ["ding2"]);
    fs::remove_file(machine.path("tokens/small/ballast")).unwrap();
    fs::remove_file(machine.path("tokens/small/rest")).unwrap();
    machine.wait_until("it is published there too", |machine| {
        machine.token("small", "ding1") == machine.token("crm", "ding1") && machine.token("small", "ding2").is_some()
    });
    assert_eq!(called(&machine), ["ding2"], "no call is made for a sink's sake");
    drop(machine);
    drop(small);
}

/// A removal that cannot be carried out is carried out later, by the next daemon if need be.
#[test]
fn a_file_that_cannot_be_deleted_is_deleted_once_it_can() {
    let machine = Machine::new();
    let Some(tokens) = Tmpfs::mount(&machine.path("tokens"), "size=1m,mode=755") else { return };
    let mut machine = ready(machine.app("crm", &["ding1", "ding2", "ding3"], ""));
    tokens.remount("ro");
    machine.save(&machine.config_text().replace(&list(&["ding1", "ding2", "ding3"]), &list(&["ding2", "ding3"])));
    reload(&machine, &[]);
    machine.wait_until("it is reported", |machine| !machine.events("sink_failing").is_empty());
    settle(); // whatever is going to be committed has been
    machine.kill();
    tokens.remount("rw");
    machine.start();
    machine.wait_until("it is gone", |machine| machine.token_files() == ["crm/ding2", "crm/ding3"]);
    assert!(called(&machine).is_empty());
    drop(machine);
    drop(tokens);
}

/// What could not be deleted must not be deleted later, when it is somebody's again.
#[test]
fn a_tenant_that_comes_back_before_its_file_could_be_deleted_keeps_it() {
    let machine = Machine::new();
    let Some(tokens) = Tmpfs::mount(&machine.path("tokens"), "size=1m,mode=755") else { return };
    let machine = ready(machine.app("crm", &["ding1", "ding2", "ding3"], ""));
    let before = machine.token("crm", "ding1").unwrap();
    tokens.remount("ro");
    machine.save(&machine.config_text().replace(&list(&["ding1", "ding2", "ding3"]), &list(&["ding2", "ding3"])));
    reload(&machine, &[]);
    machine.wait_until("it is reported", |machine| !machine.events("sink_failing").is_empty());
    machine.save(&machine.config_text());
    reload(&machine, &[]);
    tokens.remount("rw");
    machine.wait_until("its new token is there, and the old one was until then", |machine| {
        let token = machine.token("crm", "ding1").expect("the file is never missing");
        token != before
    });
    let quiet = Instant::now();
    while quiet.elapsed() < Duration::from_secs(3) {
        machine.token("crm", "ding1").expect("the file is never missing");
    }
    drop(machine);
    drop(tokens);
}

#[test]
fn a_state_that_cannot_be_written_does_not_hinder_a_reload() {
    let machine = Machine::new();
    let Some(state) = Tmpfs::mount(&machine.path("state"), "size=8m,mode=700") else { return };
    let machine = ready(machine.app("crm", &["ding1"], ""));
    // The daemon has it open for writing, so it is filled up instead of made read-only.
    while fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(machine.path("state/ballast"))
        .and_then(|mut file| std::io::Write::write_all(&mut file, &[0; 4096]))
        .is_ok()
    {}
    let ids: Vec<String> = many(0, 200);
    machine.save(&machine.config_text().replace(&list(&["ding1"]), &list(&[&["ding1"], &names(&ids)[..]].concat())));
    machine.wait_until("all have their files", |machine| machine.token_files().len() == 201);
    assert_eq!(called(&machine).len(), 200);
    drop(machine);
    drop(state);
}

#[test]
fn two_daemons_that_fight_over_the_same_files_do_not_spin() {
    let mut first = running(&["ding1"]);
    let mut second = Machine::new();
    let file = format!("[[app.crm.sink]]\nfile = \"{}/tokens/crm/{{corp_id}}\"\n", first.dir.path().display());
    second = second.app("crm", &["ding1"], &file);
    second.start();
    std::thread::sleep(Duration::from_secs(3));
    for (name, machine) in [("first", &first), ("second", &second)] {
        let ticks = cpu_ms(machine.pid());
        std::thread::sleep(Duration::from_secs(2));
        let spent = cpu_ms(machine.pid()) - ticks;
        assert!(spent < 1000, "the {name} daemon spent {spent} ms of 2 s");
        assert!(machine.log().len() < 1 << 20, "the {name} daemon floods its log");
    }
    let token = first.token("crm", "ding1").unwrap();
    assert!(!token.is_empty());
    assert!(first.stop().success());
    assert!(second.stop().success());
}

/// The CPU time that a process has spent, in milliseconds (proc(5); a tick is 10 ms).
fn cpu_ms(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
}
