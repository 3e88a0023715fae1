//! The system calls of a commit.

use std::time::Duration;

use corptokend::sandbox::{Options, Scope, Times, sequence_of};

use crate::fixture::{LIFETIME_S, assert_none_early};
use crate::support::Machine;
use crate::support::readers::{FileAttributes, Readers};
use crate::support::reliability;
use crate::support::system::syscall_faults::{Fault, Injection, can_inject};
use crate::support::system::threads::thread_named;

const TENANTS: [&str; 2] = ["ding1", "ding2"];

/// What fails together. The last three: whatever else is tried, the file stays out of reach.
const CALLS: [&[&str]; 4] =
    [&["pwrite64"], &["fdatasync"], &["pwrite64", "fdatasync", "openat"], &["pwrite64", "ftruncate", "pread64"]];
const ERRORS: [&str; 6] = ["ENOSPC", "EIO", "EDQUOT", "EROFS", "EACCES", "EMFILE"];

fn machine() -> (Machine, Readers) {
    let options = Options { lifetime_s: LIFETIME_S, issue_log: 10_000, ..Options::default() };
    let mut machine = Machine::with(options).app("crm", &TENANTS, "");
    machine.start();
    let paths = TENANTS.map(|corp_id| machine.path(&format!("tokens/crm/{corp_id}")));
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let readers = Readers::watch(1, &paths, FileAttributes { mode: 0o640, uid, gid });
    (machine, readers)
}

fn begin(machine: &Machine, fault: &Fault) -> Injection {
    Injection::begin(thread_named(machine.pid(), "store"), fault, &machine.path("strace"))
}

fn sequence(machine: &Machine, corp_id: &str) -> u32 {
    machine.token("crm", corp_id).as_deref().and_then(sequence_of).expect("the file holds a token")
}

/// Waits until every tenant's file holds a token that was not there yet.
fn wait_for_new_tokens(machine: &Machine) {
    let before = TENANTS.map(|corp_id| sequence(machine, corp_id));
    machine.wait_until("every tenant's token rotates", |machine| {
        TENANTS.iter().zip(before).all(|(corp_id, before)| sequence(machine, corp_id) > before)
    });
}

fn errors_of(machine: &Machine, event: &str) -> usize {
    machine.events(event).iter().filter(|event| event["level"] == "ERROR").count()
}

fn assert_nobody_called_early(machine: &Machine) {
    for corp_id in TENANTS {
        assert_none_early(machine, corp_id);
    }
}

/// How many calls failed, and how many tokens were published meanwhile.
fn outlive(fault: &Fault) -> (usize, u32) {
    let (mut machine, readers) = machine();
    let before = sequence(&machine, TENANTS[0]);
    let injection = begin(&machine, fault);
    machine.wait_until("the state is unwritable", |machine| errors_of(machine, "state_unwritable") > 0);
    wait_for_new_tokens(&machine);
    assert_eq!(machine.status_json()["state"]["healthy"], false, "{fault:?}");
    // These live long, so that a restart has nothing to ask for, if they come through.
    machine.sandbox.set_lifetime_s(7200);
    wait_for_new_tokens(&machine);
    let during = sequence(&machine, TENANTS[0]) - before;
    assert!(during >= 2, "{fault:?}: publication goes on");
    let failed = injection.lift();
    machine.wait_until("the state is writable", |machine| machine.events("state_writable").len() == 1);
    machine.wait_until("the status says so", |machine| machine.status_json()["state"]["healthy"] == true);
    assert_eq!(errors_of(&machine, "state_unwritable"), 1, "{fault:?}");
    assert_eq!(machine.events("state_set_aside"), [serde_json::Value::Null; 0], "{fault:?}");
    assert_nobody_called_early(&machine);

    let tokens = TENANTS.map(|corp_id| machine.token("crm", corp_id));
    machine.kill();
    machine.sandbox.forget_calls();
    machine.start();
    assert_eq!(TENANTS.map(|corp_id| machine.token("crm", corp_id)), tokens, "{fault:?}");
    assert_eq!(machine.sandbox.calls().len(), 0, "{fault:?}: a restart calls nobody");
    assert_eq!(machine.names_in("state"), ["state.redb"], "{fault:?}");
    readers.finish().assert_flawless(&machine.sandbox);
    (failed, during)
}

#[test]
fn every_failing_call_of_a_commit_leaves_publication_alone_and_loses_nothing() {
    if !can_inject() {
        return;
    }
    let faults =
        ERRORS.iter().flat_map(|error| CALLS.map(|calls| Fault { calls: calls.to_vec(), error, ..Fault::default() }));
    let faults: Vec<Fault> = faults.collect();
    let outcomes: Vec<(usize, u32)> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            faults.chunks(4).map(|part| scope.spawn(move || part.iter().map(outlive).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let failed: usize = outcomes.iter().map(|outcome| outcome.0).sum();
    let during: u32 = outcomes.iter().map(|outcome| outcome.1).sum();
    reliability::leave(
        "every_failing_call_of_a_commit_leaves_publication_alone_and_loses_nothing",
        "each system call of a commit fails (ENOSPC, EIO, EDQUOT, EROFS, EACCES, EMFILE)",
        "tokens are published all the same; reported once, in the status too; committed when it passes; a restart then calls nobody",
        &format!(
            "{} combinations, {failed} failed calls, {during} tokens of one tenant published meanwhile; 0 calls after \
             the restarts",
            faults.len()
        ),
    );
}

#[test]
fn an_interrupted_call_of_a_commit_is_invisible() {
    if !can_inject() {
        return;
    }
    let (mut machine, readers) = machine();
    let calls = vec!["pwrite64", "fdatasync", "ftruncate", "pread64"];
    let injection = begin(&machine, &Fault { calls, error: "EINTR", when: Some("1+2"), on: None });
    wait_for_new_tokens(&machine);
    wait_for_new_tokens(&machine);
    std::thread::sleep(Duration::from_millis(500));
    let failed = injection.lift();
    assert!(failed > 4, "{failed} calls were interrupted");
    assert_eq!(errors_of(&machine, "state_unwritable"), 0);
    assert_nobody_called_early(&machine);
    assert!(machine.stop().success());
    readers.finish().assert_flawless(&machine.sandbox);
    reliability::leave(
        "an_interrupted_call_of_a_commit_is_invisible",
        "the system calls of a commit are interrupted (EINTR)",
        "nobody notices",
        &format!("interrupted {failed} times: 0 events"),
    );
}

#[test]
fn a_state_that_is_lost_while_the_daemon_runs_is_begun_anew_with_all_that_it_is_to_remember() {
    if !can_inject() {
        return;
    }
    let options = Options { lifetime_s: LIFETIME_S, issue_log: 10_000, ..Options::default() };
    let mut machine = Machine::with(options).app("crm", &[TENANTS[0], TENANTS[1], "refused"], "");
    machine.sandbox.inject(Scope::corp("refused"), corptokend::sandbox::Fault::UnauthorizedClient, Times::UntilCleared);
    machine.start();
    wait_for_new_tokens(&machine);
    // A commit fails, and while the database is closed somebody puts garbage in its sink.
    let fault = Fault { calls: vec!["pwrite64"], error: "EIO", ..Fault::default() };
    let injection = begin(&machine, &fault);
    machine.wait_until("the state is unwritable", |machine| errors_of(machine, "state_unwritable") > 0);
    std::fs::write(machine.path("state/state.redb"), vec![0xa5; 1 << 20]).unwrap();
    injection.lift();
    machine.wait_until("it is set aside", |machine| machine.events("state_set_aside").len() == 1);
    machine.wait_until("it is well again", |machine| machine.status_json()["state"]["healthy"] == true);
    machine.sandbox.set_lifetime_s(7200);
    wait_for_new_tokens(&machine);
    assert!(machine.stop().success());

    // The config that ran is in it: with the one on disk in error, it runs. And whom not to call.
    machine.edit("[limits]", "[limits]\nunheard_of = 1");
    machine.sandbox.forget_calls();
    machine.start();
    let status = machine.status_json();
    assert_eq!(status["config"]["last_reload_successful"], false, "{status}");
    assert_eq!(machine.tenant_json("crm/refused")["state"], "refused");
    assert!(machine.sandbox.calls().is_empty(), "{:?}", machine.sandbox.calls());
    assert!(machine.stop().success());
    reliability::leave(
        "a_state_that_is_lost_while_the_daemon_runs_is_begun_anew_with_all_that_it_is_to_remember",
        "a commit fails (EIO), and the state is garbage when it is opened again",
        "it is set aside, and the new one is given the tokens, the config that runs and whom not to call: a restart with a config in error runs, and calls nobody",
        "3 tenants, one of them refused: 0 calls after the restart",
    );
}
