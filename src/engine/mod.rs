//! The state machine that decides everything and does nothing.
//!
//! Events and time go in by [`Engine::handle`]; the shell pulls work out by [`Engine::poll`] as it has room for it, and
//! sleeps until [`Engine::poll_timeout`]. There is no clock in here, no I/O, no async, no randomness (jitter is a hash of the
//! seed), and no secret: a token is known by its [`Ticket`](crate::domain::Ticket) and its fingerprint alone. That is why
//! the same code can be driven through a month of a million tenants in a test.
//!
//! | folder | what it decides |
//! |---|---|
//! | `messages` | what goes in and what comes out |
//! | `tenants` | what is known of each tenant, and how a step of a plan changes it |
//! | `apps` | the same of apps, and of the routes and origins that their calls go by |
//! | `scheduler` | when a tenant is looked at next |
//! | `calls` | which call goes first, and what its answer means |
//! | `breaker` | when a group that fails together is held back, and probed |
//! | `publisher` | which sink must be made equal to its record, and when it is tried again |
//! | `saved_state` | what outlives a restart besides the tokens |
//! | `status` | what `status` sees |

mod apps;
mod breaker;
mod calls;
mod messages;
mod publisher;
mod saved_state;
mod scheduler;
mod status;
mod tenants;

use std::collections::{BTreeMap, VecDeque};

pub use messages::{Action, Capacity, Event, Expire, Notice, Publish, Scope};
pub use status::{AppSummary, HeldCalls, SinkStatus, Summary, TenantStatus};
pub use tenants::TenantFailure;

use apps::{App, AppIx, Origin, Route};
use calls::{Competition, Limiter};
use publisher::Publisher;
use scheduler::{Retelling, Revisits, Wheel};
use tenants::{Holders, Table};

use crate::domain::{AppName, BootMs, Now, OriginId, Rate, RouteId, SavedKey, SavedState, Slot, TenantId};

/// The engine. See the module's documentation.
pub struct Engine {
    seed: u64,
    tenants: Table,
    holders: Holders,
    apps: Vec<Option<App>>,
    app_index: BTreeMap<AppName, AppIx>,
    /// One timer a tenant: when it is to be looked at again.
    wheel: Wheel,
    /// The ways that apps call, and whom their endpoints see calling.
    routes: BTreeMap<RouteId, Route>,
    origins: BTreeMap<OriginId, Origin>,
    calls: Competition,
    /// The limit on all calls together.
    total: Limiter,
    total_rate: Rate,
    publisher: Publisher,
    troubles: BTreeMap<Slot, TenantFailure>,
    /// What a predecessor remembered of apps and tenants that are yet to be added.
    recalled: BTreeMap<SavedKey, SavedState>,
    retelling: Retelling,
    revisits: Revisits,
    /// Decisions that need no room: given out before anything else.
    outbox: VecDeque<Action>,
}

impl Engine {
    /// An engine without apps and tenants. `seed` makes the jitter of this installation its own; `total` limits all calls
    /// together. Limits are full at `now`: a predecessor may just have used them up.
    pub fn new(now: Now, seed: u64, total: Rate) -> Self {
        Self {
            seed,
            tenants: Table::default(),
            holders: Holders::default(),
            apps: Vec::new(),
            app_index: BTreeMap::new(),
            wheel: Wheel::new(now.boot),
            routes: BTreeMap::new(),
            origins: BTreeMap::new(),
            calls: Competition::default(),
            total: Limiter::new(total, now.boot),
            total_rate: total,
            publisher: Publisher::default(),
            troubles: BTreeMap::new(),
            recalled: BTreeMap::new(),
            retelling: Retelling::new(now),
            revisits: Revisits::default(),
            outbox: VecDeque::new(),
        }
    }

    /// Takes in what happened. What follows from it comes out of [`poll`](Self::poll).
    pub fn handle(&mut self, now: Now, event: Event) {
        // What is dirty was so before this.
        self.count_unpublished(now);
        match event {
            Event::Change(change) => self.apply(now, change),
            Event::Restored(memories) => self.recall(now, memories),
            Event::TotalRate(total) => self.set_total(now, total),
            Event::Called(ticket, outcome) => self.called(now, ticket, outcome),
            Event::TokensFound(found, freshness) => self.found(now, found, freshness),
            Event::SavedStateLost => self.remember_all(now),
            Event::RecordsLost => self.commit_again(),
            Event::TokenLost(ticket) => self.lost(now, ticket),
            Event::CommitEnded(ticket) => self.kept(ticket),
            Event::Published(ticket, sink, outcome) => self.published(now, ticket, sink, outcome),
            Event::Withdrawn(id, outcome) => self.withdrawn(now, id, outcome),
            Event::Vacated(places) => places.into_iter().for_each(|place| self.publisher.withdraw(place)),
            Event::Reclaimed(places) => self.reclaimed(&places),
            Event::Drifted(ticket, sink) => self.touched(now, ticket, sink),
            Event::LaneStalled(lane, failure) => self.lane_hangs(lane, failure),
            Event::LaneResumed(lane) => self.lane_moves(lane),
            Event::ClockStepped => self.clock_stepped(now),
        }
    }

    /// The next thing to do, if there is one that `room` has place for. Call it until it returns `None`.
    pub fn poll(&mut self, now: Now, room: &Capacity) -> Option<Action> {
        self.advance(now);
        if let Some(action) = self.outbox.pop_front() {
            return Some(action);
        }
        self.next_publication(now, room).or_else(|| self.next_call(now, room))
    }

    /// When to call [`poll`](Self::poll) again if nothing happens before; `None`: only an event can bring work. What waits
    /// for room needs no waking: the event that makes room brings it on.
    pub fn poll_timeout(&self, now: Now) -> Option<BootMs> {
        let calls = self.next_call_opportunity(now);
        let others = [self.publisher.next_at(), self.retelling.next_at(), self.revisits.next_at()];
        [self.wheel.next_at(), calls].into_iter().chain(others).flatten().min()
    }

    /// Brings everything up to `now` that only time moves.
    fn advance(&mut self, now: Now) {
        while let Some(slot) = self.wheel.expire(now.boot, &mut self.tenants) {
            self.reconsider(now, slot);
        }
        self.wake_apps(now);
        self.wake_publisher(now);
        self.retell(now);
        self.go_on_revisiting(now);
        self.count_unpublished(now);
    }

    /// The slot of a tenant that is configured.
    pub fn slot(&self, id: &TenantId) -> Option<Slot> {
        let app = *self.app_index.get(&id.app)?;
        self.tenants.find(app, &id.corp_id).filter(|&slot| !self.tenants[slot].gone)
    }

    /// The tenant in a slot, if there is one.
    pub fn id(&self, slot: Slot) -> Option<TenantId> {
        let tenant = self.tenants.get(slot)?;
        Some(TenantId { app: self.app(tenant.app).name.clone(), corp_id: tenant.corp_id.clone() })
    }

    /// The tenant in a slot, if it is configured: one that left while its call is under way is not.
    pub fn configured(&self, slot: Slot) -> Option<TenantId> {
        self.id(slot).filter(|_| !self.tenants[slot].gone)
    }

    fn app(&self, ix: AppIx) -> &App {
        self.apps[ix.0 as usize].as_ref().expect("an app outlives its tenants")
    }

    fn app_mut(&mut self, ix: AppIx) -> &mut App {
        self.apps[ix.0 as usize].as_mut().expect("an app outlives its tenants")
    }

    fn say(&mut self, notice: Notice) {
        self.outbox.push_back(Action::Notify(notice));
    }
}
