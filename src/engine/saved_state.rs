//! What outlives a restart besides the tokens: failures and refusals, open breakers, slower rates, a ban.
//!
//! Each change of it is given out as [`Action::Save`]. What a predecessor remembered comes in before the plan, and is
//! taken up when the app or the tenant is added that it is about.

use crate::domain::{BootMs, Now, OriginId, SavedKey, SavedState, Slot, TenantId, Wait};
use crate::engine::Engine;
use crate::engine::apps::{AppIx, Breaker, Origin};
use crate::engine::messages::Action;
use crate::engine::tenants::TenantFailure;

impl Engine {
    /// What a predecessor remembered.
    pub(super) fn recall(&mut self, now: Now, memories: Vec<(SavedKey, SavedState)>) {
        for (subject, memory) in memories {
            if matches!(subject, SavedKey::EveryBan | SavedKey::EveryPace) {
                // From now on it is remembered by origin.
                self.remember(subject.clone(), None);
            }
            match subject {
                SavedKey::Ban(id) | SavedKey::Pace(id) if self.origins.contains_key(&id) => {
                    self.recall_late(now, id, memory);
                }
                _ => _ = self.recalled.insert(subject, memory),
            }
        }
    }

    /// What is remembered of an origin that is called already: the state could not be read at the start.
    fn recall_late(&mut self, now: Now, id: OriginId, memory: SavedState) {
        let total = self.total_rate;
        let origin = self.origin_mut(id);
        match memory {
            SavedState::Paused(wait) if origin.ban().is_none() && wait.end(now) > now.boot => {
                origin.recall_ban(now.boot, wait.end(now));
            }
            SavedState::Slowed { share, hold } if origin.percent() == 100 => {
                origin.recall_pace(now.boot, total, share, hold.end(now));
            }
            _ => return,
        }
        self.regate_origin(now, id);
    }

    /// An origin that is new here, with what is remembered of it. What earlier releases remembered was everybody's. A ban
    /// whose time is over by now still ends with one probe.
    pub(super) fn recalled_origin(&mut self, now: Now, id: OriginId) -> Origin {
        let mut origin = Origin::default();
        let (own_ban, own_pace) = (self.recalled.remove(&SavedKey::Ban(id)), self.recalled.remove(&SavedKey::Pace(id)));
        let inherits = own_ban.is_none() && own_pace.is_none();
        let ban = own_ban.or_else(|| self.recalled.get(&SavedKey::EveryBan).cloned());
        let pace = own_pace.or_else(|| self.recalled.get(&SavedKey::EveryPace).cloned());
        if let Some(SavedState::Paused(wait)) = ban {
            origin.recall_ban(now.boot, wait.end(now));
        }
        if let Some(SavedState::Slowed { share, hold }) = pace {
            origin.recall_pace(now.boot, self.total_rate, share, hold.end(now));
        }
        if inherits {
            let (ban, pace) = origin.to_remember(now);
            ban.into_iter().for_each(|ban| self.remember(SavedKey::Ban(id), Some(ban)));
            pace.into_iter().for_each(|pace| self.remember(SavedKey::Pace(id), Some(pace)));
        }
        origin
    }

    /// Takes up what is remembered of an app that is new here.
    pub(super) fn recall_app(&mut self, now: Now, ix: AppIx) {
        let name = self.app(ix).name.clone();
        let broken = self.recalled.remove(&SavedKey::Breaker(name.clone()));
        let slowed = self.recalled.remove(&SavedKey::Rate(name));
        let app = self.app_mut(ix);
        if let Some(SavedState::Broken { kind, probes, probe }) = broken {
            let (opened, probe_at, said) = (now.boot, probe.end(now), now.boot);
            app.breaker = Some(Breaker { kind, opened, probes, probe_at, said });
        }
        if let Some(SavedState::Slowed { share, hold }) = slowed {
            app.limiter.resume(now.boot, share, hold.end(now));
        }
    }

    /// Takes up what is remembered of a tenant that is new here. Returns when its next call is due, where that says so.
    pub(super) fn recall_tenant(&mut self, now: Now, slot: Slot, id: &TenantId) -> Option<BootMs> {
        if self.recalled.is_empty() {
            return None;
        }
        let memory = self.recalled.remove(&SavedKey::Tenant(id.clone()))?;
        let tenant = &mut self.tenants[slot];
        tenant.remembered = true;
        match memory {
            // A failure from before the token was obtained was left behind by another version, and is over.
            SavedState::Failing(failing) if tenant.held.is_none_or(|held| held.requested_at <= failing.next.told) => {
                tenant.failures = failing.failures;
                let due = failing.next.end(now);
                self.troubles.insert(slot, TenantFailure::recalled(failing, now));
                Some(due)
            }
            SavedState::Unextended(fingerprint) => {
                let held = tenant.held.filter(|held| held.fingerprint == fingerprint && held.requested_at <= now.wall);
                held.map(|held| held.expires_boot)
            }
            _ => None,
        }
    }

    /// A tenant's call failed, or when it is called next is told on another clock.
    pub(super) fn remember_failure(&mut self, now: Now, slot: Slot) {
        let Some(trouble) = self.troubles.get(&slot) else { return };
        let tenant = &mut self.tenants[slot];
        tenant.remembered = true;
        let memory = SavedState::Failing(trouble.to_remember(tenant.failures, Wait::until(now, tenant.due)));
        self.remember_tenant(slot, Some(memory));
    }

    /// The tenant's token does not live longer by asking again.
    pub(super) fn remember_unextended(&mut self, slot: Slot) {
        let tenant = &mut self.tenants[slot];
        let Some(held) = tenant.held else { return };
        tenant.remembered = true;
        self.remember_tenant(slot, Some(SavedState::Unextended(held.fingerprint)));
    }

    /// There is nothing to remember of a tenant any more.
    pub(super) fn forget_trouble(&mut self, slot: Slot) {
        if std::mem::take(&mut self.tenants[slot].remembered) {
            self.remember_tenant(slot, None);
        }
    }

    fn remember_tenant(&mut self, slot: Slot, memory: Option<SavedState>) {
        if let Some(id) = self.id(slot) {
            self.remember(SavedKey::Tenant(id), memory);
        }
    }

    pub(super) fn remember_breaker(&mut self, now: Now, ix: AppIx) {
        let app = self.app(ix);
        let subject = SavedKey::Breaker(app.name.clone());
        let memory = app.breaker.as_ref().map(|&Breaker { kind, probes, probe_at, .. }| SavedState::Broken {
            kind,
            probes,
            probe: Wait::until(now, probe_at),
        });
        self.remember(subject, memory);
    }

    pub(super) fn remember_rate(&mut self, now: Now, ix: AppIx) {
        let app = self.app(ix);
        let (subject, memory) = (SavedKey::Rate(app.name.clone()), app.limiter.to_remember(now));
        self.remember(subject, memory);
    }

    pub(super) fn remember_pace(&mut self, now: Now, id: OriginId) {
        let (_, pace) = self.origin(id).to_remember(now);
        self.remember(SavedKey::Pace(id), pace);
    }

    pub(super) fn remember_ban(&mut self, now: Now, id: OriginId) {
        let (ban, _) = self.origin(id).to_remember(now);
        self.remember(SavedKey::Ban(id), ban);
    }

    /// An app leaves the config.
    pub(super) fn forget_app(&mut self, now: Now, ix: AppIx) {
        let app = self.app_mut(ix);
        let slowed = app.limiter.to_remember(now).is_some();
        let subject = SavedKey::Rate(app.name.clone());
        if app.breaker.take().is_some() {
            self.remember_breaker(now, ix);
        }
        if slowed {
            self.remember(subject, None);
        }
    }

    /// Whatever ails apps and everybody is told on the wall clock of today.
    pub(super) fn remember_anew(&mut self, now: Now) {
        let origins: Vec<OriginId> = self.origins.keys().copied().collect();
        for id in origins {
            let (ban, pace) = self.origin(id).to_remember(now);
            ban.into_iter().for_each(|ban| self.remember(SavedKey::Ban(id), Some(ban)));
            pace.into_iter().for_each(|pace| self.remember(SavedKey::Pace(id), Some(pace)));
        }
        let all: Vec<AppIx> = self.app_index.values().copied().collect();
        for ix in all {
            if self.app(ix).breaker.is_some() {
                self.remember_breaker(now, ix);
            }
            if self.app(ix).limiter.to_remember(now).is_some() {
                self.remember_rate(now, ix);
            }
        }
    }

    /// The state remembers nothing any more: everything is told again.
    pub(super) fn remember_all(&mut self, now: Now) {
        self.remember_anew(now);
        let remembered = |slot: &Slot| self.tenants[*slot].remembered && !self.tenants[*slot].gone;
        let slots: Vec<Slot> = self.tenants.slots_from(Slot(0)).filter(remembered).collect();
        for slot in slots {
            match self.troubles.contains_key(&slot) {
                true => self.remember_failure(now, slot),
                false => self.remember_unextended(slot),
            }
        }
    }

    fn remember(&mut self, subject: SavedKey, memory: Option<SavedState>) {
        self.outbox.push_back(Action::Save(subject, memory.map(Box::new)));
    }
}
