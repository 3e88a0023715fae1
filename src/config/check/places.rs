//! Every place of every tenant, looked at once: no two tenants may write the same one, and none may write what is not
//! theirs. At a million tenants this must stay linear, so places are compared by hash first. Where the directories are there,
//! links and mounts count: places are told apart by device, inode and name.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;
use std::path::Path;

use crate::config::diagnostics::collect::{Diagnostics, Span};
use crate::config::environment::own_files::{self, OwnFiles};
use crate::config::environment::sources::Origin;
use crate::config::read::app::AppDraft;
use crate::config::read::sink::Sink;
use crate::domain::{Expansion, Names, Placeholder, SinkKind, TEMPORARY_EXTENSION, TenantId, is_temporary_name};
use crate::system::permissions::{Identity, Reserved};

/// The longest name of a file, in bytes (NAME_MAX), and the longest path (PATH_MAX, its NUL apart).
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4095;
/// As many clashes of each kind are told. Whoever has more sees the rest after mending these.
const MOST: usize = 100;

/// As many directories are looked at for being one and the same by several paths. Beyond, that is found out when they are
/// published to.
const MOST_LOOKED_AT: usize = 10_000;

/// What no sink may write, by path, and by what the path leads to.
struct Reserve<'a> {
    /// Files that are not tokens, and what each is; and the directories above them, of which a sink would make files.
    files: HashMap<String, String>,
    above: HashMap<String, String>,
    directories: HashMap<&'a Path, &'static str>,
    reserved: Reserved,
}

impl<'a> Reserve<'a> {
    fn new(own: &'a OwnFiles, reserved: Reserved) -> Self {
        let directories = own.directories.iter().map(|(path, what)| (path.as_path(), *what)).collect();
        let mut taken = Self { files: HashMap::new(), above: HashMap::new(), directories, reserved };
        for (path, what) in &own.files {
            let text = format!("the sink would overwrite {what}");
            let mut names = path.ancestors().filter_map(Path::to_str).map(str::to_owned);
            taken.files.extend(names.next().map(|name| (name, text.clone())));
            taken.above.extend(names.map(|name| (name, text.clone())));
        }
        taken
    }

    /// What is wrong with a place by itself.
    fn hit(&self, place: &str, directory: Option<Identity>) -> Option<Fault> {
        let by_path = self.files.get(place).or_else(|| self.above.get(place)).cloned();
        let text = by_path.or_else(|| {
            let name = OsStr::new(place.rsplit('/').next().unwrap_or_default());
            let what = self.reserved.entries.get(&(directory?, name.to_owned()))?;
            Some(format!("the sink would overwrite {what}, to which a link or a mount leads"))
        })?;
        Some((text, "publish to another place"))
    }

    /// What is wrong with all places in a directory.
    fn hit_in(&self, path: &str, directory: Option<Identity>) -> Option<Fault> {
        let path = Path::new(path);
        if let Some(text) = path.ancestors().filter_map(Path::to_str).find_map(|above| self.files.get(above)) {
            return Some((text.clone(), "publish to another place"));
        }
        let by_path = self.directories.get(path);
        let what = by_path.or_else(|| self.reserved.directories.get(&directory?))?;
        let text = format!("the sink lies in {}, which is {what}", path.display());
        Some((text, "publish to another directory; one below it will do"))
    }
}

/// What tells places apart: device, inode and name where the directory is there, else the path.
struct Keys {
    hasher: RandomState,
    directories: HashMap<String, Identity>,
}

impl Keys {
    /// The directory of a place, if it was looked at.
    fn directory(&self, place: &str) -> Option<Identity> {
        self.directories.get(parent(place)).copied()
    }

    fn hash(&self, place: &str) -> u64 {
        match self.directory(place) {
            Some(directory) => self.hasher.hash_one((directory, place.rsplit('/').next())),
            None => self.hasher.hash_one(place),
        }
    }

    /// Equal for equal places, and for no others.
    fn exact(&self, place: &str) -> (Option<Identity>, String) {
        match self.directory(place) {
            Some(directory) => (Some(directory), place.rsplit('/').next().unwrap_or_default().to_owned()),
            None => (None, place.to_owned()),
        }
    }
}

/// The directories of all places, each once, as far as they are looked at.
fn directories(apps: &[AppDraft]) -> Vec<String> {
    let (mut all, mut last) = (HashSet::new(), String::new());
    each(apps, &mut |_, place| {
        let parent = parent(place);
        if parent != last {
            last.replace_range(.., parent);
            all.insert(last.clone());
        }
        if all.len() < MOST_LOOKED_AT { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    all.remove("");
    all.into_iter().collect()
}

/// Message and remedy.
type Fault = (String, &'static str);

/// Looks at all places.
pub(crate) fn check(apps: &[AppDraft], own: &OwnFiles, origin: Origin, diagnostics: &mut Diagnostics<'_>) {
    names_without_name(apps, diagnostics);
    // What ran before runs again; a sink whose place has become another's meanwhile is refused when it publishes.
    let looked = match origin {
        Origin::Disk => own_files::look(own, directories(apps)),
        Origin::Memory => own_files::Looked::default(),
    };
    let taken = Reserve::new(own, looked.reserved);
    let keys = Keys { hasher: RandomState::new(), directories: looked.directories.into_iter().collect() };
    let mut hashes = Vec::new();
    // A sink that is wrong is wrong for most of its tenants: it is told once.
    let mut told: HashSet<SinkKey> = HashSet::new();
    // Neighbours mostly share their directory.
    let (mut directory, mut in_directory) = (String::new(), None);
    each(apps, &mut |tenant, place| {
        hashes.push(keys.hash(place));
        let (parent, identity) = (parent(place), keys.directory(place));
        if parent != directory {
            directory.replace_range(.., parent);
            in_directory = taken.hit_in(parent, identity);
        }
        let fault = too_long(place).or_else(|| temporary(place)).or_else(|| taken.hit(place, identity));
        let fault = fault.or_else(|| in_directory.clone());
        if let Some((message, help)) = fault
            && told.insert(tenant.sink_key())
        {
            diagnostics.error(tenant.span(apps), message).help(help);
        }
        ControlFlow::Continue(())
    });
    hashes.sort_unstable();
    same_places(apps, &hashes, &keys, diagnostics);
    nested_places(apps, &hashes, &keys, diagnostics);
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
type SinkKey = (usize, Option<Span>);

/// One sink of one tenant.
#[derive(Clone, Copy)]
struct Of<'a> {
    app: usize,
    tenant: usize,
    sink: &'a Sink,
}

impl Of<'_> {
    /// Where the sink stands, or, where nobody wrote one, the tenant.
    fn span(&self, apps: &[AppDraft]) -> Span {
        self.sink.at.unwrap_or(apps[self.app].tenant_spans[self.tenant])
    }

    fn sink_key(&self) -> SinkKey {
        (self.app, self.sink.at)
    }

    fn id(&self, apps: &[AppDraft]) -> TenantId {
        let app = &apps[self.app];
        TenantId { app: app.name.clone(), corp_id: app.app.tenants[self.tenant].clone() }
    }
}

/// Calls `seen` with every place: a file's path, or a key's path with a `:` before it, so that they never meet.
fn each<'a>(apps: &'a [AppDraft], seen: &mut dyn FnMut(Of<'a>, &str) -> ControlFlow<()>) {
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
fn names_without_name(apps: &[AppDraft], diagnostics: &mut Diagnostics<'_>) {
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
        let diagnostic = diagnostics.error(read.tenant_spans[index], message).help(format!(
            "add [app.{}.tenant.{corp_id}] with a name = \"…\", or write {{corp_id}} in the sink",
            read.name
        ));
        if let Some(at) = sink.at {
            diagnostic.also(at, "{name} is used here");
        }
    }
}

/// Two sinks, or two tenants of one sink, that would write the same place.
fn same_places(apps: &[AppDraft], hashes: &[u64], keys: &Keys, diagnostics: &mut Diagnostics<'_>) {
    let twice: Vec<u64> = hashes.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    if twice.is_empty() {
        return;
    }
    let mut first: HashMap<_, (Of<'_>, String)> = HashMap::new();
    // The first pair of each pair of sinks stands for all: a fixed path gives one clash per tenant.
    let mut clashes: Vec<Clash<'_>> = Vec::new();
    let mut known: HashMap<(SinkKey, SinkKey), usize> = HashMap::new();
    each(apps, &mut |later, place| {
        if twice.binary_search(&keys.hash(place)).is_err() {
            return ControlFlow::Continue(());
        }
        let key = keys.exact(place);
        let Some((earlier, there)) = first.get(&key) else {
            first.insert(key, (later, place.to_owned()));
            return ControlFlow::Continue(());
        };
        match known.entry((earlier.sink_key(), later.sink_key())) {
            Entry::Occupied(clash) => clashes[*clash.get()].more += 1,
            Entry::Vacant(new) => {
                new.insert(clashes.len());
                clashes.push(Clash { earlier: *earlier, later, by_one_path: there == place, more: 0 });
            }
        }
        // Hundreds of tenants with clashing sinks of their own are told of well enough by the first.
        if clashes.len() < MOST { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    for clash in clashes {
        clash.tell(apps, diagnostics);
    }
}

/// Two sinks on one place.
struct Clash<'a> {
    earlier: Of<'a>,
    later: Of<'a>,
    /// Whether they give the place one path. If not, a link or a mount makes one place of two.
    by_one_path: bool,
    /// How many more places they have in common.
    more: usize,
}

impl Clash<'_> {
    /// The place itself is not told: the two lines show it, unless it is what a secret in the wrong key turned into.
    fn tell(&self, apps: &[AppDraft], diagnostics: &mut Diagnostics<'_>) {
        let Self { earlier, later, by_one_path, more } = self;
        let (one, two) = (earlier.id(apps), later.id(apps));
        let others = if *more > 0 { format!(" (and {more} more)") } else { String::new() };
        let whose = if one == two { format!("both of {one}") } else { format!("of {one} and of {two}") };
        let how = if *by_one_path { "" } else { ", which a link or a mount makes one" };
        let message = format!("two sinks would write the same place{how}: {whose}{others}");
        let help = if earlier.app == later.app && earlier.tenant != later.tenant {
            "put {corp_id} into the path, so that each tenant has its own"
        } else {
            "give each its own place, for example with {app} and {corp_id}"
        };
        let (here, there) = (later.span(apps), earlier.span(apps));
        let diagnostic = diagnostics.error(here, message).help(help);
        if here != there {
            diagnostic.also(there, "the other one");
        }
    }
}

/// A file below what another sink makes a file of.
fn nested_places(apps: &[AppDraft], hashes: &[u64], keys: &Keys, diagnostics: &mut Diagnostics<'_>) {
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
            let taken = hashes.binary_search(&keys.hash(ancestor)).is_ok();
            if taken && known.insert(tenant.sink_key()) {
                found.push((tenant, ancestor.to_owned()));
            }
        }
        if found.len() < MOST { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if found.is_empty() {
        return;
    }
    let mut above: HashMap<_, Option<Of<'_>>> = found.iter().map(|(_, place)| (keys.exact(place), None)).collect();
    each(apps, &mut |tenant, place| {
        if let Some(owner) = above.get_mut(&keys.exact(place)) {
            owner.get_or_insert(tenant);
        }
        ControlFlow::Continue(())
    });
    for (tenant, place) in &found {
        // Two places with one hash are not one place.
        let Some(owner) = above[&keys.exact(place)] else { continue };
        let (below, file) = (tenant.id(apps), owner.id(apps));
        let message = format!("the sink of {below} lies below a file, which a sink of {file} makes");
        let diagnostic = diagnostics.error(tenant.span(apps), message).help("publish one of the two elsewhere");
        diagnostic.also(owner.span(apps), "the file");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::environment::sources::Source;
    use crate::config::model::App;
    use crate::domain::{
        AppName, AppPolicy, CorpId, Endpoint, FileSink, Format, OnRemove, Refresh, Retry, SecretSource, Template,
    };

    fn file(path: &str, at: u32) -> Sink {
        let path = Template::parse(path, Placeholder::IN_PATHS).unwrap();
        let (mode, dir_mode) = (0o640, 0o750);
        let file = FileSink { path, format: Format::Raw, mode, dir_mode, owner: None, group: None, trust_dir: false };
        Sink { kind: SinkKind::File(file), at: Some(Span { file: 0, start: at, end: at }) }
    }

    /// An app whose tenants each have sinks of their own, the `n`th those that `sinks` makes.
    fn app(tenants: u32, sinks: impl Fn(u32) -> Vec<Sink>) -> AppDraft {
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
        AppDraft {
            name: AppName::new("crm").unwrap(),
            app,
            tenant_spans: (0..tenants).map(|at| Span { file: 0, start: at, end: at }).collect(),
            sinks: [].into(),
            own_sinks: (0..tenants).map(|n| (n as usize, sinks(n).into())).collect(),
            secret: None,
        }
    }

    /// The processor time of looking at all places, and how many problems there are.
    fn look(apps: &[AppDraft]) -> (Duration, usize) {
        let source = [Source::new("/etc/corptokend/config.toml", "\n".repeat(500_000))];
        let own =
            OwnFiles { files: vec![("/var/lib/corptokend/state.redb".into(), "the state")], ..OwnFiles::default() };
        let now = || Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime)).unwrap();
        let mut diagnostics = Diagnostics::new(&source);
        let start = now();
        check(apps, &own, Origin::Disk, &mut diagnostics);
        (now() - start, diagnostics.into_report().diagnostics.len())
    }

    #[test]
    fn twice_as_many_tenants_with_sinks_of_their_own_take_about_twice_as_long_whatever_is_wrong_with_them() {
        let wrong = |tenants| app(tenants, |n| vec![file("/var/lib/corptokend/state.redb/x", n)]);
        let right = |tenants| app(tenants, |n| vec![file("/a/{corp_id}", n), file("/b/{corp_id}", n + 250_000)]);
        let same = |tenants| app(tenants, |n| vec![file(&format!("/a/{}", n / 2), n)]);
        let below = |tenants| app(tenants, |n| vec![file(&format!("/a/{n}"), n), file(&format!("/a/{n}/x"), n)]);
        let kinds: [(&str, &dyn Fn(u32) -> AppDraft); 4] =
            [("wrong", &wrong), ("right", &right), ("same", &same), ("below", &below)];
        for (kind, make) in kinds {
            let ((one, few), (two, many)) = (look(&[make(20_000)]), look(&[make(40_000)]));
            assert!(two < one * 3, "{kind}: {one:?} for 20,000 ({few} diagnostics), {two:?} for 40,000 ({many})");
        }
    }
}
