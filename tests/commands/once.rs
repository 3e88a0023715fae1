//! `corptokend once`.

use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use corptokend::sandbox::{Fault, Options, Scope, Times};

use crate::support::{Machine, NOBODY, is_root, shown, system_allows};

#[test]
fn without_a_daemon_it_serves_everybody_and_the_next_time_nobody() {
    let machine = Machine::new().app("crm", &["ding1", "ding2"], "").app("hr", &["ding1"], "");
    let output = machine.run(&["once"]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "3 of 3 tenants fresh and published\n");
    assert!(shown(&output).contains("3 of 3 tenants have had their turn"), "plain progress: {}", shown(&output));
    assert!(!shown(&output).contains('\x1b') && !shown(&output).contains('\r'), "no bar without a terminal");
    assert_eq!(machine.token_files(), ["crm/ding1", "crm/ding2", "hr/ding1"]);
    assert_eq!(machine.sandbox.calls().len(), 3);

    machine.sandbox.forget_calls();
    assert_eq!(machine.run(&["once"]).status.code(), Some(0));
    assert_eq!(machine.sandbox.calls().len(), 0, "nothing was due");
    assert!(!machine.path("run/control.sock").exists());
}

#[test]
fn with_a_daemon_it_acts_through_it() {
    let mut machine = Machine::new().app("crm", &["ding1", "ding2"], "");
    machine.sandbox.set_latency(std::time::Duration::from_millis(300));
    machine.launch();
    machine.wait_until("the daemon answers", |machine| machine.path("run/control.sock").exists());
    let output = machine.run(&["once"]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(shown(&output).contains("2 of 2 tenants fresh"), "{}", shown(&output));
    assert_eq!(machine.sandbox.calls().len(), 2, "the daemon's own, and no more");
    assert!(machine.stop().success());
}

#[test]
fn each_failure_is_listed_with_why() {
    let machine = Machine::new().app("crm", &["ding1", "ding2", "ding3"], "");
    machine.sandbox.inject(Scope::corp("ding2"), Fault::UnauthorizedClient, Times::UntilCleared);
    machine.sandbox.inject(Scope::corp("ding3"), Fault::Truncated, Times::UntilCleared);
    let output = machine.run(&["once"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = |what: &str| errors.lines().find(|line| line.starts_with(what)).unwrap_or_default();
    assert!(line("error: crm/ding2: refused:").contains("not authorised"), "{errors}");
    assert!(line("error: crm/ding3: failing:").contains("breaks off"), "{errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1 of 3 tenants fresh and published\n");
    assert_eq!(machine.token_files(), ["crm/ding1"]);
}

#[test]
fn the_next_time_it_tries_again_what_may_have_passed_but_nobody_who_was_refused() {
    let machine = Machine::new().app("crm", &["ding1", "ding2"], "").app("hr", &["ding3", "ding4"], "");
    machine.sandbox.inject(Scope::corp("ding1"), Fault::ServerError, Times::UntilCleared);
    machine.sandbox.inject(Scope::corp("ding2"), Fault::UnauthorizedClient, Times::UntilCleared);
    machine.sandbox.inject(Scope::app("client-hr"), Fault::InvalidClient, Times::UntilCleared);
    assert_eq!(machine.run(&["once"]).status.code(), Some(1));
    assert!(machine.token_files().is_empty());
    machine.sandbox.clear_faults();
    machine.sandbox.forget_calls();
    let output = machine.run(&["once"]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert_eq!(machine.token_files(), ["crm/ding1", "hr/ding3", "hr/ding4"]);
    assert!(shown(&output).contains("crm/ding2: refused:"), "{}", shown(&output));
    let asked: Vec<String> = machine.sandbox.calls().iter().map(|call| call.corp_id.to_string()).collect();
    assert!(!asked.contains(&"ding2".to_owned()), "refused tenants are asked for every 15 minutes: {asked:?}");
}

#[test]
fn a_token_that_cannot_be_published_is_a_failure_too() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    std::fs::remove_dir(machine.path("tokens")).unwrap();
    machine.write("tokens", "in the way");
    let alone = machine.run(&["once"]);
    machine.start();
    let through_the_daemon = machine.run(&["once"]);
    for output in [alone, through_the_daemon] {
        assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
        let text = shown(&output);
        assert!(text.contains("error: crm/ding1: unpublished: ") && text.contains("tokens"), "{text}");
        assert!(text.contains("0 of 1 tenant "), "{text}");
    }
}

#[test]
fn an_app_that_is_throttled_for_long_is_told_and_not_waited_for() {
    let mut machine = Machine::new().app("crm", &["ding1", "ding2"], "");
    machine.sandbox.inject(Scope::everyone(), Fault::AppThrottled, Times::UntilCleared);
    let alone = machine.run(&["once"]);
    machine.start();
    for output in [alone, machine.run(&["once"])] {
        assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
        assert!(shown(&output).contains("0 of 2 tenants"), "{}", shown(&output));
    }
}

#[test]
fn wrong_credentials_cost_one_call_and_are_told() {
    let apps = [("client-crm".to_owned(), "another".to_owned())].into();
    let machine = Machine::with(Options { apps, ..Options::default() }).app("crm", &["ding1", "ding2"], "");
    let output = machine.run(&["once"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(shown(&output).contains("client_id or client_secret is wrong"), "{}", shown(&output));
    assert!(machine.sandbox.calls().len() <= 2, "{:?}", machine.sandbox.calls());
}

#[test]
fn a_banned_address_ends_it_at_once() {
    let machine = Machine::new().app("crm", &["ding1", "ding2"], "");
    machine.sandbox.inject(Scope::everyone(), Fault::Punish, Times::UntilCleared);
    let began = std::time::Instant::now();
    let output = machine.run(&["once"]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(began.elapsed().as_secs() < 10);
    assert!(shown(&output).contains("banned"), "{}", shown(&output));
}

#[test]
fn what_root_writes_belongs_to_the_owner_of_the_state() {
    if !system_allows("running as root", is_root()) {
        return;
    }
    let machine = Machine::new().app("crm", &["ding1"], "");
    for given in ["state", "tokens", "etc"] {
        machine.give_to_nobody(given);
    }
    std::fs::set_permissions(machine.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = machine.run(&["once"]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    for file in ["state/state.redb", "tokens/crm", "tokens/crm/ding1"] {
        let metadata = machine.path(file).metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (NOBODY, NOBODY), "{file}");
    }
}

#[test]
fn an_interrupt_is_reported_in_one_line() {
    let corp_ids: Vec<String> = (0..200).map(|n| format!("ding{n}")).collect();
    let corp_ids: Vec<&str> = corp_ids.iter().map(String::as_str).collect();
    let machine = Machine::new().app("crm", &corp_ids, "");
    machine.sandbox.set_latency(std::time::Duration::from_secs(1));
    let once = machine.command(&["once"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    machine.wait_until("calls are made", |machine| !machine.sandbox.calls().is_empty());
    let pid = rustix::process::Pid::from_raw(once.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = once.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let errors: Vec<&str> = errors.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors, ["error: interrupted before every tenant had its turn; run it again for the rest"]);
}

#[test]
fn on_a_terminal_a_bar_shows_how_far_it_is() {
    let machine = Machine::new().app("crm", &["ding1", "ding2"], "");
    machine.sandbox.set_latency(std::time::Duration::from_millis(300));
    let Some((screen, code)) = machine.run_on_a_terminal(&["once"]) else { return };
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.contains("/2 tenants, ") && screen.contains("left"), "{screen:?}");
    assert!(screen.ends_with("2 of 2 tenants fresh and published\r\n"), "{screen:?}");
}

#[test]
fn a_bad_config_exits_78_with_every_problem() {
    let machine = Machine::new().app("crm", &["no spaces"], "rte = 1");
    let output = machine.run(&["once"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(shown(&output).contains("rte") && shown(&output).contains("a corp_id must be"), "{}", shown(&output));
}

#[test]
fn a_daemon_that_cannot_be_asked_is_not_worked_around() {
    let mut machine = Machine::new().app("crm", &["ding1"], "");
    machine.start();
    let output = machine.run(&["once", "--socket", machine.path("nowhere").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(shown(&output).contains("another corptokend"), "{}", shown(&output));
    assert_eq!(machine.sandbox.calls().len(), 1, "the daemon's own");
}
