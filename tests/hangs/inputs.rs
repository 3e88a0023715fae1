//! What the daemon reads hangs: a secret, the certificates, the config, its drop-ins, a sink's root. The apps concerned are named, and nobody else
//! notices.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::support::system::fuse::{Fuse, Op};
use crate::support::{Machine, PATIENCE, SECRET, shown};

const HANGS: &str = "does not come to an end";

/// Two apps, and a file system at `fuse`.
fn machine() -> Option<(Machine, Fuse)> {
    let machine = Machine::new().app("crm", &["ding1"], "").app("hr", &["ding2"], "");
    let fuse = Fuse::mount(&machine.path("fuse"))?;
    Some((machine, fuse))
}

/// Moves a file of the config to the file system that can hang, and leaves a link.
fn move_over(machine: &Machine, name: &str) {
    let (here, there) = (machine.path(&format!("etc/{name}")), machine.path(&format!("fuse/{name}")));
    fs::copy(&here, &there).unwrap();
    fs::set_permissions(&there, fs::metadata(&here).unwrap().permissions()).unwrap();
    fs::remove_file(&here).unwrap();
    std::os::unix::fs::symlink(there, here).unwrap();
}

/// `kill -9` in the middle of it. Who hangs in FUSE dies only once he is answered.
fn kill(machine: &mut Machine, fuse: &Fuse) {
    machine.signal("KILL");
    fuse.release();
    machine.kill();
    fuse.hang_all();
}

fn warnings(machine: &Machine) -> String {
    machine.status_json()["warnings"].to_string()
}

fn is_rejected(machine: &Machine) -> bool {
    machine.status_json()["config"]["last_reload_successful"] == false
}

#[test]
fn a_secret_that_hangs_concerns_its_app_alone_at_a_reload_and_at_a_start() {
    let Some((mut machine, fuse)) = machine() else { return };
    move_over(&machine, "hr.secret");
    machine.start();
    let before = machine.token("hr", "ding2").unwrap();
    fuse.hang_all();
    machine.edit("[\"ding1\"]", "[\"ding1\",\"ding3\"]");
    machine.wait_until("the config is applied", |machine| machine.token("crm", "ding3").is_some());
    machine.wait_until("it is reported", |machine| warnings(machine).contains(HANGS));
    assert!(warnings(&machine).contains("config.toml:") && warnings(&machine).contains("client_secret"));
    assert!(!is_rejected(&machine));
    // The next reload does not wait for it again.
    machine.edit("\"ding3\"", "\"ding4\"");
    machine.wait_until("the next is applied", |machine| machine.token("crm", "ding4").is_some());

    kill(&mut machine, &fuse);
    fs::remove_dir_all(machine.path("tokens")).unwrap();
    machine.start();
    assert_eq!(machine.token_files(), ["crm/ding1", "crm/ding4", "hr/ding2"]);
    assert_eq!(machine.token("hr", "ding2").unwrap(), before, "its tenants keep their tokens");
    fuse.release();
    machine.wait_until("it heals by itself", |machine| !warnings(machine).contains(HANGS));
    machine.stop();
}

#[test]
fn a_config_or_drop_ins_that_hang_are_rejected_and_at_a_start_the_last_applied_config_runs() {
    for name in ["config.toml", "config.d/10-more.toml"] {
        let Some((mut machine, fuse)) = machine() else { return };
        fs::create_dir(machine.path("etc/config.d")).unwrap();
        fs::create_dir(machine.path("fuse/config.d")).unwrap();
        machine.write_with_mode("etc/config.d/10-more.toml", "[app.crm]\ncorp_ids = [\"ding5\"]\n", 0o644);
        move_over(&machine, name);
        machine.env("STATE_DIRECTORY", machine.path("state").to_str().unwrap());
        machine.start();
        assert_eq!(machine.token_files(), ["crm/ding1", "crm/ding5", "hr/ding2"]);
        fuse.hang_all();
        let reported = machine.run(&["reload"]);
        assert_eq!(reported.status.code(), Some(78), "{name}: {}", shown(&reported));
        assert!(shown(&reported).contains(HANGS) && shown(&reported).contains(name), "{name}: {}", shown(&reported));
        assert!(is_rejected(&machine));

        kill(&mut machine, &fuse);
        fs::remove_dir_all(machine.path("tokens")).unwrap();
        machine.start();
        assert_eq!(machine.token_files(), ["crm/ding1", "crm/ding5", "hr/ding2"], "{name}");
        let loudly = machine.events("config_rejected");
        assert!(loudly.len() == 1 && loudly[0]["message"].as_str().unwrap().contains(HANGS), "{name}: {loudly:?}");
        fuse.release();
        machine.wait_until("it heals by itself", |machine| !is_rejected(machine));
        machine.stop();
    }
}

#[test]
fn certificates_that_hang_leave_every_token_where_it_is() {
    let Some((mut machine, fuse)) = machine() else { return };
    move_over(&machine, "ca.pem");
    machine.start();
    fuse.hang_all();
    machine.edit("[\"ding1\"]", "[\"ding1\",\"ding3\"]");
    machine.wait_until("those who are called already go on", |machine| machine.token("crm", "ding3").is_some());
    kill(&mut machine, &fuse);
    fs::remove_dir_all(machine.path("tokens")).unwrap();
    machine.edit("\"ding3\"", "\"ding4\"");
    machine.start();
    assert_eq!(machine.token_files(), ["crm/ding1", "hr/ding2"], "what is known is published");
    assert!(warnings(&machine).contains(HANGS) && warnings(&machine).contains("ca_file"), "{}", warnings(&machine));
    let last = &machine.tenant_json("crm/ding4")["last_error"];
    assert!(last["detail"].as_str().unwrap().contains(HANGS), "{last}");
    fuse.release();
    machine.wait_until("it heals by itself", |machine| machine.token("crm", "ding4").is_some());
    machine.stop();
}

#[test]
fn a_sink_whose_root_hangs_at_a_start_has_a_lane_of_its_own() {
    let Some((mut machine, fuse)) = machine() else { return };
    let sink = format!("[[app.hr.sink]]\nfile = \"{}\"\n", machine.path("fuse/tokens/{corp_id}").display());
    fs::create_dir(machine.path("fuse/tokens")).unwrap();
    fs::set_permissions(machine.path("fuse/tokens"), fs::Permissions::from_mode(0o755)).unwrap();
    machine.save(&format!("{}{sink}", machine.config_text()));
    fuse.hang(Op::Stat, "");
    machine.launch();
    machine.wait_until("the others are served", |machine| machine.token("crm", "ding1").is_some());
    machine.wait_until_ready();
    machine.edit("[\"ding1\"]", "[\"ding1\",\"ding3\"]");
    machine.wait_until("the config is applied", |machine| machine.token("crm", "ding3").is_some());
    fuse.release();
    machine.wait_until("it heals by itself", |machine| machine.read("fuse/tokens/ding2").is_some());
    assert_eq!(machine.read("etc/hr.secret").unwrap(), SECRET);
    machine.stop();
}

#[test]
fn check_tells_which_sink_does_not_answer_and_tries_the_others() {
    let Some((machine, fuse)) = machine() else { return };
    fs::create_dir(machine.path("fuse/tokens")).unwrap();
    fs::write(machine.path("a-file"), "").unwrap();
    let sink = |file: &str| format!("[[app.hr.sink]]\nfile = \"{}\"\n", machine.path(file).display());
    let sinks = sink("fuse/tokens/{corp_id}") + &sink("fuse/tokens/{corp_id}.2") + &sink("a-file/{corp_id}");
    machine.save(&format!("{}{sinks}", machine.config_text()));
    fuse.hang(Op::Fsync, "tokens");
    let begun = Instant::now();
    let mut check = machine.command(&["check"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (line, lines) = mpsc::channel();
    let output = BufReader::new(check.stderr.take().unwrap());
    std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|text| line.send(text)));
    // The process does not end before FUSE lets its thread go, so its output has no end yet.
    let mut text = String::new();
    while text.matches("does not answer within 10 s").count() < 2 {
        text += &(lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{text}")) + "\n");
    }
    let took = begun.elapsed();
    fuse.release();
    lines.iter().for_each(|line| text += &(line + "\n"));
    assert!(
        text.contains("fuse/tokens/{corp_id} cannot be") && text.contains("fuse/tokens/{corp_id}.2 cannot be"),
        "{text}"
    );
    assert!(text.contains("a-file is not a directory"), "the next one is tried: {text}");
    assert!((10..20).contains(&took.as_secs()), "the place that hangs is waited for once: {took:?}");
    assert_eq!(check.wait().unwrap().code(), Some(78), "{text}");
}

#[test]
fn check_blames_no_healthy_app_for_a_mount_that_hangs_beside_it() {
    let Some((machine, fuse)) = machine() else { return };
    fs::create_dir_all(machine.path("fuse/srv/crm/below")).unwrap();
    fs::create_dir(machine.path("fuse/srv/hr")).unwrap();
    let sink = |app: &str, file: &str| format!("[[app.{app}.sink]]\nfile = \"{}\"\n", machine.path(file).display());
    let sinks = sink("crm", "fuse/srv/{app}/{corp_id}")
        + &sink("crm", "fuse/srv/{app}/below/{corp_id}")
        + &sink("hr", "fuse/srv/{app}/{corp_id}");
    machine.save(&format!("{}{sinks}", machine.config_text()));
    fuse.hang(Op::Fsync, "srv/crm");
    let check = machine.command(&["check"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // The process does not end before FUSE lets its thread go.
    std::thread::sleep(Duration::from_secs(13));
    fuse.release();
    let text = String::from_utf8(check.wait_with_output().unwrap().stderr).unwrap();
    assert!(text.contains("error: app crm: ") && text.contains("srv/crm does not answer within 10 s"), "{text}");
    assert!(!text.contains("app hr: "), "{text}");
    let untried = text.lines().find(|line| line.contains("/below/{corp_id}")).unwrap_or_else(|| panic!("{text}"));
    assert!(untried.starts_with("warning: ") && untried.contains("was not tried: "), "{text}");
}

fn lead(machine: &Machine, target: &str) {
    std::os::unix::fs::symlink(target, machine.path("new")).unwrap();
    fs::rename(machine.path("new"), machine.path("link")).unwrap();
}

#[test]
fn a_sinks_root_and_a_secret_that_hang_take_no_protection_from_the_daemons_other_files() {
    let Some((mut machine, fuse)) = machine() else { return };
    fs::create_dir_all(machine.path("fuse/tokens")).unwrap();
    fs::create_dir(machine.path("elsewhere")).unwrap();
    lead(&machine, "elsewhere");
    move_over(&machine, "crm.secret");
    let sink = |app: &str, file: &str| format!("[[app.{app}.sink]]\nfile = \"{}\"\n", machine.path(file).display());
    let sinks = sink("crm", "fuse/tokens/{corp_id}") + &sink("hr", "link/hr.secret");
    machine.save(&format!("{}{sinks}", machine.config_text()));
    fuse.hang_all();
    machine.launch();
    machine.wait_until("the other app is served", |machine| machine.read("elsewhere/hr.secret").is_some());
    // From here on, the link leads to a client's secret.
    lead(&machine, "etc");
    fs::remove_file(machine.path("elsewhere/hr.secret")).unwrap();
    machine.wait_until("the sink is refused", |machine| {
        assert_eq!(machine.read("etc/hr.secret").as_deref(), Some(SECRET), "a token stands in the place of the secret");
        machine.events("sink_failing").iter().any(|event| event["kind"] == "taken")
    });
    fuse.release();
    machine.stop();
}
