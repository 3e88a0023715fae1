//! Who is called first.

use corptokend::domain::{Slot, TenantId};
use corptokend::engine::{Engine, TenantStatus};

use super::Invariants;
use crate::model::clock::Clock;
use crate::model::tenants::{Names, TenantNo};

/// With more tenants than this, looking at all of them at each call takes too long.
const CROWD: usize = 200;
/// A tenant that never had a token may go first after so long, in milliseconds.
const PATIENCE_MS: u64 = 4 * 3600 * 1000;

impl Invariants {
    /// With a backlog: expired tokens, then valid ones with under a tenth of their life left, then tenants that never had one,
    /// then by expiry. A tenant that the endpoint refuses, or that waits for hours, stands elsewhere, and is left out here.
    ///
    /// Of a turn's calls, none comes before one that comes later, nor before a tenant that still waits at its end.
    pub fn check_order(&mut self, clock: Clock, engine: &Engine, names: &mut Names) {
        let called = std::mem::take(&mut self.called);
        for (at, id) in called.iter().enumerate() {
            self.check_call(clock, engine, names, id, &called[at + 1..]);
        }
    }

    fn check_call(&self, clock: Clock, engine: &Engine, names: &mut Names, id: &TenantId, later: &[TenantId]) {
        let (now, no) = (clock.now(), names.number(id));
        if !self.checks_order || self.added > CROWD || self.tenants[no].doubtful {
            return;
        }
        let rank = |no: TenantNo| match self.tenants[no].token {
            Some((_, expires)) if expires <= now.boot.0 => (0, 0),
            Some((life, expires)) if expires - now.boot.0 <= life / 10 => (1, expires),
            None => (2, 0),
            Some((_, expires)) => (3, expires),
        };
        let plain = |row: &TenantStatus| row.failure.is_none();
        let Some(own) = engine.slot(id).map(|slot| engine.row(now, slot)).filter(plain) else { return };
        let first = rank(no);
        if first.0 == 2 && clock.t >= self.tenants[no].added + PATIENCE_MS {
            return;
        }
        for row in engine.page(now, Slot(0), usize::MAX) {
            let waits = row.why == "waits for its turn within the limits" || later.contains(&row.id);
            if row.id.app == own.id.app && row.id != *id && waits && plain(&row) {
                let other = names.number(&row.id);
                assert!(
                    rank(other) >= first || self.tenants[other].doubtful,
                    "at {now:?} {id} {first:?} is called before {:?} {row:?}",
                    rank(other)
                );
            }
        }
    }
}
