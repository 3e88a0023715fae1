//! Whether all is well in the end.

use corptokend::domain::{Fingerprint, RootId, SavedKey, SavedState};

use crate::model::{HANDOVER_MS, TenantNo};
use crate::simulation::Simulation;

impl Simulation {
    /// After peace for longer than any life and any backoff, and `quiet` milliseconds without calls: everybody who can have a
    /// token has one, in every sink, and nothing is left of anybody else.
    pub(crate) fn check_all_is_well(&mut self, quiet: u64) {
        for no in self.all_tenants() {
            match self.daemon.invariants.tenants[no].present {
                true if self.daemon.endpoint.refuses[no].is_some() => {}
                true => self.check_is_served(no, quiet),
                false => self.check_is_gone(no),
            }
        }
        self.check_saved_state();
        assert_eq!(self.daemon.engine.withdrawing().count(), 0, "places are still to be emptied");
    }

    /// What the state says of failures, once everything is committed, is what the engine knows of them.
    pub(crate) fn check_saved_state(&self) {
        if !self.daemon.is_settled() || self.daemon.store.fault.is_some() || self.awaits_state {
            return;
        }
        let (engine, now) = (&self.daemon.engine, self.daemon.now());
        for (key, saved) in &self.daemon.store.saved {
            let (SavedKey::Tenant(id), SavedState::Failing(failing)) = (key, saved) else { continue };
            let slot = engine.slot(id).unwrap_or_else(|| panic!("{id} left, and its failures are saved: {saved:?}"));
            // A failure from before the token is not believed; the next answer ends it.
            let is_over = engine.record(slot).is_some_and(|token| token.requested_at > failing.next.told);
            let is_over = is_over || self.clock_was_set;
            let fails = engine.row(now, slot).failure.is_some();
            assert!(fails || is_over, "{id} does not fail, and the state says so: {saved:?}");
        }
    }

    fn check_is_gone(&self, no: TenantNo) {
        assert_eq!(self.daemon.sinks.shown(no).count(), 0, "{no:?} left, and its sinks were not emptied");
        assert!(self.daemon.store.tokens[no].is_none(), "{no:?} left, and the state has its token");
    }

    fn check_is_served(&self, no: TenantNo, quiet: u64) {
        let t = self.daemon.clock.t;
        let token = self.daemon.store.tokens[no].unwrap_or_else(|| panic!("{no:?} was never served"));
        let is_handed_over = self.setups[usize::from(no.app)].is_handed_over();
        let until = token.until + if is_handed_over { HANDOVER_MS + quiet } else { 0 };
        assert!(until > t, "{no:?} has no valid token at the end: {} < {t}", token.until);
        if token.until <= t + HANDOVER_MS {
            return; // where an expired token is deleted, it may just have been
        }
        let shown: Vec<(RootId, Fingerprint)> =
            self.daemon.sinks.shown(no).map(|(root, content)| (root, content.fingerprint)).collect();
        let sinks = self.daemon.invariants.tenants[no].sinks.expect("it has sinks");
        let mut wanted: Vec<(RootId, Fingerprint)> =
            self.daemon.sinks.sets[&sinks].iter().map(|outlet| (outlet.root, token.record.fingerprint)).collect();
        wanted.sort();
        assert_eq!(shown, wanted, "{no:?}: its sinks do not show what was committed");
    }
}
