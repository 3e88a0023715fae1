//! The endpoint, as `dingtalk-api` is known to behave, and as it is feared to.

use std::collections::VecDeque;

use corptokend::domain::{Failure, FailureKind, Fingerprint, Grant, Now, TenantId};

use super::clock::Clock;
use super::rng::Rng;
use super::tenants::{PerTenant, TenantNo};

/// A call that hangs is given up after this long, in milliseconds: the daemon's `api.timeout`.
pub const TIMEOUT_MS: u64 = 10_000;
/// Calls a second for one app, beyond which the endpoint throttles it.
const APP_LIMIT: usize = 20;

/// How long a call takes in milliseconds, and what it brings.
pub type Reply = (u64, Result<Grant, Failure>);
type Respond = Box<dyn FnMut(Now, &TenantId) -> Reply>;

/// What a repeated call brings while the last token is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// A new token each time.
    NewToken,
    /// The same token, renewed.
    SameRenewed,
    /// The same token, with what is left of its life.
    RemainingLife,
}

/// How the endpoint treats one app.
pub struct Treatment {
    pub lifetimes_s: Vec<u32>,
    pub habit: Habit,
    /// Calls that do not follow the habit but bring a new token, in a thousand.
    pub fickle: u32,
    /// Calls that fail by chance, in a thousand, and how.
    pub flaky: u32,
    pub flaws: Vec<FailureKind>,
    /// Every call fails alike.
    pub all_fail: Option<FailureKind>,
    recent: VecDeque<u64>,
}

impl Treatment {
    pub fn new(lifetime_s: u32, habit: Habit) -> Self {
        let flaws =
            vec![FailureKind::Unreachable, FailureKind::ServerError, FailureKind::Timeout, FailureKind::Malformed];
        let (lifetimes_s, recent) = (vec![lifetime_s], VecDeque::new());
        Self { lifetimes_s, habit, fickle: 0, flaky: 0, flaws, all_fail: None, recent }
    }

    fn is_too_fast(&mut self, now: u64) -> bool {
        while self.recent.front().is_some_and(|at| now - at >= 1000) {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.recent.len() > APP_LIMIT
    }
}

/// What the endpoint knows of a tenant's latest token.
#[derive(Debug, Clone, Copy, Default)]
struct Issued {
    token: u64,
    /// When it stops working, in milliseconds of the run.
    until: u64,
}

pub struct Endpoint {
    /// What a scenario wants to be answered, whatever is said below.
    respond: Option<Respond>,
    pub apps: Vec<Treatment>,
    /// Every call of every app fails alike.
    pub all_fail: Option<FailureKind>,
    /// Tenants that it refuses for good.
    pub refuses: PerTenant<Option<FailureKind>>,
    /// The latency in milliseconds: from, and up to.
    pub latency_ms: (u64, u64),
    /// Failures that ask for a wait, in a thousand.
    pub asks_to_wait: u32,
    /// Whether it throttles an app that calls more often than `dingtalk-api` is known to bear.
    pub throttles: bool,
    issued: PerTenant<Issued>,
    tokens: u64,
    rng: Rng,
}

impl Endpoint {
    pub fn new(rng: Rng) -> Self {
        Self {
            respond: None,
            apps: Vec::new(),
            all_fail: None,
            refuses: PerTenant::default(),
            latency_ms: (20, 300),
            asks_to_wait: 0,
            throttles: true,
            issued: PerTenant::default(),
            tokens: 0,
            rng,
        }
    }

    /// Answers as a scenario wants it from here on.
    pub fn respond_with(&mut self, respond: impl FnMut(Now, &TenantId) -> Reply + 'static) {
        self.respond = Some(Box::new(respond));
    }

    /// A call arrives.
    pub fn call(&mut self, clock: Clock, no: TenantNo, id: &TenantId) -> Reply {
        if let Some(respond) = &mut self.respond {
            return respond(clock.now(), id);
        }
        let (from, to) = self.latency_ms;
        let latency = from + self.rng.below(to - from + 1);
        let treatment = &mut self.apps[usize::from(no.app)];
        let failure = if self.throttles && treatment.is_too_fast(clock.t) {
            Some(FailureKind::AppThrottled)
        } else if let Some(kind) = self.all_fail.or(treatment.all_fail).or(self.refuses[no]) {
            Some(kind)
        } else {
            self.rng.per_mille(treatment.flaky).then(|| self.rng.pick(&treatment.flaws))
        };
        match failure {
            Some(FailureKind::Timeout) => (TIMEOUT_MS, Err(self.failure(FailureKind::Timeout))),
            Some(kind) => (latency, Err(self.failure(kind))),
            None => (latency, Ok(self.grant(clock.t, no))),
        }
    }

    fn failure(&mut self, kind: FailureKind) -> Failure {
        let mut failure = Failure::new(kind, "as the seed has it");
        failure.retry_after_s = self.rng.per_mille(self.asks_to_wait).then(|| self.rng.below(90) as u32);
        failure
    }

    fn grant(&mut self, t: u64, no: TenantNo) -> Grant {
        let treatment = &self.apps[usize::from(no.app)];
        let lifetime_s = self.rng.pick(&treatment.lifetimes_s);
        let is_new = self.rng.per_mille(treatment.fickle);
        let issued = &mut self.issued[no];
        // An answer counts in whole seconds, and does not promise none.
        let valid = issued.until >= t + 1000 && !is_new;
        let full = t + u64::from(lifetime_s) * 1000;
        let lifetime_s = match treatment.habit {
            Habit::RemainingLife if valid => u32::try_from((issued.until - t) / 1000).unwrap_or(u32::MAX),
            Habit::SameRenewed if valid => {
                issued.until = full;
                lifetime_s
            }
            _ => {
                self.tokens += 1;
                *issued = Issued { token: self.tokens, until: full };
                lifetime_s
            }
        };
        Grant { lifetime_s, fingerprint: Fingerprint(issued.token) }
    }
}
