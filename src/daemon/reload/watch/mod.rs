//! Watches the config, drop-ins and secret files. An event only says when to read them again.
//!
//! A thread of its own watches, since looking at a directory can hang. Events count by name: where tokens or the state lie beside a
//! secret, each publication is an event of the directory, and none of them means another config.

mod filter;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};

use filter::{EventFilter, plan};

pub(crate) use filter::Watchlist;

/// How often the config is read again, and watching is tried anew, while a directory cannot be watched.
const WITHOUT_WATCH: Duration = Duration::from_secs(30);

/// Is called when a file may have changed.
pub(crate) type OnChange = Arc<dyn Fn() + Send + Sync>;

/// Watches directories, not files: a file that is renamed into place, or a link that is swapped, is another file. Watches nothing
/// until it is started.
#[derive(Default)]
pub(crate) struct ConfigWatcher {
    list: Watchlist,
    thread: Option<Sender<Watchlist>>,
}

impl ConfigWatcher {
    /// Begins to watch; `on_change` is called for each change that counts.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub(crate) fn start(&mut self, on_change: OnChange) -> std::io::Result<()> {
        let (thread, lists) = channel();
        std::thread::Builder::new().name("watch".into()).spawn(move || WatcherThread::new(on_change).run(&lists))?;
        self.thread = Some(thread);
        let list = std::mem::take(&mut self.list);
        self.set(list);
        Ok(())
    }

    /// Watches these from here on, and no others. What could not be watched until now counts as changed.
    pub(crate) fn set(&mut self, list: Watchlist) {
        match &self.thread {
            // The thread ends only with the daemon.
            Some(thread) => drop(thread.send(list)),
            None => self.list = list,
        }
    }
}

/// The thread that watches.
struct WatcherThread {
    on_change: OnChange,
    watcher: Option<RecommendedWatcher>,
    filter: Arc<Mutex<EventFilter>>,
    /// The unwatched directories that were logged.
    reported: HashSet<PathBuf>,
    /// See [`WITHOUT_WATCH`].
    without_watch: Duration,
}

impl WatcherThread {
    fn new(on_change: OnChange) -> Self {
        let filter = Arc::new(Mutex::new(EventFilter::default()));
        let (changed, judge) = (Arc::clone(&on_change), Arc::clone(&filter));
        let on_event = move |event: notify::Result<Event>| {
            let counts = |event: &Event| judge.lock().unwrap_or_else(PoisonError::into_inner).counts(event);
            // An error is a lost event.
            if event.as_ref().map_or(true, counts) {
                changed();
            }
        };
        let watcher = notify::recommended_watcher(on_event)
            .inspect_err(|error| {
                let seconds = WITHOUT_WATCH.as_secs();
                tracing::warn!(
                    event = "watch_failed",
                    "changes of the config are noticed within {seconds} s only ({error}); use `corptokend reload`"
                );
            })
            .ok();
        Self { on_change, watcher, filter, reported: HashSet::new(), without_watch: WITHOUT_WATCH }
    }

    /// Watches what the last of `lists` says, until the sender is dropped.
    fn run(mut self, lists: &Receiver<Watchlist>) {
        let Ok(mut wanted) = lists.recv() else { return };
        loop {
            let outcome = self.set(&wanted);
            if outcome.more_is_watched {
                (self.on_change)();
            }
            let next = if outcome.all_is_watched {
                lists.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                lists.recv_timeout(self.without_watch)
            };
            match next {
                Ok(list) => wanted = list,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => (self.on_change)(),
            }
        }
    }

    /// Watches the directories of a list. For one that does not exist, the nearest above it that does is watched. One that was replaced
    /// by another of its name is watched anew.
    fn set(&mut self, wanted: &Watchlist) -> WatchOutcome {
        let (filter, unseen) = plan(wanted);
        let before = std::mem::take(&mut self.lock().directories);
        let mut outcome = WatchOutcome { all_is_watched: unseen.is_empty(), more_is_watched: false };
        self.reported.retain(|path| unseen.contains(path) || filter.directories.contains_key(path));
        unseen.iter().for_each(|path| self.report(path, "looking at it does not come to an end"));
        let Some(watcher) = &mut self.watcher else {
            return WatchOutcome { all_is_watched: false, more_is_watched: false };
        };
        for path in before.iter().filter(|(path, directory)| filter.directories.get(*path) != Some(directory)) {
            // It fails if the directory is gone.
            let _ = watcher.unwatch(path.0);
        }
        let mut failed = Vec::new();
        for (path, directory) in filter.directories.iter().filter(|(path, it)| before.get(*path) != Some(it)) {
            match watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => outcome.more_is_watched = true,
                Err(error) => failed.push((path.clone(), *directory, error)),
            }
        }
        let mut filter = filter;
        for (path, _, error) in failed {
            filter.directories.remove(&path);
            outcome.all_is_watched = false;
            self.report(&path, &error.to_string());
        }
        *self.lock() = filter;
        outcome
    }

    /// Logs once that a directory cannot be watched.
    fn report(&mut self, path: &Path, why: &str) {
        if self.reported.insert(path.to_owned()) {
            let (path, seconds) = (path.display(), WITHOUT_WATCH.as_secs());
            tracing::warn!(
                event = "watch_failed",
                "changes in {path} are noticed within {seconds} s only ({why}); use `corptokend reload`"
            );
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, EventFilter> {
        self.filter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a list could be watched.
struct WatchOutcome {
    all_is_watched: bool,
    /// Changes before this moment were not seen, so the config must be read once more.
    more_is_watched: bool,
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::sync::mpsc::UnboundedReceiver;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn changes() -> (OnChange, UnboundedReceiver<()>) {
        let (sender, reported) = tokio::sync::mpsc::unbounded_channel();
        let on_change = move || {
            let _ = sender.send(());
        };
        (Arc::new(on_change), reported)
    }

    /// Watches a secret and drop-ins in one directory, once it is really watched.
    async fn watched(directory: &Path) -> (ConfigWatcher, UnboundedReceiver<()>) {
        let (sender, mut inputs) = changes();
        let mut watch = ConfigWatcher::default();
        watch.start(sender).unwrap();
        let names = ["crm.secret", "not/yet/there", "link"].map(|name| directory.join(name)).into();
        watch.set(Watchlist { names, drop_ins: Some(directory.join("config.d")) });
        changed(&mut inputs).await;
        (watch, inputs)
    }

    async fn changed(inputs: &mut UnboundedReceiver<()>) {
        let reported = tokio::time::timeout(LONG, inputs.recv()).await.expect("it is reported in time");
        assert!(matches!(reported, Some(())));
    }

    /// How many events count until a change that does.
    async fn counted_until(inputs: &mut UnboundedReceiver<()>, change: impl FnOnce()) -> usize {
        change();
        changed(inputs).await;
        // Events come in order, so those of what came before the change are here by now.
        let mut reported = 1;
        while inputs.try_recv().is_ok() {
            reported += 1;
        }
        reported
    }

    #[tokio::test]
    async fn publications_beside_a_secret_are_not_told_of_and_the_secret_is() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("config.d")).unwrap();
        let (_watch, mut inputs) = watched(directory.path()).await;
        for n in 0..200 {
            fs::write(at(".ding1.tmp"), "token").unwrap();
            fs::rename(at(".ding1.tmp"), at("ding1")).unwrap();
            fs::write(at(&format!("config.d/.note-{n}.toml")), "").unwrap();
            fs::write(at(&format!("config.d/note-{n}.txt")), "").unwrap();
        }
        let reported = counted_until(&mut inputs, || fs::write(at("crm.secret"), "s").unwrap()).await;
        assert!(reported < 20, "{reported} events count, of 1,400");
    }

    #[tokio::test]
    async fn each_way_in_which_a_name_may_become_another_file_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("config.d")).unwrap();
        let (_watch, mut inputs) = watched(directory.path()).await;
        let swap = |target: &str| {
            std::os::unix::fs::symlink(target, at("link.new")).unwrap();
            fs::rename(at("link.new"), at("link")).unwrap();
        };
        let changes: [(&str, &dyn Fn()); 6] = [
            ("a drop-in", &|| fs::write(at("config.d/10-hr.toml"), "").unwrap()),
            ("a link", &|| swap("v1")),
            ("a link that is swapped", &|| swap("v2")),
            ("a directory that appears", &|| fs::create_dir(at("not")).unwrap()),
            ("a removal", &|| fs::remove_file(at("link")).unwrap()),
            ("the directory itself", &|| fs::rename(at("config.d"), at("elsewhere")).unwrap()),
        ];
        for (what, change) in changes {
            while inputs.try_recv().is_ok() {}
            change();
            let reported = tokio::time::timeout(LONG, inputs.recv()).await;
            assert!(matches!(reported, Ok(Some(()))), "{what}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_watched_is_looked_at_now_and_then() {
        let (sender, mut inputs) = changes();
        let blind =
            WatcherThread { watcher: None, without_watch: Duration::from_millis(20), ..WatcherThread::new(sender) };
        let (wanted, lists) = channel();
        let watching = std::thread::spawn(move || blind.run(&lists));
        wanted.send(Watchlist { names: vec!["/etc/hostname".into()], drop_ins: None }).unwrap();
        for _ in 0..3 {
            changed(&mut inputs).await;
        }
        drop(wanted);
        watching.join().unwrap();
    }
}
