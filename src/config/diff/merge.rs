//! Two sorted lists of tenants, side by side.

use std::cmp::Ordering;

use crate::domain::CorpId;

/// What happens to a tenant on the way from one list to the next.
pub(crate) enum TenantStep<'old, 'new> {
    Removed(&'old CorpId),
    Added(&'new CorpId),
    Stays(&'old CorpId),
}

/// Walks two sorted lists side by side.
pub(crate) fn walk<'old, 'new>(
    mut old: &'old [CorpId],
    mut new: &'new [CorpId],
    mut step: impl FnMut(TenantStep<'old, 'new>),
) {
    loop {
        match (old, new) {
            ([], []) => return,
            ([gone, rest @ ..], []) => {
                step(TenantStep::Removed(gone));
                old = rest;
            }
            ([], [come, rest @ ..]) => {
                step(TenantStep::Added(come));
                new = rest;
            }
            ([gone, old_rest @ ..], [come, new_rest @ ..]) => match compare(gone, come) {
                Ordering::Less => {
                    step(TenantStep::Removed(gone));
                    old = old_rest;
                }
                Ordering::Greater => {
                    step(TenantStep::Added(come));
                    new = new_rest;
                }
                Ordering::Equal => {
                    step(TenantStep::Stays(gone));
                    (old, new) = (old_rest, new_rest);
                }
            },
        }
    }
}

/// Ids whose text is shared are equal at a glance.
fn compare(a: &CorpId, b: &CorpId) -> Ordering {
    if std::ptr::eq(a.as_str(), b.as_str()) { Ordering::Equal } else { a.cmp(b) }
}
