//! The endpoint, as `dingtalk-api` is known to behave, and as it is feared to.

use std::collections::VecDeque;

use corptokend::domain::FailureKind;

use crate::rng::Rng;

/// A call that hangs is given up after this long, in milliseconds: the daemon's `api.timeout`.
pub(crate) const TIMEOUT_MS: u64 = 10_000;
/// Calls a second for one app, beyond which the endpoint throttles it.
const APP_LIMIT: usize = 20;

/// What a repeated call brings while the last token is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// A new token each time.
    NewToken,
    /// The same token, renewed.
    SameRenewed,
    /// The same token, with what is left of its life.
    RemainingLife,
}

/// What the endpoint knows of a tenant's latest token.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Issued {
    pub(crate) token: u32,
    /// When it stops working.
    pub(crate) until: u64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Reply {
    Granted { lifetime_s: u32, token: u32 },
    Refused(FailureKind),
}

/// How the endpoint treats one app.
pub(crate) struct Treatment {
    pub(crate) lifetime_s: u32,
    pub(crate) habit: Habit,
    /// Calls that fail by bad luck, in a thousand.
    pub(crate) flaky: u32,
    /// Every call fails alike.
    pub(crate) all_fail: Option<FailureKind>,
    recent: VecDeque<u64>,
    pub(crate) throttled: u64,
}

impl Treatment {
    pub(crate) fn new(lifetime_s: u32, habit: Habit, flaky: u32) -> Self {
        Self { lifetime_s, habit, flaky, all_fail: None, recent: VecDeque::new(), throttled: 0 }
    }

    fn is_too_fast(&mut self, now: u64) -> bool {
        while self.recent.front().is_some_and(|at| now - at >= 1000) {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.recent.len() > APP_LIMIT
    }
}

pub(crate) struct Endpoint {
    pub(crate) apps: Vec<Treatment>,
    /// Every call of every app fails alike.
    pub(crate) all_fail: Option<FailureKind>,
    /// The usual latency, in milliseconds: from, and up to.
    pub(crate) latency: (u64, u64),
    pub(crate) rng: Rng,
    tokens: u32,
}

const BAD_LUCK: [FailureKind; 4] =
    [FailureKind::Unreachable, FailureKind::ServerError, FailureKind::Timeout, FailureKind::Malformed];

impl Endpoint {
    pub(crate) fn new(apps: Vec<Treatment>, rng: Rng) -> Self {
        Self { apps, all_fail: None, latency: (20, 300), rng, tokens: 0 }
    }

    /// A call arrives. Returns how long the answer takes, in milliseconds, and what it is.
    pub(crate) fn call(
        &mut self,
        now: u64,
        app: usize,
        refuses: Option<FailureKind>,
        issued: &mut Issued,
    ) -> (u64, Reply) {
        let latency = self.latency.0 + self.rng.below(self.latency.1 - self.latency.0 + 1);
        let treatment = &mut self.apps[app];
        let failure = if treatment.is_too_fast(now) {
            treatment.throttled += 1;
            Some(FailureKind::AppThrottled)
        } else if let Some(kind) = self.all_fail.or(treatment.all_fail).or(refuses) {
            Some(kind)
        } else {
            self.rng.per_mille(treatment.flaky).then(|| self.rng.pick(&BAD_LUCK))
        };
        match failure {
            Some(FailureKind::Timeout) => (TIMEOUT_MS, Reply::Refused(FailureKind::Timeout)),
            Some(kind) => (latency, Reply::Refused(kind)),
            None => (latency, self.grant(now, app, issued)),
        }
    }

    fn grant(&mut self, now: u64, app: usize, issued: &mut Issued) -> Reply {
        let Treatment { lifetime_s, habit, .. } = self.apps[app];
        // An answer counts in whole seconds, and does not promise none.
        let valid = issued.until >= now + 1000;
        let full = now + u64::from(lifetime_s) * 1000;
        let lifetime_s = match habit {
            Habit::RemainingLife if valid => u32::try_from((issued.until - now) / 1000).unwrap_or(u32::MAX),
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
        Reply::Granted { lifetime_s, token: issued.token }
    }
}
