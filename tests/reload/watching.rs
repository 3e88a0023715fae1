//! Every way in which editors, links, ConfigMaps and drop-ins change a config.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::fixture::{
    applies, called, list, ready, rejects, running, settle, wait_for_files, wait_for_token, with_list,
};
use crate::support::Machine;

/// One more organisation is in the config by now: its token comes, with one call, and nobody else is called.
#[track_caller]
fn only_the_newcomer_is_fetched(machine: &Machine, newcomer: &str) {
    wait_for_token(machine, "crm", newcomer);
    assert_eq!(called(machine), [newcomer]);
}

fn chmod(machine: &Machine, below: &str, mode: u32) {
    fs::set_permissions(machine.path(below), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_config_saved_in_place_is_noticed() {
    let machine = running(&["ding1"]);
    machine.write("etc/config.toml", &with_list(&machine, &["ding1"], &["ding1", "ding2"]));
    only_the_newcomer_is_fetched(&machine, "ding2");
}

#[test]
fn a_config_saved_as_vim_does_is_noticed() {
    let machine = running(&["ding1"]);
    fs::rename(machine.config_path(), machine.path("etc/config.toml~")).unwrap();
    machine.write_with_mode("etc/config.toml", &with_list(&machine, &["ding1"], &["ding1", "ding2"]), 0o644);
    fs::remove_file(machine.path("etc/config.toml~")).unwrap();
    only_the_newcomer_is_fetched(&machine, "ding2");
    // It is another file now, and still the one that is watched.
    machine.edit(&list(&["ding1", "ding2"]), &list(&["ding1", "ding2", "ding3"]));
    wait_for_token(&machine, "crm", "ding3");
}

#[test]
fn a_config_edited_with_sed_is_noticed() {
    let machine = running(&["ding1"]);
    let sed = Command::new("sed").args(["-i", "s/\"ding1\"/\"ding1\", \"ding2\"/"]).arg(machine.config_path()).status();
    assert!(sed.unwrap().success());
    only_the_newcomer_is_fetched(&machine, "ding2");
}

/// A machine whose config is a link into another directory.
fn linked() -> Machine {
    let machine = Machine::new().app("crm", &["ding1"], "");
    fs::create_dir(machine.path("elsewhere")).unwrap();
    fs::rename(machine.config_path(), machine.path("elsewhere/a.toml")).unwrap();
    symlink("../elsewhere/a.toml", machine.config_path()).unwrap();
    ready(machine)
}

#[test]
fn the_target_of_a_linked_config_is_watched() {
    let machine = linked();
    machine.write("elsewhere/a.toml", &with_list(&machine, &["ding1"], &["ding1", "ding2"]));
    only_the_newcomer_is_fetched(&machine, "ding2");
}

#[test]
fn a_link_that_is_swapped_is_noticed_and_then_its_new_target_is_watched() {
    let machine = linked();
    fs::create_dir(machine.path("third")).unwrap();
    machine.write_with_mode("third/b.toml", &with_list(&machine, &["ding1"], &["ding1", "ding2"]), 0o644);
    symlink("../third/b.toml", machine.path("etc/new")).unwrap();
    fs::rename(machine.path("etc/new"), machine.config_path()).unwrap();
    only_the_newcomer_is_fetched(&machine, "ding2");
    machine.write("third/b.toml", &with_list(&machine, &["ding1"], &["ding1", "ding3"]));
    wait_for_files(&machine, &["crm/ding1", "crm/ding3"]);
}

#[test]
fn a_configmap_that_is_swapped_is_noticed_again_and_again() {
    let machine = Machine::new().app("crm", &["ding1"], "");
    let version = |name: &str, corp_ids: &[&str]| {
        fs::create_dir(machine.path(&format!("etc/{name}"))).unwrap();
        let text = with_list(&machine, &["ding1"], corp_ids);
        machine.write_with_mode(&format!("etc/{name}/config.toml"), &text, 0o644);
    };
    version("..2026_1", &["ding1"]);
    symlink("..2026_1", machine.path("etc/..data")).unwrap();
    fs::remove_file(machine.config_path()).unwrap();
    symlink("..data/config.toml", machine.config_path()).unwrap();
    let mut machine = machine;
    machine.start();
    machine.sandbox.forget_calls();
    for (number, newcomer) in [(2, "ding2"), (3, "ding3"), (4, "ding4")] {
        let name = format!("..2026_{number}");
        fs::create_dir(machine.path(&format!("etc/{name}"))).unwrap();
        let text = with_list(&machine, &["ding1"], &["ding1", newcomer]);
        machine.write_with_mode(&format!("etc/{name}/config.toml"), &text, 0o644);
        symlink(&name, machine.path("etc/..data_tmp")).unwrap();
        fs::rename(machine.path("etc/..data_tmp"), machine.path("etc/..data")).unwrap();
        fs::remove_dir_all(machine.path(&format!("etc/..2026_{}", number - 1))).unwrap();
        wait_for_files(&machine, &["crm/ding1", &format!("crm/{newcomer}")]);
    }
    assert_eq!(called(&machine), ["ding2", "ding3", "ding4"]);
}

fn drop_in(machine: &Machine, corp_ids: &[&str]) {
    let text = format!("[app.crm]\n{}\n", list(corp_ids));
    machine.write_with_mode("etc/config.d/.new", &text, 0o644);
    fs::rename(machine.path("etc/config.d/.new"), machine.path("etc/config.d/50-more.toml")).unwrap();
}

#[test]
fn a_drop_in_is_noticed_when_it_comes_changes_and_goes() {
    let machine = Machine::new().app("crm", &["ding1"], "");
    fs::create_dir(machine.path("etc/config.d")).unwrap();
    let machine = ready(machine);
    drop_in(&machine, &["ding2"]);
    wait_for_files(&machine, &["crm/ding1", "crm/ding2"]);
    machine.write("etc/config.d/50-more.toml", "[app.crm]\ncorp_ids = [\"ding3\"]\n");
    wait_for_files(&machine, &["crm/ding1", "crm/ding3"]);
    fs::remove_file(machine.path("etc/config.d/50-more.toml")).unwrap();
    wait_for_files(&machine, &["crm/ding1"]);
    assert_eq!(called(&machine), ["ding2", "ding3"]);
}

#[test]
fn a_directory_of_drop_ins_that_is_made_after_the_start_is_watched() {
    let machine = running(&["ding1"]);
    fs::create_dir(machine.path("etc/config.d")).unwrap();
    settle();
    drop_in(&machine, &["ding2"]);
    only_the_newcomer_is_fetched(&machine, "ding2");
}

#[test]
fn a_directory_of_drop_ins_that_is_replaced_at_one_stroke_is_still_watched() {
    let machine = Machine::new().app("crm", &["ding1"], "");
    fs::create_dir(machine.path("etc/config.d")).unwrap();
    drop_in(&machine, &["ding2"]);
    let machine = ready(machine);
    applies(&machine, || {
        fs::rename(machine.path("etc/config.d"), machine.path("etc/old.d")).unwrap();
        fs::create_dir(machine.path("etc/config.d")).unwrap();
        drop_in(&machine, &["ding3"]);
    });
    wait_for_files(&machine, &["crm/ding1", "crm/ding3"]);
    settle();
    drop_in(&machine, &["ding4"]);
    wait_for_files(&machine, &["crm/ding1", "crm/ding4"]);
}

#[test]
fn a_config_directory_that_is_deleted_and_brought_back_is_still_watched() {
    let machine = running(&["ding1"]);
    let before = machine.token("crm", "ding1");
    rejects(&machine, || fs::rename(machine.path("etc"), machine.path("gone")).unwrap());
    settle();
    applies(&machine, || {
        fs::create_dir(machine.path("etc")).unwrap();
        chmod(&machine, "etc", 0o755);
        for entry in fs::read_dir(machine.path("gone")).unwrap() {
            let name = entry.unwrap().file_name();
            fs::copy(machine.path("gone").join(&name), machine.path("etc").join(&name)).unwrap();
        }
    });
    assert_eq!(machine.token("crm", "ding1"), before);
    machine.write("etc/config.toml", &with_list(&machine, &["ding1"], &["ding1", "ding2"]));
    only_the_newcomer_is_fetched(&machine, "ding2");
}

#[test]
fn a_config_that_is_deleted_is_rejected_and_taken_again_when_it_comes_back() {
    let machine = running(&["ding1", "ding2"]);
    let before = machine.token("crm", "ding1");
    rejects(&machine, || fs::remove_file(machine.config_path()).unwrap());
    assert_eq!(machine.status_json()["config"]["last_reload_successful"], false);
    assert_eq!(machine.token("crm", "ding1"), before);
    applies(&machine, || machine.save(&with_list(&machine, &["ding1", "ding2"], &["ding1", "ding2", "ding3"])));
    assert_eq!(machine.status_json()["config"]["last_reload_successful"], true);
    only_the_newcomer_is_fetched(&machine, "ding3");
    assert_eq!(machine.token("crm", "ding1"), before);
}

#[test]
fn a_config_that_is_empty_for_a_moment_is_never_seen_empty() {
    let seen = (0..10).find_map(|_| {
        let machine = running(&["ding1"]);
        let text = with_list(&machine, &["ding1"], &["ding1", "ding2"]);
        let begun = Instant::now();
        machine.write("etc/config.toml", "");
        std::thread::sleep(Duration::from_millis(60));
        machine.write("etc/config.toml", &text);
        let paused = begun.elapsed();
        only_the_newcomer_is_fetched(&machine, "ding2");
        let seen = machine.events("mass_removal_held_back").len() + machine.events("reload_rejected").len();
        (paused < QUICK).then_some(seen)
    });
    assert_eq!(seen, Some(0), "the writer was quick at least once, and then nothing was seen of it");
}

#[test]
fn a_config_that_stays_empty_for_a_while_removes_nothing_and_the_next_save_counts() {
    let machine = running(&["ding1"]);
    let before = machine.token("crm", "ding1");
    machine.write("etc/config.toml", "");
    machine.wait_until("it is held back", |machine| !machine.events("mass_removal_held_back").is_empty());
    assert_eq!(machine.token("crm", "ding1"), before);
    machine.write("etc/config.toml", &with_list(&machine, &["ding1"], &["ding1", "ding2"]));
    only_the_newcomer_is_fetched(&machine, "ding2");
    assert_eq!(machine.token("crm", "ding1"), before);
}

/// Writes the first half of a config with one more organisation, pauses, and writes the rest. Returns how long it paused,
/// which on a busy machine is longer than it wanted to.
fn write_in_two_parts(machine: &Machine, pause: Duration) -> Duration {
    let text = with_list(machine, &["ding1"], &["ding1", "ding2"]);
    // In the middle of the app's table: what stands there is no whole TOML.
    let half = text.find("client_secret").unwrap() + 5;
    let begun = Instant::now();
    let mut file = fs::File::create(machine.config_path()).unwrap();
    file.write_all(&text.as_bytes()[..half]).unwrap();
    std::thread::sleep(pause);
    file.write_all(&text.as_bytes()[half..]).unwrap();
    begun.elapsed()
}

/// The config is gathered for 250 ms; a writer that paused for less than this was quick.
const QUICK: Duration = Duration::from_millis(170);

#[test]
fn a_config_written_in_two_quick_parts_is_read_as_one() {
    let rejected = (0..10).find_map(|_| {
        let machine = running(&["ding1"]);
        let paused = write_in_two_parts(&machine, Duration::from_millis(60));
        only_the_newcomer_is_fetched(&machine, "ding2");
        (paused < QUICK).then(|| machine.events("reload_rejected").len())
    });
    assert_eq!(rejected, Some(0), "the writer was quick at least once, and then nothing was rejected");
}

#[test]
fn a_config_written_in_two_slow_parts_is_rejected_and_then_applied() {
    let machine = running(&["ding1"]);
    let before = machine.token("crm", "ding1");
    write_in_two_parts(&machine, Duration::from_millis(800));
    only_the_newcomer_is_fetched(&machine, "ding2");
    assert_eq!(machine.events("reload_rejected").len(), 1);
    assert_eq!(machine.token("crm", "ding1"), before);
}

#[test]
fn a_config_written_bit_by_bit_is_read_when_the_writer_pauses() {
    // On a busy machine the writer itself may pause; then nothing is to be seen, and it is tried again.
    let seen = (0..10).find_map(|_| written_bit_by_bit());
    let (rejected, held_back) = seen.expect("the writer got to write without a pause");
    assert_eq!((rejected, held_back), (0, 0));
}

/// How often a config was rejected, or held back, while it was written in small pieces; `None` if the writer paused.
fn written_bit_by_bit() -> Option<(usize, usize)> {
    let machine = running(&["ding1", "ding2", "ding3"]);
    let text = with_list(&machine, &["ding1", "ding2", "ding3"], &["ding1", "ding2", "ding3", "ding4"]);
    let mut last = Instant::now();
    let mut pause = Duration::ZERO;
    let mut file = fs::File::create(machine.config_path()).unwrap();
    for part in text.as_bytes().chunks(text.len() / 12) {
        file.write_all(part).unwrap();
        pause = pause.max(last.elapsed());
        last = Instant::now();
        std::thread::sleep(Duration::from_millis(40));
    }
    drop(file);
    only_the_newcomer_is_fetched(&machine, "ding4");
    let seen = (machine.events("reload_rejected").len(), machine.events("mass_removal_held_back").len());
    (pause < QUICK).then_some(seen)
}

#[test]
fn files_that_do_not_belong_to_the_config_cause_no_reload() {
    let machine = running(&["ding1"]);
    let heard = machine.status_json()["config"]["last_reload_at"].clone();
    for n in 0..10 {
        machine.write(&format!("etc/notes-{n}.txt"), "nothing of interest");
        machine.write("etc/.config.toml.swp", "an editor's own");
        std::thread::sleep(Duration::from_millis(60));
    }
    settle();
    assert!(machine.events("reloaded").is_empty());
    assert!(machine.events("reload_rejected").is_empty());
    assert_eq!(machine.status_json()["config"]["last_reload_at"], heard);
    assert!(called(&machine).is_empty());
}

#[test]
fn of_a_hundred_rapid_saves_the_last_one_counts() {
    let machine = running(&["ding0"]);
    for n in 1..=100 {
        machine.save(&with_list(&machine, &["ding0"], &["ding0", &format!("ding{n}")]));
        std::thread::sleep(Duration::from_millis(7));
    }
    wait_for_files(&machine, &["crm/ding0", "crm/ding100"]);
    settle();
    assert_eq!(machine.token_files(), ["crm/ding0", "crm/ding100"]);
    assert!(machine.events("reloaded").len() < 20, "they are gathered");
}

/// Reading must not look like a change, or the daemon wakes itself for ever.
#[test]
fn an_idle_daemon_does_not_read_its_config_again_and_again() {
    use notify::{EventKind, Watcher};
    use std::sync::atomic::{AtomicUsize, Ordering};
    let machine = running(&["ding1"]);
    settle();
    let opened = std::sync::Arc::new(AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&opened);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    })
    .unwrap();
    watcher.watch(&machine.path("etc"), notify::RecursiveMode::NonRecursive).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(opened.load(Ordering::Relaxed), 0);
    machine.write("etc/notes.txt", "something else");
    settle();
    assert!(opened.load(Ordering::Relaxed) > 0, "it looked whether that was a change");
    opened.store(0, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(opened.load(Ordering::Relaxed), 0);
}
