//! An app's tenants: `corp_ids`, and `[app.NAME.tenant.CORP_ID]` for those with settings of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::reader::{self, Fault, Section};
use super::sink::{self, Reading, Sink};
use super::values;
use crate::config::diagnostics::collect::{Mark, Problems};
use crate::config::parse::merge::Value;
use crate::config::schema;
use crate::domain::{CorpId, TenantName};

/// An app's tenants, sorted, each once.
#[derive(Default)]
pub(crate) struct Tenants {
    pub(crate) ids: Vec<CorpId>,
    /// Where each stands.
    pub(crate) marks: Vec<Mark>,
    /// Those with settings of their own, by their index.
    pub(crate) special: BTreeMap<usize, Own>,
}

/// What a tenant says for itself.
pub(crate) struct Own {
    pub(crate) name: Option<TenantName>,
    pub(crate) sinks: Option<Arc<[Sink]>>,
}

/// Reads an app's tenants.
pub(crate) fn read(section: &Section<'_, '_>, reading: &Reading<'_>, problems: &mut Problems<'_>) -> Tenants {
    let mut listed = listed(section, problems);
    for pair in listed.windows(2) {
        if pair[0].0 == pair[1].0 {
            problems
                .error(pair[1].1, format!("the tenant {} is listed twice", pair[0].0))
                .also(pair[0].1, "it is listed here, too")
                .help("remove one of the two");
        }
    }
    listed.dedup_by(|later, earlier| later.0 == earlier.0);
    let mut own = own_settings(section, reading, problems);
    let also: Vec<(CorpId, Mark)> = own
        .iter()
        .filter(|(id, _)| listed.binary_search_by(|(listed, _)| listed.cmp(id)).is_err())
        .map(|(id, (mark, _))| (id.clone(), *mark))
        .collect();
    if !also.is_empty() {
        listed.extend(also);
        listed.sort_unstable();
    }
    let (ids, marks): (Vec<CorpId>, Vec<Mark>) = listed.into_iter().unzip();
    let special =
        ids.iter().enumerate().filter_map(|(index, id)| own.remove(id).map(|(_, own)| (index, own))).collect();
    Tenants { ids, marks, special }
}

/// The ids of `corp_ids`, sorted. They are sorted before they are made, so that neighbours in the list are neighbours in
/// memory: all that is done later to all tenants is done in this order.
fn listed(section: &Section<'_, '_>, problems: &mut Problems<'_>) -> Vec<(CorpId, Mark)> {
    let items = section.list("corp_ids", problems).unwrap_or_default();
    let texts = items.iter().filter_map(|item| Some((reader::element("corp_ids", item, problems)?, item.at)));
    let mut texts: Vec<(&str, Mark)> = texts.collect();
    texts.sort_unstable();
    let mut ids = Vec::with_capacity(texts.len());
    for (text, at) in texts {
        match CorpId::new(text) {
            Ok(id) => ids.push((id, at)),
            Err(_) => {
                problems.error(at, format!("a corp_id must be {}", CorpId::RULE));
            }
        }
    }
    ids
}

fn own_settings(
    section: &Section<'_, '_>,
    reading: &Reading<'_>,
    problems: &mut Problems<'_>,
) -> BTreeMap<CorpId, (Mark, Own)> {
    let mut tenants = BTreeMap::new();
    let table = section.table("tenant", problems);
    for (key, entry) in table.iter().flat_map(|table| &table.entries) {
        let id = CorpId::new(key);
        if id.is_err() {
            problems.error(entry.key, format!("a corp_id must be {}", CorpId::RULE));
        }
        let Value::Table(table) = &entry.value else {
            problems
                .error(entry.key, format!("a tenant is a table, and this is {}", entry.value.kind()))
                .help("write [app.NAME.tenant.CORP_ID], and the tenant's keys below it");
            continue;
        };
        let section = Section::open(Some(table), &schema::TENANT, problems);
        let own = Own {
            name: section.text("name", problems, name).map(|set| set.value),
            sinks: section.list("sink", problems).map(|items| sink::sinks(items, reading, problems).into()),
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
