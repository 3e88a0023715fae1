//! What must be known to the next process once it is committed.

/// A promise not to call before a moment. It holds over a restart from its commit on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Silence {
    pub(super) until: u64,
    committed: u64,
}

impl Silence {
    pub(super) fn begin(&mut self, until: u64) {
        self.until = self.until.max(until);
    }

    pub(super) fn holds(&self, t: u64) -> bool {
        t < self.until
    }

    pub(super) fn commit(&mut self) {
        self.committed = self.until;
    }

    /// What was not committed is not known to the next process.
    pub(super) fn crash(&mut self) {
        self.until = self.committed;
    }
}

/// How often the endpoint has answered with the same token: what holds now, and what is committed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Repeats {
    pub(super) latest: (u64, u16),
    pub(super) committed: (u64, u16),
}

impl Repeats {
    /// Counts an answer. Returns how many calls this token has had in its life.
    pub(super) fn count(&mut self, token: u64) -> u16 {
        let (latest, repeats) = self.latest;
        self.latest = (token, if latest == token { repeats + 1 } else { 0 });
        self.latest.1 + 1
    }
}
