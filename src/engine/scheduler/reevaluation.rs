//! Reevaluation of all tenants of an app after its policy or its credentials changed: of few of them at a time, and of none
//! of other apps.

use std::collections::VecDeque;

use crate::domain::{BootMs, Freshness, Now, Slot};
use crate::engine::tenants::Phase;
use crate::engine::{AppIx, Engine};

/// How many tenants are reevaluated in one go: some milliseconds' worth.
const BATCH: usize = 2000;
/// How long others have their turn between two of them, in milliseconds.
const PAUSE_MS: u64 = 20;

/// The apps whose tenants are still to be reevaluated, in turns.
#[derive(Default)]
pub(crate) struct Reevaluations {
    apps: VecDeque<AppIx>,
    /// When it goes on.
    at: BootMs,
}

/// How far the tenants of one app have been reevaluated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reevaluation {
    /// With whom it goes on; `None`: it is done.
    next: Option<Slot>,
    freshness: Freshness,
    /// When the change came.
    since: BootMs,
}

impl Reevaluations {
    pub(crate) fn next_at(&self) -> Option<BootMs> {
        (!self.apps.is_empty()).then_some(self.at)
    }
}

impl Engine {
    /// Begins to reevaluate all tenants of an app. Those that join later know the app as it is.
    pub(crate) fn reevaluate_app(&mut self, now: Now, ix: AppIx, freshness: Freshness) {
        let next = self.tenants.first_of(ix);
        let app = &mut self.apps[ix];
        if freshness == Freshness::Stale {
            app.credentials_since = now.boot;
        }
        let before = app.reevaluation.take();
        // The rest of a change that is not carried through yet comes with this one.
        let (freshness, since) = match before {
            Some(before) if before.freshness == Freshness::Stale && freshness != Freshness::Stale => {
                (Freshness::Stale, before.since)
            }
            _ => (freshness, now.boot),
        };
        app.reevaluation = Some(Reevaluation { next, freshness, since });
        if before.is_none() {
            self.reevaluations.apps.push_back(ix);
        }
    }

    /// A tenant's slot becomes free: a reevaluation does not go on with it.
    pub(crate) fn skip_reevaluation(&mut self, slot: Slot) {
        let after = self.tenants.next_of_app(slot);
        let app = &mut self.apps[self.tenants[slot].app];
        if let Some(reevaluation) = app.reevaluation.as_mut().filter(|reevaluation| reevaluation.next == Some(slot)) {
            reevaluation.next = after;
        }
    }

    /// Reevaluates the next tenants, if it is time.
    pub(crate) fn continue_reevaluations(&mut self, now: Now) {
        if self.reevaluations.apps.is_empty() || now.boot < self.reevaluations.at {
            return;
        }
        let mut left = BATCH;
        while left > 0
            && let Some(ix) = self.reevaluations.apps.pop_front()
        {
            let Some(mut reevaluation) = self.apps.get_mut(ix).and_then(|app| app.reevaluation.take()) else {
                continue;
            };
            while let Some(slot) = reevaluation.next.filter(|_| left > 0) {
                reevaluation.next = self.tenants.next_of_app(slot);
                self.reevaluate_after_change(now, slot, reevaluation);
                left -= 1;
            }
            if reevaluation.next.is_some() {
                self.apps[ix].reevaluation = Some(reevaluation);
                self.reevaluations.apps.push_back(ix);
            }
        }
        self.reevaluations.at = now.boot + PAUSE_MS;
    }

    fn reevaluate_after_change(&mut self, now: Now, slot: Slot, Reevaluation { freshness, since, .. }: Reevaluation) {
        let tenant = &self.tenants[slot];
        // A call sent since the change had today's credentials. At the very moment of the change none was sent yet.
        let called_since = tenant.called_at >= since && now.boot > since;
        let is_stale = freshness == Freshness::Stale && !called_since;
        if tenant.removed {
            return;
        }
        if is_stale {
            self.tenants[slot].stale = true;
            self.reset_failure_count(slot);
        }
        let refresh_at = self.tenants[slot].token.map(|token| self.refresh_point(slot, &token));
        let (earliest, fails) = (self.earliest(slot), self.tenants.failure(slot).is_some());
        let tenant = &mut self.tenants[slot];
        // Where asking before the expiry is known to bring nothing, a new refresh point changes nothing.
        let waits_for_expiry = tenant.token.is_some_and(|token| tenant.due_at >= token.expires_boot);
        // Nobody knows how long a token lives that was recorded on another clock: it is due at once.
        let recorded_ahead = tenant.token.is_some_and(|token| token.restored && token.requested_at > now.wall);
        match refresh_at {
            _ if tenant.phase != Phase::Waiting => {}
            _ if is_stale => tenant.due_at = now.boot,
            _ if tenant.stale || fails || waits_for_expiry || recorded_ahead => {}
            Some(at) => tenant.due_at = at.max(earliest),
            None => {}
        }
        self.reevaluate(now, slot);
    }
}
