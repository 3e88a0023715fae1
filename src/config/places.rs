//! Every place of every tenant, looked at once: no two tenants may write the same one, and none may write what is not
//! theirs. At a million tenants this must stay linear, so places are compared by hash first.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::app::ReadApp;
use super::problems::{Mark, Problems};
use super::sink::Sink;
use crate::domain::{Expansion, Names, Placeholder, SinkKind, TEMPORARY_EXTENSION, TenantId, is_temporary_name};

/// The longest name of a file, in bytes (NAME_MAX), and the longest path (PATH_MAX, its NUL apart).
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4095;
/// As many clashes of each kind are told. Whoever has more sees the rest after mending these.
const MOST: usize = 100;

/// What no sink may write.
pub(super) struct Taken {
    /// Files that are not tokens, and what each is; and the directories above them, of which a sink would make files.
    files: HashMap<String, String>,
    above: HashMap<String, String>,
    /// Directories whose changes mean another config.
    watched: HashSet<PathBuf>,
}

impl Taken {
    pub(super) fn new(files: &[(PathBuf, &'static str)], watched: HashSet<PathBuf>) -> Self {
        let mut taken = Self { files: HashMap::new(), above: HashMap::new(), watched };
        for (path, what) in files {
            let text = format!("the sink would overwrite {what}");
            let mut names = path.ancestors().filter_map(Path::to_str).map(str::to_owned);
            taken.files.extend(names.next().map(|name| (name, text.clone())));
            taken.above.extend(names.map(|name| (name, text.clone())));
        }
        taken
    }

    /// What is wrong with a place by itself.
    fn hit(&self, place: &str) -> Option<Fault> {
        let text = self.files.get(place).or_else(|| self.above.get(place))?;
        Some((text.clone(), "publish to another place"))
    }

    /// What is wrong with all places in a directory.
    fn hit_in(&self, directory: &str) -> Option<Fault> {
        let directory = Path::new(directory);
        if let Some(text) = directory.ancestors().filter_map(Path::to_str).find_map(|above| self.files.get(above)) {
            return Some((text.clone(), "publish to another place"));
        }
        self.watched.contains(directory).then(|| {
            let text = format!("the sink lies in {}, which is watched for changes of the config", directory.display());
            (text, "publish to another directory; one below it will do")
        })
    }
}

/// Message and remedy.
type Fault = (String, &'static str);

/// Looks at all places.
pub(super) fn check(apps: &[ReadApp], taken: &Taken, problems: &mut Problems<'_>) {
    names_without_name(apps, problems);
    let hasher = RandomState::new();
    let mut hashes = Vec::new();
    // A sink that is wrong is wrong for most of its tenants: it is told once.
    let mut told: HashSet<SinkKey> = HashSet::new();
    // Neighbours mostly share their directory.
    let (mut directory, mut in_directory) = (String::new(), None);
    each(apps, &mut |tenant, place| {
        hashes.push(hasher.hash_one(place));
        let parent = parent(place);
        if parent != directory {
            directory.replace_range(.., parent);
            in_directory = taken.hit_in(parent);
        }
        let fault = too_long(place).or_else(|| temporary(place)).or_else(|| taken.hit(place));
        let fault = fault.or_else(|| in_directory.clone());
        if let Some((message, help)) = fault
            && told.insert(tenant.sink_key())
        {
            problems.error(tenant.mark(apps), message).help(help);
        }
        ControlFlow::Continue(())
    });
    hashes.sort_unstable();
    same_places(apps, &hashes, &hasher, problems);
    nested_places(apps, &hashes, &hasher, problems);
}

/// The directory of a place; keys have none.
fn parent(place: &str) -> &str {
    if place.starts_with(':') { "" } else { place.rfind('/').map_or("", |slash| &place[..slash.max(1)]) }
}

/// The daemon removes its temporary files by their names, whosever they are.
fn temporary(place: &str) -> Option<Fault> {
    if place.starts_with(':') || !place.contains(TEMPORARY_EXTENSION) {
        return None;
    }
    let part = place.split('/').find(|part| is_temporary_name(part.as_bytes()))?;
    let text = format!("{part} is a name for temporary files of the daemon, which it removes");
    Some((text, "leave out the dot at its beginning, or its extension"))
}

fn too_long(place: &str) -> Option<Fault> {
    if place.len() <= NAME_MAX {
        return None;
    }
    if let Some(part) = place.split('/').find(|part| part.len() > NAME_MAX) {
        return Some((
            format!("a part of the place has {} bytes, and {NAME_MAX} is the most", part.len()),
            "shorten it",
        ));
    }
    let text = || format!("the place has {} bytes, and {PATH_MAX} is the most", place.len());
    (place.len() > PATH_MAX).then(|| (text(), "shorten it"))
}

/// Names a sink among all: its app, and where it stands.
type SinkKey = (usize, Option<Mark>);

/// One sink of one tenant.
#[derive(Clone, Copy)]
struct Of<'a> {
    app: usize,
    tenant: usize,
    sink: &'a Sink,
}

impl Of<'_> {
    /// Where the sink stands, or, where nobody wrote one, the tenant.
    fn mark(&self, apps: &[ReadApp]) -> Mark {
        self.sink.at.unwrap_or(apps[self.app].tenant_marks[self.tenant])
    }

    fn sink_key(&self) -> SinkKey {
        (self.app, self.sink.at)
    }

    fn id(&self, apps: &[ReadApp]) -> TenantId {
        let app = &apps[self.app];
        TenantId { app: app.name.clone(), corp_id: app.app.tenants[self.tenant].clone() }
    }
}

/// Calls `seen` with every place: a file's path, or a key's path with a `:` before it, so that they never meet.
fn each<'a>(apps: &'a [ReadApp], seen: &mut dyn FnMut(Of<'a>, &str) -> ControlFlow<()>) {
    let mut place = String::new();
    for (app, read) in apps.iter().enumerate() {
        for (tenant, corp_id) in read.app.tenants.iter().enumerate() {
            let names = read.app.names_of(&read.name, corp_id);
            for sink in &**read.own_sinks.get(&tenant).unwrap_or(&read.sinks) {
                place.clear();
                expand(&sink.kind, &names, &mut place);
                if seen(Of { app, tenant, sink }, &place).is_break() {
                    return;
                }
            }
        }
    }
}

fn expand(kind: &SinkKind, names: &Names, place: &mut String) {
    let with = Expansion { names, content: &|_, _| {} };
    match kind {
        SinkKind::File(file) => file.path.expand(with, place),
        SinkKind::Keyring(keyring) => {
            place.push(':');
            place.push_str(&keyring.root.to_string());
            for part in &keyring.path {
                place.push('/');
                part.expand(with, place);
            }
        }
    }
}

/// `{name}` for a tenant that has none.
fn names_without_name(apps: &[ReadApp], problems: &mut Problems<'_>) {
    for read in apps {
        let shared = read.sinks.iter().find(|sink| sink.names(Placeholder::Name));
        let mut nameless = read.app.tenants.iter().enumerate().filter_map(|(index, corp_id)| {
            let sink = match read.own_sinks.get(&index) {
                Some(own) => own.iter().find(|sink| sink.names(Placeholder::Name)),
                None => shared,
            }?;
            let name = read.app.special.get(corp_id).and_then(|special| special.name.as_ref());
            name.is_none().then_some((index, corp_id, sink))
        });
        let Some((index, corp_id, sink)) = nameless.next() else { continue };
        let others = match nameless.count() {
            0 => String::new(),
            more => format!(" (nor have {more} more of the app's tenants)"),
        };
        let message = format!("a sink names {{name}}, and the tenant {}/{corp_id} has no name{others}", read.name);
        let said = problems.error(read.tenant_marks[index], message).help(format!(
            "add [app.{}.tenant.{corp_id}] with a name = \"…\", or write {{corp_id}} in the sink",
            read.name
        ));
        if let Some(at) = sink.at {
            said.also(at, "{name} is used here");
        }
    }
}

/// Two sinks, or two tenants of one sink, that would write the same place.
fn same_places(apps: &[ReadApp], hashes: &[u64], hasher: &RandomState, problems: &mut Problems<'_>) {
    let twice: Vec<u64> = hashes.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    if twice.is_empty() {
        return;
    }
    let mut first: HashMap<String, Of<'_>> = HashMap::new();
    // The first pair of each pair of sinks stands for all: a fixed path gives one clash per tenant.
    let mut clashes: Vec<(Of<'_>, Of<'_>, usize)> = Vec::new();
    let mut known: HashMap<(SinkKey, SinkKey), usize> = HashMap::new();
    each(apps, &mut |later, place| {
        if twice.binary_search(&hasher.hash_one(place)).is_err() {
            return ControlFlow::Continue(());
        }
        let Some(earlier) = first.get(place).copied() else {
            first.insert(place.to_owned(), later);
            return ControlFlow::Continue(());
        };
        match known.entry((earlier.sink_key(), later.sink_key())) {
            Entry::Occupied(clash) => clashes[*clash.get()].2 += 1,
            Entry::Vacant(new) => {
                new.insert(clashes.len());
                clashes.push((earlier, later, 0));
            }
        }
        // Hundreds of tenants with clashing sinks of their own are told of well enough by the first.
        if clashes.len() < MOST { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    for (earlier, later, more) in clashes {
        clash(apps, (earlier, later), more, problems);
    }
}

/// The place itself is not told: the two lines show it, unless it is what a secret in the wrong key turned into.
fn clash(apps: &[ReadApp], (earlier, later): (Of<'_>, Of<'_>), more: usize, problems: &mut Problems<'_>) {
    let (one, two) = (earlier.id(apps), later.id(apps));
    let others = if more > 0 { format!(" (and {more} more)") } else { String::new() };
    let whose = if one == two { format!("both of {one}") } else { format!("of {one} and of {two}") };
    let message = format!("two sinks would write the same place: {whose}{others}");
    let help = if earlier.app == later.app && earlier.tenant != later.tenant {
        "put {corp_id} into the path, so that each tenant has its own"
    } else {
        "give each its own place, for example with {app} and {corp_id}"
    };
    let (here, there) = (later.mark(apps), earlier.mark(apps));
    let said = problems.error(here, message).help(help);
    if here != there {
        said.also(there, "the other one");
    }
}

/// A file below what another sink makes a file of.
fn nested_places(apps: &[ReadApp], hashes: &[u64], hasher: &RandomState, problems: &mut Problems<'_>) {
    let mut found: Vec<(Of<'_>, String)> = Vec::new();
    let mut known: HashSet<SinkKey> = HashSet::new();
    let mut last_directory = String::new();
    each(apps, &mut |tenant, place| {
        let directory = parent(place);
        if directory == last_directory {
            return ControlFlow::Continue(());
        }
        last_directory.replace_range(.., directory);
        for ancestor in Path::new(directory).ancestors().filter_map(Path::to_str) {
            let taken = hashes.binary_search(&hasher.hash_one(ancestor)).is_ok();
            if taken && known.insert(tenant.sink_key()) {
                found.push((tenant, ancestor.to_owned()));
            }
        }
        if found.len() < MOST { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if found.is_empty() {
        return;
    }
    let mut above: HashMap<&str, Option<Of<'_>>> = found.iter().map(|(_, place)| (&**place, None)).collect();
    each(apps, &mut |tenant, place| {
        if let Some(owner) = above.get_mut(place) {
            owner.get_or_insert(tenant);
        }
        ControlFlow::Continue(())
    });
    for (tenant, place) in &found {
        // Two places with one hash are not one place.
        let Some(owner) = above[&**place] else { continue };
        let (below, file) = (tenant.id(apps), owner.id(apps));
        let message = format!("the sink of {below} lies below a file, which a sink of {file} makes");
        let said = problems.error(tenant.mark(apps), message).help("publish one of the two elsewhere");
        said.also(owner.mark(apps), "the file");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::files::Source;
    use super::super::model::App;
    use super::*;
    use crate::domain::{
        AppName, AppPolicy, CorpId, Endpoint, FileSink, Format, OnRemove, Refresh, Retry, SecretSource, Template,
    };

    fn file(path: &str, at: u32) -> Sink {
        let path = Template::parse(path, Placeholder::IN_PATHS).unwrap();
        let (mode, dir_mode) = (0o640, 0o750);
        let file = FileSink { path, format: Format::Raw, mode, dir_mode, owner: None, group: None, trust_dir: false };
        Sink { kind: SinkKind::File(file), at: Some(Mark { file: 0, start: at, end: at }) }
    }

    /// An app whose tenants each have sinks of their own, the `n`th those that `sinks` makes.
    fn app(tenants: u32, sinks: impl Fn(u32) -> Vec<Sink>) -> ReadApp {
        let ids: Vec<CorpId> = (0..tenants).map(|n| CorpId::new(&format!("ding{n:06}")).unwrap()).collect();
        let policy = AppPolicy {
            rate: crate::domain::Rate::per_second(1),
            refresh: Refresh { at: 0.7, jitter: 0.05 },
            retry: Retry { min: Duration::from_secs(1), max: Duration::from_secs(2) },
            enabled: true,
        };
        let app = App {
            client_id: "c".parse().unwrap(),
            client_secret: SecretSource::Env("E".into()),
            endpoint: Endpoint::new("https://h").unwrap(),
            proxy: None,
            policy,
            on_remove: OnRemove::Keep,
            tenants: ids,
            sinks: [].into(),
            special: std::collections::BTreeMap::new(),
        };
        ReadApp {
            name: AppName::new("crm").unwrap(),
            app,
            tenant_marks: (0..tenants).map(|at| Mark { file: 0, start: at, end: at }).collect(),
            sinks: [].into(),
            own_sinks: (0..tenants).map(|n| (n as usize, sinks(n).into())).collect(),
            secret: None,
        }
    }

    /// The processor time of looking at all places, and how many problems there are.
    fn look(apps: &[ReadApp]) -> (Duration, usize) {
        let source = [Source::new("/etc/corptokend/config.toml", "\n".repeat(500_000))];
        let taken = Taken::new(&[("/var/lib/corptokend/state.redb".into(), "the state")], HashSet::new());
        let now = || Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime)).unwrap();
        let mut problems = Problems::new(&source);
        let start = now();
        check(apps, &taken, &mut problems);
        (now() - start, problems.into_report().problems.len())
    }

    #[test]
    fn twice_as_many_tenants_with_sinks_of_their_own_take_about_twice_as_long_whatever_is_wrong_with_them() {
        let wrong = |tenants| app(tenants, |n| vec![file("/var/lib/corptokend/state.redb/x", n)]);
        let right = |tenants| app(tenants, |n| vec![file("/a/{corp_id}", n), file("/b/{corp_id}", n + 250_000)]);
        let same = |tenants| app(tenants, |n| vec![file(&format!("/a/{}", n / 2), n)]);
        let below = |tenants| app(tenants, |n| vec![file(&format!("/a/{n}"), n), file(&format!("/a/{n}/x"), n)]);
        let kinds: [(&str, &dyn Fn(u32) -> ReadApp); 4] =
            [("wrong", &wrong), ("right", &right), ("same", &same), ("below", &below)];
        for (kind, make) in kinds {
            let ((one, few), (two, many)) = (look(&[make(20_000)]), look(&[make(40_000)]));
            assert!(two < one * 3, "{kind}: {one:?} for 20,000 ({few} problems), {two:?} for 40,000 ({many})");
        }
    }
}
