//! Whether a tenant may have been without a token, and whether all is well in the end.

use crate::endpoint::Habit;
use crate::executor::{Executor, HANGS_AFTER_MS};
use crate::tenant::{Kept, ROOTS};

/// How long a tenant may wait for its turn, for a commit and for the answer, in milliseconds, before it counts as not served.
const PATIENCE_MS: u64 = 3_000;
/// The round trip, the commit, and the second that is rounded away: the gap between two tokens of an endpoint that does not
/// hand out the next before the last has expired, in milliseconds.
const HANDOVER_MS: u64 = 2_500;

/// When the endpoint could not be had, or the daemon could not ask, or had yet to catch up with that.
#[derive(Default)]
pub(crate) struct Excuses {
    /// From, until, and whom: an app, or everybody.
    spans: Vec<(u64, u64, Option<usize>)>,
    /// Nothing is asked of it: the run is judged as a whole.
    pub(crate) lenient: bool,
}

impl Excuses {
    pub(crate) fn add(&mut self, from: u64, until: u64, app: Option<usize>) {
        self.spans.push((from, until, app));
    }

    /// The spans that excuse an app within `from..until`.
    fn within(&self, from: u64, until: u64, app: usize) -> Vec<(u64, u64)> {
        let ours = self.spans.iter().filter(|(_, _, whom)| whom.is_none_or(|whom| whom == app));
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

impl Executor {
    /// A tenant's next token is there. Was it without one, and if so, may it have been?
    pub(crate) fn judge_gap(&mut self, number: u32, next: &Kept) {
        let now = self.t;
        let tenant = &self.tenants[number as usize];
        // A token that is published although it could not be committed is one.
        let kept = self.unwritten.get(&number).copied().or(tenant.kept);
        let without_since = kept.map_or(tenant.added, |before| before.until);
        self.statistics.without_ms += now.saturating_sub(without_since);
        if let Some(before) = kept.filter(|before| before.token != next.token || before.until < now) {
            self.judge_expiry(number, before.from, before.until, now);
        }
        let tenant = &mut self.tenants[number as usize];
        (tenant.hindered, tenant.failures) = (0, 0);
    }

    /// For how long tenants have been without a valid token up to now, all together, in milliseconds.
    pub(crate) fn without_ms(&self) -> u64 {
        let present = self.tenants.iter().filter(|tenant| tenant.present);
        let since = present.map(|tenant| tenant.kept.map_or(tenant.added, |kept| kept.until));
        self.statistics.without_ms + since.map(|since| self.t.saturating_sub(since)).sum::<u64>()
    }

    /// How many tenants have a valid token.
    pub(crate) fn valid(&self) -> u32 {
        let valid = |kept: Kept| kept.until > self.t;
        self.tenants.iter().filter(|tenant| tenant.present && tenant.kept.is_some_and(valid)).count() as u32
    }

    fn judge_expiry(&mut self, number: u32, from: u64, expired: u64, now: u64) {
        let gap = now.saturating_sub(expired);
        if gap == 0 {
            return;
        }
        let tenant = &self.tenants[number as usize];
        let app = usize::from(tenant.app);
        if self.excuses.lenient || tenant.refuses.is_some() {
            self.excuse(gap);
            return;
        }
        let remaining_life = self.endpoint.apps[app].habit == Habit::RemainingLife;
        // A few others may be due at the same moment.
        let turn = (4000.0 / self.apps[app].rate().hertz()) as u64;
        let unanswered = if self.state.is_some() { HANGS_AFTER_MS } else { 0 };
        if remaining_life && gap <= HANDOVER_MS + turn + unanswered {
            self.statistics.longest_handover_ms = self.statistics.longest_handover_ms.max(gap);
            return;
        }
        // From the latest moment at which a refresh can be due; an endpoint that does not extend leaves no margin.
        let margin_from = if remaining_life { expired } else { from + (expired - from) * 3 / 4 };
        let spans = self.excuses.within(margin_from, now, app);
        let busy = self.apps[app].busy_ms(margin_from, now, &spans);
        let excused = covered(spans) + tenant.hindered;
        let served = (now - margin_from).saturating_sub(excused + busy);
        assert!(
            served <= PATIENCE_MS + turn,
            "tenant {number} of app {app} was without a token for {gap} ms until {now}, and could have had one for {served} ms: \
             its token lived from {from} to {expired}, failures account for {} ms, others' calls for {busy} ms",
            tenant.hindered,
        );
        if excused == 0 {
            self.statistics.limited_gaps += 1;
            self.statistics.limited_ms += gap;
            return;
        }
        self.excuse(gap);
    }

    fn excuse(&mut self, gap: u64) {
        self.statistics.longest_gap_ms = self.statistics.longest_gap_ms.max(gap);
        self.statistics.excused_gaps += 1;
        self.statistics.excused_ms += gap;
    }

    /// After peace for longer than any life and any backoff, and `quiet` milliseconds without calls: everybody who can have a token has one, in every sink.
    pub(crate) fn judge_end(&self, quiet: u64) {
        for number in 0..self.tenants.len() as u32 {
            let tenant = &self.tenants[number as usize];
            if !tenant.present {
                assert_eq!(tenant.shown, [0; ROOTS], "tenant {number} left, and its sinks were not emptied");
                continue;
            }
            if tenant.refuses.is_some() {
                continue;
            }
            let kept = tenant.kept.unwrap_or_else(|| panic!("tenant {number} was never served"));
            let remaining_life = self.endpoint.apps[usize::from(tenant.app)].habit == Habit::RemainingLife;
            let until = kept.until + if remaining_life { HANDOVER_MS + quiet } else { 0 };
            assert!(until > self.t, "tenant {number} has no valid token at the end: {} < {}", kept.until, self.t);
            if kept.until <= self.t + HANDOVER_MS {
                continue; // where an expired token is deleted, it may just have been
            }
            let mut wanted = [0; ROOTS];
            let roots = self.sets[usize::from(tenant.set)].iter().map(|outlet| outlet.root.0 as usize);
            roots.for_each(|root| wanted[root] = kept.token);
            assert_eq!(tenant.shown, wanted, "tenant {number}: its sinks do not show what was committed");
        }
    }
}
