//! Watches the engine's calls and what it keeps of their answers, and says when a promise is broken.

use std::collections::{BTreeMap, BTreeSet};

use corptokend::domain::*;
use corptokend::engine::Engine;

/// With more tenants than this, looking at all of them at each call takes too long.
const CROWD: usize = 200;
/// A tenant that never had a token may go first after so long, in milliseconds.
const PATIENCE_MS: u64 = 4 * 3600 * 1000;

/// A limit, and what it was before.
struct Limit {
    /// From when on, and how much.
    rates: Vec<(u64, Rate)>,
    calls: Vec<u64>,
}

impl Limit {
    fn new(now: u64, rate: Rate) -> Self {
        Self { rates: vec![(now, rate)], calls: Vec::new() }
    }

    /// Counts a call; over any period, no more may be made than the highest rate allows that was in force in it.
    fn count(&mut self, now: u64, what: &str) {
        self.calls.push(now);
        let period = u64::from(self.rates.last().expect("a rate").1.period_ms());
        let begin = (now + 1).saturating_sub(period);
        let recent = self.calls.iter().rev().take_while(|at| **at >= begin).count();
        let until = |n: usize| self.rates.get(n + 1).map_or(u64::MAX, |(from, _)| *from);
        let in_force = self.rates.iter().enumerate().filter(|(n, _)| until(*n) >= begin).map(|(_, (_, rate))| rate);
        let most = in_force.map(|rate| (rate.hertz() * period as f64 / 1000.0).ceil() as usize).max().unwrap_or(0);
        assert!(recent <= most, "{what}: {recent} calls in {period} ms before {now}, {most} are allowed");
    }
}

#[derive(Default)]
struct Watched {
    /// Counts its lives: it left and came back.
    life: u32,
    present: bool,
    /// When it came.
    since: u64,
    last_call: Option<u64>,
    latest: Option<Ticket>,
    /// How long its token lives, and when, on the boot clock, it expires.
    token: Option<(u64, u64)>,
    /// Its token came from the state, and the clock was set since: what the engine makes of that cannot be told from here.
    doubtful: bool,
    restored: bool,
}

pub(crate) struct Invariants {
    total: Limit,
    apps: BTreeMap<AppName, (Limit, AppPolicy)>,
    tenants: BTreeMap<TenantId, Watched>,
    in_flight: BTreeSet<TenantId>,
    /// Whose call it is, and in which of its lives it was made.
    calls: BTreeMap<Ticket, (TenantId, u32)>,
    answered: BTreeSet<Ticket>,
}

impl Invariants {
    pub(crate) fn new(now: u64, total: Rate) -> Self {
        Self {
            total: Limit::new(now, total),
            apps: BTreeMap::new(),
            tenants: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            calls: BTreeMap::new(),
            answered: BTreeSet::new(),
        }
    }

    pub(crate) fn limit(&mut self, now: u64, total: Rate) {
        self.total.rates.push((now, total));
    }

    /// Whether there has been a tenant of this name.
    pub(crate) fn knows(&self, id: &TenantId) -> bool {
        self.tenants.contains_key(id)
    }

    pub(crate) fn clock_stepped(&mut self) {
        self.tenants.values_mut().for_each(|tenant| tenant.doubtful |= tenant.restored);
    }

    pub(crate) fn changed(&mut self, at: Now, change: &Change) {
        let now = at.boot.0;
        match change {
            Change::App { name, policy, freshness, .. } => {
                let app = self.apps.entry(name.clone()).or_insert_with(|| (Limit::new(now, policy.rate), *policy));
                app.1 = *policy;
                app.0.rates.push((now, policy.rate));
                if *freshness == Freshness::Stale {
                    let theirs = self.tenants.iter_mut().filter(|(id, _)| id.app == *name);
                    theirs.for_each(|(_, tenant)| tenant.last_call = None);
                }
            }
            Change::Added { id, record, .. } => {
                let tenant = self.tenants.entry(id.clone()).or_default();
                let life = tenant.life + 1;
                let token = record.map(|record| life_of(record, at));
                *tenant =
                    Watched { life, present: true, since: now, token, restored: token.is_some(), ..Watched::default() };
            }
            Change::Removed { id, .. } => self.tenants.entry(id.clone()).or_default().present = false,
            Change::SinkSet { .. } | Change::Resinked { .. } | Change::AppGone { .. } => {}
        }
    }

    pub(crate) fn call(&mut self, now: Now, engine: &Engine, ticket: Ticket, id: &TenantId) {
        let boot = now.boot.0;
        assert!(self.in_flight.insert(id.clone()), "{id} is called twice at once");
        self.check_order(now, engine, id);
        self.total.count(boot, "all together");
        let (limit, policy) = self.apps.get_mut(&id.app).expect("an app");
        assert!(policy.enabled, "{id} is called although its app is disabled");
        limit.count(boot, id.app.as_str());
        let tenant = self.tenants.get_mut(id).expect("a tenant");
        assert!(tenant.present, "{id} is called although it left");
        let floor = policy.retry.min.as_millis() as u64;
        let last = tenant.last_call.replace(boot);
        assert!(last.is_none_or(|last| boot >= last + floor), "{id} is called at {boot} and was at {last:?}");
        tenant.latest = Some(ticket);
        self.calls.insert(ticket, (id.clone(), tenant.life));
    }

    pub(crate) fn answered(&mut self, ticket: Ticket) {
        let (id, _) = self.calls.get(&ticket).expect("an answer to a call");
        self.in_flight.remove(id);
        self.answered.insert(ticket);
    }

    /// An answer is the tenant's only if it is to its latest call, made in its present life.
    pub(crate) fn keep(&mut self, now: Now, ticket: Ticket, id: &TenantId, record: Record) {
        assert!(self.answered.remove(&ticket), "{id}: {ticket:?} is kept and was not answered, or was kept before");
        let (whose, life) = &self.calls[&ticket];
        let tenant = self.tenants.get_mut(id).expect("a tenant");
        assert_eq!(whose, id, "an answer is kept for another tenant");
        assert!(tenant.present && tenant.life == *life, "{id}: a late answer is kept, from before it left");
        assert_eq!(tenant.latest, Some(ticket), "{id}: a late answer is kept");
        (tenant.restored, tenant.doubtful) = (false, false);
        tenant.token = Some(life_of(record, now));
    }

    /// With a backlog: expired tokens, then valid ones with under a tenth of their life left, then tenants that never had one,
    /// then by expiry. Whom the endpoint refuses, and who waits for hours, stands elsewhere, and is left out here.
    fn check_order(&self, now: Now, engine: &Engine, id: &TenantId) {
        if self.tenants[id].doubtful || self.tenants.len() > CROWD {
            return;
        }
        let rank = |id: &TenantId| match self.tenants[id].token {
            Some((_, expires)) if expires <= now.boot.0 => (0, expires),
            Some((life, expires)) if expires - now.boot.0 <= life / 10 => (1, expires),
            None => (2, 0),
            Some((_, expires)) => (3, expires),
        };
        let comparable = |rank: (u8, u64)| if rank.0 == 0 { (0, 0) } else { rank };
        let plain = |row: &corptokend::engine::Row| row.trouble.is_none();
        let Some(own) = engine.slot(id).map(|slot| engine.row(now, slot)).filter(plain) else { return };
        let first = comparable(rank(id));
        let is_impatient = first.0 == 2 && now.boot.0 >= self.tenants[id].since + PATIENCE_MS;
        if is_impatient {
            return;
        }
        for row in engine.page(now, Slot(0), usize::MAX) {
            let waits = row.why == "waits for its turn within the limits";
            if row.id.app == own.id.app && row.id != *id && waits && plain(&row) {
                let other = comparable(rank(&row.id));
                assert!(
                    other >= first || self.tenants[&row.id].doubtful,
                    "at {now:?} {id} {first:?} is called before {other:?} {row:?}"
                );
            }
        }
    }
}

fn life_of(record: Record, now: Now) -> (u64, u64) {
    (record.expires.since(record.asked), Record::on_boot_clock(record.expires, now).0)
}
