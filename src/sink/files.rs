//! What a lane for files works with.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use rustix::fd::BorrowedFd;

use super::directory::{Directories, Directory, Me};
use super::lane::{Shared, Work};
use super::render::render;
use super::{Job, Publication, Report, file};
use crate::domain::{Place, SinkFailure, SinkFailureKind, SinkKind, Wrote};

/// The state of a lane for files.
pub(super) struct Files {
    me: Me,
    directories: Directories,
    #[expect(dead_code, reason = "the watch counts there")]
    shared: Arc<Shared>,
}

/// A report that must not be given out before a directory is synced.
struct Pending {
    report: Report,
    directory: Option<Rc<Directory>>,
}

impl Files {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let me = Me::current();
        Self { me, directories: Directories::new(me), shared }
    }

    fn publish(&mut self, job: Publication) -> Pending {
        let (outcome, directory) = match self.try_publish(&job) {
            Ok((wrote, directory)) => (Ok(wrote), Some(directory)),
            Err(failure) => (Err(failure), None),
        };
        Pending { report: Report::Published { ticket: job.ticket, sink: job.sink, outcome }, directory }
    }

    fn try_publish(&mut self, job: &Publication) -> Result<(Wrote, Rc<Directory>), SinkFailure> {
        let spec = job.specs.get(usize::from(job.sink.0)).ok_or_else(|| not_a_file("a sink that does not exist"))?;
        let (SinkKind::File(sink), Place::File(path)) = (&spec.kind, spec.place(&job.names)) else {
            return Err(not_a_file("a keyring"));
        };
        let bytes = render(&sink.format, &job.names, &job.token, job.expires);
        let outcome = file::publish(&mut self.directories, self.me, sink, &path, &bytes)?;
        Ok((outcome.wrote, outcome.directory))
    }

    fn withdraw(&mut self, fixed: &Path, place: &Place) -> Result<(), SinkFailure> {
        match place {
            Place::File(path) => file::withdraw(&mut self.directories, self.me, fixed, path),
            Place::Key { .. } => Err(not_a_file("a keyring")),
        }
    }
}

impl Work for Files {
    fn work(&mut self, jobs: &mut dyn Iterator<Item = Job>) -> Vec<Report> {
        self.directories.begin_batch();
        let pending: Vec<Pending> = jobs
            .map(|job| match job {
                Job::Publish(publication) => self.publish(publication),
                Job::Withdraw { root, place, fixed } => {
                    let outcome = self.withdraw(&fixed, &place);
                    Pending { report: Report::Withdrawn { root, place, outcome }, directory: None }
                }
            })
            .collect();
        let unsynced = self.directories.sync();
        pending.into_iter().map(|pending| pending.settle(&unsynced)).collect()
    }

    fn wake_on(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    fn look_around(&mut self) -> Vec<Report> {
        Vec::new()
    }
}

impl Pending {
    /// What could not be synced has not been published.
    fn settle(mut self, unsynced: &[(Rc<Directory>, SinkFailure)]) -> Report {
        if let (Report::Published { outcome, .. }, Some(directory)) = (&mut self.report, &self.directory)
            && let Some((_, failure)) = unsynced.iter().find(|(failed, _)| directory.is_at_or_below(failed))
        {
            *outcome = Err(failure.clone());
        }
        self.report
    }
}

/// A job that belongs to another lane: a defect of the daemon, said rather than hidden.
fn not_a_file(what: &str) -> SinkFailure {
    SinkFailure {
        kind: SinkFailureKind::Other,
        detail: format!("a lane for files was sent {what}; this is a defect of the daemon").into(),
    }
}
