//! The state machine that decides everything and does nothing.
//!
//! In go events and the time, by [`Engine::handle`] and [`Engine::handle_timeout`]. Out come actions, by [`Engine::poll`], as
//! the shell has capacity for them; it sleeps until [`Engine::poll_timeout`]. Only `daemon` uses it, and tests, which drive
//! the same code through a month of a million tenants: there is no clock in here, no I/O, no async, no randomness (jitter is a
//! hash of the seed), and no secret. A token is known by its [`Ticket`](crate::domain::Ticket) and its fingerprint alone.
//!
//! Imports run one way: `messages`, `tenants`, `scheduler`, then `calls` and `publisher`, then `apps`, then `saved_state` and
//! `status`. Each folder has components, which own their state and know nothing of the engine, and `impl Engine`, which joins
//! them.

mod apps;
mod calls;
mod messages;
mod publisher;
mod saved_state;
mod scheduler;
mod status;
mod tenants;

use std::collections::{BTreeMap, VecDeque};

pub use messages::{Action, CallScope, Capacity, Event, Expire, Notice, Publish};
pub use status::{AppSummary, HeldCalls, SinkStatus, Summary, TenantStatus};
pub use tenants::TenantFailure;

use crate::domain::{BootMs, Now, OriginId, Rate, RouteId, Slot, TenantId};
use apps::{Apps, Origin, Route};
use calls::Dispatcher;
use publisher::Publisher;
use saved_state::Restored;
use scheduler::{RecordedTimes, Reevaluations, TimerWheel};
use tenants::{IDLE, Tenants};

/// An app's number in the engine's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AppIx(u32);

/// The engine. See the module's documentation.
pub struct Engine {
    /// Makes the jitter of this installation its own.
    seed: u64,
    tenants: Tenants,
    apps: Apps,
    routes: BTreeMap<RouteId, Route>,
    origins: BTreeMap<OriginId, Origin>,
    /// One timer a tenant: when it is reevaluated.
    timers: TimerWheel,
    dispatcher: Dispatcher,
    publisher: Publisher,
    reevaluations: Reevaluations,
    recorded_times: RecordedTimes,
    restored: Restored,
    /// Actions that need no capacity: they come out first.
    outbox: VecDeque<Action>,
}

impl Engine {
    /// An engine without apps and tenants. `seed` makes the jitter of this installation its own; `total` limits all calls
    /// together. Limits are full at `now`: a predecessor may just have used them up.
    pub fn new(now: Now, seed: u64, total: Rate) -> Self {
        Self {
            seed,
            tenants: Tenants::default(),
            apps: Apps::default(),
            routes: BTreeMap::new(),
            origins: BTreeMap::new(),
            timers: TimerWheel::new(now.boot),
            dispatcher: Dispatcher::new(total, now.boot),
            publisher: Publisher::default(),
            reevaluations: Reevaluations::default(),
            recorded_times: RecordedTimes::new(now),
            restored: Restored::default(),
            outbox: VecDeque::new(),
        }
    }

    /// Takes in what happened. What follows from it comes out of [`poll`](Self::poll).
    pub fn handle(&mut self, now: Now, event: Event) {
        // What is dirty was so before this.
        self.count_unpublished(now);
        match event {
            Event::Change(change) => self.apply(now, change),
            Event::Restored(saved) => self.restore(now, saved),
            Event::TotalRate(total) => self.set_total_rate(now, total),
            Event::Called(ticket, outcome) => self.call_ended(now, ticket, outcome),
            Event::TokensFound(found, freshness) => self.tokens_found(now, found, freshness),
            Event::SavedStateLost => self.save_all(now),
            Event::RecordsLost => self.commit_again(),
            Event::TokenLost(ticket) => self.token_lost(now, ticket),
            Event::CommitEnded(ticket) => self.commit_ended(ticket),
            Event::Published(ticket, sink, outcome) => self.published(now, ticket, sink, outcome),
            Event::Withdrawn(id, outcome) => self.withdrawn(now, id, outcome),
            Event::Vacated(places) => places.into_iter().for_each(|place| self.publisher.withdraw(place)),
            Event::Reclaimed(places) => self.reclaimed(&places),
            Event::Drifted(ticket, sink) => self.drifted(now, ticket, sink),
            Event::LaneStalled(lane, failure) => self.lane_stalled(lane, failure),
            Event::LaneResumed(lane) => self.lane_resumed(lane),
            Event::ClockStepped => self.clock_stepped(now),
        }
    }

    /// Brings everything up to `now` that only time moves: timers, waits, retries. Call it before [`poll`](Self::poll).
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(slot) = self.timers.expire(now.boot, |slot| self.tenants.get(slot).map(|tenant| tenant.timer)) {
            self.tenants[slot].timer = IDLE;
            self.reevaluate(now, slot);
        }
        self.readmit_due(now);
        self.wake_publisher(now);
        self.continue_update_of_times(now);
        self.continue_reevaluations(now);
        self.count_unpublished(now);
    }

    /// The next action, if there is one that `capacity` admits. Call it until it returns `None`.
    pub fn poll(&mut self, now: Now, capacity: &Capacity) -> Option<Action> {
        let next = self.outbox.pop_front().or_else(|| self.next_publication(now, capacity));
        next.or_else(|| self.next_call(now, capacity))
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) if nothing happens before; `None`: only an event can bring work.
    /// What waits for capacity needs no waking: the event that frees some brings it on.
    pub fn poll_timeout(&self, now: Now) -> Option<BootMs> {
        let calls = [self.timers.next_at(), self.dispatcher.next_at(now.boot), self.reevaluations.next_at()];
        calls.into_iter().chain([self.publisher.next_at(), self.recorded_times.next_at()]).flatten().min()
    }

    /// The slot of a tenant that is configured.
    pub fn slot(&self, id: &TenantId) -> Option<Slot> {
        let app = self.apps.find(&id.app)?;
        self.tenants.find(app, &id.corp_id).filter(|&slot| !self.tenants[slot].removed)
    }

    /// The tenant in a slot, if there is one.
    pub fn id(&self, slot: Slot) -> Option<TenantId> {
        let tenant = self.tenants.get(slot)?;
        Some(TenantId { app: self.apps[tenant.app].name.clone(), corp_id: tenant.corp_id.clone() })
    }

    fn notify(&mut self, notice: Notice) {
        self.outbox.push_back(Action::Notify(notice));
    }
}
