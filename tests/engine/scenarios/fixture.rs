//! What most scenarios begin with.

use std::time::Duration;

use corptokend::domain::*;
use corptokend::engine::Capacity;

use crate::model::{self, Daemon, Reply};

pub(crate) const HOUR: u64 = 3_600_000;
pub(crate) const BOOT: u64 = 86_400_000;

pub(crate) fn policy() -> AppPolicy {
    AppPolicy {
        rate: Rate::per_second(15),
        refresh: Refresh { at: 0.7, jitter: 0.05 },
        retry: Retry { min: Duration::from_secs(1), max: Duration::from_secs(300) },
        enabled: true,
    }
}

/// The way that an app's calls go: each number stands for an endpoint of its own.
pub(crate) fn way(number: u64) -> CallPath {
    CallPath { route: RouteId(number), origin: OriginId(number) }
}

pub(crate) fn outlet(root: u32) -> SinkPolicy {
    SinkPolicy { root: RootId(root), lane: lane_of(RootId(root)), shows_expiry: false, on_expiry: OnExpiry::Keep }
}

pub(crate) fn app() -> AppName {
    AppName::new("crm").unwrap()
}

pub(crate) fn tenant(n: usize) -> TenantId {
    TenantId { app: app(), corp_id: CorpId::new(&format!("ding{n}")).unwrap() }
}

/// A daemon with one app, whose tenants have one raw sink (set 0), and an endpoint that gives a new token for two hours.
pub(crate) fn daemon() -> Daemon {
    let mut daemon = empty_daemon(BOOT);
    daemon.change(sink_set(0, &[outlet(0)]));
    set_policy(&mut daemon, policy(), Freshness::Current);
    daemon.endpoint.respond_with(new_tokens(7200));
    daemon
}

pub(crate) fn new_tokens(lifetime_s: u32) -> impl FnMut(Now, &TenantId) -> Reply {
    let mut number = 0;
    move |_, _| {
        number += 1;
        (20, Ok(Grant { lifetime_s, fingerprint: Fingerprint(number) }))
    }
}

pub(crate) fn set_policy(daemon: &mut Daemon, policy: AppPolicy, freshness: Freshness) {
    daemon.change(Change::App { name: app(), policy, path: way(1), freshness });
}

pub(crate) fn add(daemon: &mut Daemon, tenants: std::ops::Range<usize>) {
    tenants.for_each(|n| daemon.change(Change::Added { id: tenant(n), sinks: SinkSetId(0), record: None }));
}

/// Adds a tenant that the state remembers: asked for `age_s` ago, good for two hours from then.
pub(crate) fn restore(daemon: &mut Daemon, n: usize, age_s: u64) {
    let asked = daemon.now().wall - age_s * 1000;
    let record =
        Record { requested_at: asked, expires_at: asked + 7_200_000, fingerprint: Fingerprint(1_000_000 + n as u64) };
    daemon.store_token(&tenant(n), record);
    daemon.change(Change::Added { id: tenant(n), sinks: SinkSetId(0), record: Some(record) });
}

pub(crate) fn fails(kind: FailureKind) -> Reply {
    (20, Err(Failure::new(kind, "as the test wants it")))
}

pub(crate) fn state(daemon: &Daemon, n: usize) -> TenantState {
    daemon.engine.row(daemon.now(), daemon.engine.slot(&tenant(n)).unwrap()).state
}

/// When a tenant was called, in milliseconds since the beginning.
pub(crate) fn calls_of(daemon: &Daemon, n: usize) -> Vec<u64> {
    daemon.seen.calls.iter().filter(|(_, id)| *id == tenant(n)).map(|(at, _)| at - BOOT).collect()
}

/// A daemon without apps that has room for so many calls, and eight jobs in each of four lanes.
pub(crate) fn empty_daemon(boot_ms: u64) -> Daemon {
    Daemon::new(boot_ms, 7, Rate::per_second(400), Capacity { calls: 64, max_calls: 64, lanes: vec![8; 4] })
}

pub(crate) fn sink_set(number: u32, outlets: &[SinkPolicy]) -> Change {
    Change::SinkSet { id: SinkSetId(number), sinks: outlets.into() }
}

/// Roots are spread over four lanes.
pub(crate) fn lane_of(root: RootId) -> LaneId {
    LaneId((root.0 % 4) as u16)
}

pub(crate) fn place(outlet: &SinkPolicy, id: &TenantId) -> Place {
    model::place(outlet.root, id)
}

/// What a tenant leaves below a root, as a plan says it.
pub(crate) fn left(root: u32, n: usize) -> Vec<(LaneId, RootId, Place)> {
    vec![(outlet(root).lane, outlet(root).root, place(&outlet(root), &tenant(n)))]
}
