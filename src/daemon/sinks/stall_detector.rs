//! Lanes that do not move: what hangs in the kernel is told of while it hangs.

use super::registry::Outlets;
use crate::domain::{BootMs, LaneId, SinkFailure, SinkFailureKind};
use crate::engine::Event;

/// A lane that has work and got nothing done for so long hangs, in milliseconds.
const HANGS_AFTER_MS: u64 = 10_000;

/// What was last seen of each lane.
#[derive(Debug, Default)]
pub(crate) struct Stalls(Vec<Seen>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    progress: u64,
    /// When it had nothing to do, or had just moved.
    at: BootMs,
    hangs: bool,
}

impl Stalls {
    /// Looks at the lanes. Returns what the engine is to hear, and when to look again.
    pub(crate) fn look(&mut self, now: BootMs, outlets: &Outlets) -> (Vec<Event>, Option<BootMs>) {
        let (mut events, mut next) = (Vec::new(), None);
        for (number, (waiting, progress)) in outlets.progress().enumerate() {
            if self.0.len() == number {
                self.0.push(Seen { progress, at: now, hangs: false });
            }
            let (seen, lane) = (&mut self.0[number], LaneId(u16::try_from(number).unwrap_or(u16::MAX)));
            if waiting == 0 || seen.progress != progress {
                if std::mem::take(&mut seen.hangs) {
                    events.push(Event::LaneResumed(lane));
                }
                (seen.progress, seen.at) = (progress, now);
            }
            let at = seen.at + HANGS_AFTER_MS;
            if waiting == 0 || seen.hangs {
                continue;
            }
            if at <= now {
                seen.hangs = true;
                events.push(Event::LaneStalled(lane, failure(lane, outlets)));
            } else {
                next = next.into_iter().chain([at]).min();
            }
        }
        (events, next)
    }
}

fn failure(lane: LaneId, outlets: &Outlets) -> SinkFailure {
    let roots = outlets.roots_of(lane);
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
