//! A daemon whose one tenant has a sink on each of many file systems, each with a fault of its own; one has none, and must
//! not be delayed by the others.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use corptokend::sandbox::Options;

use crate::support::readers::{FileAttributes, Readers, Seen};
use crate::support::system::disk::Tmpfs;
use crate::support::system::syscall_faults::{Fault, Injection};
use crate::support::system::threads::thread_named;
use crate::support::{Machine, wait_until};

pub(crate) const LIFETIME_S: u32 = 4;
/// A token is due after 0.7 ± 0.05 of its life, rounded down to a second, counted from when it was asked for: no two are asked
/// for in less than this.
const NOT_DUE_BEFORE_MS: u64 = 1_600;
/// On a busy machine the first of two calls may arrive that much later than it was sent, and seem too near the second. One that
/// is repeated because something failed comes at once.
const ON_THE_WAY_MS: u64 = 1_000;
/// The longest that a healthy file system may wait for a token, on a busy machine.
const PROMPT: Duration = Duration::from_secs(2);
pub(crate) const TENANT: &str = "ding1";
pub(crate) const TEMPORARY: &str = ".ding1.corptokend-tmp";

/// One file system of the tenant's, with the fault that it will have.
pub(crate) struct SinkCase {
    pub(crate) disk: Tmpfs,
    pub(crate) fault: Option<Fault>,
    pub(crate) file: PathBuf,
}

/// What a fault is to do to.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    Anything,
    Temporary,
    Directory,
}

pub(crate) struct Fixture {
    pub(crate) sinks: Vec<SinkCase>,
    pub(crate) machine: Machine,
    born: Instant,
}

impl Fixture {
    /// A running daemon with one file system for each fault, and one without. `below` is what follows the mount point in
    /// the sinks' paths.
    pub(crate) fn start(faults: Vec<(&'static str, Target, &'static str)>, below: &str) -> Self {
        let options = Options { lifetime_s: LIFETIME_S, issue_log: 10_000, ..Options::default() };
        let machine = Machine::with(options);
        let born = Instant::now();
        let mut sinks = Vec::new();
        let mut text = String::new();
        let faults = faults.into_iter().map(Some).chain([None]);
        for (number, fault) in faults.enumerate() {
            let disk = Tmpfs::mount(&machine.path(&format!("mnt/{number}")), "size=1m,mode=755")
                .expect("root may mount a tmpfs");
            let file = disk.path().join(below.replace("{app}", "crm").replace("{corp_id}", TENANT));
            let fault = fault.map(|(call, target, error)| Fault {
                calls: call.split('+').collect(),
                error,
                when: None,
                on: match target {
                    Target::Anything => None,
                    Target::Temporary => Some(file.with_file_name(TEMPORARY)),
                    Target::Directory => Some(disk.path().to_owned()),
                },
            });
            let path = disk.path().join(below).display().to_string();
            text += &format!("[[app.crm.sink]]\nfile = \"{path}\"\nmode = \"0640\"\nowner = 65534\ngroup = 65534\n");
            sinks.push(SinkCase { disk, fault, file });
        }
        let mut machine = machine.app("crm", &[TENANT], &text);
        machine.start();
        Self { sinks, machine, born }
    }

    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.sinks.iter().map(|sink| sink.file.clone()).collect()
    }

    pub(crate) fn readers(&self) -> Readers {
        Readers::watch(1, &self.files(), FileAttributes { mode: 0o640, uid: 65534, gid: 65534 })
    }

    /// Begins every fault; `when` is as in [`Fault::when`].
    pub(crate) fn inject(&mut self, when: Option<&'static str>) -> Vec<Injection> {
        let machine = &self.machine;
        let faulty = self.sinks.iter().enumerate().filter_map(|(n, sink)| Some((n, sink, sink.fault.clone()?)));
        let begin = |(n, sink, fault): (usize, &SinkCase, Fault)| {
            let thread = thread_named(machine.pid(), &sink.disk.lane());
            Injection::begin(thread, &Fault { when, ..fault }, &machine.path(&format!("strace-{n}")))
        };
        faulty.map(begin).collect()
    }

    /// How often a sink's root is named in events of this name.
    pub(crate) fn said(&self, event: &str, sink: &SinkCase) -> usize {
        let root = sink.disk.path().display().to_string();
        self.machine.events(event).iter().filter(|event| event["root"] == root.as_str()).count()
    }

    pub(crate) fn faulty(&self) -> impl Iterator<Item = &SinkCase> {
        self.sinks.iter().filter(|sink| sink.fault.is_some())
    }

    pub(crate) fn wait_until_each(&self, event: &str) {
        let missing = || -> Vec<_> { self.faulty().filter(|sink| self.said(event, sink) == 0).collect() };
        let report = || format!("missing for {:#?}", missing().into_iter().map(|sink| &sink.fault).collect::<Vec<_>>());
        wait_until(&format!("each has its {event}"), || missing().is_empty(), report);
    }

    /// Waits until all sinks hold the newest token.
    pub(crate) fn wait_until_equal(&self) {
        self.machine.wait_until("all sinks hold the newest token", |machine| {
            let newest = machine.sandbox.issued(TENANT).last().map(|issued| issued.token.clone());
            self.sinks.iter().all(|sink| std::fs::read_to_string(&sink.file).ok() == newest)
        });
    }

    /// Nothing is left but the token file.
    pub(crate) fn assert_no_temporary_files(&self) {
        for sink in &self.sinks {
            let directory = sink.file.parent().unwrap();
            let names: Vec<_> = directory.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, [TENANT], "{:?}", sink.fault);
        }
    }

    /// Nobody asked for a token before it was due.
    pub(crate) fn assert_no_call_repeated(&self) -> usize {
        assert_none_early(&self.machine, TENANT)
    }

    /// The sink without a fault got each token, and at once. Answers with the longest that one took.
    pub(crate) fn assert_prompt(&self, seen: &Seen) -> Duration {
        let healthy = self.sinks.iter().find(|sink| sink.fault.is_none()).unwrap();
        let tokens = &seen.tokens[&healthy.file];
        let first = tokens[0].1.clone();
        let issued = self.machine.sandbox.issued(TENANT);
        let due = issued.iter().skip_while(|issued| issued.token != first).skip(1);
        let mut longest = Duration::ZERO;
        for issued in due {
            let at = tokens.iter().find(|(_, token)| *token == issued.token);
            let (at, _) = at.unwrap_or_else(|| panic!("the healthy sink never had the token of {} ms", issued.at_ms));
            longest = longest.max((*at - self.born).saturating_sub(Duration::from_millis(issued.at_ms)));
        }
        assert!(longest < PROMPT, "a token took {longest:?} to the healthy file system");
        longest
    }
}

/// Asserts that nobody asked for a token of this tenant before it was due. Answers with how many there were.
pub(crate) fn assert_none_early(machine: &Machine, corp_id: &str) -> usize {
    let at: Vec<u64> = machine.sandbox.issued(corp_id).iter().map(|issued| issued.at_ms).collect();
    // Over any number of calls, only the first one's delay counts.
    for (n, first) in at.iter().enumerate() {
        for (later, last) in (1..).zip(&at[n + 1..]) {
            let earliest = first + later * NOT_DUE_BEFORE_MS - ON_THE_WAY_MS;
            assert!(*last >= earliest, "{corp_id}: {later} calls within {} ms: {at:?}", last - first);
        }
    }
    at.len()
}
