//! Publication to the kernel's keyrings: one key of type "user" a token, updated in place.
//!
//! A key is looked for, read, and only added again when its payload differs: adding replaces the payload at once for all
//! readers and keeps the serial number, but clears the timeout, which is therefore set after it.

use std::io;

use rustix::fd::BorrowedFd;
use rustix::io::Errno;

use super::path::{KeyError, KeyringCache, MissingKeyrings, ParsedKey, unlink_dead_keys};
use super::sweep::{KeySweep, PublishedKey, seconds_left};
use super::sys::{self, KeyType, PERMISSIONS, Serial, failed};
use crate::domain::{KeyPath, KeyringSink, OnExpiry, SinkFailure, WallMs, Wrote};
use crate::sink::job::{KeyJob, LaneReport, Publication};
use crate::sink::lane::{Lane, Shared, Work};

/// The state of the lane for keys.
pub(crate) struct Keys<C> {
    clock: C,
    rings: KeyringCache,
    sweep: KeySweep,
}

impl Lane<KeyJob> {
    /// Starts the lane for keys. `clock` tells the wall clock, from which a key's timeout is counted; `report` and `clock`
    /// are called from the lane's thread.
    ///
    /// # Errors
    /// When no thread or descriptor is to be had.
    pub fn keyring(
        clock: impl Fn() -> WallMs + Send + 'static,
        report: impl Fn(Vec<LaneReport>) + Send + 'static,
    ) -> io::Result<Self> {
        let sweep = KeySweep::new()?;
        Self::start("keyring", Shared::new()?, move || Keys::new(clock, sweep), report)
    }
}

impl<C: Fn() -> WallMs> Keys<C> {
    fn new(clock: C, sweep: KeySweep) -> Self {
        Self { clock, rings: KeyringCache::default(), sweep }
    }

    fn publish(&mut self, job: &Publication<KeyringSink>, on_expiry: OnExpiry) -> Result<Wrote, SinkFailure> {
        let place = ParsedKey::of(&job.spec.place(&job.names))?;
        let expires = match on_expiry {
            OnExpiry::Keep => None,
            OnExpiry::Delete => Some(job.expires_at),
        };
        match self.put(&place, job, expires) {
            // A keyring was removed between two calls: try once more from the root.
            Err(KeyError { errno: Errno::NOKEY | Errno::KEYREVOKED | Errno::KEYEXPIRED, .. }) => {
                self.rings.clear();
                self.put(&place, job, expires)
            }
            other => other,
        }
        .map_err(|error| error.into_failure(&place))
    }

    fn put(
        &mut self,
        place: &ParsedKey,
        job: &Publication<KeyringSink>,
        expires: Option<WallMs>,
    ) -> Result<Wrote, KeyError> {
        let (payload, description) = (job.token.expose().as_bytes(), place.description());
        // 0 means no timeout, so an expired token gets the shortest.
        let seconds = expires.map_or(0, |at| seconds_left(at, (self.clock)()).max(1));
        let way = self.rings.walk(place, MissingKeyrings::Make)?;
        let ring = way[way.len() - 1];
        let found = self.rings.find(ring, KeyType::User, description).map_err(KeyError::at("look for the key"))?;
        let right = found.filter(|key| sys::read(*key).is_ok_and(|held| *held == payload));
        let settled = match right.map(|key| (key, settle(key, seconds, Settled::Before))) {
            // Its permissions forbid a repair, so it is replaced.
            Some((key, Err(Errno::ACCESS))) => {
                sys::unlink(key, ring).map_err(KeyError::at("replace the key"))?;
                None
            }
            Some((key, settled)) => Some((key, settled.map_err(KeyError::at("set the timeout of the key"))?)),
            None => None,
        };
        let (key, wrote) = match settled {
            Some(settled) => settled,
            None => {
                let key = self.rings.add(ring, description, payload).map_err(KeyError::at("add the key"))?;
                settle(key, seconds, Settled::Never).map_err(KeyError::at("set the timeout of the key"))?;
                (key, Wrote::Replaced)
            }
        };
        self.sweep.track(&way, key, payload, PublishedKey { ticket: job.ticket, sink: job.sink, expires });
        Ok(wrote)
    }

    fn remove(&mut self, key: &KeyPath) -> Result<(), SinkFailure> {
        let place = ParsedKey::of(key)?;
        self.take_away(&place).map_err(|error| error.into_failure(&place))
    }

    fn take_away(&mut self, place: &ParsedKey) -> Result<(), KeyError> {
        let rings = self.rings.walk(place, MissingKeyrings::Leave)?;
        if rings.len() == place.path.len() {
            let ring = rings[rings.len() - 1];
            let found = self.rings.find(ring, KeyType::User, place.description());
            match found.map_err(KeyError::at("look for the key"))? {
                Some(key) => {
                    self.sweep.untrack(ring, key);
                    sys::unlink(key, ring)
                }
                // An expired key holds no token any more, but would keep the keyring from being empty.
                None => unlink_dead_keys(ring),
            }
            .map_err(KeyError::at("remove the key"))?;
        }
        // From the innermost keyring outwards, as long as they are empty. The root stays.
        for pair in rings.windows(2).rev() {
            let [above, ring] = [pair[0], pair[1]];
            if !sys::links(ring).is_ok_and(|links| links.is_empty()) || sys::unlink(ring, above).is_err() {
                break;
            }
        }
        self.rings.clear();
        Ok(())
    }
}

/// Checks that the root keyring of a sink can be reached and read.
pub(crate) fn probe(sink: &KeyringSink) -> Result<(), SinkFailure> {
    let failed = |errno| failed("use the keyring", &sink.root.to_string(), errno);
    let root = sys::root(sink.root).map_err(failed)?;
    let described = sys::describe(root).map_err(failed)?;
    if !described.is_keyring {
        return Err(failed(Errno::NOTDIR));
    }
    sys::links(root).map(drop).map_err(failed)
}

impl<C: Fn() -> WallMs> Work for Keys<C> {
    type Job = KeyJob;

    fn work(&mut self, jobs: &mut dyn Iterator<Item = KeyJob>) -> Vec<LaneReport> {
        self.rings.clear();
        jobs.map(|job| match job {
            KeyJob::Publish { publication: job, on_expiry } => {
                let outcome = self.publish(&job, on_expiry);
                LaneReport::Published { ticket: job.ticket, sink: job.sink, outcome }
            }
            KeyJob::Remove { cause, key } => LaneReport::Removed { cause, outcome: self.remove(&key) },
        })
        .collect()
    }

    fn wake_on(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.sweep.fd()]
    }

    fn look_around(&mut self) -> Vec<LaneReport> {
        let drifted = self.sweep.check_due(|| (self.clock)());
        drifted.into_iter().map(LaneReport::drifted).collect()
    }
}

/// Sets timeout and permissions. A key's timeout cannot be read, so it is set each time.
fn settle(key: Serial, seconds: u32, before: Settled) -> Result<Wrote, Errno> {
    sys::set_timeout(key, seconds)?;
    let right =
        matches!(before, Settled::Before) && sys::describe(key).is_ok_and(|found| found.permissions == PERMISSIONS);
    if right {
        return Ok(Wrote::Unchanged);
    }
    sys::set_permissions(key, PERMISSIONS)?;
    Ok(Wrote::Repaired)
}

/// Whether a key was there before, with permissions that may be right already.
enum Settled {
    Before,
    Never,
}
