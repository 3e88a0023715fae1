//! The state of a tenant, and how many tenants are in each.

use std::fmt;
use std::str::FromStr;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The state of a tenant. Its name is the same in JSON, in metrics and in the text of `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantState {
    /// It never had a token.
    Pending,
    /// Its token is valid and published, and its refresh point lies ahead.
    Fresh,
    /// Its token is valid and past its refresh point.
    Due,
    /// Its last call failed.
    Failing,
    /// The endpoint refuses it a token: not authorised, suspect corp_id, wrong credentials.
    Refused,
    /// Its token is valid, and a sink does not hold it: publication fails, or takes longer than seconds.
    Unpublished,
    /// Its token expired, or a sink still holds one that did.
    Expired,
    /// The config says `enabled = false`.
    Disabled,
}

impl TenantState {
    /// Every state, in the order in which JSON lists them.
    const ALL: [Self; 8] = [
        Self::Pending,
        Self::Fresh,
        Self::Due,
        Self::Failing,
        Self::Refused,
        Self::Unpublished,
        Self::Expired,
        Self::Disabled,
    ];

    /// Every state, worst first.
    pub const WORST_FIRST: [Self; 8] = [
        Self::Expired,
        Self::Refused,
        Self::Unpublished,
        Self::Failing,
        Self::Pending,
        Self::Due,
        Self::Fresh,
        Self::Disabled,
    ];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Fresh => "fresh",
            Self::Due => "due",
            Self::Failing => "failing",
            Self::Refused => "refused",
            Self::Unpublished => "unpublished",
            Self::Expired => "expired",
            Self::Disabled => "disabled",
        }
    }

    /// Its place in [`WORST_FIRST`](Self::WORST_FIRST): 0 is the worst.
    pub fn rank(self) -> usize {
        Self::WORST_FIRST.iter().position(|state| *state == self).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for TenantState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for TenantState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::WORST_FIRST.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            let known = Self::WORST_FIRST.map(Self::as_str).join(", ");
            format!("`{text}` is not a state; there are {known}")
        })
    }
}

/// How many tenants are in each state. In JSON a state without tenants is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TenantCounts([u64; 8]);

impl TenantCounts {
    /// How many are in `state`.
    pub fn of(&self, state: TenantState) -> u64 {
        self.0[state as usize]
    }

    /// How many are in any of these states. Counts that a stranger sent may be too large to add up.
    pub fn of_any(&self, states: &[TenantState]) -> u64 {
        states.iter().fold(0, |sum: u64, state| sum.saturating_add(self.of(*state)))
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.of_any(&TenantState::ALL)
    }

    /// One more is in `state`.
    pub fn add(&mut self, state: TenantState) {
        self.0[state as usize] += 1;
    }

    /// One fewer is in `state`.
    pub fn remove(&mut self, state: TenantState) {
        self.0[state as usize] -= 1;
    }

    /// Counts those in `from` as being in `to`.
    pub fn move_all(&mut self, from: TenantState, to: TenantState) {
        self.0[to as usize] += std::mem::take(&mut self.0[from as usize]);
    }

    /// Counts the tenants of `other` as well.
    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// The states that have tenants, and how many each has.
    pub fn present(&self) -> impl Iterator<Item = (TenantState, u64)> {
        TenantState::ALL.into_iter().map(|state| (state, self.of(state))).filter(|(_, count)| *count > 0)
    }
}

impl FromIterator<(TenantState, u64)> for TenantCounts {
    fn from_iter<I: IntoIterator<Item = (TenantState, u64)>>(counts: I) -> Self {
        let mut all = Self::default();
        counts.into_iter().for_each(|(state, count)| all.0[state as usize] = count);
        all
    }
}

impl Serialize for TenantCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.present())
    }
}

impl<'de> Deserialize<'de> for TenantCounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = TenantCounts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the number of tenants in each state")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TenantCounts, A::Error> {
                std::iter::from_fn(|| map.next_entry().transpose()).collect()
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_a_map_of_the_states_that_have_tenants() {
        let mut counts = TenantCounts::default();
        for state in [TenantState::Expired, TenantState::Fresh, TenantState::Fresh] {
            counts.add(state);
        }
        let json = serde_json::to_string(&counts).unwrap();
        assert_eq!(json, r#"{"fresh":2,"expired":1}"#);
        assert_eq!(serde_json::from_str::<TenantCounts>(&json).unwrap(), counts);
        assert!(serde_json::from_str::<TenantCounts>(r#"{"well":1}"#).is_err());
    }

    #[test]
    fn a_state_has_one_name_everywhere() {
        for state in TenantState::WORST_FIRST {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(TenantState::ALL[state as usize], state);
        }
    }
}
