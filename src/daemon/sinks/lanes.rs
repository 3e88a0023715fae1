//! The threads that publish, a lane each: what gathers for them in a turn, and how much each is sent ahead.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::publication_window::PublicationWindow;
use crate::domain::{BootMs, LaneId};
use crate::sink::{Claims, FileJob, KeyJob, Lane, LaneReport, Stopped};
use crate::system::clock;

/// How many lanes there are at most for file systems; further ones share them.
const MOST_FILE_SYSTEMS: usize = 64;
/// And how many for what could not be looked at. A mount that is dead may have the directories of a thousand apps.
pub(super) const MOST_UNSEEN: usize = 16;
/// The lane of the kernel's keyrings. The thread starts with its first sink.
const KEYRINGS: LaneId = LaneId(0);

/// Takes what a lane reports, on the lane's thread.
pub(crate) type ReportTo = Arc<dyn Fn(LaneId, Vec<LaneReport>) + Send + Sync>;

/// What a lane is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum LaneKey {
    /// A file system, by the device number of its directories.
    FileSystem(u64),
    /// Whatever a directory lies on that could not be looked at: it may hang, and then holds up nobody but itself.
    Unseen(Arc<Path>),
    /// The kernel's keyrings.
    Keyrings,
}

/// A lane as the daemon's thread sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneProgress {
    /// How many jobs it was sent and has not reported.
    pub(crate) in_flight: usize,
    /// A number that grows as the lane gets on.
    pub(crate) steps: u64,
}

/// All lanes.
pub(crate) struct Lanes {
    report: ReportTo,
    /// Which sink has which file; all lanes share it.
    claims: Arc<Claims>,
    keys: Option<Batch<KeyJob>>,
    /// Their numbers follow that of the keyrings.
    files: Vec<Batch<FileJob>>,
    /// By number.
    windows: Vec<PublicationWindow>,
    ids: HashMap<LaneKey, LaneId>,
}

/// A thread, and the jobs that gather for it in a turn.
struct Batch<J> {
    lane: Lane<J>,
    jobs: Vec<J>,
}

impl<J: Send + 'static> Batch<J> {
    fn new(lane: Lane<J>) -> Self {
        Self { lane, jobs: Vec::new() }
    }

    fn flush(&mut self) {
        self.lane.send(std::mem::take(&mut self.jobs));
    }
}

impl Lanes {
    pub(crate) fn new(report: ReportTo, claims: Arc<Claims>) -> Self {
        let (keys, files, windows, ids) = (None, Vec::new(), vec![PublicationWindow::new()], HashMap::new());
        Self { report, claims, keys, files, windows, ids }
    }

    /// The lane for this, which is started if need be.
    ///
    /// # Errors
    /// When no thread is to be had for a new lane.
    pub(super) fn get_or_start(&mut self, key: LaneKey) -> io::Result<LaneId> {
        if let Some(&id) = self.ids.get(&key) {
            return Ok(id);
        }
        let id = match self.lane_to_share(&key) {
            Some(shared) => shared,
            None => self.start(&key)?,
        };
        self.ids.insert(key, id);
        Ok(id)
    }

    fn start(&mut self, key: &LaneKey) -> io::Result<LaneId> {
        let next = LaneId(u16::try_from(self.windows.len()).map_err(|_| io::Error::other("too many file systems"))?);
        let to = Arc::clone(&self.report);
        let report = move |id| move |reports| to(id, reports);
        let lane = match key {
            LaneKey::Keyrings => {
                self.keys = Some(Batch::new(Lane::keyring(clock::wall, report(KEYRINGS))?));
                return Ok(KEYRINGS);
            }
            LaneKey::Unseen(_) => Lane::files("files-unseen", Arc::clone(&self.claims), report(next))?,
            LaneKey::FileSystem(device) => Lane::file_system(*device, Arc::clone(&self.claims), report(next))?,
        };
        self.files.push(Batch::new(lane));
        self.windows.push(PublicationWindow::new());
        Ok(next)
    }

    /// Where there are lanes enough of this kind: the one that has the least to do. What may hang never shares a lane with a
    /// file system that was seen.
    fn lane_to_share(&self, key: &LaneKey) -> Option<LaneId> {
        let most = match key {
            LaneKey::FileSystem(_) => MOST_FILE_SYSTEMS,
            LaneKey::Unseen(_) => MOST_UNSEEN,
            LaneKey::Keyrings => return None,
        };
        let is_alike = |other: &LaneKey| std::mem::discriminant(other) == std::mem::discriminant(key);
        let alike: BTreeSet<LaneId> = self.ids.iter().filter(|(other, _)| is_alike(other)).map(|(_, id)| *id).collect();
        let least = alike.iter().copied().min_by_key(|id| (self.windows[usize::from(id.0)].in_flight(), *id));
        least.filter(|_| alike.len() >= most)
    }

    /// How much each lane can be given, by number.
    pub(crate) fn capacities(&self) -> impl Iterator<Item = usize> {
        self.windows.iter().map(PublicationWindow::capacity)
    }

    pub(crate) fn capacity(&self, id: LaneId) -> usize {
        self.windows[usize::from(id.0)].capacity()
    }

    /// A publication waits for its token to be read. It takes a place in its lane already, or all tokens would be read at once.
    pub(crate) fn reserve(&mut self, id: LaneId) {
        self.windows[usize::from(id.0)].reserve();
    }

    /// Its token was read.
    pub(crate) fn release(&mut self, id: LaneId) {
        self.windows[usize::from(id.0)].release();
    }

    /// Puts a job into the lane's batch of this turn.
    pub(crate) fn send_file(&mut self, id: LaneId, job: FileJob) {
        self.windows[usize::from(id.0)].sent(clock::now().boot);
        self.files[usize::from(id.0) - 1].jobs.push(job);
    }

    /// Puts a job into the batch of the keyrings' lane.
    pub(crate) fn send_key(&mut self, job: KeyJob) {
        self.windows[usize::from(KEYRINGS.0)].sent(clock::now().boot);
        let keys = self.keys.as_mut().expect("a keyring sink starts the thread for keys");
        keys.jobs.push(job);
    }

    /// Hands each lane its batch.
    pub(crate) fn flush(&mut self) {
        self.keys.iter_mut().for_each(Batch::flush);
        self.files.iter_mut().for_each(Batch::flush);
    }

    /// A lane reported so many jobs together.
    pub(crate) fn reported(&mut self, now: BootMs, id: LaneId, jobs: usize) {
        self.windows[usize::from(id.0)].reported(now, jobs);
    }

    /// How each lane gets on.
    pub(super) fn progress(&self) -> impl Iterator<Item = (LaneId, LaneProgress)> + '_ {
        let keys = self.keys.iter().map(|batch| (KEYRINGS, batch.lane.progress()));
        let files = (1..).map(LaneId).zip(self.files.iter().map(|batch| batch.lane.progress()));
        keys.chain(files).map(|(id, steps)| {
            let in_flight = self.windows[usize::from(id.0)].in_flight();
            (id, LaneProgress { in_flight, steps })
        })
    }

    /// Directories that are swept, not watched, because the kernel has no watch left for them.
    pub(crate) fn unwatched(&self) -> usize {
        self.files.iter().map(|batch| batch.lane.unwatched()).sum()
    }

    /// Whether a lane ended by itself, which is a defect.
    pub(crate) fn any_died(&self) -> bool {
        let key_died = self.keys.as_ref().is_some_and(|batch| !batch.lane.is_alive());
        key_died || self.files.iter().any(|batch| !batch.lane.is_alive())
    }

    /// Stops all lanes; each gets as much of `patience` as is left.
    pub(crate) fn stop(self, patience: Duration) {
        let deadline = clock::now().boot + u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        self.keys.iter().for_each(|batch| batch.lane.begin_to_stop());
        self.files.iter().for_each(|batch| batch.lane.begin_to_stop());
        self.keys.into_iter().for_each(|batch| stop(batch.lane, deadline));
        self.files.into_iter().for_each(|batch| stop(batch.lane, deadline));
    }
}

fn stop<J: Send + 'static>(lane: Lane<J>, deadline: BootMs) {
    let left = Duration::from_millis(deadline.since(clock::now().boot));
    if lane.stop(left) == Stopped::Abandoned {
        tracing::warn!(
            event = "lane_abandoned",
            "a file system hangs; its publication is left behind, the old file whole"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_without_number_share_a_bounded_number_of_threads() {
        let mut lanes = Lanes::new(Arc::new(|_, _| {}), Arc::default());
        let ids: BTreeSet<LaneId> =
            (0..200).map(|device| lanes.get_or_start(LaneKey::FileSystem(device)).unwrap()).collect();
        assert_eq!(ids.len(), MOST_FILE_SYSTEMS);
        assert!(!ids.contains(&KEYRINGS));
    }
}
