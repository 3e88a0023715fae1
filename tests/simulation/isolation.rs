//! One app's trouble beside another that is well, and outages from beginning to end: over all kinds of failure, hanging
//! calls included, and over seeds.

use corptokend::domain::{FailureKind, Rate, SinkSetId};

use crate::fault_plan::Fault;
use crate::model::{Habit, Rng, StoreFault, TenantNo};
use crate::simulation::{AppSetup, Simulation};

const MINUTE: u64 = 60_000;

/// What the engine makes of a token itself is no failure of a call.
fn kinds() -> impl Iterator<Item = FailureKind> {
    let own = [FailureKind::SharedToken, FailureKind::ShortLived];
    FailureKind::ALL.into_iter().filter(move |kind| !own.contains(kind))
}

fn app(tenants: u32, lifetime_s: u32, endpoint: u64) -> AppSetup {
    AppSetup { tenants, rate: Rate::per_second(15), lifetime_s, habit: Habit::NewToken, refused: 0, endpoint }
}

/// A simulation in which all tenants but the last `later` of the last app are in the config from the start, and nothing fails by
/// bad luck.
fn simulation(seed: u64, apps: Vec<AppSetup>, later: u32) -> Simulation {
    let last = apps.len() as u16 - 1;
    let from_the_start = apps[usize::from(last)].tenants - later;
    let mut simulation = Simulation::new(seed, apps);
    simulation.daemon.endpoint.apps.iter_mut().for_each(|app| app.flaky = 0);
    simulation.daemon.invariants.availability.judges_gaps = false;
    simulation.start(|no, _| (no.app < last || no.n < from_the_start).then(|| sinks_of(no.app)));
    simulation
}

/// The first app has a file and a key, each in a lane of its own; the others have a file in the first of these lanes.
fn sinks_of(app: u16) -> SinkSetId {
    SinkSetId(if app == 0 { 1 } else { 0 })
}

const NEWCOMERS: u32 = 30;

/// An app of 300 beside one of 2,000 that has this fault from the fifth minute on; newcomers join the 300 meanwhile. Returns by
/// how much a refresh of theirs was late at worst, in milliseconds. How soon they are published is judged by the model.
fn lateness_beside(fault: Option<Fault>, seed: u64, endpoint: u64) -> u64 {
    let mut simulation = simulation(seed, vec![app(2_000, 400, endpoint), app(300 + NEWCOMERS, 60, 1)], NEWCOMERS);
    simulation.run_until(4 * MINUTE);
    if let Some(fault) = fault {
        simulation.inject(fault);
    }
    simulation.run_until(8 * MINUTE);
    for n in 300..300 + NEWCOMERS {
        simulation.join(TenantNo { app: 1, n }, sinks_of(1));
    }
    simulation.run_until(8 * MINUTE + 10_000);
    let newcomers = (300..300 + NEWCOMERS).map(|n| TenantNo { app: 1, n });
    let served = newcomers.filter(|no| simulation.daemon.store.current(*no).is_some()).count();
    assert_eq!(served, NEWCOMERS as usize, "{fault:?}, seed {seed}: newcomers are served meanwhile");
    simulation.run_until(16 * MINUTE);
    simulation.daemon.invariants.apps[1].latest_ms
}

#[test]
fn an_app_that_is_well_is_never_a_second_late_whatever_another_suffers_from() {
    for seed in [1, 2, 3] {
        // What its own rate accounts for.
        let alone = lateness_beside(None, seed, 2);
        assert!(alone < 3_000, "seed {seed}: {alone} ms");
        for kind in kinds() {
            // Who is banned, or is told that the endpoint is too busy, shares that with whoever calls it, too.
            let shares = !matches!(kind, FailureKind::Banned | FailureKind::Blocked | FailureKind::ApiThrottled);
            let endpoint = if shares && seed % 2 == 1 { 1 } else { 2 };
            let fault = Fault::Outage { app: Some(0), kind, ms: 10 * MINUTE };
            let late = lateness_beside(Some(fault), seed, endpoint);
            assert!(late <= alone + 1_000, "{kind}, seed {seed}, endpoint {endpoint}: {late} ms late, {alone} alone");
        }
    }
}

#[test]
fn an_app_is_never_a_second_late_while_another_leaves_or_its_lane_hangs_or_the_state_fails() {
    let state_fails = |how| Fault::StateFails { how, ms: 10 * MINUTE };
    for seed in [1, 2, 3] {
        let alone = lateness_beside(None, seed, 1);
        let leaves = [1, 3 * MINUTE, 10 * MINUTE].map(|ms| Fault::AppLeaves { app: 0, ms });
        let fails = [StoreFault::Hangs, StoreFault::Unwritable, StoreFault::Unreadable].map(state_fails);
        let hangs = [Fault::LaneHangs { lane: 1, ms: 10 * MINUTE }];
        for fault in leaves.into_iter().chain(fails).chain(hangs) {
            let late = lateness_beside(Some(fault), seed, 1);
            assert!(late <= alone + 1_000, "{fault:?}, seed {seed}: {late} ms late, {alone} alone");
        }
    }
}

/// What an endpoint does to everybody when it is away.
const AWAY: [FailureKind; 6] = [
    FailureKind::Unreachable,
    FailureKind::Timeout,
    FailureKind::ServerError,
    FailureKind::Malformed,
    FailureKind::HtmlPage,
    FailureKind::SuspectCorp,
];

/// An outage of everything; returns for how long somebody was without a token after its end, in milliseconds, and how many
/// calls there were in it.
fn outage(simulation: &mut Simulation, kind: FailureKind, ms: u64) -> (u64, u64) {
    let (begin, calls) = (simulation.daemon.clock.t, simulation.daemon.invariants.statistics.calls);
    simulation.inject(Fault::Outage { app: None, kind, ms });
    simulation.run_until(begin + ms);
    let (end, calls) = (simulation.daemon.clock.t, simulation.daemon.invariants.statistics.calls - calls);
    let present = simulation.present();
    while simulation.valid() < present {
        simulation.run_until(simulation.daemon.clock.t + 250);
        assert!(
            simulation.daemon.clock.t < end + 60 * MINUTE,
            "{kind}: {} of {present} after an hour",
            simulation.valid()
        );
    }
    (simulation.daemon.clock.t - end, calls)
}

#[test]
fn fifty_tenants_are_back_sixteen_seconds_after_any_outage() {
    for seed in 0..24 {
        let mut rng = Rng::new(seed);
        let kind = AWAY[seed as usize % AWAY.len()];
        let most = rng.pick(&[5_000, MINUTE, 10 * MINUTE, 180 * MINUTE]);
        let ms = 1_000 + rng.below(most);
        let mut simulation = simulation(seed, vec![app(50, 30, 1)], 0);
        simulation.run_until(2 * MINUTE);
        let (took, calls) = outage(&mut simulation, kind, ms);
        assert!(took <= 50 * 1000 / 15 + 16_000 + 1_000, "{kind} for {ms} ms, seed {seed}: back after {took} ms");
        assert!(calls <= 20 + ms / 1000, "{kind} for {ms} ms, seed {seed}: {calls} calls");
    }
}

#[test]
fn fifty_thousand_tenants_of_twenty_apps_are_back_as_soon_as_the_limits_allow() {
    const APPS: u64 = 20;
    let mut simulation = simulation(1, vec![app(2_500, 1_200, 1); APPS as usize], 0);
    simulation.run_until(20 * MINUTE);
    let (took, calls) = outage(&mut simulation, FailureKind::Timeout, 25 * MINUTE);
    // Each app may make 15 calls a second, all together 400.
    let allowed = 2_500 * 1000 / 15 * 1_020 / 1_000;
    println!("50,000 tenants: {calls} calls in 25 minutes, all back after {took} ms, the limits allow {allowed}");
    assert!(took <= allowed + 16_000, "back after {took} ms, and the limits allow {allowed}");
    assert!(calls <= 100 + 25 * 60, "{calls} calls in 25 minutes");
}
