//! What holds calls back, as `status` sees it.

use super::HeldCalls;
use crate::domain::{BootMs, Failure, Now, OriginId, RouteId};
use crate::engine::Engine;
use crate::engine::apps::{App, RouteGate};
use crate::engine::breaker::Open;
use crate::engine::calls::Gate;
use crate::engine::messages::Scope;
use crate::engine::tenants::Tenant;

impl Engine {
    /// Everything that holds calls back: bans, then routes and apps that are not answered, then apps whose credentials are
    /// not accepted.
    pub fn held_calls(&self, now: Now) -> Vec<HeldCalls> {
        let origins = self.origins.keys().filter_map(|&id| self.hold_of_origin(now, id));
        let routes = self.routes.keys().filter_map(|&id| self.hold_of_route(now, id));
        let apps = self.app_index.values().map(|&ix| self.app(ix)).filter(|app| !app.gone);
        origins.chain(routes).chain(apps.filter_map(|app| self.hold_of_app(now, app))).collect()
    }

    /// What holds a tenant's calls back that is not its own doing: the widest first.
    pub(crate) fn hold_on(&self, now: Now, tenant: &Tenant) -> Option<HeldCalls> {
        let app = self.app(tenant.app);
        let path = app.path;
        let wide = self.hold_of_origin(now, path.origin).or_else(|| self.hold_of_route(now, path.route));
        wide.or_else(|| self.hold_of_app(now, app))
    }

    fn hold_of_origin(&self, now: Now, id: OriginId) -> Option<HeldCalls> {
        let origin = self.origin(id);
        let ban = origin.ban().filter(|_| origin.apps > 0)?;
        let next = origin.next_at();
        Some(hold(now, Scope::Origin(id), &ban.failure, ban.since, next))
    }

    fn hold_of_route(&self, now: Now, id: RouteId) -> Option<HeldCalls> {
        let route = self.route(id);
        let Open { failure, since, .. } = route.breaker.opened()?;
        let next = match route.gate {
            RouteGate::Waiting(at) => Some(at),
            _ => None,
        };
        Some(hold(now, Scope::Route(id), failure, *since, next))
    }

    fn hold_of_app(&self, now: Now, app: &App) -> Option<HeldCalls> {
        if !app.policy.enabled || app.members() == 0 {
            return None; // nobody there waits for a call
        }
        let scope = || Scope::App(app.name.clone());
        if let Some(broken) = &app.breaker {
            let failure = Failure::new(broken.kind, "every tenant of the app would fail alike");
            let next = (app.share.in_flight() == 0).then_some(broken.probe_at);
            return Some(hold(now, scope(), &failure, broken.opened, next));
        }
        let Open { failure, since, .. } = app.endpoint.opened()?;
        let next = match app.gate {
            Gate::Waiting(at) => Some(at),
            _ => None,
        };
        Some(hold(now, scope(), failure, *since, next))
    }
}

fn hold(now: Now, scope: Scope, failure: &Failure, since: BootMs, next: Option<BootMs>) -> HeldCalls {
    let next_probe = next.map(|at| now.wall + at.since(now.boot));
    HeldCalls { scope, failure: failure.clone(), since: now.wall - now.boot.since(since), next_probe }
}
