//! A machine that sleeps for longer than its tokens live.

use std::time::{Duration, Instant};

use corptokend::sandbox::Options;
use rustix::time::{ClockId, clock_gettime};

use crate::guest;
use crate::support::Machine;
use crate::support::reliability;

const TENANTS: [&str; 4] = ["ding0", "ding1", "ding2", "ding3"];
const LIFETIME_S: u32 = 20;
const SLEEP_S: u64 = 25;

/// How long this machine has slept since it booted.
fn slept() -> Duration {
    let seconds = |id| clock_gettime(id).tv_sec;
    Duration::from_secs(u64::try_from(seconds(ClockId::Boottime) - seconds(ClockId::Monotonic)).unwrap())
}

/// Suspends to memory until the real-time clock rings.
fn sleep() {
    std::fs::write("/sys/class/rtc/rtc0/wakealarm", format!("+{SLEEP_S}")).unwrap();
    std::fs::write("/sys/power/state", "mem").unwrap();
}

fn sleep_for_longer_than_a_life() -> String {
    let options = Options { lifetime_s: LIFETIME_S, ..Options::default() };
    let mut machine = Machine::with(options).app("crm", &TENANTS, "");
    let began = Instant::now();
    machine.start();
    let cold = began.elapsed();
    let before = machine.issued(&TENANTS);
    sleep();
    let awake = Instant::now();
    assert!(slept() >= Duration::from_secs(SLEEP_S - 2), "it slept for {:?} only", slept());
    machine.wait_until("everybody has a new token", |machine| machine.all_hold_newer("crm", &TENANTS, &before));
    let took = awake.elapsed();
    // An emulated machine needs seconds for a handshake.
    assert!(took < cold + Duration::from_secs(1), "it took {took:?} after waking, and {cold:?} after the start");
    assert!(machine.issued(&TENANTS).iter().zip(&before).all(|(now, before)| *now == before + 1), "one call for each");
    assert!(machine.stop().success());
    format!(
        "{} tenants, asleep for {} s: all new {} ms after waking; a cold start took {} ms (an emulated machine)",
        TENANTS.len(),
        slept().as_secs(),
        took.as_millis(),
        cold.as_millis()
    )
}

#[test]
fn a_machine_that_slept_for_longer_than_a_token_lives_catches_up_on_waking() {
    let test = "a_machine_that_slept_for_longer_than_a_token_lives_catches_up_on_waking";
    let Some(figures) = guest::within(&format!("slept::{test}"), sleep_for_longer_than_a_life) else { return };
    reliability::leave(
        test,
        "a (virtual) machine sleeps for longer than a token lives",
        "time asleep counts: everybody has a new token no later after waking than after a cold start, by one call each",
        &figures,
    );
}
