//! Lanes that do not move: what hangs in the kernel is reported while it hangs.

use std::collections::HashMap;

use super::registry::SinkRegistry;
use crate::domain::{BootMs, LaneId, SinkFailure, SinkFailureKind};
use crate::engine::Event;

/// A lane that has work and got nothing done for so long hangs, in milliseconds.
const HANGS_AFTER_MS: u64 = 10_000;

/// What was last seen of each lane.
#[derive(Debug, Default)]
pub(crate) struct StallDetector(HashMap<LaneId, Seen>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    steps: u64,
    /// When it had nothing to do, or had just moved.
    at: BootMs,
    hangs: bool,
}

impl StallDetector {
    /// Looks at the lanes. Returns what the engine is to be told, and when to look again.
    pub(crate) fn look(&mut self, now: BootMs, registry: &SinkRegistry) -> (Vec<Event>, Option<BootMs>) {
        let (mut events, mut next) = (Vec::new(), None);
        for (lane, progress) in registry.lanes.progress() {
            let seen = self.0.entry(lane).or_insert(Seen { steps: progress.steps, at: now, hangs: false });
            if progress.in_flight == 0 || seen.steps != progress.steps {
                if std::mem::take(&mut seen.hangs) {
                    events.push(Event::LaneResumed(lane));
                }
                (seen.steps, seen.at) = (progress.steps, now);
            }
            let at = seen.at + HANGS_AFTER_MS;
            if progress.in_flight == 0 || seen.hangs {
                continue;
            }
            if at <= now {
                seen.hangs = true;
                events.push(Event::LaneStalled(lane, failure(lane, registry)));
            } else {
                next = next.into_iter().chain([at]).min();
            }
        }
        (events, next)
    }
}

fn failure(lane: LaneId, registry: &SinkRegistry) -> SinkFailure {
    let roots = registry.roots_of(lane);
    SinkFailure {
        kind: SinkFailureKind::Hangs,
        detail: format!(
            "nothing published below {roots} has come back from the kernel for {} s: see whether its device or server \
             answers (`dmesg`)",
            HANGS_AFTER_MS / 1000
        )
        .into(),
    }
}
