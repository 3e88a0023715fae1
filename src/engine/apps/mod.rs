//! Apps, and the routes and origins that their calls go by: whatever is limited, hangs or is banned as a group.
//!
//! In come changes of an app's policy and path; the rest of the engine reads and moves the parts of an [`App`]. A route is
//! a connection that several apps may share; an origin is one address calling one host.

mod config_change;
mod origin;
mod route;

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};

use crate::domain::{
    AppName, AppPolicy, BootMs, CallPath, FailureKind, Now, OriginId, RouteId, SavedState, Slot, TenantCounts, Wait,
};
use crate::engine::calls::breaker::Breaker;
use crate::engine::calls::{CallQueue, Concurrency, Eligibility, RateLimiter};
use crate::engine::messages::Reminder;
use crate::engine::scheduler::Reevaluation;
use crate::engine::scheduler::backoff::millis;
use crate::engine::tenants::TokenInfo;
use crate::engine::{AppIx, Engine};
pub(crate) use origin::Origin;
pub(crate) use route::Route;

/// What the demand of an app is counted in: so many lives of a token in a billion milliseconds.
const SPAN_MS: u64 = 1_000_000_000;
/// The part of an app's rate that may be spent on keeping tokens fresh. The rest is for newcomers and for failures.
const USABLE: f64 = 0.9;

#[derive(Debug)]
pub(crate) struct App {
    pub(crate) name: AppName,
    pub(crate) policy: AppPolicy,
    pub(crate) path: CallPath,
    /// Answers to calls sent before this moment went another path, and say nothing about this one.
    pub(crate) path_since: BootMs,
    pub(crate) limiter: RateLimiter,
    pub(crate) queue: CallQueue,
    pub(crate) eligibility: Eligibility,
    /// Open while all its tenants would fail alike.
    pub(crate) credentials_breaker: Option<CredentialsBreaker>,
    /// The credentials breaker closed because the credentials changed; no call has shown yet that they work.
    pub(crate) recovery_unproven: bool,
    /// Opens when several of its tenants get no answer that could be one, and none of them does.
    pub(crate) breaker: Breaker<Slot>,
    pub(crate) concurrency: Concurrency,
    /// Tenants that fail had to let the others go first when that was last evaluated.
    pub(crate) preferred_healthy: bool,
    /// How much service it has had, as start-time fair queueing counts it.
    pub(crate) attained_service: u64,
    /// Its tenants, removed ones with a call in flight included.
    pub(crate) tenants: u32,
    pub(crate) counts: TenantCounts,
    /// How many calls its tenants' tokens ask for, in lives per [`SPAN_MS`].
    demand: u64,
    /// Answers to calls sent before this moment say nothing about today's credentials.
    pub(crate) credentials_since: BootMs,
    /// The reevaluation of its tenants that is under way.
    pub(crate) reevaluation: Option<Reevaluation>,
    /// How often one of its places was repaired after somebody else had changed it.
    pub(crate) repairs: u64,
    /// It is a member of its route's breaker.
    on_route: bool,
    /// It left the config; it is dropped when its last call has ended.
    pub(crate) removed: bool,
}

/// The breaker for credentials with which all tenants of an app would fail alike: one probe at a time stands for them.
#[derive(Debug)]
pub(crate) struct CredentialsBreaker {
    pub(crate) kind: FailureKind,
    /// Answers to calls sent before this moment say nothing new.
    pub(crate) opened: BootMs,
    pub(crate) probes: u16,
    pub(crate) probe_at: BootMs,
    pub(crate) reminder: Reminder<FailureKind>,
}

impl CredentialsBreaker {
    /// How long to wait for the next probe. Reading a secret costs nobody anything, so that is tried sooner.
    fn wait_ms(kind: FailureKind, probes: u16) -> u64 {
        let (first, longest) = match kind {
            FailureKind::SecretUnreadable => (1_000, 60_000),
            _ => (30_000, 900_000),
        };
        (first << probes.min(10)).min(longest)
    }

    /// What a successor should know of it.
    pub(crate) fn to_saved(&self, now: Now) -> SavedState {
        SavedState::Broken { kind: self.kind, probes: self.probes, probe: Wait::until(now, self.probe_at) }
    }
}

impl App {
    /// How many tenants it has.
    pub(crate) fn members(&self) -> usize {
        usize::try_from(self.counts.total()).unwrap_or(usize::MAX)
    }

    /// Whether a call is in flight, or would be sent if the limits allowed it.
    pub(crate) fn wants_calls(&self) -> bool {
        let may_call = self.credentials_breaker.is_none() && self.eligibility != Eligibility::Ineligible;
        self.concurrency.in_flight() > 0 || may_call
    }

    /// When it may next call, as far as its limit and its credentials say; `None`: not before an answer comes, or never.
    pub(crate) fn next_at(&self) -> Option<BootMs> {
        match &self.credentials_breaker {
            _ if !self.policy.enabled => None,
            None => Some(self.limiter.next_at()),
            Some(_) if self.concurrency.in_flight() > 0 => None,
            Some(breaker) => Some(self.limiter.next_at().max(breaker.probe_at)),
        }
    }

    /// A call failed by its credentials; or, without a `kind`, a probe of them for another reason, which has not shown that
    /// they are still wrong: the next one is due soon. Returns the wait for it, in milliseconds, if that is to be reported.
    pub(crate) fn credentials_failed(&mut self, now: BootMs, kind: Option<FailureKind>, least_ms: u64) -> Option<u64> {
        let (opened, probes, mut reminder, kind) = match (&self.credentials_breaker, kind) {
            (None, None) => return None,
            (None, Some(kind)) => (now, 0, Reminder::new(), kind),
            (Some(open), None) => (open.opened, 0, open.reminder, open.kind),
            (Some(open), Some(kind)) => (open.opened, open.probes.saturating_add(1), open.reminder, kind),
        };
        let wait = CredentialsBreaker::wait_ms(kind, probes).max(least_ms);
        let is_due = reminder.is_due(now, kind);
        self.credentials_breaker = Some(CredentialsBreaker { kind, opened, probes, probe_at: now + wait, reminder });
        is_due.then_some(wait)
    }

    /// A tenant has this token from here on.
    pub(crate) fn add_demand(&mut self, token: &TokenInfo) {
        self.demand += lives(token);
    }

    /// A tenant has this token no more.
    pub(crate) fn remove_demand(&mut self, token: &TokenInfo) {
        self.demand = self.demand.saturating_sub(lives(token));
    }

    /// Whether a token lives too short to be kept fresh: the app's tenants need more calls than its rate allows, and this
    /// one more than its share of them. A life beyond `retry.max` never is, since waiting would not spare a call.
    /// `docs/decisions/0049-tokens-nobody-can-use.md` has the reasons.
    pub(crate) fn lives_too_short(&self, token: &TokenInfo) -> bool {
        let calls_a_life = 1.0 / self.policy.refresh.at.max(0.01);
        let available = self.policy.rate.hertz() * SPAN_MS as f64 / 1000.0 * USABLE;
        let share = available / f64::from(self.tenants.max(1));
        token.lifetime_ms() < millis(self.policy.retry.max)
            && self.demand as f64 * calls_a_life > available
            && lives(token) as f64 * calls_a_life > share
    }
}

/// How many lives such as this token's follow each other in [`SPAN_MS`].
fn lives(token: &TokenInfo) -> u64 {
    SPAN_MS / token.lifetime_ms().max(1)
}

/// All apps, found by number and by name. A number is given again once its app was dropped.
#[derive(Default)]
pub(crate) struct Apps {
    apps: Vec<Option<App>>,
    by_name: BTreeMap<AppName, AppIx>,
}

impl Apps {
    pub(crate) fn find(&self, name: &AppName) -> Option<AppIx> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn get(&self, ix: AppIx) -> Option<&App> {
        self.apps.get(ix.0 as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, ix: AppIx) -> Option<&mut App> {
        self.apps.get_mut(ix.0 as usize)?.as_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// All apps, in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &App> {
        self.by_name.values().map(|&ix| &self[ix])
    }

    /// The numbers of all apps, in the order of their names.
    pub(crate) fn numbers(&self) -> Vec<AppIx> {
        self.by_name.values().copied().collect()
    }

    /// The numbers of the apps that call by this route.
    pub(crate) fn on_route(&self, id: RouteId) -> Vec<AppIx> {
        self.by_name.values().copied().filter(|&ix| self[ix].path.route == id).collect()
    }

    fn insert(&mut self, app: App) -> AppIx {
        let number = self.apps.iter().position(Option::is_none).unwrap_or(self.apps.len());
        let ix = AppIx(u32::try_from(number).expect("fewer than 2^32 apps"));
        self.by_name.insert(app.name.clone(), ix);
        if number == self.apps.len() {
            self.apps.push(Some(app));
        } else {
            self.apps[number] = Some(app);
        }
        ix
    }

    fn remove(&mut self, ix: AppIx) {
        if let Some(app) = self.apps[ix.0 as usize].take() {
            self.by_name.remove(&app.name);
        }
    }
}

impl Index<AppIx> for Apps {
    type Output = App;
    fn index(&self, ix: AppIx) -> &App {
        self.get(ix).expect("an app outlives its tenants")
    }
}

impl IndexMut<AppIx> for Apps {
    fn index_mut(&mut self, ix: AppIx) -> &mut App {
        self.get_mut(ix).expect("an app outlives its tenants")
    }
}

impl Engine {
    pub(crate) fn route(&self, id: RouteId) -> &Route {
        self.routes.get(&id).expect("a route outlives its apps")
    }

    pub(crate) fn route_mut(&mut self, id: RouteId) -> &mut Route {
        self.routes.get_mut(&id).expect("a route outlives its apps")
    }

    pub(crate) fn origin(&self, id: OriginId) -> &Origin {
        self.origins.get(&id).expect("an origin outlives its routes")
    }

    pub(crate) fn origin_mut(&mut self, id: OriginId) -> &mut Origin {
        self.origins.get_mut(&id).expect("an origin outlives its routes")
    }
}
