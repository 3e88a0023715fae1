//! Looking at all tenants of an app again after its policy or its credentials changed: at few of them at a time, and at none
//! of other apps.

use std::collections::VecDeque;

use crate::domain::{BootMs, Freshness, Now, Slot};
use crate::engine::Engine;
use crate::engine::apps::AppIx;
use crate::engine::tenants::Phase;

/// How many tenants are looked at in one go: some milliseconds' worth.
const BATCH: usize = 2000;
/// How long others have their turn between two of them, in milliseconds.
const PAUSE_MS: u64 = 20;

/// The apps whose tenants are still to be looked at, in turns.
#[derive(Default)]
pub(crate) struct Revisits {
    apps: VecDeque<AppIx>,
    /// When it goes on.
    at: BootMs,
}

/// How far the tenants of one app have been looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Revisit {
    /// With whom it goes on; `None`: all have been.
    next: Option<Slot>,
    freshness: Freshness,
    /// When the change came.
    since: BootMs,
}

impl Revisits {
    pub(crate) fn next_at(&self) -> Option<BootMs> {
        (!self.apps.is_empty()).then_some(self.at)
    }
}

impl Engine {
    /// All tenants of an app are to be looked at again. Those that join later know the app as it is.
    pub(crate) fn revisit_app(&mut self, now: Now, ix: AppIx, freshness: Freshness) {
        let next = self.tenants.first_of(ix);
        let app = self.app_mut(ix);
        if freshness == Freshness::Stale {
            app.credentials_since = now.boot;
        }
        let before = app.revisit.take();
        // Of a change that is not carried through yet, the rest comes with this one.
        let (freshness, since) = match before {
            Some(before) if before.freshness == Freshness::Stale && freshness != Freshness::Stale => {
                (Freshness::Stale, before.since)
            }
            _ => (freshness, now.boot),
        };
        app.revisit = Some(Revisit { next, freshness, since });
        if before.is_none() {
            self.revisits.apps.push_back(ix);
        }
    }

    /// A tenant's slot becomes free: it is not gone on with.
    pub(crate) fn pass_over(&mut self, slot: Slot) {
        let ix = self.tenants[slot].app;
        let after = self.tenants.next_of_app(slot);
        if let Some(revisit) = self.app_mut(ix).revisit.as_mut().filter(|revisit| revisit.next == Some(slot)) {
            revisit.next = after;
        }
    }

    /// Looks at the next tenants, if it is time.
    pub(crate) fn go_on_revisiting(&mut self, now: Now) {
        if self.revisits.apps.is_empty() || now.boot < self.revisits.at {
            return;
        }
        let mut left = BATCH;
        while left > 0
            && let Some(ix) = self.revisits.apps.pop_front()
        {
            let Some(mut revisit) = self.apps[ix.0 as usize].as_mut().and_then(|app| app.revisit.take()) else {
                continue;
            };
            let (freshness, since) = (revisit.freshness, revisit.since);
            while let Some(slot) = revisit.next.filter(|_| left > 0) {
                revisit.next = self.tenants.next_of_app(slot);
                self.revisit(now, slot, freshness, since);
                left -= 1;
            }
            if revisit.next.is_some() {
                self.app_mut(ix).revisit = Some(revisit);
                self.revisits.apps.push_back(ix);
            }
        }
        self.revisits.at = now.boot + PAUSE_MS;
    }

    fn revisit(&mut self, now: Now, slot: Slot, freshness: Freshness, since: BootMs) {
        let tenant = &self.tenants[slot];
        // Who was called since then was called with the credentials of today. At the very moment of the change nobody was yet.
        let called_since = tenant.called >= since && now.boot > since;
        let is_stale = freshness == Freshness::Stale && !called_since;
        if tenant.gone {
            return;
        }
        if is_stale {
            self.tenants[slot].stale = true;
            self.forgive(slot);
        }
        let refresh_at = self.tenants[slot].held.map(|held| self.refresh_point(slot, &held));
        let earliest = self.earliest(slot);
        let in_trouble = self.troubles.contains_key(&slot);
        let tenant = &mut self.tenants[slot];
        // Where asking before the expiry is known to bring nothing, a new refresh point changes nothing.
        let pointless = tenant.held.is_some_and(|held| tenant.due >= held.expires_boot);
        match refresh_at {
            _ if tenant.phase != Phase::Waiting => {}
            _ if is_stale => tenant.due = now.boot,
            _ if tenant.stale || in_trouble || pointless => {}
            Some(at) => tenant.due = at.max(earliest),
            None => {}
        }
        self.reconsider(now, slot);
    }
}
