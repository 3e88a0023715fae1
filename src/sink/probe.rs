//! Probes sinks: whether a publication could succeed, without publishing anything.
//!
//! In: sinks, with the tenant to publish for. Out: why a publication would fail, or why that is not known. The work is done on a thread
//! of its own, so that a mount that hangs costs [`TIMEOUT`] once. `corptokend check` is the only user.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::error;
use super::file::{DaemonUser, DirHandle, DirPolicy, DirectoryCache, IfMissing, could_be_made, probe_directory};
use crate::domain::{FileSink, Names, SinkFailure, SinkKind, SinkSpec};
use crate::system::permissions::Role;

/// How long one sink may take: as long as a lane may before it is reported as hanging (decision 0018).
const TIMEOUT: Duration = Duration::from_secs(10);

/// The most places that are given up, since each costs the timeout and a thread. Everything after that is not probed.
const MAX_GIVEN_UP: usize = 8;

/// A sink of a tenant, to be probed.
#[derive(Debug, Clone)]
pub struct ProbeTarget {
    /// The tenant's sinks.
    pub sinks: Arc<[SinkSpec]>,
    /// Which of them.
    pub index: usize,
    /// The tenant's names.
    pub names: Names,
}

/// Why a sink is not known to be usable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeError {
    /// The failure that a publication would meet.
    Failed(SinkFailure),
    /// The sink was not tried, for this reason: it may be usable.
    NotTried(String),
}

/// Probes sinks one after the other. A place ([`SinkSpec::home`]) that does not answer is not probed again.
#[derive(Debug, Default)]
pub struct SinkProbe {
    /// `None` before the first probe, and after one that hung.
    thread: Option<ProbeThread>,
    /// The homes of the sinks that hung.
    given_up: Vec<PathBuf>,
}

/// A thread that probes, and ends when this is dropped, or once the kernel lets it go.
#[derive(Debug)]
struct ProbeThread {
    targets: Sender<Vec<ProbeTarget>>,
    outcomes: Receiver<Result<(), SinkFailure>>,
}

impl ProbeTarget {
    fn spec(&self) -> &SinkSpec {
        &self.sinks[self.index]
    }

    /// What is given up if it hangs: all places of its app, and of no other app that has a directory of its own.
    fn home(&self) -> PathBuf {
        self.spec().home(&self.names.id.app)
    }
}

impl SinkProbe {
    /// Nothing is probed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Probes whether a publication to each of these sinks could succeed. Returns the outcomes in their order.
    ///
    /// For a file: that the fixed part exists (or can be made), that nobody untrusted can write there, and that a file with
    /// the sink's group, mode and owner can be made in the last directory of the path that exists. That file is removed
    /// again, and no directory is made. For a key: that the keyring at which its path starts can be read.
    pub fn run(&mut self, targets: &[ProbeTarget]) -> Vec<Result<(), ProbeError>> {
        let mut outcomes = Vec::with_capacity(targets.len());
        while outcomes.len() < targets.len() {
            if let Err(error) = self.probe(&targets[outcomes.len()..], &mut outcomes) {
                let why = format!("the system has no thread for it ({error})");
                outcomes.resize(targets.len(), Err(ProbeError::NotTried(why)));
            }
        }
        outcomes
    }

    /// Probes targets until one hangs, or makes the thread panic.
    fn probe(&mut self, targets: &[ProbeTarget], outcomes: &mut Vec<Result<(), ProbeError>>) -> io::Result<()> {
        let thread = self.thread.take().map_or_else(ProbeThread::start, Ok)?;
        let to_probe = targets.iter().filter(|target| self.not_probed(target).is_none()).cloned().collect();
        // Should the thread have ended, no outcome comes.
        let _ = thread.targets.send(to_probe);
        for target in targets {
            if let Some(error) = self.not_probed(target) {
                outcomes.push(Err(error));
                continue;
            }
            match thread.outcomes.recv_timeout(TIMEOUT) {
                Ok(outcome) => outcomes.push(outcome.map_err(ProbeError::Failed)),
                Err(RecvTimeoutError::Timeout) => {
                    self.given_up.push(target.home());
                    return Ok(());
                }
                // A defect that this target alone shows.
                Err(RecvTimeoutError::Disconnected) => {
                    outcomes.push(Err(ProbeError::Failed(error::probe_panicked())));
                    return Ok(());
                }
            }
        }
        self.thread = Some(thread);
        Ok(())
    }

    /// Why this target is not probed, if it is not.
    fn not_probed(&self, target: &ProbeTarget) -> Option<ProbeError> {
        let first = self.given_up.first()?;
        let home = target.home();
        if self.given_up.contains(&home) {
            return Some(ProbeError::Failed(error::does_not_answer(&home, TIMEOUT)));
        }
        if let Some(above) = self.given_up.iter().find(|hung| home.starts_with(hung)) {
            return Some(ProbeError::NotTried(format!("{}, above it, does not answer", above.display())));
        }
        let too_many = || format!("too many other places do not answer, such as {}", first.display());
        (self.given_up.len() >= MAX_GIVEN_UP).then(|| ProbeError::NotTried(too_many()))
    }
}

impl ProbeThread {
    fn start() -> io::Result<Self> {
        let (targets, to_probe) = channel::<Vec<ProbeTarget>>();
        let (outcome, outcomes) = channel();
        std::thread::Builder::new().name("probe".into()).spawn(move || {
            let mut prober = Prober::new();
            for target in to_probe.into_iter().flatten() {
                // The receiver may be gone: it gave up on this thread.
                if outcome.send(prober.probe(target.spec(), &target.names)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { targets, outcomes })
    }
}

/// Probes sinks on its thread. Tenants mostly share a directory, so the outcome for each directory is kept.
struct Prober {
    directories: DirectoryCache,
    me: DaemonUser,
    probed: HashMap<(PathBuf, Role, DirPolicy), Result<(), SinkFailure>>,
}

impl Prober {
    fn new() -> Self {
        let me = DaemonUser::current();
        Self { directories: DirectoryCache::new(me, Arc::default()), me, probed: HashMap::new() }
    }

    fn probe(&mut self, spec: &SinkSpec, names: &Names) -> Result<(), SinkFailure> {
        match &spec.kind {
            SinkKind::Keyring(sink) => super::keyring::probe(sink),
            SinkKind::File(sink) => self.probe_file(sink, &sink.place(names)),
        }
    }

    fn probe_file(&mut self, sink: &FileSink, path: &Path) -> Result<(), SinkFailure> {
        let (directory, policy) = (path.parent().unwrap_or(Path::new("/")), DirPolicy::of(sink));
        self.once(directory, Role::Final, policy, |prober| {
            let fixed = sink.fixed_part();
            let Some(last) = prober.last_existing(fixed, directory)? else {
                return could_be_made(fixed, &policy, prober.me);
            };
            if last.path() == directory {
                last.verify(&policy, prober.me)?;
                return probe_directory(&last, sink);
            }
            // The first publication makes the rest of the path.
            prober.once(last.path(), Role::Passage, policy, |prober| {
                last.verify_passage(&policy, prober.me)?;
                probe_directory(&last, sink)
            })
        })
    }

    /// Probes a directory, unless that was done for this role and policy.
    fn once(
        &mut self,
        directory: &Path,
        role: Role,
        policy: DirPolicy,
        probe: impl FnOnce(&mut Self) -> Result<(), SinkFailure>,
    ) -> Result<(), SinkFailure> {
        let key = (directory.to_path_buf(), role, policy);
        if let Some(known) = self.probed.get(&key) {
            return known.clone();
        }
        let outcome = probe(self);
        self.probed.insert(key, outcome.clone());
        outcome
    }

    /// The deepest directory that exists, from `fixed` down to `directory`; `None` if not even `fixed` does.
    fn last_existing(&mut self, fixed: &Path, directory: &Path) -> Result<Option<Rc<DirHandle>>, SinkFailure> {
        for above in directory.ancestors().take_while(|above| above.starts_with(fixed)) {
            if let Some(found) = self.directories.open(fixed, above, IfMissing::Leave)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// The number of the file system that `path` lies on, or will lie on once it is made (`st_dev`): sinks with the same
/// number share a lane.
///
/// # Errors
/// When nothing above `path` can be inspected.
pub fn file_system_of(path: &Path) -> io::Result<u64> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for above in path.ancestors() {
        match above.metadata() {
            Ok(metadata) => return Ok(metadata.dev()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use rustix::time::{ClockId, clock_gettime};

    use super::*;
    use crate::domain::{OnExpiry, SinkFailureKind};

    fn file_at(path: &Path) -> SinkSpec {
        let file = FileSink::with_defaults(path.to_str().unwrap());
        SinkSpec { kind: SinkKind::File(Arc::new(file)), on_expiry: OnExpiry::Keep }
    }

    fn names(app: &str) -> Names {
        Names { id: format!("{app}/ding1").parse().unwrap(), name: None, client_id: "c1".parse().unwrap() }
    }

    fn target(app: &str, path: &str) -> ProbeTarget {
        ProbeTarget { sinks: Arc::new([file_at(Path::new(path))]), index: 0, names: names(app) }
    }

    #[test]
    fn what_is_given_up_is_one_apps_place_and_not_the_directory_above_it() {
        let given_up = vec![PathBuf::from("/srv/crm")];
        let probe = SinkProbe { thread: None, given_up };
        let not_probed = |app, path| probe.not_probed(&target(app, path));
        assert_eq!(not_probed("hr", "/srv/{app}/{corp_id}"), None);
        assert_eq!(not_probed("crm2", "/srv/{app}/{corp_id}"), None);
        let same = not_probed("crm", "/srv/{app}/{corp_id}.2");
        assert!(
            matches!(&same, Some(ProbeError::Failed(failure)) if failure.kind == SinkFailureKind::Hangs),
            "{same:?}"
        );
        let below = not_probed("crm", "/srv/{app}/b/{corp_id}");
        assert!(matches!(&below, Some(ProbeError::NotTried(why)) if why.contains("/srv/crm")), "{below:?}");
    }

    #[test]
    fn a_probe_that_panics_fails_for_its_target_alone_and_is_no_mount_that_hangs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("{corp_id}");
        let target = target("crm", path.to_str().unwrap());
        // What a thread that panicked leaves: nobody listens, and nobody answers.
        let thread = Some(ProbeThread { targets: channel().0, outcomes: channel().1 });
        let mut probe = SinkProbe { thread, given_up: Vec::new() };
        let outcomes = probe.run(&[target.clone(), target]);
        let Err(ProbeError::Failed(failure)) = &outcomes[0] else { panic!("{outcomes:?}") };
        assert!(
            failure.kind == SinkFailureKind::Other && failure.detail.contains("a defect of corptokend"),
            "{failure}"
        );
        assert_eq!(outcomes[1], Ok(()));
    }

    /// The processor time of probing so many sinks of their own in one directory.
    fn time_to_probe(sinks: usize) -> Duration {
        let directory = tempfile::tempdir().unwrap();
        let specs: Vec<SinkSpec> = (0..sinks).map(|n| file_at(&directory.path().join(n.to_string()))).collect();
        let (names, mut prober) = (names("crm"), Prober::new());
        let now = || -> Duration { clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap() };
        let start = now();
        specs.iter().for_each(|spec| prober.probe(spec, &names).unwrap());
        now() - start
    }

    #[test]
    fn twice_as_many_sinks_take_about_twice_as_long_to_probe() {
        let (one, two) = (time_to_probe(4_000), time_to_probe(8_000));
        assert!(two < one * 3, "{one:?} for 4,000, and {two:?} for 8,000");
    }

    #[test]
    fn a_directory_is_written_to_once_however_many_sinks_have_it() {
        let directory = tempfile::tempdir().unwrap();
        let names = names("crm");
        let mut prober = Prober::new();
        let mut probe = |n: usize| {
            for name in [n.to_string(), format!("{n}/token")] {
                prober.probe(&file_at(&directory.path().join(name)), &names).unwrap();
            }
        };
        let modified = || directory.path().metadata().unwrap().modified().unwrap();
        probe(0);
        let after_first = modified();
        (1..100).for_each(&mut probe);
        assert_eq!(modified(), after_first, "nothing more was written there");
    }
}
