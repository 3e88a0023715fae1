//! A state file that is not what was written.

use std::fs;

use corptokend::sandbox::Options;

use crate::repetition::{Dice, repetitions};
use crate::support::reliability;
use crate::support::{Machine, corp_ids};

const TENANTS: usize = 20;

/// Starts the daemon without token files, so that all of them come from the state or from the endpoint. Answers with how
/// many came from the state.
fn start_and_judge(machine: &mut Machine, what: &str) -> usize {
    fs::remove_dir_all(machine.path("tokens")).unwrap();
    fs::create_dir(machine.path("tokens")).unwrap();
    machine.sandbox.forget_calls();
    let ready = machine.events("ready").len();
    machine.launch();
    machine.wait_until("the daemon is ready", |machine| machine.events("ready").len() > ready);
    let called = machine.sandbox.calls().len();
    for corp_id in corp_ids(TENANTS) {
        let token = machine.token("crm", &corp_id).unwrap_or_else(|| panic!("{what}: {corp_id} has no file"));
        let issued = machine.sandbox.issued(&corp_id);
        assert!(issued.iter().any(|issued| issued.token == token), "{what}: {corp_id} has a wrong token");
    }
    assert!(machine.is_running(), "{what}: the daemon ended by itself");
    assert!(called <= TENANTS, "{what}: {called} calls");
    TENANTS - called
}

#[test]
fn a_damaged_state_brings_no_wrong_token_and_no_crash_loop() {
    let rounds = repetitions("CORPTOKEND_DAMAGES", 30);
    let options = Options { issue_log: 100_000, ..Options::default() };
    let mut machine = Machine::with(options).app("crm", &corp_ids(TENANTS), "");
    machine.start();
    assert!(machine.stop().success());
    let whole = fs::read(machine.path("state/state.redb")).unwrap();
    assert_eq!(start_and_judge(&mut machine, "undamaged"), TENANTS);
    machine.kill();

    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let (mut kept, mut set_aside) = (0, 0);
    for round in 0..rounds {
        let mut bytes = whole.clone();
        let what = if round % 2 == 0 {
            // Half of the flips hit the first pages, where the structure is.
            let at = dice.below(if round % 4 == 0 { used } else { 8192.min(used) });
            bytes[at] ^= 1 << dice.below(8);
            format!("a bit flipped in byte {at}")
        } else {
            bytes.truncate(dice.below(whole.len()));
            format!("truncated to {} bytes", bytes.len())
        };
        fs::write(machine.path("state/state.redb"), &bytes).unwrap();
        kept += start_and_judge(&mut machine, &what);
        machine.kill();
        // What the daemon made of it is a good state.
        assert_eq!(start_and_judge(&mut machine, &format!("{what}, second start")), TENANTS);
        machine.kill();
        set_aside += usize::from(fs::remove_file(machine.path("state/state.redb.corrupt")).is_ok());
        assert_eq!(machine.names_in("state"), ["state.redb"], "{what}");
    }
    reliability::leave(
        "a_damaged_state_brings_no_wrong_token_and_no_crash_loop",
        "a bit of the state file flips, or its end is missing",
        "no wrong token; what is damaged is set aside and fetched anew; the next start finds a whole state and calls nobody",
        &format!(
            "{rounds} damages: {kept} of {} tokens survived, {set_aside} files set aside, 0 wrong tokens, 0 calls at the \
             second start",
            rounds * TENANTS
        ),
    );
}
