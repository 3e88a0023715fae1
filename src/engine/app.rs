//! One app: its limit, its queue, and the breaker that opens when all its tenants would fail alike.

use super::limit::Limiter;
use super::queue::Queue;
use super::view::Counts;
use crate::domain::{AppName, AppPolicy, BootMs, FailureKind};

/// An app's place in the engine's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct AppIx(pub(super) u32);

#[derive(Debug)]
pub(super) struct App {
    pub(super) name: AppName,
    pub(super) policy: AppPolicy,
    pub(super) limiter: Limiter,
    pub(super) queue: Queue,
    pub(super) gate: Gate,
    pub(super) breaker: Option<Breaker>,
    /// Its breaker was closed because its credentials changed; whether that helped is still to be said.
    pub(super) awaits_proof: bool,
    /// Calls under way.
    pub(super) in_flight: u32,
    /// Its tenants, those included that left while a call was under way.
    pub(super) tenants: u32,
    pub(super) counts: Counts,
    /// It left the config; it goes when its last call has ended.
    pub(super) gone: bool,
}

/// Where an app stands in the competition for calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// It has nothing to call for, or may not until an answer comes.
    Closed,
    /// It may call from this moment on.
    Waiting(BootMs),
    /// It may call; this is its key among the eligible.
    Eligible(u8, u64),
}

/// All tenants of the app would fail alike: one probe at a time stands for them.
#[derive(Debug)]
pub(super) struct Breaker {
    pub(super) kind: FailureKind,
    /// Answers to calls sent before this moment say nothing new.
    pub(super) opened: BootMs,
    pub(super) probes: u16,
    pub(super) probe_at: BootMs,
    pub(super) said: BootMs,
}

impl Breaker {
    /// How long to wait for the next probe. Reading a secret costs nobody anything, so that is tried sooner.
    pub(super) fn wait_ms(kind: FailureKind, probes: u16) -> u64 {
        let (first, longest) = match kind {
            FailureKind::SecretUnreadable => (1_000, 60_000),
            _ => (30_000, 900_000),
        };
        (first << probes.min(10)).min(longest)
    }
}

impl App {
    /// Whether a call is under way, or would be sent if the limits allowed it.
    pub(super) fn wants_calls(&self) -> bool {
        self.in_flight > 0 || (self.breaker.is_none() && self.gate != Gate::Closed)
    }

    /// When it may next call; `None`: not before an answer comes, or never.
    pub(super) fn next_at(&self) -> Option<BootMs> {
        match &self.breaker {
            _ if !self.policy.enabled => None,
            None => Some(self.limiter.next_at()),
            Some(_) if self.in_flight > 0 => None,
            Some(breaker) => Some(self.limiter.next_at().max(breaker.probe_at)),
        }
    }
}
