//! What holds calls back, as `status` shows it.

use super::HeldCalls;
use crate::domain::{BootMs, Failure, Now, OriginId, RouteId};
use crate::engine::Engine;
use crate::engine::apps::App;
use crate::engine::calls::breaker::Open;
use crate::engine::calls::{Eligibility, RouteEligibility};
use crate::engine::messages::CallScope;
use crate::engine::tenants::Tenant;

impl Engine {
    /// Everything that holds calls back: bans, then routes and apps that are not answered, then apps whose credentials are
    /// not accepted.
    pub fn held_calls(&self, now: Now) -> Vec<HeldCalls> {
        let origins = self.origins.keys().filter_map(|&id| self.held_by_origin(now, id));
        let routes = self.routes.keys().filter_map(|&id| self.held_by_route(now, id));
        let apps = self.apps.iter().filter(|app| !app.removed).filter_map(|app| held_by_app(now, app));
        origins.chain(routes).chain(apps).collect()
    }

    /// What holds a tenant's calls back that is not its own doing: the widest first.
    pub(super) fn held_for(&self, now: Now, tenant: &Tenant) -> Option<HeldCalls> {
        let app = &self.apps[tenant.app];
        let wide = self.held_by_origin(now, app.path.origin).or_else(|| self.held_by_route(now, app.path.route));
        wide.or_else(|| held_by_app(now, app))
    }

    fn held_by_origin(&self, now: Now, id: OriginId) -> Option<HeldCalls> {
        let origin = self.origin(id);
        let ban = origin.ban().filter(|_| origin.apps > 0)?;
        Some(held(now, CallScope::Origin(id), &ban.failure, ban.since, origin.next_at()))
    }

    fn held_by_route(&self, now: Now, id: RouteId) -> Option<HeldCalls> {
        let route = self.route(id);
        let Open { failure, since, .. } = route.breaker.opened()?;
        let next = match route.eligibility {
            RouteEligibility::Waiting(at) => Some(at),
            _ => None,
        };
        Some(held(now, CallScope::Route(id), failure, *since, next))
    }
}

fn held_by_app(now: Now, app: &App) -> Option<HeldCalls> {
    if !app.policy.enabled || app.members() == 0 {
        return None; // nobody there waits for a call
    }
    let scope = CallScope::App(app.name.clone());
    if let Some(open) = &app.credentials_breaker {
        let failure = Failure::new(open.kind, "every tenant of the app would fail alike");
        let next = (app.concurrency.in_flight() == 0).then_some(open.probe_at);
        return Some(held(now, scope, &failure, open.opened, next));
    }
    let Open { failure, since, .. } = app.breaker.opened()?;
    let next = match app.eligibility {
        Eligibility::Waiting(at) => Some(at),
        _ => None,
    };
    Some(held(now, scope, failure, *since, next))
}

fn held(now: Now, scope: CallScope, failure: &Failure, since: BootMs, next: Option<BootMs>) -> HeldCalls {
    let next_probe = next.map(|at| now.wall + at.since(now.boot));
    HeldCalls { scope, failure: failure.clone(), since: now.wall - now.boot.since(since), next_probe }
}
