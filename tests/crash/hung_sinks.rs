//! A sink whose file system hangs in the kernel.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use corptokend::sandbox::{Options, sequence_of};

use crate::support::Machine;
use crate::support::figures as row;
use crate::support::readers::{Probe, Readers};
use crate::support::system::syscall_faults::thread_named;
use crate::{needs, succeeds};

const LIFETIME_S: u32 = 4;
const TENANT: &str = "ding1";
/// How long the daemon may take to stop.
const STOP: Duration = Duration::from_secs(10);

/// An ext4 file system in a file.
pub(crate) struct Disk(PathBuf);

impl Disk {
    pub(crate) fn mount(image: &Path, at: &Path) -> Option<Self> {
        fs::File::create(image).unwrap().set_len(8 << 20).unwrap();
        fs::create_dir_all(at).unwrap();
        let [image, text] = [image, at].map(|path| path.to_str().unwrap());
        let mounted = succeeds("mkfs.ext4", &["-q", image]) && succeeds("mount", &["-o", "loop", image, text]);
        let there =
            needs("root, mkfs.ext4, loop devices and fsfreeze", mounted && succeeds("fsfreeze", &["--version"]));
        there.then(|| Self(at.to_owned()))
    }

    /// From here on, whoever writes hangs.
    pub(crate) fn freeze(&self) {
        assert!(succeeds("fsfreeze", &["-f", self.0.to_str().unwrap()]));
    }

    pub(crate) fn thaw(&self) -> bool {
        succeeds("fsfreeze", &["-u", self.0.to_str().unwrap()])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.thaw();
        succeeds("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

/// The state letter of a thread: proc_pid_stat(5).
pub(crate) fn state_of(path: &str) -> Option<char> {
    fs::read_to_string(path).ok()?.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn a_sink_that_hangs_is_told_of_while_it_does() {
    let machine = Machine::new();
    let dir = machine.dir.path().display().to_string();
    let sink = |app: &str, below: &str| format!("[[app.{app}.sink]]\nfile = \"{dir}/{below}/{{corp_id}}\"\n");
    let machine = machine.app("crm", &[TENANT], &sink("crm", "disk"));
    let mut machine = machine.app("hr", &[TENANT], &sink("hr", "tokens"));
    let Some(disk) = Disk::mount(&machine.path("image"), &machine.path("disk")) else { return };
    machine.start();
    let right = ["disk", "tokens"].map(|below| machine.read(&format!("{below}/{TENANT}")));
    disk.freeze();
    let frozen = Instant::now();
    // Nobody can write there, so that somebody asks for a publication: the same token in another place.
    machine.edit(&format!("{dir}/disk/{{corp_id}}"), &format!("{dir}/disk/{{corp_id}}.token"));
    machine.wait_until("it is told", |machine| machine.events("lane_hangs").len() == 1);
    let took = frozen.elapsed();
    let told = &machine.events("lane_hangs")[0];
    assert!(told["kind"] == "hangs" && told["roots"] == format!("{dir}/disk"), "{told}");
    let row = machine.tenant_json(&format!("crm/{TENANT}"));
    let sink = &row["sinks"][0];
    assert!(sink["state"] == "failing" && sink["error"].to_string().contains("from the kernel"), "{row}");
    assert!(machine.status_json()["warnings"].to_string().contains("from the kernel"));
    // The others neither wait nor are told of.
    fs::remove_file(machine.path("tokens/ding1")).unwrap();
    let begun = Instant::now();
    machine.wait_until("the other file is restored", |machine| machine.read("tokens/ding1") == right[1]);
    let other = begun.elapsed();
    assert!(other < Duration::from_secs(3), "it took {other:?}");
    assert_eq!(machine.tenant_json(&format!("hr/{TENANT}"))["sinks"][0]["state"], "published");
    assert!(disk.thaw());
    machine.wait_until("it is told that it goes on", |machine| machine.events("lane_moves").len() == 1);
    machine.wait_until("the token is there", |machine| machine.read("disk/ding1.token") == right[0]);
    assert_eq!(machine.status_json()["warnings"].to_string(), "[]");
    assert_eq!(machine.events("lane_hangs").len(), 1, "said once");
    assert!(machine.stop().success());
    row::leave(
        "a_sink_that_hangs_is_told_of_while_it_does",
        "a sink's file system hangs, seen from the log and the status",
        "told once after 10 s, with the paths that it is about; shown until it moves; other sinks are published as ever",
        &format!(
            "told {} ms after it began to hang; another file was restored within {} ms",
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
    let Some(disk) = Disk::mount(&machine.path("image"), &machine.path("srv/crm")) else { return };
    let moved = Instant::now();
    machine.wait_until("it is noticed", |machine| machine.events("sink_moved").len() == 1);
    let noticed = moved.elapsed();
    assert_eq!(machine.events("sink_moved")[0]["home"], format!("{dir}/srv/crm"));
    let lane = thread_named(machine.pid(), &format!("files-{:x}", fs::metadata(&disk.0).unwrap().dev()));
    disk.freeze();
    let stuck = format!("/proc/{}/task/{lane}/stat", machine.pid());
    machine.wait_until("the lane hangs in the kernel", |_| state_of(&stuck) == Some('D'));
    let sequence = |machine: &Machine| machine.read(&format!("srv/hr/{TENANT}")).as_deref().and_then(sequence_of);
    let before = sequence(&machine).unwrap();
    machine.wait_until("the neighbour goes on", |machine| sequence(machine) >= Some(before + 3));
    assert_eq!(state_of(&stuck), Some('D'), "it hangs still");
    machine.wait_until("it is told", |machine| machine.events("lane_hangs").len() == 1);
    assert_eq!(machine.events("lane_hangs")[0]["roots"], format!("{dir}/srv/crm"), "and of nothing else");
    assert!(disk.thaw());
    machine.wait_until("it goes on", |machine| machine.events("lane_moves").len() == 1);
    assert!(machine.stop().success());
    row::leave(
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
    let Some(disk) = Disk::mount(&machine.path("image"), &machine.path("disk")) else { return };
    machine.start();
    let lane = format!("files-{:x}", fs::metadata(&disk.0).unwrap().dev());
    let thread = thread_named(machine.pid(), &lane);
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let frozen = machine.path("disk/ding1");
    let paths = [frozen.clone(), machine.path("tokens/crm/ding1")];
    let readers = Readers::watch(1, &paths, Probe { mode: 0o640, uid, gid });

    disk.freeze();
    let stuck = format!("/proc/{}/task/{thread}/stat", machine.pid());
    machine.wait_until("the lane hangs in the kernel", |_| state_of(&stuck) == Some('D'));
    let sequence = |machine: &Machine| machine.token("crm", TENANT).as_deref().and_then(sequence_of);
    let before = sequence(&machine);
    machine.wait_until("the other sink goes on", |machine| sequence(machine) >= before.map(|before| before + 3));
    assert_eq!(state_of(&stuck), Some('D'), "it hangs still");
    assert_eq!(machine.status_json()["ready"], true, "the daemon answers");
    let gaps = machine.sandbox.issued(TENANT).windows(2).map(|pair| pair[1].at_ms - pair[0].at_ms).min();
    assert!(gaps >= Some(1_200), "called again after {gaps:?} ms");

    // A thread that cannot be interrupted keeps the process from being reaped, whatever the daemon does. What it can do
    // is end itself: then all that is left of it is a zombie.
    let (main, asked) = (format!("/proc/{}/stat", machine.pid()), Instant::now());
    machine.signal("TERM");
    machine.wait_until("the daemon has ended", |_| state_of(&main).is_none_or(|state| state == 'Z'));
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
    let names: Vec<_> = fs::read_dir(&disk.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| name == TENANT || name == "lost+found"), "{names:?}");
    row::leave(
        "a_sink_that_hangs_delays_no_other_and_not_the_end",
        "a sink's file system hangs in the kernel (ext4, frozen)",
        "other sinks go on; the daemon answers; SIGTERM ends it within 10 s; the old file is whole; the next start catches up",
        &format!("3 rotations beside a lane in state D; ended after {} ms", took.as_millis()),
    );
}
