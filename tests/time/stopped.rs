//! A process that is stopped (SIGSTOP, a debugger, a hypervisor that gives it no time) for longer than its tokens live.

use std::path::PathBuf;
use std::time::Duration;

use corptokend::sandbox::Options;

use crate::support::readers::{FileAttributes, Readers};
use crate::support::reliability;
use crate::support::service_manager::ServiceManager;
use crate::support::{Machine, NOBODY, is_root, wait_soon};

const TENANTS: [&str; 8] = ["ding0", "ding1", "ding2", "ding3", "ding4", "ding5", "ding6", "ding7"];
const LIFETIME_S: u32 = 8;
/// Due after half of the life, so that the margin is 4 s.
const REFRESH: &str = "refresh = { at = 0.5, jitter = 0.05 }";
/// The whole life of a token, its margin, and more.
const STOP: Duration = Duration::from_secs(10);
/// What the rate allows.
const RATE: usize = 10;

fn machine() -> (Machine, FileAttributes) {
    let options = Options { lifetime_s: LIFETIME_S, issue_log: 1000, ..Options::default() };
    let machine = Machine::with(options);
    let file = machine.path("tokens/crm/{corp_id}").display().to_string();
    // The temporary files must not have the right owner by chance.
    let (owner, id) =
        if is_root() { (format!("owner = {NOBODY}\ngroup = {NOBODY}"), Some(NOBODY)) } else { Default::default() };
    let uid = id.unwrap_or_else(|| rustix::process::geteuid().as_raw());
    let gid = id.unwrap_or_else(|| rustix::process::getegid().as_raw());
    let sink = format!("[[app.crm.sink]]\nfile = \"{file}\"\nmode = \"0640\"\n{owner}");
    let machine = machine.app("crm", &TENANTS, &format!("rate = \"{RATE}/s\"\n{REFRESH}\n{sink}"));
    (machine, FileAttributes { mode: 0o640, uid, gid })
}

/// Stops the daemon for a while. How long it then took until everybody held a token that was asked for since.
fn stand_still(machine: &Machine, manager: &ServiceManager) -> Duration {
    machine.signal("STOP");
    // What was sent before is heard by then.
    std::thread::sleep(Duration::from_millis(500));
    manager.forget();
    std::thread::sleep(STOP);
    assert!(manager.heard().iter().all(|said| !said.contains("WATCHDOG=1")), "a stopped daemon has no heartbeat");
    let before = machine.issued(&TENANTS);
    machine.signal("CONT");
    // Eight calls are spaced over 0.8 s; the rest is for the machine.
    let all_are_new = || machine.all_hold_newer("crm", &TENANTS, &before);
    let took = wait_soon("everybody has a new token", Duration::from_secs(2), all_are_new);
    let calls = machine.issued(&TENANTS).iter().sum::<usize>() - before.iter().sum::<usize>();
    assert_eq!(calls, TENANTS.len(), "one call for each; the sandbox saw {:#?}", machine.sandbox.calls());
    took
}

/// The scheduler says that it goes on, and that all is well.
#[track_caller]
fn tells_that_all_is_well(machine: &Machine, manager: &ServiceManager) {
    machine.wait_until("heartbeat and status are reported", |_| {
        let heard = manager.heard();
        let last = |key: &str| heard.iter().rfind(|text| text.starts_with(key));
        last("WATCHDOG=1").is_some() && last("STATUS=").is_none_or(|status| status.trim_end() == "STATUS=8 fresh")
    });
    assert_eq!(machine.status_json()["tenants"]["fresh"], 8, "{}", machine.status_json());
}

#[test]
fn a_process_that_stood_still_for_longer_than_its_tokens_live_catches_up_at_once() {
    let (mut machine, look) = machine();
    let manager = ServiceManager::with_watchdog(&mut machine, Duration::from_secs(1));
    machine.start();
    let paths: Vec<PathBuf> = TENANTS.iter().map(|id| machine.path("tokens/crm").join(id)).collect();
    let readers = Readers::watch(1, &paths, look);

    let idle = stand_still(&machine, &manager);
    tells_that_all_is_well(&machine, &manager);
    // The next time, answers are under way: they come in while nobody takes them, and are too old when somebody does.
    let before = machine.sandbox.totals().calls;
    machine.sandbox.set_latency(Duration::from_millis(400));
    machine.wait_until("calls are under way", |machine| machine.sandbox.totals().calls > before + 2);
    machine.sandbox.set_latency(Duration::ZERO);
    let busy = stand_still(&machine, &manager);
    tells_that_all_is_well(&machine, &manager);

    let seen = readers.finish();
    seen.assert_flawless(&machine.sandbox);
    let busiest = machine.sandbox.totals().busiest_second["client-crm"];
    assert!(busiest <= RATE, "{busiest} calls within a second, {RATE} are allowed");
    assert!(machine.stop().success());
    reliability::leave(
        "a_process_that_stood_still_for_longer_than_its_tokens_live_catches_up_at_once",
        "the daemon is stopped (SIGSTOP) for longer than a token lives, idle and with calls under way",
        "everybody has a new token as soon as the limits allow; one call each; never an older token; heartbeat and status go on",
        &format!(
            "8 tenants at 10/s, 2 stops of {} s: all new after {} ms and {} ms; {busiest} calls in the busiest second; {} reads, 0 faults",
            STOP.as_secs(),
            idle.as_millis(),
            busy.as_millis(),
            seen.reads
        ),
    );
}
