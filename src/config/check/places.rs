//! The places of all tenants' sinks, one after the other: nothing is kept, since a million tenants have a million places.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

use crate::config::diagnostics::collect::Span;
use crate::config::model::AppConfig;
use crate::config::read::app::AppDraft;
use crate::config::read::sink::SinkDraft;
use crate::domain::{AppName, ClientId, CorpId, Expansion, Names, SinkKind, SinkSpec, TenantId, TenantName};

/// The most directories that are identified by device and inode. Beyond that, one place with two paths is found when a sink
/// publishes to it.
const MOST_DIRECTORIES: usize = 10_000;
/// The span of what stands in no text.
const NOWHERE: Span = Span { file: 0, start: 0, end: 0 };

/// One app's tenants and their sinks, with the spans that diagnostics need.
pub(crate) struct AppPlaces<'a> {
    pub(crate) name: &'a AppName,
    pub(crate) tenants: &'a [CorpId],
    client_id: &'a ClientId,
    /// Where each tenant stands; empty where they stand in no text.
    spans: &'a [Span],
    names: BTreeMap<usize, &'a TenantName>,
    shared: Vec<PlacedSink<'a>>,
    /// The sinks of tenants that have their own.
    own: BTreeMap<usize, Vec<PlacedSink<'a>>>,
}

/// A sink and where it stands, if anybody wrote it.
#[derive(Clone, Copy)]
pub(crate) struct PlacedSink<'a> {
    pub(crate) kind: &'a SinkKind,
    pub(crate) at: Option<Span>,
}

/// One sink of one tenant, by their indices.
#[derive(Clone, Copy)]
pub(crate) struct TenantSink<'a> {
    app: usize,
    tenant: usize,
    sink: PlacedSink<'a>,
}

/// Names a sink among all: its app, and where it stands.
pub(crate) type SinkPosition = (usize, Option<Span>);

impl<'a> AppPlaces<'a> {
    pub(crate) fn of_draft(app: &'a AppDraft) -> Self {
        let placed =
            |sinks: &'a [SinkDraft]| sinks.iter().map(|sink| PlacedSink { kind: &sink.kind, at: sink.at }).collect();
        let overrides = &app.tenants.overrides;
        Self {
            name: &app.name,
            tenants: &app.tenants.ids,
            client_id: &app.client_id,
            spans: &app.tenants.spans,
            names: overrides.iter().filter_map(|(tenant, own)| Some((*tenant, own.name.as_ref()?))).collect(),
            shared: placed(app.settings.sinks()),
            own: overrides.iter().filter_map(|(tenant, own)| Some((*tenant, placed(own.sinks.as_deref()?)))).collect(),
        }
    }

    pub(crate) fn of_config(name: &'a AppName, app: &'a AppConfig) -> Self {
        let placed =
            |sinks: &'a [SinkSpec]| sinks.iter().map(|sink| PlacedSink { kind: &sink.kind, at: None }).collect();
        let overrides =
            || app.overrides.iter().filter_map(|(id, own)| Some((app.tenants.binary_search(id).ok()?, own)));
        Self {
            name,
            tenants: &app.tenants,
            client_id: &app.client_id,
            spans: &[],
            names: overrides().filter_map(|(tenant, own)| Some((tenant, own.name.as_ref()?))).collect(),
            shared: placed(&app.sinks),
            own: overrides().filter_map(|(tenant, own)| Some((tenant, placed(own.sinks.as_deref()?)))).collect(),
        }
    }

    pub(crate) fn sinks_of(&self, tenant: usize) -> &[PlacedSink<'a>] {
        self.own.get(&tenant).unwrap_or(&self.shared)
    }

    pub(crate) fn has_name(&self, tenant: usize) -> bool {
        self.names.contains_key(&tenant)
    }

    pub(crate) fn span_of(&self, tenant: usize) -> Span {
        self.spans.get(tenant).copied().unwrap_or(NOWHERE)
    }

    fn id_of(&self, tenant: usize) -> TenantId {
        TenantId { app: self.name.clone(), corp_id: self.tenants[tenant].clone() }
    }

    fn names_of(&self, tenant: usize) -> Names {
        let name = self.names.get(&tenant).map(|name| (*name).clone());
        Names { id: self.id_of(tenant), name, client_id: self.client_id.clone() }
    }
}

impl TenantSink<'_> {
    /// Where the sink stands, or, where nobody wrote one, the tenant.
    pub(crate) fn span(&self, apps: &[AppPlaces<'_>]) -> Span {
        self.sink.at.unwrap_or_else(|| apps[self.app].span_of(self.tenant))
    }

    pub(crate) fn position(&self) -> SinkPosition {
        (self.app, self.sink.at)
    }

    pub(crate) fn tenant_id(&self, apps: &[AppPlaces<'_>]) -> TenantId {
        apps[self.app].id_of(self.tenant)
    }

    /// Whether both are of one app and of different tenants.
    pub(crate) fn is_of_sibling(&self, other: &Self) -> bool {
        self.app == other.app && self.tenant != other.tenant
    }
}

/// Calls `visit` with every place: a file's path, or a key's path with a `:` before it, so that they never meet.
pub(crate) fn each<'a>(apps: &[AppPlaces<'a>], visit: &mut dyn FnMut(TenantSink<'a>, &str) -> ControlFlow<()>) {
    let mut place = String::new();
    for (app, places) in apps.iter().enumerate() {
        for tenant in 0..places.tenants.len() {
            let names = places.names_of(tenant);
            for sink in places.sinks_of(tenant) {
                place.clear();
                expand(sink.kind, &names, &mut place);
                if visit(TenantSink { app, tenant, sink: *sink }, &place).is_break() {
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

/// The directory of a place; keys have none.
pub(crate) fn directory_of(place: &str) -> &str {
    if place.starts_with(':') { "" } else { place.rfind('/').map_or("", |slash| &place[..slash.max(1)]) }
}

/// The name of a place in its directory.
pub(crate) fn name_of(place: &str) -> &str {
    place.rsplit('/').next().unwrap_or_default()
}

/// The directories of all places, each once, up to a limit.
pub(crate) fn directories(apps: &[AppPlaces<'_>]) -> Vec<String> {
    let (mut all, mut last) = (HashSet::new(), String::new());
    each(apps, &mut |_, place| {
        let directory = directory_of(place);
        if directory != last {
            last.replace_range(.., directory);
            all.insert(last.clone());
        }
        if all.len() < MOST_DIRECTORIES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    all.remove("");
    all.into_iter().collect()
}
