//! What is known of one tenant's sinks, a bit each.

use crate::domain::SinkId;

/// The sinks of a tenant, as a bit set.
pub(crate) type SinkMask = u16;

/// What readers of a tenant's sinks see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Visible {
    /// The token that it has, or there is none.
    #[default]
    Current,
    /// Not yet the token that it has.
    OnItsWay,
    /// Another token or none: publication fails, or takes too long.
    Outdated,
    /// The same, and the token that they see does not work any more.
    Expired,
}

/// The sinks of one tenant.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SinkStates {
    /// Not known to equal the record.
    dirty: SinkMask,
    /// A publication is in flight.
    in_flight: SinkMask,
    /// The last publication failed.
    failing: SinkMask,
    /// The publication in flight is to a sink that was the tenant's before its sinks changed; a subset of `in_flight`.
    obsolete: SinkMask,
    /// The token that the tenant holds is not known to be committed, so it must not be published.
    pub(crate) uncommitted: bool,
    pub(crate) visible: Visible,
}

impl SinkStates {
    /// Returns those that were not dirty before.
    pub(crate) fn mark_dirty(&mut self, mask: SinkMask) -> SinkMask {
        let new = mask & !self.dirty;
        self.dirty |= new;
        new
    }

    /// Those of `mask` that can be published now.
    pub(crate) fn publishable(&self, mask: SinkMask) -> SinkMask {
        if self.uncommitted { 0 } else { mask & self.dirty & !self.in_flight }
    }

    /// A publication of a dirty sink begins.
    pub(crate) fn begin(&mut self, sink: SinkId) {
        self.dirty &= !bit(sink);
        self.in_flight |= bit(sink);
    }

    /// A publication ended. Returns whether it was to a sink that the tenant still has.
    pub(crate) fn end(&mut self, sink: SinkId) -> bool {
        let is_current = self.obsolete & bit(sink) == 0;
        self.in_flight &= !bit(sink);
        self.obsolete &= !bit(sink);
        is_current
    }

    pub(crate) fn succeeded(&mut self, sink: SinkId) {
        self.failing &= !bit(sink);
    }

    /// The sink waits for another attempt.
    pub(crate) fn failed(&mut self, sink: SinkId) {
        self.dirty |= bit(sink);
        self.failing |= bit(sink);
    }

    /// The tenant has other sinks from here on: what is in flight is no longer to its own.
    pub(crate) fn sinks_changed(&mut self) {
        self.obsolete |= self.in_flight;
    }

    /// The sinks are not the tenant's concern any more. Returns those that failed.
    pub(crate) fn forget(&mut self) -> SinkMask {
        self.dirty = 0;
        std::mem::take(&mut self.failing)
    }

    pub(crate) fn is_dirty(&self, sink: SinkId) -> bool {
        self.dirty & bit(sink) != 0
    }

    pub(crate) fn is_in_flight(&self, sink: SinkId) -> bool {
        self.in_flight & bit(sink) != 0
    }

    pub(crate) fn is_failing(&self, sink: SinkId) -> bool {
        self.failing & bit(sink) != 0
    }

    pub(crate) fn any_failing(&self) -> bool {
        self.failing != 0
    }

    pub(crate) fn any_in_flight(&self) -> bool {
        self.in_flight != 0
    }

    pub(crate) fn any_obsolete(&self) -> bool {
        self.obsolete != 0
    }

    /// Whether a sink of the tenant is not known to hold its token.
    pub(crate) fn any_behind(&self) -> bool {
        self.dirty | self.failing | (self.in_flight & !self.obsolete) != 0
    }

    /// Whether every sink has had its attempt at the token that the tenant holds.
    pub(crate) fn is_attempted(&self) -> bool {
        !self.uncommitted && self.in_flight == 0 && self.dirty & !self.failing == 0
    }

    /// The sinks with a publication in flight.
    pub(crate) fn in_flight(&self) -> impl Iterator<Item = SinkId> {
        sinks(self.in_flight)
    }
}

fn bit(sink: SinkId) -> SinkMask {
    1 << sink.0
}

/// The sinks of a bit set.
pub(crate) fn sinks(mask: SinkMask) -> impl Iterator<Item = SinkId> {
    (0..16).map(SinkId).filter(move |sink| mask & bit(*sink) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINK: SinkId = SinkId(3);
    const MASK: SinkMask = 1 << 3;

    #[test]
    fn a_sink_goes_from_dirty_over_in_flight_to_clean_or_to_failing() {
        let mut states = SinkStates::default();
        assert_eq!(states.mark_dirty(MASK), MASK);
        assert_eq!(states.mark_dirty(MASK), 0, "it is dirty already");
        states.uncommitted = true;
        assert_eq!(states.publishable(MASK), 0);
        states.uncommitted = false;
        assert_eq!(states.publishable(u16::MAX), MASK);
        states.begin(SINK);
        assert!(states.any_behind() && !states.is_attempted());
        states.mark_dirty(MASK);
        assert_eq!(states.publishable(MASK), 0, "one publication at a time");
        assert!(states.end(SINK));
        states.failed(SINK);
        assert!(states.is_attempted() && states.any_behind(), "a failing sink had its attempt");
        states.begin(SINK);
        assert!(states.end(SINK));
        states.succeeded(SINK);
        assert!(states.is_attempted() && !states.any_behind());
    }

    #[test]
    fn what_was_in_flight_when_the_sinks_changed_says_nothing_of_the_new_ones() {
        let mut states = SinkStates::default();
        states.mark_dirty(MASK);
        states.begin(SINK);
        states.sinks_changed();
        assert!(!states.any_behind() && states.any_obsolete());
        assert!(!states.end(SINK));
        assert!(!states.any_obsolete());
        states.mark_dirty(MASK);
        states.begin(SINK);
        assert!(states.end(SINK));
    }
}
