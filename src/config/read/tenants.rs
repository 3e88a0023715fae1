//! An app's tenants: `corp_ids`, and `[app.NAME.tenant.CORP_ID]` for those with settings of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::reader::{self, Fault, Reader};
use super::sink::{self, Context, Sink};
use super::values;
use crate::config::diagnostics::collect::{Diagnostics, Span};
use crate::config::parse::merge::Value;
use crate::config::schema;
use crate::domain::{CorpId, TenantName};

/// An app's tenants, sorted, each once.
#[derive(Default)]
pub(crate) struct Tenants {
    pub(crate) ids: Vec<CorpId>,
    /// Where each stands.
    pub(crate) marks: Vec<Span>,
    /// Those with settings of their own, by their index.
    pub(crate) special: BTreeMap<usize, OwnFiles>,
}

/// What a tenant says for itself.
pub(crate) struct OwnFiles {
    pub(crate) name: Option<TenantName>,
    pub(crate) sinks: Option<Arc<[Sink]>>,
}

/// Reads an app's tenants.
pub(crate) fn read(reader: &Reader<'_, '_>, context: &Context<'_>, diagnostics: &mut Diagnostics<'_>) -> Tenants {
    let mut listed = listed(reader, diagnostics);
    for pair in listed.windows(2) {
        if pair[0].0 == pair[1].0 {
            diagnostics
                .error(pair[1].1, format!("the tenant {} is listed twice", pair[0].0))
                .also(pair[0].1, "it is listed here, too")
                .help("remove one of the two");
        }
    }
    listed.dedup_by(|later, earlier| later.0 == earlier.0);
    let mut own = own_settings(reader, context, diagnostics);
    let also: Vec<(CorpId, Span)> = own
        .iter()
        .filter(|(id, _)| listed.binary_search_by(|(listed, _)| listed.cmp(id)).is_err())
        .map(|(id, (mark, _))| (id.clone(), *mark))
        .collect();
    if !also.is_empty() {
        listed.extend(also);
        listed.sort_unstable();
    }
    let (ids, marks): (Vec<CorpId>, Vec<Span>) = listed.into_iter().unzip();
    let special =
        ids.iter().enumerate().filter_map(|(index, id)| own.remove(id).map(|(_, own)| (index, own))).collect();
    Tenants { ids, marks, special }
}

/// The ids of `corp_ids`, sorted. They are sorted before they are made, so that neighbours in the list are neighbours in
/// memory: all that is done later to all tenants is done in this order.
fn listed(reader: &Reader<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> Vec<(CorpId, Span)> {
    let items = reader.list("corp_ids", diagnostics).unwrap_or_default();
    let texts = items.iter().filter_map(|item| Some((reader::element("corp_ids", item, diagnostics)?, item.at)));
    let mut texts: Vec<(&str, Span)> = texts.collect();
    texts.sort_unstable();
    let mut ids = Vec::with_capacity(texts.len());
    for (text, at) in texts {
        match CorpId::new(text) {
            Ok(id) => ids.push((id, at)),
            Err(_) => {
                diagnostics.error(at, format!("a corp_id must be {}", CorpId::RULE));
            }
        }
    }
    ids
}

fn own_settings(
    reader: &Reader<'_, '_>,
    context: &Context<'_>,
    diagnostics: &mut Diagnostics<'_>,
) -> BTreeMap<CorpId, (Span, OwnFiles)> {
    let mut tenants = BTreeMap::new();
    let table = reader.table("tenant", diagnostics);
    for (key, entry) in table.iter().flat_map(|table| &table.entries) {
        let id = CorpId::new(key);
        if id.is_err() {
            diagnostics.error(entry.key, format!("a corp_id must be {}", CorpId::RULE));
        }
        let Value::Table(table) = &entry.value else {
            diagnostics
                .error(entry.key, format!("a tenant is a table, and this is {}", entry.value.kind()))
                .help("write [app.NAME.tenant.CORP_ID], and the tenant's keys below it");
            continue;
        };
        let reader = Reader::open(Some(table), &schema::TENANT, diagnostics);
        let own = OwnFiles {
            name: reader.text("name", diagnostics, name).map(|set| set.value),
            sinks: reader.list("sink", diagnostics).map(|items| sink::sinks(items, context, diagnostics).into()),
        };
        if let Ok(id) = id {
            tenants.insert(id, (entry.key, own));
        }
    }
    tenants
}

fn name(text: &str) -> Result<TenantName, Fault> {
    values::visible(text)?;
    TenantName::new(text).map_err(|_| Fault::new(format!("must be {}", TenantName::RULE)))
}
