//! When a state that goes on is reported: at its start, when its kind changes, and once an hour.

use crate::domain::BootMs;

/// How often a state that goes on is reported again, in milliseconds.
pub(crate) const REMIND_MS: u64 = 60 * 60 * 1000;

/// Remembers what was reported last, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Reminder<K>(Option<(K, BootMs)>);

impl<K: PartialEq + Copy> Reminder<K> {
    /// Nothing has been reported yet.
    pub(crate) fn new() -> Self {
        Self(None)
    }

    /// This kind was reported at `now`.
    pub(crate) fn reported(now: BootMs, kind: K) -> Self {
        Self(Some((kind, now)))
    }

    /// Whether this kind is to be reported at `now`; if so, it counts as reported.
    pub(crate) fn is_due(&mut self, now: BootMs, kind: K) -> bool {
        let due = self.0.is_none_or(|(before, at)| before != kind || now.since(at) >= REMIND_MS);
        if due {
            *self = Self::reported(now, kind);
        }
        due
    }

    pub(crate) fn was_reported(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_reported_at_its_start_when_its_kind_changes_and_once_an_hour() {
        let mut reminder = Reminder::new();
        let at = |second: u64| BootMs(second * 1000);
        assert!(!reminder.was_reported() && reminder.is_due(at(0), 'a') && reminder.was_reported());
        assert!(!reminder.is_due(at(3_599), 'a') && reminder.is_due(at(3_600), 'a'));
        assert!(
            reminder.is_due(at(3_700), 'b') && !reminder.is_due(at(7_200), 'b'),
            "each kind has an hour of its own"
        );
    }
}
