//! Whoever ought to listen to the daemon stands still: the reader of its log, and systemd.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use corptokend::domain::{LogFormat, LogLevel};
use corptokend::sandbox::Options;

use crate::ends_when_told_to;
use crate::support::{Killed, Machine, PATIENCE, wait_until};

/// A machine whose tokens live so short that they are renewed while a test looks on.
fn short_lived() -> Machine {
    Machine::with(Options { lifetime_s: 4, ..Options::default() })
}

/// A pipe that holds as much as it can, with the machine's path to it. Nobody reads it before the test does.
fn full_pipe(machine: &Machine) -> (File, String) {
    let path = machine.path("stderr");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    // Both ends, so that it has a reader; non-blocking, so that filling it ends.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut pipe = OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open(&path).unwrap();
    while pipe.write(b"\n").is_ok() {}
    (pipe, path.display().to_string())
}

/// Waits until the tenant's token was renewed this often.
#[track_caller]
fn is_renewed(machine: &Machine, times: usize) {
    let before = machine.sandbox.issued("ding1").len();
    machine.wait_until("tokens are renewed", |machine| machine.sandbox.issued("ding1").len() >= before + times);
    machine.wait_until("the last one is published", |machine| machine.holds_newest("crm", "ding1"));
}

#[test]
fn a_log_that_nobody_reads_holds_nothing_up_and_is_complete_once_it_is_read() {
    let mut machine = short_lived().app("crm", &["ding1"], "");
    let (mut pipe, path) = full_pipe(&machine);
    machine.launch_under(&["sh", "-c", &format!("exec \"$@\" 2>{path}"), "sh"]);
    machine.wait_until_ready();
    is_renewed(&machine, 2);
    machine.wait_until("status says so", |machine| {
        let warnings = machine.status_json()["warnings"].to_string();
        warnings.contains("nobody reads the log")
    });
    assert_eq!(machine.status_json()["log_lines_lost"], 0);
    // Now somebody reads, and everything is there, in order, from the start on.
    let mut text = String::new();
    let read_on = || {
        let mut some = [0; 4096];
        while let Ok(length) = pipe.read(&mut some) {
            text.push_str(&String::from_utf8_lossy(&some[..length]));
        }
        text.contains("\"ready\"") && text.matches("\"rotated\"").count() >= 3
    };
    wait_until("the log is complete", read_on, || machine.log());
    assert!(text.find("\"rotated\"") < text.find("\"ready\""), "{text}");
    machine
        .wait_until("status no longer says so", |machine| machine.status_json()["warnings"] == serde_json::json!([]));
    ends_when_told_to(&mut machine);
}

#[test]
fn a_daemon_whose_log_nobody_reads_ends_when_it_is_told_to() {
    let mut machine = short_lived().app("crm", &["ding1"], "");
    let (_pipe, path) = full_pipe(&machine);
    machine.launch_under(&["sh", "-c", &format!("exec \"$@\" 2>{path}"), "sh"]);
    machine.wait_until_ready();
    ends_when_told_to(&mut machine);
}

#[test]
fn a_systemd_that_stands_still_holds_nothing_up_and_hears_of_it_later() {
    let mut machine = short_lived().app("crm", &["ding1"], "");
    let path = machine.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"FULL=1", &path).is_ok() {}
    machine.env("NOTIFY_SOCKET", path.to_str().unwrap());
    machine.env("WATCHDOG_USEC", "1000000");
    machine.start();
    is_renewed(&machine, 2);
    // It goes on, and hears what it missed.
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut missing = vec!["READY=1", "STATUS=", "WATCHDOG=1"];
    let mut buffer = [0; 4096];
    while !missing.is_empty() {
        let length = manager.recv(&mut buffer).expect("it is reported");
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        missing.retain(|awaited| !text.starts_with(awaited));
    }
    drop(manager);
    ends_when_told_to(&mut machine);
}

const PART_ENV: &str = "CORPTOKEND_TEST_PANICS";

/// The other process's half of the next test; does nothing when it is run by itself.
#[test]
fn as_a_process_that_panics() {
    if std::env::var_os(PART_ENV).is_none() {
        return;
    }
    corptokend::system::process::discreet_panics();
    corptokend::system::log::init(LogFormat::Json, LogLevel::Info);
    let panicked = std::thread::spawn(|| panic!("{}", "canary-in-a-panic")).join();
    corptokend::system::log::flush();
    std::process::exit(if panicked.is_err() { 3 } else { 4 });
}

#[test]
fn a_panic_is_reported_in_the_log_and_waits_for_nobody_who_ought_to_read_it() {
    let machine = Machine::new();
    let (_pipe, path) = full_pipe(&machine);
    let child = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "stalled_readers::as_a_process_that_panics", "--nocapture"]).env(PART_ENV, "1");
        command.stdout(Stdio::null());
        command
    };
    let read = child().stderr(Stdio::piped()).output().unwrap();
    let lines = String::from_utf8(read.stderr).unwrap();
    let events = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let reported: Vec<_> = events.filter(|event| event["event"] == "panicked").collect();
    assert_eq!((read.status.code(), reported.len()), (Some(3), 1), "{lines}");
    assert!(
        reported[0]["message"].as_str().unwrap().contains("stalled_readers.rs") && !lines.contains("canary"),
        "{lines}"
    );
    let unread = OpenOptions::new().write(true).open(path).unwrap();
    let mut process = Killed(child().stderr(unread).spawn().unwrap());
    let mut code = None;
    let ended = || {
        code = process.0.try_wait().unwrap().map(|status| status.code());
        code.is_some()
    };
    wait_until("the process ends", ended, String::new);
    assert_eq!(code, Some(Some(3)));
}
