//! A state whose file system hangs in the kernel.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use corptokend::sandbox::{Fault, Options, Scope, Times};

use crate::support::Machine;
use crate::support::reliability;
use crate::support::system::disk::FreezableDisk;
use crate::support::system::threads::has_ended;

const TENANTS: [&str; 4] = ["ding1", "ding2", "ding3", "ding4"];
const LIFETIME_S: u32 = 6;
/// How long the daemon may take to stop.
const STOP: Duration = Duration::from_secs(10);

/// A machine whose state lies on a disk of its own, which is thawed before the daemon is waited for.
fn machine(lifetime_s: u32) -> Option<(Machine, FreezableDisk)> {
    let machine = Machine::with(Options { lifetime_s, issue_log: 10_000, ..Options::default() });
    let machine = machine.app("crm", &TENANTS, "");
    fs::remove_dir(machine.path("state")).unwrap();
    let disk = FreezableDisk::mount(&machine.path("image"), &machine.path("state"))?;
    fs::set_permissions(machine.path("state"), fs::Permissions::from_mode(0o700)).unwrap();
    Some((machine, disk))
}

fn sequences(machine: &Machine) -> Vec<Option<u32>> {
    TENANTS.iter().map(|corp_id| machine.sequence("crm", corp_id)).collect()
}

fn wait_for_new_tokens(machine: &Machine) {
    let before = sequences(machine);
    machine.wait_until("every tenant's token rotates", |machine| {
        sequences(machine).iter().zip(&before).all(|(now, before)| now.is_some() && now > before)
    });
}

fn is_healthy(machine: &Machine) -> bool {
    machine.status_json()["state"]["healthy"] == true
}

#[test]
fn a_state_that_hangs_holds_up_no_token_and_has_all_of_them_when_it_moves() {
    let Some((mut machine, disk)) = machine(LIFETIME_S) else { return };
    machine.start();
    wait_for_new_tokens(&machine);
    disk.freeze();
    let frozen = Instant::now();
    machine.wait_until("it is reported", |machine| machine.events("state_hangs").len() == 1);
    let reported = frozen.elapsed();
    let state = machine.status_json()["state"].clone();
    assert!(state["healthy"] == false && state["reason"].to_string().contains("does not answer"), "{state}");
    let rotations = 3;
    (0..rotations).for_each(|_| wait_for_new_tokens(&machine));
    // What somebody deletes meanwhile is restored, and nobody is called for it.
    machine.sandbox.set_lifetime_s(7200);
    wait_for_new_tokens(&machine);
    machine.sandbox.forget_calls();
    let right = machine.token("crm", "ding1");
    fs::remove_file(machine.path("tokens/crm/ding1")).unwrap();
    machine.wait_until("it is restored", |machine| machine.token("crm", "ding1") == right);
    assert_eq!(machine.events("expired"), [serde_json::Value::Null; 0], "no token expired");
    assert!(disk.thaw());
    machine.wait_until("it moves", |machine| machine.events("state_moves").len() == 1);
    machine.wait_until("it is well", is_healthy);
    assert_eq!(machine.events("state_hangs").len(), 1, "said once");
    let tokens = TENANTS.map(|corp_id| machine.token("crm", corp_id));
    // Commits are a matter of milliseconds now; then nothing is lost by a kill.
    assert!(machine.stop().success());
    machine.start();
    assert_eq!(machine.sandbox.calls().len(), 0, "nobody is called, neither meanwhile nor after a restart");
    assert_eq!(TENANTS.map(|corp_id| machine.token("crm", corp_id)), tokens);
    assert!(machine.stop().success());
    reliability::leave(
        "a_state_that_hangs_holds_up_no_token_and_has_all_of_them_when_it_moves",
        "the state's file system hangs in the kernel (ext4, frozen) while tokens rotate",
        "tokens are published from memory after some seconds, and none expires; reported once, in the status too; files are restored without a call; committed when it moves",
        &format!(
            "reported after {} ms; {rotations} rotations of {} tenants meanwhile, 0 calls too many",
            reported.as_millis(),
            TENANTS.len()
        ),
    );
}

#[test]
fn a_state_that_hangs_delays_the_end_no_longer_than_anything_else() {
    let Some((mut machine, disk)) = machine(LIFETIME_S) else { return };
    machine.start();
    disk.freeze();
    machine.wait_until("it is reported", |machine| machine.events("state_hangs").len() == 1);
    let asked = Instant::now();
    machine.signal("TERM");
    machine.wait_until("the daemon has ended", |machine| has_ended(machine.pid()));
    let took = asked.elapsed();
    assert!(took < STOP, "it took {took:?}");
    assert_eq!(machine.events("state_stuck").len(), 1);
    assert!(disk.thaw());
    machine.exit();
    machine.start();
    wait_for_new_tokens(&machine);
    assert!(machine.stop().success());
    reliability::leave(
        "a_state_that_hangs_delays_the_end_no_longer_than_anything_else",
        "the daemon is told to stop while the state's file system hangs",
        "it ends within 10 s, and the next start goes on",
        &format!("ended after {} ms", took.as_millis()),
    );
}

#[test]
fn a_start_does_not_wait_for_a_state_that_hangs_and_calls_nobody_whose_token_it_finds_there_later() {
    let Some((mut machine, disk)) = machine(7200) else { return };
    machine.start();
    let tokens = TENANTS.map(|corp_id| machine.token("crm", corp_id));
    assert!(machine.stop().success());
    machine.sandbox.forget_calls();
    for corp_id in TENANTS {
        fs::remove_file(machine.path(&format!("tokens/crm/{corp_id}"))).unwrap();
    }
    // One of them can be served without the state, the others cannot.
    for corp_id in &TENANTS[1..] {
        machine.sandbox.inject(Scope::corp(corp_id), Fault::ServerError, Times::UntilCleared);
    }
    disk.freeze();
    let begun = Instant::now();
    machine.launch();
    machine.wait_until("whoever can be served is", |machine| machine.token("crm", "ding1").is_some());
    let served = begun.elapsed();
    let state = machine.status_json()["state"].clone();
    assert!(state["healthy"] == false && state["reason"].to_string().contains("does not answer"), "{state}");
    machine.wait_until("the others are tried", |machine| machine.sandbox.calls().len() >= TENANTS.len());
    machine.wait_until_ready();
    assert!(disk.thaw());
    machine.wait_until("what the state held is there", |machine| machine.events("state_adopted").len() == 1);
    machine.wait_until("the others have their tokens again", |machine| {
        (1..TENANTS.len()).all(|n| machine.token("crm", TENANTS[n]) == tokens[n])
    });
    machine.wait_until("it is well", is_healthy);
    assert_ne!(machine.token("crm", "ding1"), tokens[0], "who has a newer token keeps it");
    let newer = machine.token("crm", "ding1");
    machine.sandbox.clear_faults();
    assert!(machine.stop().success());
    machine.sandbox.forget_calls();
    machine.start();
    assert_eq!(machine.token("crm", "ding1"), newer);
    assert!(machine.sandbox.calls().is_empty(), "what both knew is in the state");
    assert!(machine.stop().success());
    reliability::leave(
        "a_start_does_not_wait_for_a_state_that_hangs_and_calls_nobody_whose_token_it_finds_there_later",
        "the daemon starts while the state's file system hangs, and most tenants cannot be called for",
        "it starts without the state, says so, and serves whom it can; when the state is there the others get their tokens from it, and newer ones are kept",
        &format!("the first token {} ms after the start; 3 of 4 tokens from the state", served.as_millis()),
    );
}
