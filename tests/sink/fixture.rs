//! A lane to which a test publishes, and the reports that come back from it.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use corptokend::domain::{
    FileSink, Format, KeyringRoot, KeyringSink, Names, OnExpiry, Placeholder, SinkFailure, SinkId, SinkKind, SinkSpec,
    Slot, Template, Ticket, Token, WallMs, WithdrawalId, Wrote,
};
use corptokend::sink::{
    Claims, FileJob, KeyJob, Lane, LaneReport, ProbeError, ProbeTarget, Publication, RemovalCause, SinkProbe, Stopped,
};
use zeroize::Zeroizing;

use crate::support::{NOBODY, PATIENCE, has, is_root, shown, system_allows};

/// When every token of these tests expires.
pub const EXPIRES: WallMs = WallMs(4_000_000_000_000);

pub struct TestLane {
    pub inner: AnyLane,
    reports: Receiver<Vec<LaneReport>>,
    backlog: VecDeque<LaneReport>,
    /// The roots below which a flood began, as reported between all others.
    pub floods: Vec<PathBuf>,
}

/// A lane of either kind.
pub enum AnyLane {
    Files(Lane<FileJob>),
    Keys(Lane<KeyJob>),
}

/// A job of either kind.
#[derive(Debug)]
pub enum Job {
    File(FileJob),
    Key(KeyJob),
}

impl AnyLane {
    /// Sends jobs, each of the kind that the lane takes.
    pub fn send(&self, jobs: Vec<Job>) {
        let jobs = jobs.into_iter();
        match self {
            Self::Files(lane) => lane.send(
                jobs.map(|job| if let Job::File(job) = job { job } else { panic!("{job:?} for files") }).collect(),
            ),
            Self::Keys(lane) => lane
                .send(jobs.map(|job| if let Job::Key(job) = job { job } else { panic!("{job:?} for keys") }).collect()),
        }
    }

    pub fn unwatched(&self) -> usize {
        let Self::Files(lane) = self else { return 0 };
        lane.unwatched()
    }

    pub fn is_alive(&self) -> bool {
        match self {
            Self::Files(lane) => lane.is_alive(),
            Self::Keys(lane) => lane.is_alive(),
        }
    }

    fn stop(self, patience: Duration) -> Stopped {
        match self {
            Self::Files(lane) => lane.stop(patience),
            Self::Keys(lane) => lane.stop(patience),
        }
    }
}

impl TestLane {
    pub fn files() -> Self {
        Self::named("files")
    }

    /// As [`TestLane::files`]; the lane's thread has this name.
    pub fn named(name: &str) -> Self {
        Self::with(|report| Lane::files(name, Arc::default(), report).map(AnyLane::Files))
    }

    /// A lane that has its claims in common with others.
    pub fn sharing(claims: &Arc<Claims>) -> Self {
        Self::with(|report| Lane::files("files", Arc::clone(claims), report).map(AnyLane::Files))
    }

    pub fn keys(clock: impl Fn() -> WallMs + Send + 'static) -> Self {
        Self::with(|report| Lane::keyring(clock, report).map(AnyLane::Keys))
    }

    fn with(start: impl FnOnce(Box<dyn Fn(Vec<LaneReport>) + Send>) -> std::io::Result<AnyLane>) -> Self {
        let (sender, reports) = channel();
        let inner = start(Box::new(move |batch| drop(sender.send(batch)))).unwrap();
        Self { inner, reports, backlog: VecDeque::new(), floods: Vec::new() }
    }

    /// Publishes one token and waits for the outcome.
    pub fn publish(&mut self, spec: &SinkSpec, corp_id: &str, token: &str) -> Result<Wrote, SinkFailure> {
        self.inner.send(vec![publication(0, spec, corp_id, token)]);
        self.outcome()
    }

    pub fn publish_until(
        &mut self,
        spec: &SinkSpec,
        corp_id: &str,
        token: &str,
        expires: WallMs,
    ) -> Result<Wrote, SinkFailure> {
        self.inner.send(vec![publication_until(0, spec, corp_id, token, expires)]);
        self.outcome()
    }

    pub fn outcome(&mut self) -> Result<Wrote, SinkFailure> {
        loop {
            if let LaneReport::Published { outcome, .. } = self.next(PATIENCE).expect("the lane reports in time") {
                return outcome;
            }
        }
    }

    pub fn withdraw(&mut self, spec: &SinkSpec, corp_id: &str) -> Result<(), SinkFailure> {
        let (cause, names) = (RemovalCause::Withdrawn(WithdrawalId(0)), names(corp_id));
        self.inner.send(vec![match &spec.kind {
            SinkKind::File(file) => {
                Job::File(FileJob::Remove { cause, path: file.place(&names), fixed: file.fixed_part().into() })
            }
            SinkKind::Keyring(keyring) => Job::Key(KeyJob::Remove { cause, key: keyring.place(&names) }),
        }]);
        loop {
            if let LaneReport::Removed { outcome, .. } = self.next(PATIENCE).expect("the lane reports in time") {
                return outcome;
            }
        }
    }

    /// The slot of the next place that drifted, if one is reported in time.
    pub fn drifted(&mut self, within: Duration) -> Option<u32> {
        match self.next(within)? {
            LaneReport::Drifted { ticket, .. } => Some(ticket.slot.0),
            other => panic!("{other:?}"),
        }
    }

    pub fn next(&mut self, within: Duration) -> Option<LaneReport> {
        if self.backlog.is_empty() {
            self.backlog.extend(self.reports.recv_timeout(within).ok()?);
        }
        let report = self.backlog.pop_front();
        if let Some(LaneReport::FloodBegins { root, .. }) = &report {
            self.floods.push(root.to_path_buf());
        }
        report
    }

    pub fn stop(self) -> Stopped {
        self.inner.stop(PATIENCE)
    }
}

pub fn names(corp_id: &str) -> Names {
    Names { id: format!("crm/{corp_id}").parse().unwrap(), name: None, client_id: "c1".parse().unwrap() }
}

/// Tries a sink for the tenant `ding1`, and publishes nothing.
pub fn probe(spec: &SinkSpec) -> Result<(), SinkFailure> {
    let target = ProbeTarget { sinks: Arc::new([spec.clone()]), index: 0, names: names("ding1") };
    SinkProbe::new().run(&[target]).remove(0).map_err(|error| match error {
        ProbeError::Failed(failure) => failure,
        ProbeError::NotTried(why) => panic!("it was not tried: {why}"),
    })
}

pub fn publication(slot: u32, spec: &SinkSpec, corp_id: &str, token: &str) -> Job {
    publication_until(slot, spec, corp_id, token, EXPIRES)
}

fn publication_until(slot: u32, spec: &SinkSpec, corp_id: &str, token: &str, expires_at: WallMs) -> Job {
    let (ticket, sink) = (Ticket { slot: Slot(slot), seq: 1 }, SinkId(0));
    let (names, token) = (names(corp_id), Token::new(Zeroizing::new(token.to_owned())).unwrap());
    match &spec.kind {
        SinkKind::File(file) => {
            let spec = Arc::clone(file);
            Job::File(FileJob::Publish(Publication { ticket, sink, spec, names, token, expires_at }))
        }
        SinkKind::Keyring(keyring) => {
            let (spec, on_expiry) = (Arc::clone(keyring), spec.on_expiry);
            let publication = Publication { ticket, sink, spec, names, token, expires_at };
            Job::Key(KeyJob::Publish { publication, on_expiry })
        }
    }
}

/// Publishes `t-1` as the tenant in `slot`.
pub fn publish_as(lane: &mut TestLane, slot: u32, spec: &SinkSpec, corp_id: &str) -> Wrote {
    lane.inner.send(vec![publication(slot, spec, corp_id, "t-1")]);
    lane.outcome().unwrap()
}

/// A sink at `path`, 0640, with the daemon's user and group; `change` makes it another one.
pub fn file_at(path: impl AsRef<Path>, change: impl FnOnce(&mut FileSink)) -> SinkSpec {
    let mut file = FileSink {
        path: Template::parse(path.as_ref().to_str().unwrap(), Placeholder::IN_PATHS).unwrap(),
        format: Format::Raw,
        mode: 0o640,
        dir_mode: 0o750,
        owner: None,
        group: None,
        trust_dir: false,
    };
    change(&mut file);
    SinkSpec { kind: SinkKind::File(file.into()), on_expiry: OnExpiry::Keep }
}

pub fn key_at(root: KeyringRoot, path: &[&str], on_expiry: OnExpiry) -> SinkSpec {
    let path = path.iter().map(|part| Template::parse(part, Placeholder::IN_PATHS).unwrap()).collect();
    SinkSpec { kind: SinkKind::Keyring(KeyringSink { root, path }.into()), on_expiry }
}

/// Runs `body` as an unprivileged user, in a copy of this test binary. `test` is the calling test's own name.
pub fn as_nobody(test: &str, body: impl FnOnce()) {
    under_setpriv(test, &[&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups"], body);
}

/// Runs `body` as root without this capability, in a copy of this test binary.
pub fn without_capability(test: &str, capability: &str, body: impl FnOnce()) {
    under_setpriv(test, &[&format!("--bounding-set=-{capability}"), &format!("--inh-caps=-{capability}")], body);
}

fn under_setpriv(test: &str, arguments: &[&str], body: impl FnOnce()) {
    const MARK: &str = "CORPTOKEND_TEST_AS_NOBODY";
    if std::env::var_os(MARK).is_some_and(|inner| inner == test) {
        return body();
    }
    if !system_allows("root, to become somebody else, and setpriv", is_root() && has("setpriv")) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    rustix::fs::chmod(scratch.path(), 0o755.into()).unwrap();
    let binary = scratch.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    let ran = Command::new("setpriv")
        .args(arguments)
        .arg(&binary)
        .args(["--exact", test, "--nocapture"])
        .env(MARK, test)
        .current_dir("/")
        .output()
        .unwrap();
    let said = shown(&ran);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}
