//! What the modelled database remembers besides the tokens, and what must be true of that after a restart.

use std::collections::BTreeMap;

use corptokend::domain::{AppName, FailureKind, Memory, Record, Subject, TenantId};

use crate::executor::{Executor, Write, number_of};
use crate::tenant::Tenant;

/// A tenant that is refused is not called again for so long, in milliseconds.
const REFUSED_MS: u64 = 15 * 60 * 1000;
/// After a ban, everything stops for at least so long, in milliseconds.
const BAN_MS: u64 = 5 * 60 * 1000;

/// A promise not to call before a moment. It holds over a restart from its commit on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Silence {
    until: u64,
    committed: u64,
}

impl Silence {
    pub(crate) fn begin(&mut self, until: u64) {
        self.until = self.until.max(until);
    }

    pub(crate) fn holds(&self, now: u64) -> bool {
        now < self.until
    }

    fn commit(&mut self) {
        self.committed = self.until;
    }

    /// What was not committed is not known to the next process.
    pub(crate) fn crash(&mut self) {
        self.until = self.committed;
    }
}

/// How often the endpoint has answered with the same token: what holds now, and what is committed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Repeats {
    /// The token, and how often it came again.
    latest: (u32, u16),
    committed: (u32, u16),
}

impl Repeats {
    /// Counts an answer. Returns how many calls this token has had in its life.
    pub(crate) fn count(&mut self, token: u32) -> u16 {
        let (latest, repeats) = self.latest;
        self.latest = (token, if latest == token { repeats + 1 } else { 0 });
        self.latest.1 + 1
    }

    pub(crate) fn commit(&mut self) {
        self.committed = self.latest;
    }

    pub(crate) fn crash(&mut self) {
        self.latest = self.committed;
    }
}

#[derive(Default)]
pub(crate) struct Memories(BTreeMap<Subject, Memory>);

impl Memories {
    /// All of them, as a start reads them.
    pub(crate) fn all(&self) -> Vec<(Subject, Memory)> {
        self.0.iter().map(|(subject, memory)| (subject.clone(), memory.clone())).collect()
    }

    pub(crate) fn forget(&mut self, id: TenantId) {
        self.0.remove(&Subject::Tenant(id));
    }

    /// Credentials changed: a start would see that, and believe nothing of what was remembered of those of before.
    pub(crate) fn forget_app(&mut self, app: &AppName) {
        self.0.retain(|subject, _| subject.app() != Some(app));
    }
}

impl Executor {
    /// The endpoint refused a call: for a while it must not be asked again.
    pub(crate) fn promise_silence(&mut self, kind: FailureKind, app: usize, tenant: Option<u32>) {
        let now = self.t;
        match (kind, tenant) {
            (FailureKind::Banned, _) => self.banned.entry(self.endpoints[app]).or_default().begin(now + BAN_MS),
            (FailureKind::Unauthorized, Some(tenant)) => {
                self.tenants[tenant as usize].refused.begin(now + REFUSED_MS);
            }
            _ => {}
        }
    }

    /// What the engine wants to be remembered is committed.
    pub(crate) fn remembered(&mut self, subject: Subject, memory: Option<Memory>) {
        match &subject {
            Subject::Ban(origin) => self.banned.entry(origin.0).or_default().commit(),
            Subject::Tenant(id) => {
                let tenant = &mut self.tenants[number_of(id) as usize];
                tenant.refused.commit();
                tenant.repeats.commit();
            }
            _ => {}
        }
        match memory {
            Some(memory) => _ = self.memories.0.insert(subject, memory),
            None => _ = self.memories.0.remove(&subject),
        }
    }

    /// The times of a token are told anew, if it is still the one that is kept.
    pub(crate) fn amended(&mut self, records: Vec<(TenantId, Record)>) {
        for (id, record) in records {
            let kept = &mut self.tenants[number_of(&id) as usize].kept;
            if let Some(kept) = kept.as_mut().filter(|kept| kept.record.fingerprint == record.fingerprint) {
                kept.record = record;
            }
        }
    }

    /// New credentials are tried at once, whatever was asked before, even by a process that starts before that is committed.
    pub(crate) fn forget_failures(&mut self, app: usize) {
        let name = self.names[app].clone();
        self.memories.forget_app(&name);
        self.writes.retain(|write| !matches!(write, Write::Remember(subject, Some(_)) if subject.app() == Some(&name)));
        self.tenants.iter_mut().filter(|tenant| usize::from(tenant.app) == app).for_each(Tenant::forget_floor);
    }
}
