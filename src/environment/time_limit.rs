//! File operations with a time limit. A file may lie on a mount whose server is gone, and then neither open(2) nor stat(2)
//! returns.
//!
//! A path that hangs is waited for once. Until it answers, further operations on it fail at once.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::system::blocking::{Blocking, Unfinished};

/// The time limit of one path. A disk that has to spin up needs less.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time limit of many paths together.
const PATIENCE_FOR_ALL: Duration = Duration::from_secs(10);
/// So many are looked at at once. At the least half of them may hang without holding the others up for long.
const AT_ONCE: usize = 256;

/// What is to be looked at, and how. The path is the key: one outstanding look a path.
pub struct PathTask<T> {
    path: OsString,
    how: Box<dyn FnOnce() -> T + Send>,
}

impl<T> PathTask<T> {
    /// `how` looks at `path`, and may hang.
    pub fn new(path: impl Into<OsString>, how: impl FnOnce() -> T + Send + 'static) -> Self {
        Self { path: path.into(), how: Box::new(how) }
    }
}

/// Looks at one path, and waits five seconds at most.
///
/// # Errors
/// See [`Unfinished`].
pub(crate) fn run_one<T: Clone + Send + 'static>(
    blocking: &Blocking<T>,
    path: &Path,
    how: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unfinished> {
    blocking.run_and_block(path, PATIENCE, how)
}

/// Looks at all these paths, many at once, so that one that hangs costs the others nothing. No more than `blocking` has
/// room for are begun; the others wait for it. The outcomes come in the order of the paths, after ten seconds at most.
pub fn run_all<T: Clone + Send + 'static>(
    blocking: &Blocking<T>,
    looks: Vec<PathTask<T>>,
) -> Vec<Result<T, Unfinished>> {
    let count = looks.len();
    if count == 0 {
        return Vec::new();
    }
    // On a thread of its own, since the caller may be within a runtime.
    let outcomes = std::thread::scope(|scope| {
        let looking = std::thread::Builder::new().name("inputs".into()).spawn_scoped(scope, || all(blocking, looks));
        looking.ok()?.join().ok()?
    });
    outcomes.unwrap_or_else(|| (0..count).map(|_| Err(Unfinished::NoThread)).collect())
}

fn all<T: Clone + Send + 'static>(
    blocking: &Blocking<T>,
    looks: Vec<PathTask<T>>,
) -> Option<Vec<Result<T, Unfinished>>> {
    let mut outcomes: Vec<_> = looks.iter().map(|_| Err(Unfinished::Hangs)).collect();
    let mut looks = looks.into_iter().enumerate();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().ok()?;
    runtime.block_on(async {
        let mut under_way = JoinSet::new();
        let waiting = async {
            loop {
                while under_way.len() < AT_ONCE
                    && (under_way.is_empty() || blocking.has_room())
                    && let Some((nth, PathTask { path, how })) = looks.next()
                {
                    let blocking = blocking.clone();
                    under_way.spawn(async move { (nth, blocking.run(path, PATIENCE, how).await) });
                    // The look begins when its task is polled, and only then counts against the room.
                    tokio::task::yield_now().await;
                }
                match under_way.join_next().await {
                    Some(Ok((nth, outcome))) => outcomes[nth] = outcome,
                    Some(Err(_)) => {}
                    None => return,
                }
            }
        };
        // Those that are not there by then count as what hangs.
        let _ = tokio::time::timeout(PATIENCE_FOR_ALL, waiting).await;
    });
    Some(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_looks_than_there_is_room_for_wait_and_are_not_refused() {
        let look = |n: usize| {
            PathTask::new(n.to_string(), move || {
                std::thread::sleep(Duration::from_millis(1));
                n
            })
        };
        let found = run_all(&Blocking::new("test", 8), (0..1000).map(look).collect());
        assert_eq!(found, (0..1000).map(Ok).collect::<Vec<_>>());
    }
}
