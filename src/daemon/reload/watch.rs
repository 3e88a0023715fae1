//! Watches the config, drop-ins and secret files. An event only says when to read them again.
//!
//! A thread of its own watches, since looking at a directory can hang. Events count by name: where tokens or the state lie beside a
//! secret, each publication is an event of the directory, and none of them means another config.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use crate::environment::{self, PathTask};
use crate::system::blocking::Blocking;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

/// How often the config is read again, and watching is tried anew, while a directory cannot be watched.
const WITHOUT_WATCH: Duration = Duration::from_secs(30);

/// What is to be watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Watchlist {
    /// Files and links, whether they exist or not.
    pub(crate) names: Vec<PathBuf>,
    /// The directory of drop-ins.
    pub(crate) drop_ins: Option<PathBuf>,
}

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

/// A directory, by device and inode number. The kernel watches a directory, whatever it is called by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct WatchedDirectory(u64, u64);

/// Which events count.
#[derive(Default)]
struct EventFilter {
    /// What is watched, by name.
    directories: BTreeMap<PathBuf, WatchedDirectory>,
    /// Entries of these directories.
    names: HashSet<(WatchedDirectory, OsString)>,
    drop_ins: Option<WatchedDirectory>,
}

impl EventFilter {
    /// Whether an event may mean another config, or that events were lost.
    fn counts(&self, event: &Event) -> bool {
        // The daemon's own reads are no changes.
        event.need_rescan()
            || (!matches!(event.kind, EventKind::Access(_))
                && (event.paths.is_empty() || event.paths.iter().any(|path| self.is_meant(path))))
    }

    fn is_meant(&self, path: &Path) -> bool {
        // The directory itself was moved, removed or re-permissioned.
        if self.directories.contains_key(path) {
            return true;
        }
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return true };
        let Some(directory) = self.directories.get(above) else { return true };
        self.names.contains(&(*directory, name.to_owned()))
            || (self.drop_ins == Some(*directory) && environment::is_drop_in(name))
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

type Nearest = Option<(PathBuf, WatchedDirectory)>;

static LOOKS: LazyLock<Blocking<Nearest>> = LazyLock::new(|| Blocking::new("watched", 1024));

/// What to watch, and the directories that hang.
fn plan(wanted: &Watchlist) -> (EventFilter, HashSet<PathBuf>) {
    let parents = wanted.names.iter().filter_map(|name| name.parent());
    let directories: HashSet<&Path> = parents.chain(wanted.drop_ins.as_deref()).collect();
    let directories: Vec<&Path> = directories.into_iter().collect();
    let looks = directories.iter().map(|path| {
        let own = path.to_path_buf();
        PathTask::new(*path, move || nearest(&own))
    });
    let found = environment::run_all(&LOOKS, looks.collect());
    let (mut nearest, mut unseen) = (BTreeMap::new(), HashSet::new());
    for (path, found) in directories.into_iter().zip(found) {
        match found {
            Ok(found) => drop(nearest.insert(path, found)),
            Err(_) => drop(unseen.insert(path.to_path_buf())),
        }
    }
    let mut filter = EventFilter::default();
    let mut add = |above: &Path, path: &Path| {
        let (found, directory) = nearest.get(above)?.as_ref()?;
        filter.directories.insert(found.clone(), *directory);
        // The name below it: the file's own, or that of a directory which is to appear.
        let name = path.strip_prefix(found).ok()?.components().next()?;
        filter.names.insert((*directory, name.as_os_str().to_owned()));
        Some(())
    };
    for name in &wanted.names {
        name.parent().and_then(|above| add(above, name));
    }
    if let Some(drop_ins) = &wanted.drop_ins {
        add(drop_ins, drop_ins);
        filter.drop_ins = match nearest.get(&**drop_ins) {
            Some(Some((found, directory))) if found == drop_ins => Some(*directory),
            _ => None,
        };
    }
    (filter, unseen)
}

/// The directory, or the nearest above it that exists. May hang.
fn nearest(path: &Path) -> Nearest {
    path.ancestors().find_map(|path| {
        let status = path.metadata().ok().filter(std::fs::Metadata::is_dir)?;
        Some((path.to_path_buf(), WatchedDirectory(status.dev(), status.ino())))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::sync::mpsc::UnboundedReceiver;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn told() -> (OnChange, UnboundedReceiver<()>) {
        let (sender, told) = tokio::sync::mpsc::unbounded_channel();
        let on_change = move || {
            let _ = sender.send(());
        };
        (Arc::new(on_change), told)
    }

    /// Watches a secret and drop-ins in one directory, once it is really watched.
    async fn watched(directory: &Path) -> (ConfigWatcher, UnboundedReceiver<()>) {
        let (sender, mut inputs) = told();
        let mut watch = ConfigWatcher::default();
        watch.start(sender).unwrap();
        let names = ["crm.secret", "not/yet/there", "link"].map(|name| directory.join(name)).into();
        watch.set(Watchlist { names, drop_ins: Some(directory.join("config.d")) });
        changed(&mut inputs).await;
        (watch, inputs)
    }

    async fn changed(inputs: &mut UnboundedReceiver<()>) {
        let told = tokio::time::timeout(LONG, inputs.recv()).await.expect("it is told in time");
        assert!(matches!(told, Some(())));
    }

    /// How many events count until a change that does.
    async fn told_until(inputs: &mut UnboundedReceiver<()>, change: impl FnOnce()) -> usize {
        change();
        changed(inputs).await;
        // Events come in order, so those of what came before the change are here by now.
        let mut told = 1;
        while inputs.try_recv().is_ok() {
            told += 1;
        }
        told
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
        let told = told_until(&mut inputs, || fs::write(at("crm.secret"), "s").unwrap()).await;
        assert!(told < 20, "{told} events count, of 1,400");
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
            let told = tokio::time::timeout(LONG, inputs.recv()).await;
            assert!(matches!(told, Ok(Some(()))), "{what}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_watched_is_looked_at_now_and_then() {
        let (sender, mut inputs) = told();
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
