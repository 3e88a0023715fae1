//! What must hold for each call, each answer and each publication, whatever happens.

use std::collections::BTreeMap;

use corptokend::domain::{
    AppPolicy, CallPath, Change, Failure, FailureKind, Freshness, Grant, Now, OriginId, Rate, Record, SavedKey,
    SavedState, SinkSetId, TenantId, Ticket,
};

mod availability;
mod order;
mod promises;
mod rate_window;
mod statistics;

pub use availability::{Availability, HANDOVER_MS};
use promises::{Repeats, Silence};
use rate_window::Window;
pub use statistics::Statistics;

use super::clock::Clock;
use super::tenants::{Names, PerTenant, TenantNo};

/// A tenant that is refused is not called again for so long, in milliseconds.
const REFUSED_MS: u64 = 15 * 60 * 1000;
/// After a ban, everything stops for at least so long, in milliseconds.
const BAN_MS: u64 = 5 * 60 * 1000;

/// A tenant, as it can be seen from outside.
#[derive(Default)]
#[repr(align(64))]
pub struct Watch {
    pub present: bool,
    pub sinks: Option<SinkSetId>,
    in_flight: bool,
    /// Its token came from the state, and no answer has confirmed it since.
    pub restored: bool,
    /// It did, and the clock was set since: what the engine makes of that cannot be told from here.
    doubtful: bool,
    /// Counts how often it was added.
    pub life: u16,
    pub failures: u16,
    pub added: u64,
    /// When it got the sinks that it has.
    pub placed: u64,
    /// When it was called last; 0: never, or whatever was asked before does not count.
    called: u64,
    latest: Option<Ticket>,
    /// How long failures have kept it from a token since it got the last one, in milliseconds.
    pub hindered: u64,
    repeats: Repeats,
    /// The endpoint refused it.
    refused: Silence,
    /// How long its token lives, and when, on the boot clock, it expires: as the engine believes it.
    token: Option<(u64, u64)>,
}

impl Watch {
    /// New credentials are tried at once, whatever was asked before.
    fn forget_calls(&mut self) {
        self.called = 0;
        (self.repeats, self.refused) = (Repeats::default(), Silence::default());
    }
}

pub struct AppWatch {
    pub window: Window,
    policy: AppPolicy,
    pub path: CallPath,
    path_since: u64,
    pub present: bool,
    /// By how much a call for one of its tenants came later than at its latest refresh point at worst, in milliseconds.
    pub latest_ms: u64,
}

/// What an answer is, as it is heard.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
    pub ticket: Ticket,
    pub no: TenantNo,
    /// It is to a call of the tenant's present life.
    pub is_current: bool,
    pub token: u64,
    pub from: u64,
    pub until: u64,
}

pub struct Invariants {
    total: Window,
    pub apps: Vec<AppWatch>,
    pub tenants: PerTenant<Watch>,
    added: usize,
    bans: BTreeMap<OriginId, Silence>,
    /// When the wall clock was set last.
    stepped: Option<u64>,
    /// Answers that the engine has yet to judge.
    heard: Vec<Heard>,
    pub checks_order: bool,
    /// The calls of this turn, in order.
    called: Vec<TenantId>,
    pub availability: Availability,
    pub statistics: Statistics,
}

impl Invariants {
    pub fn new(total: Rate) -> Self {
        Self {
            total: Window::new(total),
            apps: Vec::new(),
            tenants: PerTenant::default(),
            added: 0,
            bans: BTreeMap::new(),
            stepped: None,
            heard: Vec::new(),
            checks_order: true,
            called: Vec::new(),
            availability: Availability::default(),
            statistics: Statistics::default(),
        }
    }

    pub fn set_total(&mut self, clock: Clock, rate: Rate) {
        self.total.set_rate(clock.t, rate);
    }

    /// A step of a plan takes effect.
    pub fn changed(&mut self, clock: Clock, names: &mut Names, change: &Change) {
        self.statistics.changes += 1;
        match change {
            Change::App { name, policy, path, freshness } => {
                self.set_app(clock.t, names.app(name), (*policy, *path), *freshness);
            }
            Change::Added { id, sinks, record } => {
                let tenant = &mut self.tenants[names.number(id)];
                self.added += 1;
                tenant.life += u16::from(!tenant.present);
                (tenant.present, tenant.sinks) = (true, Some(*sinks));
                (tenant.added, tenant.placed) = (clock.t, clock.t);
                tenant.token = record.map(|record| life_of(record, clock.now()));
                (tenant.restored, tenant.doubtful) = (record.is_some(), false);
            }
            Change::Removed { id, .. } => {
                let tenant = &mut self.tenants[names.number(id)];
                (tenant.present, tenant.failures, tenant.hindered) = (false, 0, 0);
                tenant.forget_calls();
            }
            Change::SinksChanged { id, sinks, .. } => {
                let tenant = &mut self.tenants[names.number(id)];
                (tenant.sinks, tenant.placed) = (Some(*sinks), clock.t);
            }
            Change::AppGone { name } => self.apps[names.app(name)].present = false,
            Change::SinkSet { .. } => {}
        }
    }

    fn set_app(&mut self, t: u64, app: usize, (policy, path): (AppPolicy, CallPath), freshness: Freshness) {
        while self.apps.len() <= app {
            let window = Window::new(policy.rate);
            self.apps.push(AppWatch { window, policy, path, path_since: t, present: false, latest_ms: 0 });
        }
        let known = &mut self.apps[app];
        known.present = true;
        known.window.set_rate(t, policy.rate);
        known.policy = policy;
        if known.path != path {
            (known.path, known.path_since) = (path, t);
        }
        if freshness == Freshness::Stale {
            self.tenants.of_app_mut(app).for_each(Watch::forget_calls);
        }
    }

    /// The wall clock was set. A token from the state, whose life is told on it, may be asked for once more.
    pub fn clock_stepped(&mut self, t: u64) {
        self.stepped = Some(t);
        for tenant in self.tenants.values_mut().filter(|tenant| tenant.restored) {
            (tenant.doubtful, tenant.repeats) = (true, Repeats::default());
        }
    }

    /// The process is gone; its successor knows what was committed, or, where it cannot read that, nothing.
    pub fn crash(&mut self, knows: bool) {
        self.heard.clear();
        for tenant in self.tenants.values_mut() {
            (tenant.in_flight, tenant.called, tenant.latest) = (false, 0, None);
            tenant.repeats.latest = if knows { tenant.repeats.committed } else { Default::default() };
            match knows {
                true => tenant.refused.crash(),
                false => tenant.refused.until = 0,
            }
        }
        for ban in self.bans.values_mut() {
            match knows {
                true => ban.crash(),
                false => ban.until = 0,
            }
        }
    }

    /// A call begins. `life_ms`: how long the token lives that its tenant has.
    pub fn call(&mut self, clock: Clock, no: TenantNo, ticket: Ticket, life_ms: Option<u64>) {
        let (t, tenant, app) = (clock.t, &mut self.tenants[no], &mut self.apps[usize::from(no.app)]);
        self.statistics.calls += 1;
        assert!(app.policy.enabled, "{no:?} is called although its app is disabled");
        assert!(tenant.present && app.present, "{no:?} is called although it left");
        assert!(!tenant.in_flight, "{no:?} is called twice at once");
        let floor = app.policy.retry.min.as_millis() as u64;
        let called = tenant.called;
        assert!(called == 0 || t >= called + floor, "{no:?} is called in a hot loop: at {called}, and at {t}");
        let banned = self.bans.get(&app.path.origin).is_some_and(|banned| banned.holds(t));
        assert!(!banned, "{no:?} is called during a ban, at {t}");
        assert!(!tenant.refused.holds(t), "{no:?} is called although it was refused: {:?}", tenant.refused);
        let crowd = app.window.count(t).or_else(|| self.total.count(t));
        assert!(crowd.is_none(), "{no:?}: {crowd:?} calls in a period that allows fewer, at {t}");
        if let Some(life_ms) = life_ms.filter(|_| called > 0 && tenant.failures == 0) {
            app.latest_ms = app.latest_ms.max(t.saturating_sub(called + life_ms * 3 / 4));
        }
        (tenant.in_flight, tenant.called, tenant.latest) = (true, t, Some(ticket));
    }

    /// An answer comes, to a call that was made in this life of its tenant.
    pub fn answered(
        &mut self,
        clock: Clock,
        (ticket, no, life): (Ticket, TenantNo, u16),
        (sent, outcome): (u64, &Result<Grant, Failure>),
    ) {
        let tenant = &mut self.tenants[no];
        let is_current = tenant.present && tenant.life == life && tenant.latest == Some(ticket);
        if tenant.latest == Some(ticket) {
            tenant.in_flight = false;
        }
        match outcome {
            Ok(grant) => {
                let until = sent + u64::from(grant.lifetime_s) * 1000;
                let token = grant.fingerprint.0;
                self.heard.push(Heard { ticket, no, is_current, token, from: sent, until });
                if is_current {
                    tenant.failures = 0;
                }
            }
            Err(failure) => {
                self.statistics.failures += 1;
                if is_current {
                    // The call itself, and the longest backoff that may follow it.
                    let backoff = (1_000_u64 << tenant.failures.min(9)).min(300_000);
                    tenant.hindered += clock.t - sent + backoff;
                    tenant.failures += 1;
                }
                self.promise_silence(clock.t, no, (sent, is_current), failure.kind);
            }
        }
    }

    /// The endpoint refused a call: for a while it must not be asked again.
    fn promise_silence(&mut self, t: u64, no: TenantNo, (sent, is_current): (u64, bool), kind: FailureKind) {
        let (tenant, app) = (&mut self.tenants[no], &self.apps[usize::from(no.app)]);
        match kind {
            FailureKind::Banned if sent >= app.path_since => {
                let origin = app.path.origin;
                self.bans.entry(origin).or_default().begin(t + BAN_MS);
                let banned = (0..self.apps.len()).filter(|app| self.apps[*app].path.origin == origin);
                banned.for_each(|app| self.availability.excuse_longer(t, t + BAN_MS, app));
            }
            // An answer to former credentials says nothing about those of today.
            FailureKind::Unauthorized if is_current && tenant.called == sent => tenant.refused.begin(t + REFUSED_MS),
            _ => {}
        }
    }

    fn verdict(&mut self, ticket: Ticket) -> Heard {
        let found = self.heard.iter().position(|heard| heard.ticket == ticket);
        let found = found.unwrap_or_else(|| panic!("{ticket:?} is judged and was not answered, or was judged before"));
        self.heard.swap_remove(found)
    }

    /// Whether an answer was heard that the engine has yet to judge.
    pub fn awaits_verdict(&self, ticket: Ticket) -> bool {
        self.heard.iter().any(|heard| heard.ticket == ticket)
    }

    /// The engine keeps an answer. That may be followed by the removal of its tenant, but not come after it.
    pub fn kept(&mut self, clock: Clock, ticket: Ticket, no: TenantNo, record: Record) -> Heard {
        let heard = self.verdict(ticket);
        assert_eq!(heard.no, no, "an answer is kept for another tenant");
        assert!(heard.is_current, "{no:?}: a late answer is kept: {ticket:?}");
        self.statistics.refreshes += 1;
        self.count_repeat(&heard);
        let tenant = &mut self.tenants[no];
        (tenant.restored, tenant.doubtful) = (false, false);
        tenant.token = Some(life_of(record, clock.now()));
        heard
    }

    pub fn discarded(&mut self, ticket: Ticket) {
        let heard = self.verdict(ticket);
        self.statistics.discarded += 1;
        if heard.is_current && self.tenants[heard.no].present {
            self.count_repeat(&heard);
            self.tenants[heard.no].restored = false;
        }
    }

    /// An endpoint that answers with the same token and its remaining life must not be asked ever faster.
    fn count_repeat(&mut self, heard: &Heard) {
        let calls = self.tenants[heard.no].repeats.count(heard.token);
        if self.availability.is_handed_over(heard.no.app) {
            let no = heard.no;
            assert!(calls <= 3, "{no:?}: {calls} calls in one life of a token that does not extend");
            self.statistics.most_calls_a_life = self.statistics.most_calls_a_life.max(calls);
        }
    }

    /// Every answer has been judged by the end of the turn that heard of it.
    pub fn check_verdicts(&self) {
        assert!(self.heard.is_empty(), "an answer was neither kept nor discarded: {:?}", self.heard[0].ticket);
    }

    pub fn committed_token(&mut self, no: TenantNo) {
        let repeats = &mut self.tenants[no].repeats;
        repeats.committed = repeats.latest;
    }

    pub fn committed_memory(&mut self, names: &mut Names, subject: &SavedKey) {
        match subject {
            SavedKey::Ban(origin) => self.bans.entry(*origin).or_default().commit(),
            SavedKey::Tenant(id) => {
                let no = names.number(id);
                self.tenants[no].refused.commit();
                self.committed_token(no);
            }
            _ => {}
        }
    }

    /// A new process reads how long nobody is called. Where the clock was set since that was written, and the process was killed
    /// before it was written on the new clock, it cannot know more than that.
    pub fn read_after_restart(&mut self, clock: Clock, saved: &BTreeMap<SavedKey, SavedState>) {
        if self.stepped.is_none_or(|at| clock.t >= at + BAN_MS) {
            return;
        }
        for (origin, ban) in &mut self.bans {
            if let Some(SavedState::Paused(wait)) = saved.get(&SavedKey::Ban(*origin)) {
                ban.until = ban.until.min(clock.t + wait.end(clock.now()).since(clock.now().boot));
            }
        }
    }

    /// Who may not be called is forgotten with the last app that calls from there.
    pub fn forget_ban(&mut self, origin: OriginId) {
        self.bans.remove(&origin);
    }

    /// A tenant is called; [`check_order`](Self::check_order) looks at it at the end of the turn.
    pub fn note_call(&mut self, id: &TenantId) {
        if self.checks_order {
            self.called.push(id.clone());
        }
    }
}

/// How long a token lives, and when, on the boot clock, it expires.
fn life_of(record: Record, now: Now) -> (u64, u64) {
    (record.expires_at.since(record.requested_at), Record::on_boot_clock(record.expires_at, now).0)
}
