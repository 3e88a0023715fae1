//! Issues tokens. They look like DingTalk's: 32 hex digits. The last 8 are the tenant's sequence number, so that a test can tell an
//! older token from a newer one.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::sandbox::options::TokenMode;

/// A token that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The app that it was issued to.
    pub client_id: Box<str>,
    /// The token.
    pub token: String,
    /// When, in milliseconds since the sandbox started.
    pub at_ms: u64,
    /// The `expires_in` that came with it.
    pub expires_in_s: u32,
}

/// A token's sequence number among its tenant's tokens, from 1; `None` for something that no sandbox issued.
pub fn sequence_of(token: &str) -> Option<u32> {
    if token.len() != 32 {
        return None;
    }
    u32::from_str_radix(token.get(24..)?, 16).ok()
}

#[derive(Default)]
struct IssueHistory {
    sequence: u32,
    expires_at: Option<Instant>,
    log: VecDeque<(String, u64, u32)>,
}

/// The tokens of all tenants.
pub(super) struct Issuer {
    seed: u64,
    capacity: usize,
    tenants: HashMap<Box<str>, HashMap<Box<str>, IssueHistory>>,
}

/// What a grant depends on.
pub(super) struct Terms {
    pub(super) mode: TokenMode,
    pub(super) lifetime_s: u32,
    pub(super) now: Instant,
    pub(super) at_ms: u64,
}

impl Issuer {
    /// `seed` makes the tokens of one sandbox differ from another's.
    pub(super) fn new(seed: u64, capacity: usize) -> Self {
        Self { seed, capacity, tenants: HashMap::new() }
    }

    /// The token and its `expires_in`.
    pub(super) fn grant(&mut self, client_id: &str, corp_id: &str, terms: &Terms) -> (String, u32) {
        if !self.tenants.contains_key(corp_id) {
            self.tenants.insert(corp_id.into(), HashMap::new());
        }
        let apps = self.tenants.get_mut(corp_id).expect("it was inserted above if it was missing");
        if !apps.contains_key(client_id) {
            apps.insert(client_id.into(), IssueHistory::default());
        }
        let tenant = apps.get_mut(client_id).expect("it was inserted above if it was missing");

        let left = tenant.expires_at.map(|at| at.saturating_duration_since(terms.now)).filter(|left| !left.is_zero());
        let whole = Duration::from_secs(terms.lifetime_s.into());
        let life = match (terms.mode, left) {
            (TokenMode::Remaining, Some(left)) => left,
            _ => whole,
        };
        if terms.mode == TokenMode::New || left.is_none() {
            tenant.sequence += 1;
        }
        tenant.expires_at = Some(terms.now + life);
        // A life of less than a second is still said in whole seconds.
        let expires_in_s = u32::try_from(life.as_secs()).unwrap_or(u32::MAX).max(1);
        let token = token(self.seed, client_id, corp_id, tenant.sequence);
        if self.capacity > 0 {
            if tenant.log.len() >= self.capacity {
                tenant.log.pop_front();
            }
            tenant.log.push_back((token.clone(), terms.at_ms, expires_in_s));
        }
        (token, expires_in_s)
    }

    pub(super) fn issued(&self, corp_id: &str) -> Vec<Issued> {
        let apps = self.tenants.get(corp_id).into_iter().flatten();
        let mut all: Vec<Issued> = apps
            .flat_map(|(client_id, tenant)| {
                tenant.log.iter().map(|(token, at_ms, expires_in_s)| Issued {
                    client_id: client_id.clone(),
                    token: token.clone(),
                    at_ms: *at_ms,
                    expires_in_s: *expires_in_s,
                })
            })
            .collect();
        all.sort_by_key(|issued| issued.at_ms);
        all
    }
}

fn token(seed: u64, client_id: &str, corp_id: &str, sequence: u32) -> String {
    let digest =
        ring::digest::digest(&ring::digest::SHA256, format!("{seed}\0{client_id}\0{corp_id}\0{sequence}").as_bytes());
    let head = digest.as_ref()[..12].iter().fold(0u128, |head, &byte| head << 8 | u128::from(byte));
    format!("{head:024x}{sequence:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(mode: TokenMode, now: Instant) -> Terms {
        Terms { mode, lifetime_s: 100, now, at_ms: 0 }
    }

    #[test]
    fn asking_again_brings_what_the_mode_says() {
        let start = Instant::now();
        let later = start + Duration::from_secs(40);
        let after = start + Duration::from_secs(100);
        let ask = |mode, when: &[Instant]| {
            let mut issuer = Issuer::new(1, 16);
            let grants: Vec<_> = when.iter().map(|&now| issuer.grant("app", "corp", &terms(mode, now))).collect();
            let told = grants.iter().map(|(token, life)| (sequence_of(token).unwrap(), *life));
            told.collect::<Vec<_>>()
        };
        assert_eq!(ask(TokenMode::New, &[start, later]), [(1, 100), (2, 100)]);
        assert_eq!(ask(TokenMode::Same, &[start, later, after]), [(1, 100), (1, 100), (1, 100)]);
        assert_eq!(ask(TokenMode::Remaining, &[start, later, after]), [(1, 100), (1, 60), (2, 100)]);
    }

    #[test]
    fn tenants_and_sandboxes_have_tokens_of_their_own() {
        let now = Instant::now();
        let terms = terms(TokenMode::New, now);
        let mut one = Issuer::new(1, 2);
        let a = one.grant("app", "a", &terms).0;
        assert_ne!(a, one.grant("app", "b", &terms).0);
        assert_ne!(a, Issuer::new(2, 2).grant("app", "a", &terms).0);
        one.grant("app", "a", &terms);
        one.grant("app", "a", &terms);
        assert_eq!(one.issued("a").len(), 2, "the log is bounded");
    }
}
