//! Whether a tenant may have been without a token, and whether readers got it in time.

use corptokend::domain::{LaneId, RootId};

use super::Invariants;
use crate::model::clock::Clock;
use crate::model::sinks::{Content, Sinks};
use crate::model::store::{HANGS_AFTER_MS, Stored};
use crate::model::tenants::TenantNo;

/// How long a tenant may wait for its turn, for a commit and for the answer, in milliseconds, before it counts as not served.
const PATIENCE_MS: u64 = 3_000;
/// The round trip, the commit, and the second that is rounded away: the gap between two tokens of an endpoint that does not
/// hand out the next before the last has expired, in milliseconds.
pub const HANDOVER_MS: u64 = 2_500;
/// How long a token that may be published takes to its readers where nothing is in the way, in milliseconds.
const PUBLISHED_WITHIN_MS: u64 = 1_000;
/// The longest wait for another attempt below a root that failed, in milliseconds.
const RETRY_MS: u64 = 30_000;

/// When the endpoint could not be had, or the daemon could not ask, or had yet to catch up with that.
#[derive(Default)]
pub struct Availability {
    /// From, until, and whom: an app, or everybody.
    excuses: Vec<(u64, u64, Option<u16>)>,
    /// Gaps are judged one by one; else a test judges the run as a whole.
    pub judges_gaps: bool,
    /// So is how soon a token is published.
    pub judges_publications: bool,
    /// Apps whose endpoint hands out the next token only when the last has expired.
    pub handed_over: Vec<bool>,
}

impl Availability {
    pub fn excuse(&mut self, from: u64, until: u64, app: Option<usize>) {
        self.excuses.push((from, until, app.map(|app| app as u16)));
    }

    /// The same, where the last excuse of this kind may go on.
    pub fn excuse_longer(&mut self, from: u64, until: u64, app: usize) {
        let last = self.excuses.iter_mut().rev().find(|(_, _, whom)| *whom == Some(app as u16));
        match last.filter(|(begin, end, _)| (*begin..=*end).contains(&from)) {
            Some((_, end, _)) => *end = until.max(*end),
            None => self.excuse(from, until, Some(app)),
        }
    }

    pub fn is_handed_over(&self, app: u16) -> bool {
        self.handed_over.get(usize::from(app)).copied().unwrap_or(false)
    }

    /// The spans that excuse an app within `from..until`.
    fn within(&self, from: u64, until: u64, app: u16) -> Vec<(u64, u64)> {
        let ours = self.excuses.iter().filter(|(_, _, whom)| whom.is_none_or(|whom| whom == app));
        ours.map(|&(a, b, _)| (a.max(from), b.min(until))).filter(|(a, b)| a < b).collect()
    }
}

/// How much of the time spans cover that may overlap, in milliseconds.
fn covered(mut spans: Vec<(u64, u64)>) -> u64 {
    spans.sort_unstable();
    let (mut sum, mut reached) = (0, 0);
    for (a, b) in spans {
        sum += b.saturating_sub(a.max(reached));
        reached = reached.max(b);
    }
    sum
}

impl Invariants {
    /// A tenant's next token is there. Was it without one, and if so, may it have been?
    pub fn judge_gap(
        &mut self,
        clock: Clock,
        no: TenantNo,
        (before, next): (Option<Stored>, &Stored),
        is_excused: bool,
        state_fails: bool,
    ) {
        let tenant = &self.tenants[no];
        // What it had before it left and came back does not count.
        let before = before.filter(|before| before.life == tenant.life);
        let without_since = before.map_or(tenant.added, |before| before.until);
        self.statistics.without_ms += clock.t.saturating_sub(without_since);
        if let Some(before) = before.filter(|before| before.until < clock.t && next.life == tenant.life) {
            self.judge_expiry(clock.t, no, before, is_excused, state_fails);
        }
        let tenant = &mut self.tenants[no];
        (tenant.hindered, tenant.failures) = (0, 0);
    }

    fn judge_expiry(&mut self, now: u64, no: TenantNo, before: Stored, is_excused: bool, state_fails: bool) {
        let Stored { from, until: expired, .. } = before;
        let gap = now - expired;
        let (tenant, app) = (&self.tenants[no], &self.apps[usize::from(no.app)]);
        if !self.availability.judges_gaps || is_excused {
            return self.count_excused(gap);
        }
        let handed_over = self.availability.is_handed_over(no.app);
        // A few others may be due at the same moment.
        let turn = (4000.0 / app.window.rate().hertz()) as u64;
        let unanswered = if state_fails { HANGS_AFTER_MS } else { 0 };
        if handed_over && gap <= HANDOVER_MS + turn + unanswered {
            self.statistics.longest_handover_ms = self.statistics.longest_handover_ms.max(gap);
            return;
        }
        // From the latest moment at which a refresh can be due; an endpoint that does not extend leaves no margin.
        let margin_from = if handed_over { expired } else { from + (expired - from) * 3 / 4 };
        let spans = self.availability.within(margin_from, now, no.app);
        let busy = app.window.busy_ms(margin_from, now, &spans);
        let excused = covered(spans) + tenant.hindered;
        let served = (now - margin_from).saturating_sub(excused + busy);
        assert!(
            served <= PATIENCE_MS + turn,
            "{no:?} was without a token for {gap} ms until {now}, and could have had one for {served} ms: its token lived from \
             {from} to {expired}, failures account for {} ms, others' calls for {busy} ms",
            tenant.hindered,
        );
        if excused > 0 {
            return self.count_excused(gap);
        }
        self.statistics.limited_gaps += 1;
        self.statistics.limited_ms += gap;
    }

    fn count_excused(&mut self, gap: u64) {
        self.statistics.longest_gap_ms = self.statistics.longest_gap_ms.max(gap);
        self.statistics.excused_gaps += 1;
        self.statistics.excused_ms += gap;
    }

    /// A token reached a place that held `before`. It may have been published since `stored.published_since`.
    pub fn judge_publication(
        &mut self,
        t: u64,
        no: TenantNo,
        (lane, root): (LaneId, RootId),
        (before, stored): (Option<Content>, &Stored),
        sinks: &Sinks,
    ) {
        let is_first = before.is_none_or(|before| before.fingerprint != stored.record.fingerprint);
        if !is_first || !self.availability.judges_publications {
            return;
        }
        let well = |since: Option<&u64>, then: u64| since.map_or(0, |since| since + then);
        let lane_well = well(sinks.lane_well_since.get(&lane), 0);
        let root_well = well(sinks.root_well_since.get(&root), RETRY_MS);
        let since = stored.published_since.max(self.tenants[no].placed).max(lane_well).max(root_well);
        let took = t.saturating_sub(since);
        assert!(took <= PUBLISHED_WITHIN_MS, "{no:?} was published {took} ms after it could have been, at {t}");
        self.statistics.longest_publication_ms = self.statistics.longest_publication_ms.max(took);
    }
}
