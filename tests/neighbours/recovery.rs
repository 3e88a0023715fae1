//! After an outage of any kind, with the default settings, all tenants are back within what the limits allow, plus 16 s;
//! and during it hardly anybody is called in vain.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use corptokend::sandbox::{Fault, Options, RawAnswer, Sandbox, SandboxHandle, Scope, Times, Transport};

use crate::support::reliability;
use crate::support::{Machine, corp_ids};

const TENANTS: usize = 50;
const LIFETIME_S: u32 = 10;
/// Longer than a token lives, and long enough for backoff of one's own to be long.
const OUTAGE: Duration = Duration::from_secs(30);
/// The probes are at most 15 s apart, and one is answered within one.
const BACK: Duration = Duration::from_secs(16);
/// Until the outage is known as one: those under way, and the few that prove it.
const AT_FIRST: Duration = Duration::from_secs(5);

/// What the endpoint does during the outage.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outage {
    /// Nobody listens.
    Refused,
    Hung,
    /// Answered so, with HTML.
    Html(u16),
    Reset,
}

pub(crate) const PROMISE: &str =
    "all are back within 16 s and what the limits take; meanwhile one call in vain a second at most";

pub(crate) const OUTAGES: &[(&str, Outage)] = &[
    ("nobody listens", Outage::Refused),
    ("calls hang", Outage::Hung),
    ("calls are reset", Outage::Reset),
    ("500 for everybody", Outage::Html(500)),
    ("503 for everybody", Outage::Html(503)),
    ("a page of HTML, with 200", Outage::Html(200)),
];

impl Outage {
    fn fault(self) -> Option<Fault> {
        match self {
            Self::Refused => None,
            Self::Hung => Some(Fault::Hang),
            Self::Reset => Some(Fault::Reset),
            Self::Html(status) => Some(Fault::Raw(RawAnswer::html(status, "<html><body>maintenance</body></html>"))),
        }
    }
}

fn options(address: SocketAddr) -> Options {
    Options { address, transport: Transport::Plain, lifetime_s: LIFETIME_S, issue_log: 100, ..Options::default() }
}

/// The endpoint at one and the same address, there or not.
struct Endpoint {
    address: SocketAddr,
    sandbox: Option<SandboxHandle>,
}

impl Endpoint {
    fn there() -> Self {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let mut endpoint = Self { address, sandbox: None };
        endpoint.comes_back();
        endpoint
    }

    fn goes_away(&mut self, outage: Outage) {
        match (outage.fault(), &self.sandbox) {
            (Some(fault), Some(sandbox)) => sandbox.inject(Scope::everyone(), fault, Times::UntilCleared),
            _ => drop(self.sandbox.take()),
        }
    }

    fn comes_back(&mut self) {
        match &self.sandbox {
            Some(sandbox) => sandbox.clear_faults(),
            None => self.sandbox = Some(Sandbox::spawn_thread(options(self.address)).expect("the sandbox starts")),
        }
    }

    fn calls(&self) -> u64 {
        self.sandbox.as_ref().map_or(0, |sandbox| sandbox.totals().calls)
    }

    /// Whether the tenant's file holds its newest token, asked for when so many milliseconds had passed or later.
    fn has_served(&self, machine: &Machine, corp_id: &str, since_ms: u64) -> bool {
        let newest = self.sandbox.as_ref().and_then(|sandbox| sandbox.issued(corp_id).pop());
        newest.is_some_and(|newest| newest.at_ms >= since_ms && machine.token("crm", corp_id) == Some(newest.token))
    }

    /// The moment of the last call, in milliseconds of the sandbox.
    fn now_ms(&self) -> u64 {
        self.sandbox.as_ref().and_then(|sandbox| sandbox.calls().pop()).map_or(0, |call| call.at_ms)
    }
}

fn recovers(name: &str, outage: Outage) {
    let ids = corp_ids(TENANTS);
    let mut endpoint = Endpoint::there();
    // The rate of an app is the default, as all else.
    let extra = format!("endpoint = \"http://{}\"\nrate = \"15/s\"", endpoint.address);
    let mut machine = Machine::new().app("crm", &ids, &extra);
    machine.start();
    assert!(ids.iter().all(|corp_id| endpoint.has_served(&machine, corp_id, 0)));

    let began = Instant::now();
    endpoint.goes_away(outage);
    std::thread::sleep(AT_FIRST + Duration::from_secs(LIFETIME_S.into()));
    let (known, calls) = (Instant::now(), endpoint.calls());
    std::thread::sleep(OUTAGE.saturating_sub(began.elapsed()));
    let (in_vain, known) = (endpoint.calls() - calls, known.elapsed());
    let last = endpoint.now_ms();
    endpoint.comes_back();
    let over = Instant::now();
    // Where the endpoint is another one, all of its calls are after the outage.
    let since = if matches!(outage, Outage::Refused) { 0 } else { last + 1 };
    machine.wait_until("everybody is back", |machine| {
        ids.iter().all(|corp_id| endpoint.has_served(machine, corp_id, since))
    });
    let back = over.elapsed();
    eprintln!("{name}: {in_vain} calls in vain in {known:?}; all back after {back:?}");
    // Fifty calls at 15/s take four seconds, and a busy machine is allowed as much again.
    let limits = Duration::from_secs(4);
    assert!(back <= limits + BACK + limits, "{name}: all back only after {back:?}");
    assert!(in_vain <= known.as_secs() + 1, "{name}: {in_vain} calls in vain in {known:?}");
    assert!(machine.stop().success());
    let called = match outage {
        Outage::Refused => "calls cannot be counted".to_owned(),
        _ => format!("{in_vain} calls in vain in the last {} s", known.as_secs()),
    };
    let seen = format!("{TENANTS} tenants, {} s: {called}; all back after {} ms", OUTAGE.as_secs(), back.as_millis());
    reliability::leave_row("recovery", &[name, PROMISE, &seen]);
}

#[test]
fn after_an_outage_of_any_kind_all_are_back_at_once() {
    let failed: Vec<&str> = std::thread::scope(|scope| {
        let all: Vec<_> =
            OUTAGES.iter().map(|(name, outage)| (*name, scope.spawn(|| recovers(name, *outage)))).collect();
        all.into_iter().filter_map(|(name, thread)| thread.join().is_err().then_some(name)).collect()
    });
    assert!(failed.is_empty(), "failed: {failed:?}");
}
