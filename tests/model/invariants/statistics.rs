//! What a run comes to.

use std::fmt;

#[derive(Debug, Default, Clone)]
pub struct Statistics {
    pub turns: u64,
    pub calls: u64,
    pub failures: u64,
    pub refreshes: u64,
    pub discarded: u64,
    pub publications: u64,
    pub sink_failures: u64,
    pub lost_writes: u64,
    /// Tokens that were published although they could not be committed.
    pub unwritten: u64,
    pub restarts: u64,
    pub changes: u64,
    pub expiries_said: u64,
    /// Times that a token expired before the next was there, each with an excuse.
    pub excused_gaps: u64,
    pub excused_ms: u64,
    /// Those that the limits left no call for.
    pub limited_gaps: u64,
    pub limited_ms: u64,
    /// For how long tenants have been without a token, those that still are apart.
    pub without_ms: u64,
    pub longest_gap_ms: u64,
    /// The longest that a token took to its readers where nothing was in the way.
    pub longest_publication_ms: u64,
    /// The longest gap of an endpoint that hands out the next token only when the last has expired.
    pub longest_handover_ms: u64,
    /// The most calls that such an endpoint saw in one life of a token.
    pub most_calls_a_life: u16,
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  {} turns, {} calls, {} failed, {} discarded",
            self.turns, self.calls, self.failures, self.discarded
        )?;
        writeln!(
            f,
            "  {} refreshes, {} publications, {} sink failures",
            self.refreshes, self.publications, self.sink_failures
        )?;
        writeln!(
            f,
            "  {} config changes, {} restarts, {} commits lost, {} tokens published uncommitted",
            self.changes, self.restarts, self.lost_writes, self.unwritten
        )?;
        writeln!(
            f,
            "  expired without excuse: 0; with an excuse: {} times, {} s in all ({} expiries said)",
            self.excused_gaps,
            self.excused_ms / 1000,
            self.expiries_said
        )?;
        writeln!(
            f,
            "  because the limits forbade it: {} times, {} s in all",
            self.limited_gaps,
            self.limited_ms / 1000
        )?;
        write!(
            f,
            "  endpoints that hand out remaining life: at most {} calls a life, longest gap {} ms; published after {} ms at most",
            self.most_calls_a_life, self.longest_handover_ms, self.longest_publication_ms
        )
    }
}
