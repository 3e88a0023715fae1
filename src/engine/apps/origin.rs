//! An origin: one address calling one host. The host may slow it down, or ban it; other origins go on.
//!
//! A ban stops all apps of an origin for minutes, so it takes evidence: DingTalk's own marker, or a page that forbids, shown
//! to several tenants within seconds. It ends with one probe (`docs/decisions/0033-bans.md`).

use crate::domain::{BootMs, Failure, FailureKind, Now, Rate, SavedState, Slot, Wait};
use crate::engine::calls::RateLimiter;
use crate::engine::messages::Reminder;

/// How long a ban lasts before it is probed, in milliseconds.
const BAN_MS: u64 = 5 * 60 * 1000;
/// So many tenants must be shown a page that forbids, within so many milliseconds, with nobody served meanwhile.
const SUSPECTS: usize = 3;
const TOGETHER_MS: u64 = 10_000;
/// The wait after a probe that brought neither a ban nor an answer, in milliseconds.
const UNCLEAR_MS: u64 = 15_000;

#[derive(Debug, Default)]
pub(crate) struct Origin {
    /// Apps that call from here.
    pub(crate) apps: u32,
    /// Present while the endpoint is too busy for the full rate.
    pace: Option<RateLimiter>,
    ban: Option<Ban>,
    /// Tenants that were shown a page that forbids, and when.
    suspects: Vec<(Slot, BootMs)>,
    was_served: bool,
}

#[derive(Debug)]
pub(crate) struct Ban {
    /// The failure that showed it.
    pub(crate) failure: Failure,
    pub(crate) since: BootMs,
    /// When it is probed.
    pub(crate) until: BootMs,
    probing: bool,
    /// How many probes were sent.
    pub(crate) probes: u16,
    reminder: Reminder<()>,
}

impl Ban {
    fn new(now: BootMs, failure: Failure, until: BootMs) -> Self {
        Self { failure, since: now, until, probing: false, probes: 0, reminder: Reminder::reported(now, ()) }
    }
}

impl Origin {
    pub(crate) fn ban(&self) -> Option<&Ban> {
        self.ban.as_ref()
    }

    /// When it may call next; `None`: not before the probe in flight ends.
    pub(crate) fn next_at(&self) -> Option<BootMs> {
        let pace = self.pace.as_ref().map_or(BootMs(0), RateLimiter::next_at);
        match &self.ban {
            Some(ban) if ban.probing => None,
            Some(ban) => Some(pace.max(ban.until)),
            None => Some(pace),
        }
    }

    /// A call begins; where there is a ban, it is the probe.
    pub(crate) fn take(&mut self, now: BootMs) {
        if let Some(pace) = &mut self.pace {
            pace.take(now);
        }
        if let Some(ban) = &mut self.ban {
            ban.probing = true;
            ban.probes = ban.probes.saturating_add(1);
        }
    }

    /// A call that was sent at `sent` brought neither a token nor a ban. Returns whether it was the probe of a ban.
    pub(crate) fn probe_was_unclear(&mut self, now: BootMs, sent: BootMs) -> bool {
        let Some(ban) = self.ban.as_mut().filter(|ban| sent >= ban.until) else { return false };
        (ban.probing, ban.until) = (false, now + UNCLEAR_MS);
        true
    }

    /// The answer of the probe in flight will not be recognised.
    pub(crate) fn abandon_probe(&mut self) {
        if let Some(ban) = &mut self.ban {
            ban.probing = false;
        }
    }

    /// A tenant was shown a page that forbids. Returns whether that is enough for a ban.
    pub(crate) fn suspect(&mut self, now: BootMs, who: Slot) -> bool {
        self.suspects.retain(|(slot, at)| *slot != who && now.since(*at) < TOGETHER_MS);
        self.suspects.push((who, now));
        self.suspects.len() >= SUSPECTS || self.ban.is_some()
    }

    /// It is banned, or still is. Returns for how long, in milliseconds, if that is to be reported.
    pub(crate) fn bans(&mut self, now: BootMs, failure: &Failure) -> Option<u64> {
        self.suspects.clear();
        let until = now + BAN_MS;
        match &mut self.ban {
            Some(ban) => {
                (ban.until, ban.probing) = (until, false);
                ban.reminder.is_due(now, ()).then_some(BAN_MS)
            }
            None => {
                self.ban = Some(Ban::new(now, failure.clone(), until));
                Some(BAN_MS)
            }
        }
    }

    /// A call that was sent at `sent` was answered. Returns whether that ends a ban.
    pub(crate) fn served(&mut self, sent: BootMs) -> bool {
        self.suspects.clear();
        self.was_served = true;
        self.ban.take_if(|ban| sent >= ban.until).is_some()
    }

    /// Whether any call was answered since this process started: a ban from before that is over.
    pub(crate) fn was_served(&self) -> bool {
        self.was_served
    }

    /// The endpoint is too busy: half of the rate from here on, and nothing for a moment. Returns whether to report that.
    pub(crate) fn slow_down(&mut self, now: BootMs, total: Rate, hold_ms: u64) -> bool {
        self.pace.get_or_insert_with(|| RateLimiter::new(total, now)).slow_down(now, hold_ms)
    }

    /// A call succeeded: perhaps a step back to the full rate. Returns whether it was taken.
    pub(crate) fn speed_up(&mut self, now: BootMs) -> bool {
        let taken = self.pace.as_mut().is_some_and(|pace| pace.speed_up(now));
        self.pace.take_if(|pace| pace.percent() >= 100);
        taken
    }

    /// The limit on all calls together changed.
    pub(crate) fn set_total(&mut self, now: BootMs, total: Rate) {
        if let Some(pace) = &mut self.pace {
            pace.set_rate(now, total);
        }
    }

    /// The share of the rate that is in force, in percent.
    pub(crate) fn percent(&self) -> u8 {
        self.pace.as_ref().map_or(100, RateLimiter::percent)
    }

    /// What a successor should know: a ban, and how slow it is.
    pub(crate) fn to_saved(&self, now: Now) -> (Option<SavedState>, Option<SavedState>) {
        let ban = self.ban.as_ref().map(|ban| SavedState::Paused(Wait::until(now, ban.until)));
        (ban, self.pace.as_ref().and_then(|pace| pace.to_saved(now)))
    }

    /// A predecessor was banned here, and would have probed at `until`.
    pub(crate) fn restore_ban(&mut self, now: BootMs, until: BootMs) -> &Ban {
        let detail = "this machine's address was banned before the daemon was started";
        self.ban.insert(Ban::new(now, Failure::new(FailureKind::Banned, detail), until))
    }

    /// A predecessor called at this share of the rate.
    pub(crate) fn restore_pace(&mut self, now: BootMs, total: Rate, share: u16, hold_until: BootMs) {
        self.pace.get_or_insert_with(|| RateLimiter::new(total, now)).resume(now, share, hold_until);
    }

    /// A tenant leaves.
    pub(crate) fn forget(&mut self, who: Slot) {
        self.suspects.retain(|(slot, _)| *slot != who);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Failure {
        Failure::new(FailureKind::Blocked, "a page that forbids")
    }

    fn at(seconds: u64) -> BootMs {
        BootMs(100_000 + seconds * 1000)
    }

    #[test]
    fn a_page_shown_to_one_tenant_is_no_ban_and_one_shown_to_three_within_ten_seconds_is() {
        let mut origin = Origin::default();
        assert!((0..100).all(|second| !origin.suspect(at(second), Slot(1))));
        let (mut slow, mut quick) = (Origin::default(), Origin::default());
        assert!((0..9).all(|n| !slow.suspect(at(u64::from(n) * 6), Slot(n))), "never three within ten seconds");
        assert_eq!([1, 2, 3].map(|n| quick.suspect(at(n), Slot(n as u32))), [false, false, true]);
    }

    #[test]
    fn an_answer_in_between_takes_the_evidence_away() {
        let mut origin = Origin::default();
        origin.suspect(at(0), Slot(1));
        origin.suspect(at(1), Slot(2));
        origin.served(at(1));
        assert!(!origin.suspect(at(2), Slot(3)));
    }

    #[test]
    fn after_five_minutes_one_probe_decides() {
        let mut origin = Origin::default();
        assert_eq!(origin.bans(at(0), &page()), Some(300_000));
        assert_eq!(origin.next_at(), Some(at(300)));
        assert!(!origin.served(at(0)), "an answer to a call from before the ban ended does not end it");
        origin.take(at(300));
        assert_eq!(origin.next_at(), None, "the probe is under way");
        assert_eq!(origin.bans(at(301), &page()), None, "it goes on, which is no news");
        assert_eq!(origin.next_at(), Some(at(601)));
        origin.take(at(601));
        origin.probe_was_unclear(at(611), at(601));
        assert_eq!(origin.next_at(), Some(at(626)));
        origin.take(at(626));
        assert!(origin.served(at(626)));
        assert_eq!(origin.next_at(), Some(BootMs(0)));
    }
}
