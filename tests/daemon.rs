//! The daemon from outside: files appear, stay, are renewed, and go.
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod support;

use std::process::{Command, Stdio};

use corptokend::daemon::{Startup, Until, start};
use corptokend::domain::{BootMs, Now, WallMs};
use corptokend::sandbox::{Fault, Scope, Times};
use corptokend::store;
use support::{Killed, Machine, shown};

const CONFIG_ENV: &str = "CORPTOKEND_TEST_CONFIG";

#[test]
fn every_tenant_gets_its_file_and_exactly_one_call() {
    let mut machine = Machine::new().app("crm", &["ding1", "ding2"], "").app("hr", &["ding1"], "");
    machine.start();
    for (app, corp_id) in [("crm", "ding1"), ("crm", "ding2"), ("hr", "ding1")] {
        let token = machine.token(app, corp_id).expect("the file is there when the daemon is ready");
        let issued = machine.sandbox.issued(corp_id);
        assert!(issued.iter().any(|issued| issued.token == token), "{app}/{corp_id}: {token}");
    }
    assert_eq!(machine.sandbox.calls().len(), 3);
    assert_eq!(machine.token_files(), ["crm/ding1", "crm/ding2", "hr/ding1"]);
    assert_eq!(machine.run(&["status"]).status.code(), Some(0));
    assert!(machine.stop().success());
    assert!(!machine.path("run/control.sock").exists());
}

#[test]
fn a_restart_with_valid_state_calls_nobody_and_restores_missing_files() {
    let mut machine = Machine::new().app("crm", &["ding1", "ding2"], "");
    machine.start();
    let before = machine.token("crm", "ding1");
    machine.kill();
    std::fs::remove_file(machine.path("tokens/crm/ding1")).unwrap();
    machine.sandbox.forget_calls();
    machine.start();
    assert_eq!(machine.token("crm", "ding1"), before);
    assert_eq!(machine.sandbox.calls().len(), 0);
}

#[test]
fn a_second_daemon_on_the_same_state_says_so_and_exits() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    machine.start();
    let output = machine.run(&["run"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(shown(&output).contains("another corptokend"), "{}", shown(&output));
}

#[test]
fn a_bad_config_at_the_first_start_exits_78_with_every_problem() {
    let machine = Machine::new().app("crm", &["ding1", "no spaces"], "rte = \"15/s\"");
    let output = machine.run(&["run"]);
    assert_eq!(output.status.code(), Some(78), "{}", shown(&output));
    let text = shown(&output);
    assert!(text.contains("a corp_id must be") && text.contains("rte"), "{text}");
}

/// A moment a day ahead of the clock.
fn tomorrow() -> Now {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Now { boot: BootMs(0), wall: WallMs(u64::try_from(since.as_millis()).unwrap()) + 24 * 3600 * 1000 }
}

#[test]
fn a_clock_earlier_than_the_last_commit_is_not_believed_until_the_endpoint_agrees() {
    let mut machine =
        Machine::new().app("crm", &["ding1"], "[[app.crm.sink]]\nfile = \"TOKENS/{corp_id}\"\nformat = \"env\"");
    machine.save(&machine.config_text().replace("TOKENS", machine.path("tokens").to_str().unwrap()));
    let state = machine.path("state/state.redb");
    let opened = store::open(&state, |_| {}, tomorrow).unwrap();
    opened.store.stop(support::PATIENCE);
    machine.start();
    assert_eq!(machine.events("clock_distrusted").len(), 1, "{}", machine.log());
    machine.wait_until("the endpoint's answer is believed", |machine| !machine.events("clock_trusted").is_empty());
    let expires = |machine: &Machine| {
        let text = machine.read("tokens/ding1").unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("EXPIRES_AT=")?.parse::<u64>().ok()).unwrap_or(0)
    };
    let today = (tomorrow().wall.seconds() - 24 * 3600, tomorrow().wall.seconds() - 24 * 3600 + 7200);
    machine.wait_until("readers see the right expiry", |machine| (today.0..=today.1 + 60).contains(&expires(machine)));
    assert_eq!(machine.status_json()["warnings"].as_array().map(Vec::len), Some(0));
}

/// When the token of `ding1` expires, as its readers see it, in seconds since 1970.
fn shown_expiry(machine: &Machine) -> Option<u64> {
    let text = machine.read("tokens/ding1")?;
    text.lines().find_map(|line| line.strip_prefix("EXPIRES_AT=")?.parse().ok())
}

/// Starts the daemon with a clock that is a day behind its last commit; what its readers then see, and when it says that it
/// committed last, in seconds after that commit.
fn told_after_a_day_lost(mut machine: Machine) -> (u64, u64) {
    machine.save(&machine.config_text().replace("TOKENS", machine.path("tokens").to_str().unwrap()));
    let (state, commit) = (machine.path("state/state.redb"), tomorrow().wall.seconds());
    store::open(&state, |_| {}, tomorrow).unwrap().store.stop(support::PATIENCE);
    machine.start();
    machine.wait_until("readers have a token", |machine| shown_expiry(machine).is_some());
    machine.wait_until_ready();
    let shown = shown_expiry(&machine).expect("it is published");
    machine.stop();
    let opened = store::open(&state, |_| {}, tomorrow).unwrap();
    let last = opened.last_commit.expect("it has committed").seconds();
    opened.store.stop(support::PATIENCE);
    (shown.saturating_sub(commit), last.saturating_sub(commit))
}

const ENV_SINK: &str = "[[app.crm.sink]]\nfile = \"TOKENS/{corp_id}\"\nformat = \"env\"";
const YEAR_S: i64 = 366 * 24 * 3600;

#[test]
fn an_endpoint_that_says_it_is_2100_is_not_believed() {
    let options = corptokend::sandbox::Options { date_skew_s: 74 * YEAR_S, ..Default::default() };
    let (shown, committed) = told_after_a_day_lost(Machine::with(options).app("crm", &["ding1"], ENV_SINK));
    assert!(shown <= 3 * 3600, "readers see an expiry {shown} s after the last commit");
    assert!(committed <= 600, "{committed} s");
}

#[test]
fn one_endpoint_of_two_cannot_change_what_readers_of_the_other_see_and_no_guess_is_committed() {
    let options = corptokend::sandbox::Options { date_skew_s: YEAR_S, ..Default::default() };
    let machine = Machine::new();
    let liar = corptokend::sandbox::Sandbox::spawn_thread(options.clone()).unwrap();
    machine.write_with_mode("etc/ca.pem", &format!("{}{}", machine.sandbox.ca_pem(), liar.ca_pem()), 0o644);
    let other = liar.endpoint().replace("127.0.0.1", "localhost");
    assert_ne!(other, liar.endpoint());
    let machine = machine.app("crm", &["ding1"], ENV_SINK).app("other", &["ding2"], &format!("endpoint = \"{other}\""));
    let (shown, committed) = told_after_a_day_lost(machine);
    assert!(shown <= 3 * 3600 && committed <= 600, "{shown} s, {committed} s");
    // Where there is but one, its word is all there is; it is used, and not written down as a proof.
    let machine = Machine::with(options).app("crm", &["ding1"], ENV_SINK);
    let (shown, committed) = told_after_a_day_lost(machine);
    assert!(shown.abs_diff(u64::try_from(YEAR_S).unwrap()) <= 2 * 24 * 3600, "{shown} s");
    assert!(committed <= 600, "{committed} s");
}

#[test]
fn a_clock_that_is_askew_is_warned_of_and_tokens_come_all_the_same() {
    let options = corptokend::sandbox::Options { date_skew_s: 120, ..Default::default() };
    let mut machine = Machine::with(options).app("crm", &["ding1", "ding2", "ding3"], "");
    machine.start();
    assert_eq!(machine.token_files().len(), 3);
    assert_eq!(machine.events("clock_skew").len(), 1, "it is said once, not for each answer");
    let warnings = machine.status_json()["warnings"].to_string();
    assert!(warnings.contains("behind the endpoint's"), "{warnings}");
}

#[test]
fn a_daemon_that_is_told_to_stop_makes_no_list_of_its_tenants() {
    let machine = Machine::new().app("crm", &["ding1", "ding2"], "");
    machine.sandbox.inject(Scope::corp("ding2"), Fault::UnauthorizedClient, Times::UntilCleared);
    let log = std::fs::File::create(machine.path("log")).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "another_process_is_a_daemon", "--nocapture"])
        .env(CONFIG_ENV, machine.config_path())
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn();
    let mut daemon = Killed(child.unwrap());
    machine.wait_until_ready();
    assert_eq!(machine.tenant_json("crm/ding2")["state"], "refused");
    assert!(Command::new("kill").args(["-TERM", &daemon.0.id().to_string()]).status().unwrap().success());
    let said = std::io::read_to_string(daemon.0.stdout.take().unwrap()).unwrap();
    assert!(said.contains("2 tenants, 0 rows\n"), "{said}");
    assert!(daemon.0.wait().unwrap().success());
}

/// The other process of the test above; does nothing when it is run by itself.
#[test]
fn another_process_is_a_daemon() {
    let Some(config) = std::env::var_os(CONFIG_ENV) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(async {
        let startup = Startup { config: config.into(), strict: false, attended: true };
        start(startup).await.unwrap().run(Until::Stopped).await.unwrap()
    });
    println!("{} tenants, {} rows", ended.tenants, ended.not_fresh.len());
}
