//! One app: its limit, its queue, its share of the calls under way, and its two breakers: one for credentials with which all
//! its tenants would fail alike, and one for an endpoint that answers none of them.

mod origin;
mod route;

pub(crate) use origin::{BAN_MS, Origin};
pub(crate) use route::{Candidate, Route, RouteGate};

use crate::domain::{AppName, AppPolicy, BootMs, CallPath, FailureKind, Freshness, Now, Slot, TenantCounts};
use crate::engine::Engine;
use crate::engine::breaker::Breaker as CallBreaker;
use crate::engine::calls::{Gate, Limiter, Queue, Share};
use crate::engine::messages::Notice;
use crate::engine::scheduler::Revisit;

/// An app's place in the engine's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AppIx(pub(crate) u32);

#[derive(Debug)]
pub(crate) struct App {
    pub(crate) name: AppName,
    pub(crate) policy: AppPolicy,
    pub(crate) path: CallPath,
    /// Since when its calls go that way. Answers to calls from before say nothing about it.
    pub(crate) path_since: BootMs,
    pub(crate) limiter: Limiter,
    pub(crate) queue: Queue,
    pub(crate) gate: Gate,
    pub(crate) breaker: Option<Breaker>,
    /// Its breaker was closed because its credentials changed; whether that helped is still to be said.
    pub(crate) awaits_proof: bool,
    /// Opens when several of its tenants get no answer that could be one, and none of them does.
    pub(crate) endpoint: CallBreaker<Slot>,
    pub(crate) share: Share,
    /// Those in trouble had to let the others go first when that was last looked at.
    pub(crate) preferred_untroubled: bool,
    /// How much service it has had, as fair queueing counts it.
    pub(crate) attained: u64,
    /// Its tenants, those included that left while a call was under way.
    pub(crate) tenants: u32,
    pub(crate) counts: TenantCounts,
    /// How many calls its tenants' tokens ask for, as [`Held::lives`](crate::engine::tenants::Held::lives) counts them.
    pub(crate) demand: u64,
    /// Since when its credentials are those of today: answers to earlier calls say nothing about them.
    pub(crate) credentials_since: BootMs,
    /// Its tenants are to be looked at again.
    pub(crate) revisit: Option<Revisit>,
    /// How often one of its places was set right after somebody else had touched it.
    pub(crate) repairs: u64,
    /// It left the config; it goes when its last call has ended.
    pub(crate) gone: bool,
}

/// All tenants of the app would fail alike: one probe at a time stands for them.
#[derive(Debug)]
pub(crate) struct Breaker {
    pub(crate) kind: FailureKind,
    /// Answers to calls sent before this moment say nothing new.
    pub(crate) opened: BootMs,
    pub(crate) probes: u16,
    pub(crate) probe_at: BootMs,
    pub(crate) said: BootMs,
}

impl Breaker {
    /// How long to wait for the next probe. Reading a secret costs nobody anything, so that is tried sooner.
    pub(crate) fn wait_ms(kind: FailureKind, probes: u16) -> u64 {
        let (first, longest) = match kind {
            FailureKind::SecretUnreadable => (1_000, 60_000),
            _ => (30_000, 900_000),
        };
        (first << probes.min(10)).min(longest)
    }
}

impl App {
    /// How many tenants it has.
    pub(crate) fn members(&self) -> usize {
        usize::try_from(self.counts.total()).unwrap_or(usize::MAX)
    }

    /// Whether a call is under way, or would be sent if the limits and the shares allowed it.
    pub(crate) fn wants_calls(&self) -> bool {
        self.share.in_flight() > 0 || (self.breaker.is_none() && self.gate != Gate::Closed)
    }

    /// When it may next call, as far as its limit and its credentials say; `None`: not before an answer comes, or never.
    pub(crate) fn next_at(&self) -> Option<BootMs> {
        match &self.breaker {
            _ if !self.policy.enabled => None,
            None => Some(self.limiter.next_at()),
            Some(_) if self.share.in_flight() > 0 => None,
            Some(breaker) => Some(self.limiter.next_at().max(breaker.probe_at)),
        }
    }
}

impl Engine {
    pub(crate) fn set_app(&mut self, now: Now, name: AppName, policy: AppPolicy, path: CallPath, freshness: Freshness) {
        let Some(&ix) = self.app_index.get(&name) else {
            self.add_app(now, name, policy, path);
            return;
        };
        self.set_path(now, ix, path);
        let app = self.app_mut(ix);
        let returned = std::mem::take(&mut app.gone);
        let before = std::mem::replace(&mut app.policy, policy);
        app.limiter.set_rate(now.boot, policy.rate);
        let gave_way = (freshness == Freshness::Stale || returned) && app.breaker.take().is_some();
        app.awaits_proof |= gave_way;
        if gave_way {
            self.remember_breaker(now, ix);
        }
        if freshness == Freshness::Stale || before.refresh != policy.refresh || before.enabled != policy.enabled {
            self.revisit_app(now, ix, freshness);
        }
        self.regate(now, ix);
    }

    fn add_app(&mut self, now: Now, name: AppName, policy: AppPolicy, path: CallPath) {
        self.enter_path(now, path);
        let app = App {
            name: name.clone(),
            policy,
            path,
            path_since: now.boot,
            limiter: Limiter::new(policy.rate, now.boot),
            queue: Queue::default(),
            gate: Gate::Closed,
            breaker: None,
            awaits_proof: false,
            endpoint: CallBreaker::default(),
            share: Share::default(),
            preferred_untroubled: false,
            attained: 0,
            tenants: 0,
            counts: TenantCounts::default(),
            demand: 0,
            credentials_since: BootMs(0),
            revisit: None,
            repairs: 0,
            gone: false,
        };
        let free = self.apps.iter().position(Option::is_none);
        let number = free.unwrap_or_else(|| {
            self.apps.push(None);
            self.apps.len() - 1
        });
        self.apps[number] = Some(app);
        let ix = AppIx(u32::try_from(number).expect("fewer than 2^32 apps"));
        self.app_index.insert(name, ix);
        self.recall_app(now, ix);
    }

    /// An app's calls go another way from here on. What it knew of the old one is no more.
    fn set_path(&mut self, now: Now, ix: AppIx, path: CallPath) {
        let before = self.app(ix).path;
        if path == before {
            return;
        }
        self.enter_path(now, path);
        self.set_gate(now, ix, Gate::Closed);
        let app = self.app_mut(ix);
        (app.path, app.path_since) = (path, now.boot);
        let under_way = app.share.in_flight();
        let failed = std::mem::take(&mut app.endpoint);
        if before.route != path.route {
            self.route_mut(before.route).share.give_away(under_way);
            self.route_mut(path.route).share.take_over(under_way, now.boot);
        }
        if under_way > 0 {
            // What they bring is not taken for what became of a probe: others may be.
            self.route_mut(before.route).breaker.abandon_probes();
            self.origin_mut(before.origin).abandon_probe();
            self.regate_origin(now, before.origin);
        }
        self.leave_path(now, ix, before);
        if let Some(open) = failed.into_opened() {
            self.say(Notice::BreakerClosed { scope: self.scope_of(ix) });
            self.let_go(now, ix, open, None);
        }
        self.regate(now, ix);
    }

    fn enter_path(&mut self, now: Now, path: CallPath) {
        self.routes.entry(path.route).or_insert_with(|| Route::new(path.origin)).apps += 1;
        self.enter_origin(now, path.origin);
    }

    fn leave_path(&mut self, now: Now, ix: AppIx, path: CallPath) {
        let route = self.route_mut(path.route);
        route.breaker.forget(ix);
        route.apps -= 1;
        if route.apps == 0 {
            self.routes.remove(&path.route);
        }
        self.leave_origin(now, path.origin);
    }

    /// Drops an app that left the config, once none of its tenants' calls is under way.
    pub(crate) fn drop_app_if_empty(&mut self, now: Now, ix: AppIx) {
        let app = self.app(ix);
        if app.gone && app.tenants == 0 {
            let name = app.name.clone();
            self.app_mut(ix).queue = Queue::default();
            self.forget_app(now, ix);
            self.set_gate(now, ix, Gate::Closed);
            self.leave_path(now, ix, self.app(ix).path);
            self.apps[ix.0 as usize] = None;
            self.app_index.remove(&name);
        }
    }
}
