//! What `status` sees. The summary is kept up to date as things happen, so asking for it costs nothing.

mod held_calls;

use crate::domain::{
    AppName, BootMs, Failure, FailureKind, Fingerprint, Now, Record, RootId, SinkFailure, SinkId, SinkPolicy, Slot,
    TenantCounts, TenantId, TenantState, Ticket, WallMs,
};
use crate::engine::Engine;
use crate::engine::apps::App;
use crate::engine::messages::CallScope;
use crate::engine::tenants::{Phase, Standing, Tenant, TenantFailure, Visible};

/// Everything about all tenants that can be told without visiting them.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// All tenants.
    pub counts: TenantCounts,
    /// By app, in the order of their names.
    pub apps: Vec<AppSummary>,
    /// Whether every tenant has had an outcome: a token, a failure, an app whose credentials are wrong, or an endpoint that
    /// answers nobody.
    pub every_tenant_had_an_outcome: bool,
    /// Whether no publication is under way or waits, save those whose last attempt failed.
    pub every_sink_had_an_attempt: bool,
    /// Whether a call is under way, or wanted now and only held back by the limits, or by a breaker that has not been probed
    /// a few times yet.
    pub calls_are_wanted: bool,
    /// All that is called from here is banned: no calls before this moment, which is when the first ban is probed.
    pub paused_until: Option<BootMs>,
}

/// One app.
#[derive(Debug, Clone, PartialEq)]
pub struct AppSummary {
    /// Which.
    pub name: AppName,
    /// Its tenants.
    pub counts: TenantCounts,
    /// Calls under way.
    pub in_flight: u32,
    /// Why all its tenants would fail alike, if they would.
    pub broken: Option<FailureKind>,
    /// How often one of its sinks was set right after somebody else had touched it, since the start.
    pub repairs: u64,
}

/// Calls that are held back, but for a probe now and then.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldCalls {
    /// Whose calls.
    pub scope: CallScope,
    /// What the last failed call said.
    pub failure: Failure,
    /// Since when.
    pub since: WallMs,
    /// When the next probe comes, where somebody waits to be it and none is under way.
    pub next_probe: Option<WallMs>,
}

/// One tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantStatus {
    /// Where the page after this row begins.
    pub slot: Slot,
    /// Which tenant.
    pub id: TenantId,
    /// Its state.
    pub state: TenantState,
    /// Which token it has.
    pub fingerprint: Option<Fingerprint>,
    /// When that stops working.
    pub expires_at: Option<WallMs>,
    /// When its next call is due, where that is known.
    pub next_call: Option<WallMs>,
    /// Why then.
    pub why: &'static str,
    /// What holds its call back that is due, if something does that is not its own.
    pub hold: Option<HeldCalls>,
    /// How many calls have failed in a row.
    pub failures: u16,
    /// What ails it.
    pub failure: Option<TenantFailure>,
    /// Its sinks, in the order of the config.
    pub sinks: Vec<SinkStatus>,
}

/// One sink of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkStatus {
    /// It equals the record.
    Published,
    /// It does not yet.
    Pending,
    /// The last attempt failed.
    Failing(Option<SinkFailure>),
}

impl Engine {
    /// The summary, as of now.
    pub fn summary(&self, _now: Now) -> Summary {
        let apps: Vec<AppSummary> = self
            .apps
            .iter()
            .filter(|app| !app.removed)
            .map(|app| AppSummary {
                name: app.name.clone(),
                counts: self.shown_counts(app),
                in_flight: app.concurrency.in_flight(),
                broken: app.credentials_breaker.as_ref().map(|breaker| breaker.kind),
                repairs: app.repairs,
            })
            .collect();
        let mut counts = TenantCounts::default();
        apps.iter().for_each(|app| counts.merge(&app.counts));
        Summary {
            counts,
            every_tenant_had_an_outcome: counts.of(TenantState::Pending) == 0,
            every_sink_had_an_attempt: self.every_sink_had_an_attempt(),
            calls_are_wanted: self.apps.numbers().into_iter().any(|ix| self.is_worth_waiting(ix)),
            paused_until: self.paused_until(),
            apps,
        }
    }

    /// Whether every sink had its attempt at the token of today, and nothing is in flight to a sink or to the state.
    pub fn every_sink_had_an_attempt(&self) -> bool {
        self.publisher.is_idle()
    }

    /// Up to `most` rows from slot `from` on. Each row is consistent; the list as a whole need not be.
    pub fn page(&self, now: Now, from: Slot, most: usize) -> Vec<TenantStatus> {
        self.tenants
            .slots_from(from)
            .filter(|&slot| !self.tenants[slot].removed)
            .take(most)
            .map(|s| self.row(now, s))
            .collect()
    }

    /// A tenant in this state, if there is one. Visits those that are not fresh, and their neighbours, until it finds one.
    pub fn first_in(&self, now: Now, state: TenantState) -> Option<TenantStatus> {
        let shown = |slot: &Slot| self.shown_state(self.tenants[*slot].state, &self.apps[self.tenants[*slot].app]);
        let fits = |slot: &Slot| !self.tenants[*slot].removed && shown(slot) == state;
        let found = match state {
            TenantState::Fresh | TenantState::Disabled => self.tenants.slots_from(Slot(0)).find(fits),
            _ => self.tenants.unfresh().find(fits),
        };
        Some(self.row(now, found?))
    }

    /// The row of one tenant.
    ///
    /// # Panics
    /// If the slot is free.
    pub fn row(&self, now: Now, slot: Slot) -> TenantStatus {
        let tenant = &self.tenants[slot];
        let app = &self.apps[tenant.app];
        let hold = if matches!(tenant.phase, Phase::Ready(_)) { self.held_for(now, tenant) } else { None };
        let fails = self.tenants.failure(slot).is_some();
        let (next_call, why) = next_call((tenant, self.standing(slot), fails), app, hold.as_ref(), now);
        TenantStatus {
            slot,
            id: TenantId { app: app.name.clone(), corp_id: tenant.corp_id.clone() },
            state: self.shown_state(tenant.state, app),
            fingerprint: tenant.token.map(|token| token.fingerprint),
            expires_at: tenant.token.map(|token| token.expires_at),
            next_call,
            why: if tenant.sinks.visible == Visible::Expired {
                "readers have an expired token: publication fails"
            } else {
                why
            },
            hold: hold.filter(|_| tenant.sinks.visible != Visible::Expired),
            failures: tenant.failures,
            failure: self.tenants.failure(slot).cloned(),
            sinks: self.sink_rows(slot),
        }
    }

    /// What the shell needs to publish: which token a tenant has, and when that stops working, as told on the wall clock of
    /// today.
    pub fn record(&self, slot: Slot) -> Option<Record> {
        Some(self.tenants.get(slot)?.token?.record())
    }

    /// The ticket of the token that a tenant has: the one that may be published.
    pub fn ticket(&self, slot: Slot) -> Option<Ticket> {
        self.tenants.get(slot)?.ticket(slot)
    }

    /// The sink set of a tenant.
    pub fn sinks(&self, slot: Slot) -> Option<crate::domain::SinkSetId> {
        self.tenants.get(slot).map(|tenant| tenant.sink_set)
    }

    /// The places that are being emptied, or wait to be.
    pub fn withdrawing(&self) -> impl Iterator<Item = &crate::domain::Place> {
        self.publisher.withdrawals()
    }

    /// What is to be told of the lanes that do not move.
    pub fn hanging(&self) -> impl Iterator<Item = &SinkFailure> {
        self.publisher.hanging()
    }

    /// Sink roots below which publication fails, with how many places, and what the last failure said.
    pub fn failing_roots(&self) -> impl Iterator<Item = (RootId, usize, &SinkFailure)> {
        self.publisher.failing_roots()
    }

    fn sink_rows(&self, slot: Slot) -> Vec<SinkStatus> {
        let tenant = &self.tenants[slot];
        let row = |(sink, policy): (SinkId, &SinkPolicy)| match &tenant.sinks {
            states if states.is_failing(sink) => {
                SinkStatus::Failing(self.publisher.failure_of(policy.root, slot, sink).cloned())
            }
            states if states.is_dirty(sink) || states.is_in_flight(sink) => match self.publisher.hangs(policy.lane) {
                Some(failure) => SinkStatus::Failing(Some(failure.clone())),
                None => SinkStatus::Pending,
            },
            _ if tenant.token.is_none() || self.publisher.has_drifted(slot, sink) => SinkStatus::Pending,
            _ => SinkStatus::Published,
        };
        (0..).map(SinkId).zip(self.publisher.set(tenant.sink_set).iter().take(SinkId::MAX)).map(row).collect()
    }

    /// What a tenant's state looks like from outside: an app's trouble is that of all its tenants that need a call, and so
    /// is that of an endpoint which answers nobody.
    fn shown_state(&self, state: TenantState, app: &App) -> TenantState {
        match state {
            _ if !app.policy.enabled => TenantState::Disabled,
            TenantState::Pending | TenantState::Due | TenantState::Failing if app.credentials_breaker.is_some() => {
                TenantState::Refused
            }
            TenantState::Pending | TenantState::Due if (app.breaker.is_open() || self.is_path_held_back(app.path)) => {
                TenantState::Failing
            }
            _ => state,
        }
    }

    fn shown_counts(&self, app: &App) -> TenantCounts {
        let mut counts = app.counts;
        for state in TenantState::WORST_FIRST {
            let shown = self.shown_state(state, app);
            if shown != state {
                counts.move_all(state, shown);
            }
        }
        counts
    }

    /// Brings the tenant's state, and its app's counts, up to date.
    pub(crate) fn update_state(&mut self, now: Now, slot: Slot) {
        self.update_visible(slot);
        let tenant = &self.tenants[slot];
        if tenant.removed {
            return; // it counts no more
        }
        let refused = self.tenants.failure(slot).map(|failure| failure.refused);
        let state = match (tenant.token.is_some(), refused) {
            (true, _) if !tenant.is_valid(now.boot) || tenant.sinks.visible == Visible::Expired => TenantState::Expired,
            (_, Some(true)) => TenantState::Refused,
            (true, _) if tenant.sinks.visible == Visible::Outdated => TenantState::Unpublished,
            (_, Some(false)) => TenantState::Failing,
            (false, None) => TenantState::Pending,
            (true, None) if tenant.phase == Phase::Waiting && !tenant.stale => TenantState::Fresh,
            (true, None) => TenantState::Due,
        };
        let (ix, before) = (tenant.app, tenant.state);
        if state != before {
            self.tenants.set_state(slot, state);
            let counts = &mut self.apps[ix].counts;
            counts.remove(before);
            counts.add(state);
        }
    }
}

fn next_call(
    (tenant, standing, fails): (&Tenant, Standing, bool),
    app: &App,
    hold: Option<&HeldCalls>,
    now: Now,
) -> (Option<WallMs>, &'static str) {
    let told = |at: BootMs| Some(now.wall + at.since(now.boot));
    match (tenant.phase, tenant.token) {
        _ if !app.policy.enabled => (None, "the app is disabled"),
        (Phase::Calling, _) => (None, "a call is under way"),
        (Phase::Ready(_), _) if app.credentials_breaker.is_some() => {
            (hold.and_then(|hold| hold.next_probe), "all the app's tenants fail alike; one is probed")
        }
        (Phase::Ready(_), _) if hold.is_some() => {
            (hold.and_then(|hold| hold.next_probe), "calls are held back; one tenant at a time is probed")
        }
        (Phase::Ready(_), _) => (None, "waits for its turn within the limits"),
        (Phase::Waiting, _) if standing == Standing::ShortLived => {
            (told(tenant.due_at), "its tokens live too short to be kept fresh")
        }
        (Phase::Waiting, _) if fails => (told(tenant.due_at), "tries again after a failure"),
        (Phase::Waiting, Some(held)) if tenant.due_at >= held.expires_boot => {
            (told(tenant.due_at), "asking earlier does not extend it")
        }
        (Phase::Waiting, Some(_)) => (told(tenant.due_at), "its refresh point"),
        (Phase::Waiting, None) => (told(tenant.due_at), "has no token yet"),
    }
}
