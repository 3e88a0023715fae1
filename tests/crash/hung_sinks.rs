//! A sink whose file system hangs in the kernel.

use std::fs;
use std::time::{Duration, Instant};

use corptokend::sandbox::{Options, sequence_of};

use crate::support::readers::{FileAttributes, Readers};
use crate::support::reliability;
use crate::support::system::disk::FreezableDisk;
use crate::support::system::threads::{has_ended, state_of, thread_named};
use crate::support::{Machine, wait_soon};

const LIFETIME_S: u32 = 4;
const TENANT: &str = "ding1";
/// How long the daemon may take to stop.
const STOP: Duration = Duration::from_secs(10);

#[test]
fn a_sink_that_hangs_is_reported_while_it_does() {
    let machine = Machine::new();
    let dir = machine.dir.path().display().to_string();
    let sink = |app: &str, below: &str| format!("[[app.{app}.sink]]\nfile = \"{dir}/{below}/{{corp_id}}\"\n");
    let machine = machine.app("crm", &[TENANT], &sink("crm", "disk"));
    let mut machine = machine.app("hr", &[TENANT], &sink("hr", "tokens"));
    let Some(disk) = FreezableDisk::mount(&machine.path("image"), &machine.path("disk")) else { return };
    machine.start();
    let right = ["disk", "tokens"].map(|below| machine.read(&format!("{below}/{TENANT}")));
    disk.freeze();
    let frozen = Instant::now();
    // Nobody can write there, so that somebody asks for a publication: the same token in another place.
    machine.edit(&format!("{dir}/disk/{{corp_id}}"), &format!("{dir}/disk/{{corp_id}}.token"));
    machine.wait_until("it is reported", |machine| machine.events("lane_hangs").len() == 1);
    let took = frozen.elapsed();
    let reported = &machine.events("lane_hangs")[0];
    assert!(reported["kind"] == "hangs" && reported["roots"] == format!("{dir}/disk"), "{reported}");
    let row = machine.tenant_json(&format!("crm/{TENANT}"));
    let sink = &row["sinks"][0];
    assert!(sink["state"] == "failing" && sink["error"].to_string().contains("from the kernel"), "{row}");
    assert!(machine.status_json()["warnings"].to_string().contains("from the kernel"));
    // The others neither wait nor are reported.
    fs::remove_file(machine.path("tokens/ding1")).unwrap();
    let is_restored = || machine.read("tokens/ding1") == right[1];
    let other = wait_soon("the other file is restored", Duration::from_secs(3), is_restored);
    assert_eq!(machine.tenant_json(&format!("hr/{TENANT}"))["sinks"][0]["state"], "published");
    assert!(disk.thaw());
    machine.wait_until("it is reported that it goes on", |machine| machine.events("lane_moves").len() == 1);
    machine.wait_until("the token is there", |machine| machine.read("disk/ding1.token") == right[0]);
    assert_eq!(machine.status_json()["warnings"].to_string(), "[]");
    assert_eq!(machine.events("lane_hangs").len(), 1, "said once");
    assert!(machine.stop().success());
    reliability::leave(
        "a_sink_that_hangs_is_reported_while_it_does",
        "a sink's file system hangs, seen from the log and the status",
        "reported once after 10 s, with the paths that it is about; shown until it moves; other sinks are published as ever",
        &format!(
            "reported {} ms after it began to hang; another file was restored within {} ms",
            took.as_millis(),
            other.as_millis()
        ),
    );
}

#[test]
fn a_file_system_that_is_mounted_later_hangs_without_its_former_neighbours() {
    let options = Options { lifetime_s: LIFETIME_S, issue_log: 1000, ..Options::default() };
    let machine = Machine::with(options);
    let dir = machine.dir.path().display().to_string();
    let sink = |app: &str| format!("[[app.{app}.sink]]\nfile = \"{dir}/srv/{{app}}/{{corp_id}}\"\n");
    let mut machine = machine.app("crm", &[TENANT], &sink("crm")).app("hr", &[TENANT], &sink("hr"));
    fs::create_dir(machine.path("srv")).unwrap();
    machine.start();
    let Some(disk) = FreezableDisk::mount(&machine.path("image"), &machine.path("srv/crm")) else { return };
    let moved = Instant::now();
    machine.wait_until("it is noticed", |machine| machine.events("sink_moved").len() == 1);
    let noticed = moved.elapsed();
    assert_eq!(machine.events("sink_moved")[0]["home"], format!("{dir}/srv/crm"));
    let lane = thread_named(machine.pid(), &disk.lane());
    disk.freeze();
    let hangs = |machine: &Machine| state_of(machine.pid(), lane) == Some('D');
    machine.wait_until("the lane hangs in the kernel", hangs);
    let sequence = |machine: &Machine| machine.read(&format!("srv/hr/{TENANT}")).as_deref().and_then(sequence_of);
    let before = sequence(&machine).unwrap();
    machine.wait_until("the neighbour goes on", |machine| sequence(machine) >= Some(before + 3));
    assert!(hangs(&machine), "it hangs still");
    machine.wait_until("it is reported", |machine| machine.events("lane_hangs").len() == 1);
    assert_eq!(machine.events("lane_hangs")[0]["roots"], format!("{dir}/srv/crm"), "and of nothing else");
    assert!(disk.thaw());
    machine.wait_until("it goes on", |machine| machine.events("lane_moves").len() == 1);
    assert!(machine.stop().success());
    reliability::leave(
        "a_file_system_that_is_mounted_later_hangs_without_its_former_neighbours",
        "a file system is mounted below a sink's root while the daemon runs, and hangs later",
        "the next publication there moves it to a lane of its own; other apps of the root are published as ever",
        &format!("noticed {} ms after it was mounted; 3 rotations beside a lane in state D", noticed.as_millis()),
    );
}

#[test]
fn a_sink_that_hangs_delays_no_other_and_not_the_end() {
    let options = Options { lifetime_s: LIFETIME_S, issue_log: 1000, ..Options::default() };
    let machine = Machine::with(options);
    let sinks = format!(
        "[[app.crm.sink]]\nfile = \"{0}/disk/{{corp_id}}\"\n[[app.crm.sink]]\nfile = \"{0}/tokens/crm/{{corp_id}}\"\n",
        machine.dir.path().display()
    );
    let mut machine = machine.app("crm", &[TENANT], &sinks);
    // Behind the machine, so that it is thawed before the daemon is waited for, whatever happens.
    let Some(disk) = FreezableDisk::mount(&machine.path("image"), &machine.path("disk")) else { return };
    machine.start();
    let lane = thread_named(machine.pid(), &disk.lane());
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let frozen = machine.path("disk/ding1");
    let paths = [frozen.clone(), machine.path("tokens/crm/ding1")];
    let readers = Readers::watch(1, &paths, FileAttributes { mode: 0o640, uid, gid });

    disk.freeze();
    let hangs = |machine: &Machine| state_of(machine.pid(), lane) == Some('D');
    machine.wait_until("the lane hangs in the kernel", hangs);
    let sequence = |machine: &Machine| machine.sequence("crm", TENANT);
    let before = sequence(&machine);
    machine.wait_until("the other sink goes on", |machine| sequence(machine) >= before.map(|before| before + 3));
    assert!(hangs(&machine), "it hangs still");
    assert_eq!(machine.status_json()["ready"], true, "the daemon answers");
    let gaps = machine.sandbox.issued(TENANT).windows(2).map(|pair| pair[1].at_ms - pair[0].at_ms).min();
    assert!(gaps >= Some(1_200), "called again after {gaps:?} ms");

    // A thread that cannot be interrupted keeps the process from being reaped, whatever the daemon does. What it can do
    // is end itself: then all that is left of it is a zombie.
    let asked = Instant::now();
    machine.signal("TERM");
    machine.wait_until("the daemon has ended", |machine| has_ended(machine.pid()));
    let took = asked.elapsed();
    assert!(took < STOP, "it took {took:?}");
    assert_eq!(machine.events("lane_abandoned").len(), 1);
    assert!(!machine.path("run/control.sock").exists());
    assert!(sequence_of(&fs::read_to_string(&frozen).unwrap()).is_some(), "the old file is whole");
    assert!(disk.thaw());
    machine.exit();

    // The next start catches up, without a call for it.
    machine.sandbox.set_lifetime_s(7200);
    machine.start();
    machine.wait_until("both sinks hold the newest token", |machine| {
        let newest = machine.sandbox.issued(TENANT).last().map(|issued| issued.token.clone());
        paths.iter().all(|path| fs::read_to_string(path).ok() == newest)
    });
    assert!(machine.stop().success());
    readers.finish().assert_flawless(&machine.sandbox);
    let names: Vec<_> = fs::read_dir(machine.path("disk")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| name == TENANT || name == "lost+found"), "{names:?}");
    reliability::leave(
        "a_sink_that_hangs_delays_no_other_and_not_the_end",
        "a sink's file system hangs in the kernel (ext4, frozen)",
        "other sinks go on; the daemon answers; SIGTERM ends it within 10 s; the old file is whole; the next start catches up",
        &format!("3 rotations beside a lane in state D; ended after {} ms", took.as_millis()),
    );
}
