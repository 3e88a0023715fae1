//! What goes wrong, and when: drawn from a seed, and then peace.

use std::collections::BTreeMap;

use corptokend::domain::{FailureKind, Rate};

use crate::model::{Rng, StoreFault};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// Something that goes wrong, or is changed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Every call fails, of an app or of everybody.
    Outage { app: Option<usize>, kind: FailureKind, ms: u64 },
    /// The endpoint does not take the app's secret until it changes its mind, or until the operator has put the right one in.
    WrongSecret { app: usize, ms: u64, mended_by_operator: bool },
    /// The address is banned.
    Ban { ms: u64 },
    /// Calls fail by bad luck, so many in a thousand.
    Flaky { app: usize, per_mille: u32, ms: u64 },
    /// The machine sleeps.
    Suspend { ms: u64 },
    /// The wall clock is set for a while, and set right again.
    ClockStep { by: i64, ms: u64 },
    /// The process is killed when that costs a token, and started again.
    Restart,
    /// The process is killed at once, and started again.
    Kill,
    /// The machine starts anew: the boot clock begins again, and what was published is gone.
    Reboot,
    /// Sinks below a root fail.
    SinksFail { root: u32, ms: u64 },
    /// What a lane does hangs.
    LaneHangs { lane: u16, ms: u64 },
    /// Commits take long.
    SlowCommits { ms: u64 },
    /// The state hangs, or cannot be written, or not even read.
    StateFails { how: StoreFault, ms: u64 },
    /// Tenants join an app.
    Join { app: usize, n: u32 },
    /// Tenants leave an app.
    Leave { app: usize, n: u32 },
    /// Tenants get other sinks.
    Resink { app: usize, n: u32 },
    /// An app's rate changes, to so many percent of the usual.
    Rate { app: usize, percent: u32 },
    /// An app's secret changes: all its tenants are fetched anew.
    NewSecret { app: usize },
    /// An app is disabled for a while.
    Disable { app: usize, ms: u64 },
    /// An app leaves, with all its tenants, and comes back.
    AppLeaves { app: usize, ms: u64 },
    /// The limit on all calls changes.
    Limit(Rate),
    /// What came for a while is over.
    End(FaultEnd),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum FaultEnd {
    Outage(Option<usize>),
    WrongSecret { app: usize, mended_by_operator: bool },
    Flaky(usize),
    ClockStep(i64),
    SinksFail(u32),
    LaneHangs(u16),
    SlowCommits,
    StateFails,
    Disabled(usize),
    AppLeft(usize),
}

#[derive(Default)]
pub(crate) struct FaultPlan {
    faults: BTreeMap<u64, Vec<Fault>>,
}

impl FaultPlan {
    pub(crate) fn add(&mut self, at: u64, fault: Fault) {
        self.faults.entry(at).or_default().push(fault);
    }

    pub(crate) fn next_at(&self) -> Option<u64> {
        self.faults.first_key_value().map(|(at, _)| *at)
    }

    pub(crate) fn take(&mut self, now: u64) -> Option<Fault> {
        let mut entry = self.faults.first_entry().filter(|entry| *entry.key() <= now)?;
        let fault = entry.get_mut().pop();
        if entry.get().is_empty() {
            entry.remove();
        }
        fault
    }

    /// A fault every `every` milliseconds or so, from `from` until `until`.
    pub(crate) fn drawn(mut rng: Rng, apps: usize, tenants: u32, (from, until, every): (u64, u64, u64)) -> Self {
        let mut fault_plan = Self::default();
        let mut at = from;
        while at < until {
            fault_plan.add(at, draw(&mut rng, apps, tenants));
            at += every / 2 + rng.below(every);
        }
        fault_plan
    }

    /// What a well-kept service lives through in a month: an app or the endpoint is away for minutes every few hours, now and
    /// then the process or the machine starts anew, tenants get other sinks, a secret changes.
    pub(crate) fn of_a_month(mut rng: Rng, apps: usize, end: u64) -> Self {
        let mut fault_plan = Self::default();
        let mut at = 6 * HOUR;
        while at + 6 * HOUR < end {
            let (app, ms) = (rng.below(apps as u64) as usize, 1 + rng.below(8 * MINUTE));
            let fault = match rng.below(14) {
                0..4 => Fault::Outage { app: Some(app), kind: FailureKind::ServerError, ms },
                4 => Fault::Outage { app: None, kind: FailureKind::Unreachable, ms },
                5 => Fault::Suspend { ms },
                6 => Fault::ClockStep { by: rng.below(7_200_000) as i64 - 3_600_000, ms },
                7 => Fault::Flaky { app, per_mille: 50, ms },
                8 => Fault::SinksFail { root: 0, ms },
                9 => Fault::Resink { app, n: 1_000 },
                10 => Fault::Ban { ms: ms / 8 },
                11 => Fault::LaneHangs { lane: 0, ms },
                12 => Fault::StateFails {
                    how: rng.pick(&[StoreFault::Hangs, StoreFault::Unwritable, StoreFault::Unreadable]),
                    ms,
                },
                _ => Fault::Restart,
            };
            fault_plan.add(at, fault);
            at += 3 * HOUR + rng.below(6 * HOUR);
        }
        fault_plan
    }
}

fn draw(rng: &mut Rng, apps: usize, tenants: u32) -> Fault {
    let app = rng.below(apps as u64) as usize;
    let some = 1 + rng.below(u64::from(tenants / apps as u32).max(1)) as u32;
    let kind = rng.pick(&[FailureKind::Unreachable, FailureKind::Timeout, FailureKind::ServerError]);
    let long = rng.pick(&[5_000, 50_000, 10 * MINUTE, 30 * MINUTE, 2 * HOUR, 3 * HOUR]);
    let short = 1 + rng.below(20 * MINUTE);
    match rng.below(100) {
        0..12 => Fault::Outage { app: Some(app).filter(|_| rng.per_mille(500)), kind, ms: 1 + rng.below(long) },
        12..18 => Fault::WrongSecret { app, ms: 1 + rng.below(long), mended_by_operator: rng.per_mille(500) },
        18..22 => Fault::Ban { ms: short },
        22..30 => Fault::Flaky { app, per_mille: rng.pick(&[20, 200, 900]), ms: short },
        30..36 => Fault::Suspend { ms: 1 + rng.below(long) },
        36..42 => Fault::ClockStep { by: rng.below(2 * 86_400_000) as i64 - 86_400_000, ms: short },
        42..47 => Fault::Restart,
        47..52 => Fault::Kill,
        52..56 => Fault::Reboot,
        56..60 => Fault::SinksFail { root: rng.below(4) as u32, ms: short },
        60..63 => Fault::LaneHangs { lane: rng.below(2) as u16, ms: 1 + rng.below(long) },
        63..65 => Fault::SlowCommits { ms: short },
        65..69 => Fault::StateFails {
            how: rng.pick(&[StoreFault::Hangs, StoreFault::Unwritable, StoreFault::Unreadable]),
            ms: 1 + rng.below(long),
        },
        69..76 => Fault::Join { app, n: some },
        76..81 => Fault::Leave { app, n: some },
        81..86 => Fault::Resink { app, n: some },
        86..91 => Fault::Rate { app, percent: 100 + rng.below(100) as u32 },
        91..93 => Fault::NewSecret { app },
        93..95 => Fault::Disable { app, ms: short },
        95..97 => Fault::AppLeaves { app, ms: short },
        _ => Fault::Limit(Rate::per_second(100 + rng.below(400) as u32)),
    }
}
