//! What the simulated endpoint knows, and how it answers one call. It has no sockets.

mod calls;
mod issuer;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use tokio::time::Instant;

use super::answer::ScriptedAnswer;
use super::faults::{Fault, Faults, Scope, Times};
use super::options::Options;
use super::tls::Protocols;
use calls::CallLog;
use issuer::{Issuer, Terms};

pub use calls::{LoggedCall, Protocol, Totals};
pub use issuer::{Issued, sequence_of};

/// Where a call came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    pub(super) connection: u64,
    pub(super) protocol: Protocol,
    pub(super) peer: SocketAddr,
}

/// The endpoint. One lock around a small state suffices for tens of thousands of calls a second.
pub(super) struct SimulatedEndpoint {
    /// The start on both clocks: tokio's, which tests may pause, and the wall clock.
    start: (Instant, SystemTime),
    state: Mutex<EndpointState>,
}

struct EndpointState {
    options: Options,
    issuer: Issuer,
    faults: Faults,
    log: CallLog,
}

#[derive(Deserialize)]
struct TokenRequest<'a> {
    #[serde(borrow)]
    client_id: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    client_secret: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    grant_type: std::borrow::Cow<'a, str>,
}

impl SimulatedEndpoint {
    pub(super) fn new(options: Options) -> Self {
        let start = (Instant::now(), wall_clock());
        let seed = start.1.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let state = EndpointState {
            issuer: Issuer::new(seed as u64, options.issue_log),
            faults: Faults::default(),
            log: CallLog::new(start.0, options.call_log),
            options,
        };
        Self { start, state: Mutex::new(state) }
    }

    /// Answers one call for a token. `body` is the request's.
    pub(super) fn answer(&self, corp_id: &str, body: &[u8], caller: Caller) -> ScriptedAnswer {
        let now = Instant::now();
        let mut state = self.lock();
        let (mut answer, client_id, outcome) = match serde_json::from_slice::<TokenRequest<'_>>(body) {
            Ok(request) => {
                let (answer, outcome) = state.decide(corp_id, &request, now);
                (answer, request.client_id, outcome)
            }
            Err(_) => (
                ScriptedAnswer::refusal(400, "invalid.request", "the body is not as documented"),
                "".into(),
                "bad_body",
            ),
        };
        let at_ms = state.log.since_start_ms(now);
        let Caller { connection, protocol, peer } = caller;
        let client_id = client_id.as_ref().into();
        state.log.push(LoggedCall { at_ms, client_id, corp_id: corp_id.into(), protocol, connection, peer, outcome });
        answer.delay += state.options.latency;
        if state.options.date_skew_s != 0 {
            answer.date = Some(httpdate::fmt_http_date(self.skewed(now, state.options.date_skew_s)));
        }
        answer
    }

    pub(super) fn inject(&self, scope: Scope, fault: Fault, times: Times) {
        self.lock().faults.inject(scope, fault, times);
    }

    pub(super) fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    pub(super) fn fault_lines(&self) -> Vec<String> {
        self.lock().faults.lines()
    }

    pub(super) fn calls(&self) -> Vec<LoggedCall> {
        self.lock().log.calls()
    }

    pub(super) fn totals(&self) -> Totals {
        self.lock().log.totals()
    }

    pub(super) fn forget_calls(&self) {
        self.lock().log.forget();
    }

    pub(super) fn issued(&self, corp_id: &str) -> Vec<Issued> {
        self.lock().issuer.issued(corp_id)
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Options)) {
        change(&mut self.lock().options);
    }

    /// A new connection's number, and after how many requests it is closed.
    pub(super) fn open_connection(&self) -> (u64, Option<u32>) {
        let mut state = self.lock();
        (state.log.count_connection(), state.options.requests_per_connection)
    }

    pub(super) fn protocols(&self) -> Protocols {
        self.lock().options.protocols
    }

    fn skewed(&self, now: Instant, skew_s: i64) -> SystemTime {
        let skew = Duration::from_secs(skew_s.unsigned_abs());
        let wall = self.start.1 + now.duration_since(self.start.0);
        if skew_s >= 0 { wall + skew } else { wall - skew }
    }

    fn lock(&self) -> MutexGuard<'_, EndpointState> {
        // A panic in one call must not stop the others.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EndpointState {
    /// The answer, and its name in the log of calls.
    fn decide(&mut self, corp_id: &str, request: &TokenRequest<'_>, now: Instant) -> (ScriptedAnswer, &'static str) {
        let client_id = request.client_id.as_ref();
        let in_this_second = self.log.count(client_id, now);
        if let Some(fault) = self.faults.take_for(client_id, corp_id) {
            let answer = fault.answer(|| self.grant(client_id, corp_id, now));
            return (answer, fault.name());
        }
        if self.options.per_app_limit.is_some_and(|limit| in_this_second > limit as usize) {
            return (ScriptedAnswer::app_throttled(), Fault::AppThrottled.name());
        }
        if let Some(fault) = self.refusal(corp_id, request) {
            return (fault.answer(|| unreachable!("a refusal needs no token")), fault.name());
        }
        (self.grant(client_id, corp_id, now), "granted")
    }

    fn refusal(&self, corp_id: &str, request: &TokenRequest<'_>) -> Option<Fault> {
        let apps = &self.options.apps;
        let secret = apps.get(request.client_id.as_ref()).map(String::as_str);
        if request.grant_type != "client_credentials" {
            Some(Fault::UnsupportedGrant)
        } else if !apps.is_empty() && secret != Some(request.client_secret.as_ref()) {
            Some(Fault::InvalidClient)
        } else if self.options.known_corps.as_ref().is_some_and(|known| !known.contains(corp_id)) {
            Some(Fault::UnknownError)
        } else {
            None
        }
    }

    fn grant(&mut self, client_id: &str, corp_id: &str, now: Instant) -> ScriptedAnswer {
        let at_ms = self.log.since_start_ms(now);
        let terms = Terms { mode: self.options.mode, lifetime_s: self.options.lifetime_s, now, at_ms };
        let (token, expires_in_s) = self.issuer.grant(client_id, corp_id, &terms);
        ScriptedAnswer::grant(&token, expires_in_s)
    }
}

#[expect(clippy::disallowed_methods, reason = "the sandbox simulates another machine, which has a clock of its own")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// An endpoint that many connections share.
pub(super) type SharedEndpoint = Arc<SimulatedEndpoint>;
