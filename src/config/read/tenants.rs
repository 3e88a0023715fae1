//! An app's tenants: `corp_ids`, and `[app.NAME.tenant.CORP_ID]` for those with settings of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::reader::{self, Reader};
use super::sink::{self, SinkDraft};
use super::values::{self, ValueFault};
use crate::config::diagnostics::collect::Span;
use crate::config::parse::merge::NodeValue;
use crate::config::schema::TENANT;
use crate::domain::{CorpId, TenantName};

/// An app's tenants, sorted, each once.
#[derive(Default)]
pub(crate) struct TenantDrafts {
    pub(crate) ids: Vec<CorpId>,
    /// Where each stands.
    pub(crate) spans: Vec<Span>,
    /// Those with settings of their own, by their index.
    pub(crate) overrides: BTreeMap<usize, OverridesDraft>,
}

/// What a tenant sets for itself.
pub(crate) struct OverridesDraft {
    pub(crate) name: Option<TenantName>,
    pub(crate) sinks: Option<Arc<[SinkDraft]>>,
}

/// Reads an app's tenants.
pub(crate) fn read(app: &Reader<'_>) -> TenantDrafts {
    let mut listed = listed(app);
    for pair in listed.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        app.error(pair[1].1, format!("the tenant {} is listed twice", pair[0].0))
            .also(pair[0].1, "it is listed here, too")
            .help("remove one of the two");
    }
    listed.dedup_by(|later, earlier| later.0 == earlier.0);
    let mut own = own_settings(app);
    let is_new = |id: &CorpId| listed.binary_search_by(|(listed, _)| listed.cmp(id)).is_err();
    let also: Vec<(CorpId, Span)> =
        own.iter().filter(|(id, _)| is_new(id)).map(|(id, (at, _))| (id.clone(), *at)).collect();
    if !also.is_empty() {
        listed.extend(also);
        listed.sort_unstable();
    }
    let (ids, spans): (Vec<CorpId>, Vec<Span>) = listed.into_iter().unzip();
    let overrides = ids.iter().enumerate().filter_map(|(index, id)| Some((index, own.remove(id)?.1))).collect();
    TenantDrafts { ids, spans, overrides }
}

/// The ids of `corp_ids`, sorted. They are sorted before they are made, so that neighbours in the list are neighbours in
/// memory: all that is done later to all tenants is done in this order.
fn listed(app: &Reader<'_>) -> Vec<(CorpId, Span)> {
    let elements = app.list("corp_ids").unwrap_or_default();
    let text = |item| reader::element("corp_ids", item, app.context);
    let mut texts: Vec<(&str, Span)> = elements.iter().filter_map(|item| Some((text(item)?, item.at))).collect();
    texts.sort_unstable();
    let mut ids = Vec::with_capacity(texts.len());
    for (text, at) in texts {
        match CorpId::new(text) {
            Ok(id) => ids.push((id, at)),
            Err(_) => drop(app.error(at, format!("a corp_id must be {}", CorpId::RULE))),
        }
    }
    ids
}

fn own_settings(app: &Reader<'_>) -> BTreeMap<CorpId, (Span, OverridesDraft)> {
    let mut tenants = BTreeMap::new();
    for (key, node) in app.tree("tenant").into_iter().flat_map(|tree| &tree.nodes) {
        let id = CorpId::new(key);
        if id.is_err() {
            app.error(node.key, format!("a corp_id must be {}", CorpId::RULE));
        }
        let NodeValue::Table(tree) = &node.value else {
            app.error(node.key, format!("a tenant is a table, and this is {}", node.value.kind()))
                .help("write [app.NAME.tenant.CORP_ID], and the tenant's keys below it");
            continue;
        };
        let reader = Reader::open(Some(tree), &TENANT, app.context);
        let name = reader.text("name", name).map(|name| name.value);
        let overrides = OverridesDraft { name, sinks: sink::sinks(&reader) };
        if let Ok(id) = id {
            tenants.insert(id, (node.key, overrides));
        }
    }
    tenants
}

fn name(text: &str) -> Result<TenantName, ValueFault> {
    values::visible(text)?;
    TenantName::new(text).map_err(|_| ValueFault::new(format!("must be {}", TenantName::RULE)))
}
