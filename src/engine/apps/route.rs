//! A route: all calls over the same connection. Where it does not carry calls, it carries them for none of its apps.

use std::collections::BTreeSet;

use crate::domain::OriginId;
use crate::engine::AppIx;
use crate::engine::calls::breaker::Breaker;
use crate::engine::calls::{CallClaim, Concurrency, RouteEligibility};

#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) origin: OriginId,
    /// Apps whose calls go by it.
    pub(crate) apps: u32,
    /// Those of them that are enabled and have tenants.
    pub(crate) members: usize,
    /// Opens when several apps fail one after the other, and none is served meanwhile.
    pub(crate) breaker: Breaker<AppIx>,
    pub(crate) concurrency: Concurrency,
    /// Apps that could call now, best first.
    pub(crate) eligible: BTreeSet<(CallClaim, AppIx)>,
    pub(crate) eligibility: RouteEligibility,
}

impl Route {
    pub(crate) fn new(origin: OriginId) -> Self {
        Self {
            origin,
            apps: 0,
            members: 0,
            breaker: Breaker::default(),
            concurrency: Concurrency::default(),
            eligible: BTreeSet::new(),
            eligibility: RouteEligibility::Ineligible,
        }
    }
}
